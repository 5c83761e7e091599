"""fill-mask: which words may stand where a text says [MASK]?"""

from dataclasses import dataclass
from typing import Any

from npbert.errors import InputError
from npbert.model import Model
from npbert.tasks.shared import Answer, Options, Task, best, counting, pair_of, softmax
from npbert.textbook import Array
from npbert.tokenizer import Encoding


@dataclass(frozen=True, kw_only=True)
class FillMaskOptions(Options):
    """What fill-mask can be asked."""

    top_k: int = 5  # candidates for each mask; more than there are words gives all words

    def __post_init__(self) -> None:
        super().__post_init__()
        counting("top_k", self.top_k)


class FillMask(Task[FillMaskOptions]):
    """Answers a list of {"score", "token", "token_str", "sequence"}, best first.

    A text with several masks gets such a list for each of them, the others left as they are.
    """

    name = "fill-mask"
    architecture = "for_masked_language_modeling"

    def __init__(self, model: Model, options: FillMaskOptions, **how: Any) -> None:
        super().__init__(model, options, **how)
        if self.tokenizer.id_of("mask_token") is None:
            raise InputError(
                f"fill-mask needs a mask, but {self.tokenizer.text_of('mask_token')} is not in the "
                "model's vocabulary"
            )

    def encode(self, item: object) -> Encoding:
        """Turn one input into tokens.  Raises InputError where no mask is left to fill."""
        encoding = super().encode(item)
        mask = self.tokenizer.text_of("mask_token")
        asked = sum(text.count(mask) for text in pair_of(item) if text)
        if not asked:
            raise InputError(f"has no {mask}, so that there is nothing to fill in")
        if (lost := asked - len(self.rows(encoding))) > 0:
            raise InputError(
                f"{lost} of its {asked} {mask} would be cut off: the model reads "
                f"{self.tokenizer.max_length} tokens, and {encoding.cut} more follow"
            )
        return encoding

    def rows(self, encoding: Encoding) -> list[int]:
        """Return where the masks stand: the vocabulary is scored there and nowhere else."""
        mask = self.tokenizer.id_of("mask_token")
        return [i for i, token in enumerate(encoding.ids) if token == mask]

    def answer(
        self, encoding: Encoding, values: Array, options: FillMaskOptions
    ) -> list[Answer] | list[list[Answer]]:
        """Turn the logits of a text's masks, (masks, words), into words."""
        places = self.rows(encoding)
        filled = [
            self.candidates(encoding, place, scores, options.top_k, alone=len(places) == 1)
            for place, scores in zip(places, softmax(values), strict=True)
        ]
        return filled[0] if len(places) == 1 else filled

    def candidates(
        self, encoding: Encoding, place: int, scores: Array, k: int, *, alone: bool
    ) -> list[Answer]:
        """Return the k best words for one mask."""
        # A table may have rows that no token has, to be of a round size.
        words = self.tokenizer.known[self.tokenizer.known < len(scores)]
        answers = []
        for token in words[best(scores[words], k)].tolist():
            ids = [*encoding.ids[:place], token, *encoding.ids[place + 1 :]]
            answers.append(
                {
                    "score": float(scores[token]),
                    "token": token,
                    "token_str": self.tokenizer.decode([token], skip_special=False),
                    "sequence": self.tokenizer.decode(ids, skip_special=alone),
                }
            )
        return answers
