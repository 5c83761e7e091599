"""multiple-choice: which of some endings goes with a beginning?"""

from typing import Any

import numpy as np

from npbert.tasks.containers import list_of_texts
from npbert.tasks.options import MultipleChoiceOptions
from npbert.tasks.task import Answer, Reading, Task, probabilities
from npbert.textbook import Array


class MultipleChoice(Task[MultipleChoiceOptions, list[str]]):
    """Answers {"index", "choice", "score", "scores"}: the best choice, and the chance of each."""

    def read(self, item: Any, options: MultipleChoiceOptions) -> Reading[list[str]]:
        """Pair a prompt with each of its choices.  Raises InputError."""
        prompt, given = self.parts(item)
        choices = list_of_texts("choices", given, "str")
        lists, cut = [], []
        for choice in choices:  # one by one, since there may be many
            encoding = self.tokenizer.encode(prompt, choice, self.token_limit(options))
            cut += self.check_truncation([encoding], options)
            lists.append(self.list_of(encoding))
        return Reading(lists, choices, cut)

    def answer(
        self, reading: Reading[list[str]], values: list[Array], options: MultipleChoiceOptions
    ) -> Answer:
        """Turn the scores of the choices, (1,) each, into chances."""
        chances = probabilities(np.concatenate(values))
        index = int(chances.argmax())
        return {
            "index": index,
            "choice": reading.given[index],
            "score": float(chances[index]),
            "scores": chances.tolist(),
        }
