"""text-ranking: which documents answer a query best?  A cross-encoder reads both together.

Names and rules are those of sentence-transformers' CrossEncoder.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from npbert.errors import CheckpointError, InputError, shown
from npbert.files import read_json_object
from npbert.loading import load
from npbert.model import Model
from npbert.options import Function, RankingOptions, changed
from npbert.tasks.shared import Answer, Reading, Task, best, scored, several
from npbert.textbook import Array

FUNCTIONS: Mapping[str, Function] = {"Sigmoid": "sigmoid", "Identity": "none"}
SETTINGS = "config_sentence_transformers.json"


class Shelf(NamedTuple):
    """Documents to rank; or the one of a pair."""

    documents: list[str]
    alone: bool


class TextRanking(Task[RankingOptions, Shelf]):
    """Answers for {"query", "documents": [...]} a list of {"corpus_id", "score"}, best first.

    For a pair of query and document it answers {"score"}, or {"scores"} where the model has
    several classes.  `predict` and `rank` give what sentence-transformers' give.
    """

    name = "text-ranking"
    architecture = "for_sequence_classification"
    fields = ("query", "documents")
    required = 2

    def __init__(
        self, model: Model, options: RankingOptions, *, usual: Function | None = None, **how: Any
    ) -> None:
        super().__init__(model, options, **how)
        self.usual = usual or usual_function(model)

    @classmethod
    def from_folder(
        cls, folder: str | os.PathLike[str], options: RankingOptions, **how: Any
    ) -> Self:
        """Load a cross-encoder, with what sentence-transformers wrote beside it."""
        model, path = load(folder), Path(folder) / SETTINGS
        named = read_json_object(path).get("activation_fn") if path.exists() else None
        usual = None if named is None else function_named(named, str(path))
        return cls(model, options, usual=usual, **how)

    def read(self, item: Any, options: RankingOptions) -> Reading[Shelf]:
        """Pair a query with each document.  Raises InputError."""
        query, given = self.parts(item)
        alone = isinstance(given, str)
        documents = [given] if alone else several("documents", given, "str")
        if not alone and self.model.config.num_labels != 1:
            raise InputError(
                f"the model has {self.model.config.num_labels} classes, and documents are ranked "
                "by one; pairs of query and document can be scored"
            )
        asked = self.tokenizer.tokens_of(query)
        encodings = [self.tokenizer.fit([asked, self.tokenizer.tokens_of(d)]) for d in documents]
        cut = self.uncut(encodings, options)
        return Reading([(each.ids, None) for each in encodings], Shelf(documents, alone), cut)

    def answer(
        self, reading: Reading[Shelf], values: list[Array], options: RankingOptions
    ) -> Answer | list[Answer]:
        """Turn the logits of every pair, (classes,) each, into scores, and scores into an order."""
        documents, alone = reading.given
        scores = scored(options.function_to_apply or self.usual, np.stack(values))
        if alone:
            own = scores[0].tolist()
            return {"score": own[0]} if len(own) == 1 else {"scores": own}
        order = best(scores[:, 0], options.top_k)
        ranking: list[Answer] = [{"corpus_id": i, "score": float(scores[i, 0])} for i in order]
        if options.return_documents:
            return [{**each, "text": documents[each["corpus_id"]]} for each in ranking]
        return ranking

    def predict(self, pairs: Iterable[Any], **changes: Any) -> list[Any]:
        """Return the score of every (query, document); a list each where there are classes."""
        options = changed(self.name, self.options, changes)
        answers = self.stream(pairs, options)
        return [each["score"] if "score" in each else each["scores"] for each in answers]

    def rank(self, query: str, documents: list[str], **changes: Any) -> list[Answer]:
        """Return documents by their score, as for an input of both."""
        ranking: list[Answer] = self({"query": query, "documents": documents}, **changes)
        return ranking


def usual_function(model: Model) -> Function:
    """Return what makes scores of logits, as config.json says it, or by the number of classes."""
    other = model.config.other
    own = other.get("sentence_transformers")
    named = own.get("activation_fn") if isinstance(own, Mapping) else None
    if named is None:
        named = other.get("sbert_ce_default_activation_function")  # before version 4
    if named is not None:
        return function_named(named, "config.json")
    return "sigmoid" if model.config.num_labels == 1 else "none"


def function_named(path: Any, where: str) -> Function:
    """Return the function that a Python path names.  Raises CheckpointError for others."""
    name = str(path).rpartition(".")[2]
    if name not in FUNCTIONS:
        raise CheckpointError(
            f"{where}: activation_fn is {shown(path)}; npbert knows {' and '.join(FUNCTIONS)}"
        )
    return FUNCTIONS[name]
