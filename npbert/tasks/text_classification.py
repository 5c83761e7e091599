"""text-classification: which class has a text, or a pair of texts?"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from npbert.config import Config
from npbert.tasks.shared import Answer, Options, Task, best, counting, one_of, softmax
from npbert.textbook import Array, sigmoid
from npbert.tokenizer import Encoding

Function = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(Options):
    """What text-classification can be asked, with the defaults of transformers' pipeline."""

    top_k: int | Literal["best"] | None = "best"  # a list of k classes; None: of all; best: no list
    function_to_apply: Function | None = None  # None: what problem_type and num_labels imply

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k not in ("best", None):
            counting("top_k", self.top_k)
        one_of("function_to_apply", self.function_to_apply, (None, "softmax", "sigmoid", "none"))


class TextClassification(Task[ClassificationOptions]):
    """Answers {"label", "score"}: the best class, or with top_k a list, best first."""

    name = "text-classification"
    architecture = "for_sequence_classification"

    def answer(
        self, encoding: Encoding, values: Array, options: ClassificationOptions
    ) -> Answer | list[Answer]:
        """Turn a text's logits, (classes,), into labels and scores."""
        config = self.model.config
        scores = apply(options.function_to_apply or usual_function(config), values)
        answers = [
            {"label": config.label(i), "score": float(scores[i])} for i in best(scores, len(scores))
        ]
        if options.top_k == "best":
            return answers[0]
        return answers[: options.top_k]


def usual_function(config: Config) -> Function:
    """Return what turns a model's logits into scores, as transformers decides it."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def apply(function: Function, logits: Array) -> Array:
    """Return logits as scores, in float64."""
    if function == "softmax":
        return softmax(logits)
    wide = logits.astype(np.float64)
    return sigmoid(wide) if function == "sigmoid" else wide
