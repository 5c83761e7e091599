"""text-ranking: which documents answer a query best?  A cross-encoder reads both together.

Names and rules are those of sentence-transformers' CrossEncoder.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from npbert.checkpoint.config import Config
from npbert.engine.spellings import explain_arguments
from npbert.errors import CheckpointError, InputError, quote
from npbert.model import Model
from npbert.tasks.containers import convert_inputs, list_of_texts
from npbert.tasks.options import RankingOptions, ScoreFunction
from npbert.tasks.rows import TaskRow
from npbert.tasks.sentence_settings import (
    SENTENCE_SETTINGS,
    Prompts,
    read_encoder_settings,
    read_prompts,
    read_sentence_settings,
    with_tokenizer_changes,
)
from npbert.tasks.task import Answer, Reading, Task, best_indices, scores_of
from npbert.textbook import Array

FUNCTIONS: Mapping[str, ScoreFunction] = {"Sigmoid": "sigmoid", "Identity": "none"}


class Shelf(NamedTuple):
    """Documents to rank; or the one of a pair."""

    documents: list[str]
    alone: bool


class TextRanking(Task[RankingOptions, Shelf]):
    """Answers for {"query", "documents": [...]} a list of {"corpus_id", "score"}, best first.

    For a pair of query and document it answers {"score"}, or {"scores"} where the model has
    several classes.  `predict` and `rank` give what sentence-transformers' give.
    """

    def __init__(self, model: Model, options: RankingOptions, row: TaskRow, **how: Any) -> None:
        folder = model.folder
        settings = read_sentence_settings(folder) if folder else {}
        self.usual = default_ranking_function(model.config, settings)
        self.prompts = read_prompts(settings, folder) if folder else Prompts()
        self.folder_limit = read_encoder_settings(folder).get("max_seq_length") if folder else None
        super().__init__(with_tokenizer_changes(model), options, row, **how)

    def prepare_options(self, options: RankingOptions) -> RankingOptions:
        """Refuse what does not fit this model."""
        self.prompts.choose(options.prompt, options.prompt_name)
        if options.function_to_apply == "softmax" and self.model.config.num_labels == 1:
            raise InputError("function_to_apply is 'softmax', which of one class is always 1")
        return options

    def read(self, item: Any, options: RankingOptions) -> Reading[Shelf]:
        """Pair a query with each document.  Raises InputError."""
        query, given = self.parts(item)
        alone = isinstance(given, str)
        documents = [given] if alone else list_of_texts("documents", given, "str", lowest=0)
        if not alone and self.model.config.num_labels != 1:
            raise InputError(
                f"the model has {self.model.config.num_labels} classes, and documents are ranked "
                "by one; pairs of query and document can be scored"
            )
        prompt = self.prompts.choose(options.prompt, options.prompt_name)
        limit = self.token_limit(options)
        asked = self.tokenizer.tokenize_used(
            prompt + query if isinstance(query, str) else query, limit
        )
        lists, cut = [], []
        for document in documents:  # one by one, since there may be many
            some = self.tokenizer.tokenize_used(document, limit)
            encoding = self.tokenizer.fit([asked, some], limit)
            cut += self.check_truncation([encoding], options)
            lists.append(self.list_of(encoding))
        return Reading(lists, Shelf(documents, alone), cut)

    def answer(
        self, reading: Reading[Shelf], values: list[Array], options: RankingOptions
    ) -> Answer | list[Answer]:
        """Turn the logits of every pair, (classes,) each, into scores, and scores into an order."""
        documents, alone = reading.given
        if not documents:
            return []
        scores = scores_of(options.function_to_apply or self.usual, np.stack(values))
        if alone:
            own = scores[0].tolist()
            return {"score": own[0]} if len(own) == 1 else {"scores": own}
        order = best_indices(scores[:, 0], options.top_k)
        ranking: list[Answer] = [{"corpus_id": i, "score": float(scores[i, 0])} for i in order]
        if options.return_documents:
            return [{**each, "text": documents[each["corpus_id"]]} for each in ranking]
        return ranking

    @explain_arguments
    def predict(self, pairs: Any, **changes: Any) -> Any:
        """Return the score of a (query, document), or a list of those of many.

        Where the model has several classes, a score is a list.
        """
        if isinstance(pairs, tuple):
            return self.predict([pairs], **changes)[0]
        pairs = convert_inputs(pairs, self.row.fields)
        if isinstance(pairs, str | Mapping) or not isinstance(pairs, Iterable):
            raise InputError(
                f"pairs is {quote(pairs)}, expected a tuple of query and document, or a list"
            )
        given = (tuple(pair) if isinstance(pair, list) else pair for pair in pairs)
        answers = self.stream(given, self.with_changes(changes))
        return [each["score"] if "score" in each else each["scores"] for each in answers]

    @explain_arguments
    def rank(self, query: str, documents: list[str], **changes: Any) -> list[Answer]:
        """Return documents by their score, as for an input of both."""
        ranking: list[Answer] = self({"query": query, "documents": documents}, **changes)
        return ranking


def default_ranking_function(config: Config, settings: Mapping[str, Any]) -> ScoreFunction:
    """Return how logits become scores: as the folder says, or config.json, or by classes."""
    own = config.other.get("sentence_transformers")
    before_4 = config.other.get("sbert_ce_default_activation_function")
    said = {
        SENTENCE_SETTINGS: settings.get("activation_fn"),
        "config.json": own.get("activation_fn") if isinstance(own, Mapping) else before_4,
    }
    for where, named in said.items():
        if named is not None:
            return function_of(named, where)
    return "sigmoid" if config.num_labels == 1 else "none"


def function_of(path: Any, where: str) -> ScoreFunction:
    """Return the function that a Python path names.  Raises CheckpointError for others."""
    name = str(path).rpartition(".")[2]
    if name not in FUNCTIONS:
        raise CheckpointError(
            f"{where}: activation_fn is {quote(path)}; npbert knows {' and '.join(FUNCTIONS)}"
        )
    return FUNCTIONS[name]
