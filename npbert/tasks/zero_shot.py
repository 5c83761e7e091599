"""zero-shot-classification: which of labels that the model never saw fits a text?

A model of natural language inference is asked whether the text entails "This example is {label}."
Source: Yin et al. 2019, "Benchmarking Zero-shot Text Classification".
"""

from typing import Any, NamedTuple

import numpy as np

from npbert.checkpoint.config import Config
from npbert.errors import InputError, listing
from npbert.model import Model
from npbert.tasks.options import ZeroShotOptions, split_names, unique_names
from npbert.tasks.rows import TaskRow
from npbert.tasks.task import Answer, Reading, Task, best_indices, probabilities
from npbert.textbook import Array


class Candidates(NamedTuple):
    """A text, and the labels to choose from."""

    text: str
    labels: tuple[str, ...]


class ZeroShotClassification(Task[ZeroShotOptions, Candidates]):
    """Answers {"sequence", "labels", "scores"}, best first."""

    def __init__(self, model: Model, options: ZeroShotOptions, row: TaskRow, **how: Any) -> None:
        super().__init__(model, options, row, **how)
        entailment = find_class(model.config, "entail")
        if entailment is None:
            raise InputError(
                f"{row.name} needs a model of natural language inference, with a "
                f"class called entailment; this one has {class_list(model.config)}"
            )
        self.entailment = entailment
        self.contradiction = find_class(model.config, "contradict", "not_entail", "not entail")

    def read(self, item: Any, options: ZeroShotOptions) -> Reading[Candidates]:
        """Pair a text with a hypothesis for each label.  Raises InputError."""
        text, own = self.parts(item)
        labels = options.candidate_labels
        if own is not None:
            labels = (
                unique_names("candidate_labels", split_names(own) if isinstance(own, str) else own)
                or ()
            )
        if not labels:
            raise InputError("has no labels to choose from; pass candidate_labels=")
        if self.contradiction is None and (options.multi_label or len(labels) == 1):
            raise InputError(
                "to judge a label by itself the model needs a class called contradiction (or "
                f"not_entailment); it has {class_list(self.model.config)}"
            )
        limit = self.token_limit(options)
        premise = self.tokenizer.tokenize_used(text, limit)
        lists, cut = [], []
        for label in labels:  # one by one, since there may be many
            hypothesis = options.hypothesis_template.replace("{}", label)
            some = self.tokenizer.tokenize_used(hypothesis, limit)
            encoding = self.tokenizer.fit([premise, some], limit, cut="first")
            cut += self.check_truncation([encoding], options)
            lists.append(self.list_of(encoding))
        return Reading(lists, Candidates(text, labels), cut[:1])

    def answer(
        self, reading: Reading[Candidates], values: list[Array], options: ZeroShotOptions
    ) -> Answer:
        """Turn the logits of every hypothesis, (classes,) each, into scores of labels."""
        text, labels = reading.given
        logits = np.stack(values)
        if options.multi_label or len(labels) == 1:
            assert self.contradiction is not None  # read() has seen to it
            scores = probabilities(logits[:, [self.contradiction, self.entailment]])[:, 1]
        else:
            scores = probabilities(logits[:, self.entailment])
        order = best_indices(scores, None)
        return {
            "sequence": text,
            "labels": [labels[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }


def find_class(config: Config, *beginnings: str) -> int | None:
    """Return the class whose name begins so, in any case, or None."""
    for i in range(config.num_labels):
        if config.label(i).lower().startswith(beginnings):
            return i
    return None


def class_list(config: Config) -> str:
    """Return the names of a model's classes."""
    return listing(config.label(i) for i in range(config.num_labels))
