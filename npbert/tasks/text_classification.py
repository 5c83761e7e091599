"""text-classification: which class has a text, or a pair of texts?"""

from typing import Any

from npbert.checkpoint.config import Config
from npbert.tasks.options import ClassificationOptions, ScoreFunction
from npbert.tasks.task import Answer, Reading, Task, best_indices, scores_of
from npbert.textbook import Array


class TextClassification(Task[ClassificationOptions, None]):
    """Answers {"label", "score"}: the best class, or with top_k a list, best first."""

    def read(self, item: Any, options: ClassificationOptions) -> Reading[None]:
        """Turn a text, or a pair of texts, into tokens.  Raises InputError."""
        text, pair = self.parts(item)
        encoding = self.tokenizer.encode(text, pair, self.token_limit(options))
        return Reading([self.list_of(encoding)], None, self.check_truncation([encoding], options))

    def answer(
        self, reading: Reading[None], values: list[Array], options: ClassificationOptions
    ) -> Answer | list[Answer]:
        """Turn a text's logits, (classes,), into labels and scores."""
        config = self.model.config
        scores = scores_of(options.function_to_apply or default_score_function(config), values[0])
        answers = [
            {"label": config.label(i), "score": float(scores[i])}
            for i in best_indices(scores, None)
        ]
        return answers[0] if options.top_k == "best" else answers[: options.top_k]


def default_score_function(config: Config) -> ScoreFunction:
    """Return what turns a model's logits into scores, as transformers decides it."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"
