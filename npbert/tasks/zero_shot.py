"""zero-shot-classification: which of labels that the model never saw fits a text?

A model of natural language inference is asked whether the text entails "This example is {label}."
Source: Yin et al. 2019, "Benchmarking Zero-shot Text Classification".
"""

from typing import Any, NamedTuple

import numpy as np

from npbert.checkpoint.config import Config
from npbert.errors import InputError, listing, quote, suggest
from npbert.tasks.options import ZeroShotOptions, split_names, unique_names
from npbert.tasks.task import Answer, Reading, Task, best_indices, probabilities
from npbert.textbook import Array


class Candidates(NamedTuple):
    """A text, and the labels to choose from."""

    text: str
    labels: tuple[str, ...]


class ZeroShotClassification(Task[ZeroShotOptions, Candidates]):
    """Answers {"sequence", "labels", "scores"}, best first."""

    def prepare_options(self, options: ZeroShotOptions) -> ZeroShotOptions:
        """Refuse a model whose class for entailment nobody knows."""
        self.find_classes(options)
        return options

    def find_classes(self, options: ZeroShotOptions) -> tuple[int, int | None]:
        """Return the classes that mean entailment and its opposite, if there is one that does.

        Raises InputError.
        """
        config = self.model.config
        entailment = choose_class(config, "entailment", options.entailment, "entail")
        if entailment is None:
            raise InputError(
                f"{self.row.name} needs a model of natural language inference, with a class called "
                f"entailment; this one has {class_list(config)}; entailment= says which of them "
                "means that"
            )
        opposite = choose_class(
            config, "contradiction", options.contradiction, "contradict", "not_entail", "not entail"
        )
        if opposite is None and options.entailment and config.num_labels == 2:
            opposite = 1 - entailment
        if opposite == entailment:
            raise InputError(
                f"entailment and contradiction are both {config.label(entailment)!r}, expected "
                f"two of {class_list(config)}"
            )
        return entailment, opposite

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
        _, contradiction = self.find_classes(options)
        if contradiction is None and (options.multi_label or len(labels) == 1):
            raise InputError(
                "to judge a label by itself the model needs a class called contradiction (or "
                f"not_entailment); it has {class_list(self.model.config)}; contradiction= says "
                "which of them means that"
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
        entailment, contradiction = self.find_classes(options)
        if options.multi_label or len(labels) == 1:
            assert contradiction is not None  # read() has seen to it
            scores = probabilities(logits[:, [contradiction, entailment]])[:, 1]
        else:
            scores = probabilities(logits[:, entailment])
        order = best_indices(scores, None)
        return {
            "sequence": text,
            "labels": [labels[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }


def choose_class(config: Config, name: str, asked: str | None, *beginnings: str) -> int | None:
    """Return the class that was asked for, or whose name begins so, in any case; or None.

    Raises InputError for one that was asked for and is not there.
    """
    labels = [config.label(i) for i in range(config.num_labels)]
    if asked is not None:
        if asked not in labels:
            hint = suggest(asked, labels) or f"; it has {class_list(config)}"
            raise InputError(f"{name} is {quote(asked)}, which is no class of the model{hint}")
        return labels.index(asked)
    return next((i for i, each in enumerate(labels) if each.lower().startswith(beginnings)), None)


def class_list(config: Config) -> str:
    """Return the names of a model's classes."""
    return listing(config.label(i) for i in range(config.num_labels))
