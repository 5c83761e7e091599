"""fill-mask: which words may stand where a text says [MASK]?"""

from typing import Any, NamedTuple

import numpy as np

from npbert.errors import InputError
from npbert.model import Model
from npbert.options import FillMaskOptions
from npbert.tasks.shared import Answer, Reading, Task, best, softmax
from npbert.textbook import Array

Pieces = tuple[int, ...]  # the ids that a word is made of


class Blanks(NamedTuple):
    """A text with masks, and what may stand in them."""

    ids: list[int]
    places: list[int]  # where the masks stand
    targets: list[Pieces]  # the only words that may; empty: all words of the vocabulary


class FillMask(Task[FillMaskOptions, Blanks]):
    """Answers a list of {"score", "token", "token_str", "sequence"} for a text's mask.

    A text with several masks gets such a list for each of them, the others left as they are.
    """

    name = "fill-mask"
    architecture = "for_masked_language_modeling"
    fields = ("text", "text_pair")

    def __init__(self, model: Model, options: FillMaskOptions, **how: Any) -> None:
        super().__init__(model, options, **how)
        self.mask = self.tokenizer.id_of("mask_token")
        if self.mask is None:
            raise InputError(
                f"fill-mask needs a mask, but {self.tokenizer.text_of('mask_token')} is not in the "
                "model's vocabulary"
            )

    def read(self, item: Any, options: FillMaskOptions) -> Reading[Blanks]:
        """Turn one input into tokens.  Raises InputError where no mask is left to fill."""
        texts = self.parts(item)
        encoding = self.tokenizer.encode(*texts)
        written = self.tokenizer.text_of("mask_token")
        asked = sum(text.count(written) for text in texts if text)
        if not asked:
            raise InputError(f"has no {written}, so that there is nothing to fill in")
        places = [i for i, token in enumerate(encoding.ids) if token == self.mask]
        if (lost := asked - len(places)) > 0:
            raise InputError(
                f"{lost} of its {asked} {written} would be cut off: the model reads "
                f"{self.tokenizer.max_length} tokens, and {encoding.cut} more follow"
            )
        cut = self.uncut([encoding], options)
        targets = [
            self.pieces_of(target, joint=options.multi_piece == "joint")
            for target in options.targets or ()
        ]
        blanks = Blanks(encoding.ids, places, list(dict.fromkeys(targets)))
        return Reading([(encoding.ids, places), *self.chains(blanks)], blanks, cut)

    def pieces_of(self, target: str, *, joint: bool) -> Pieces:
        """Return the ids of a target.  Raises InputError for one that cannot be scored."""
        known = self.tokenizer.pieces.token_to_id(target)
        if known is not None:
            return (known,)
        found = self.tokenizer.tokens_of(target)
        if not found.ids or self.tokenizer.id_of("unk_token") in found.ids:
            raise InputError(
                f"the target {target!r} is made of {found.tokens}, which the vocabulary has no "
                "word for"
            )
        if len(found) > 1 and not joint:
            raise InputError(
                f"the target {target!r} is made of {len(found)} pieces, {found.tokens}, and a mask "
                "stands for one (multi_piece='joint' scores them one after the other)"
            )
        return tuple(found.ids)

    def chains(self, blanks: Blanks) -> list[tuple[list[int], list[int]]]:
        """Return what is read for targets of several pieces: one piece more is known each time.

        As many masks as pieces stand where one was.  By the chain rule the chance of all is that
        of the first, times that of the second after the first, and so on.
        """
        made = []
        for place in blanks.places:
            for target in blanks.targets:
                for known in range(len(target) if len(target) > 1 else 0):
                    hidden = [self.mask] * (len(target) - known)
                    filled = filling(blanks.ids, place, [*target[:known], *hidden])
                    if len(filled) > self.tokenizer.max_length:
                        raise InputError(
                            f"has {len(filled)} tokens with a mask for each piece of a target, but "
                            f"the model reads {self.tokenizer.max_length}"
                        )
                    made.append((filled, [place + known]))
        return made

    def answer(
        self, reading: Reading[Blanks], values: list[Array], options: FillMaskOptions
    ) -> list[Answer] | list[list[Answer]]:
        """Turn the logits of a text's masks, (masks, words), into words."""
        blanks, chained = reading.given, iter(values[1:])
        results = []
        for place, scores in zip(blanks.places, softmax(values[0]), strict=True):
            # A table may have rows that no token has, to be of a round size.
            known = self.tokenizer.known[self.tokenizer.known < len(scores)]
            words = blanks.targets or [
                (int(i),) for i in known[best(scores[known], options.top_k or 5)]
            ]
            chances = [
                float(scores[word[0]])
                if len(word) == 1
                else float(np.prod([softmax(next(chained))[0, piece] for piece in word]))
                for word in words
            ]
            order = best(np.array(chances), options.top_k) if options.top_k else range(len(words))
            alone = len(blanks.places) == 1
            results.append(
                [self.filled(blanks, place, words[i], chances[i], alone=alone) for i in order]
            )
        return results[0] if len(results) == 1 else results

    def filled(
        self, blanks: Blanks, place: int, word: Pieces, score: float, *, alone: bool
    ) -> Answer:
        """Return a mask filled with a word."""
        decode = self.tokenizer.decode
        return {
            "score": score,
            "token": word[0] if len(word) == 1 else list(word),
            "token_str": decode(word, skip_special=False),
            "sequence": decode(filling(blanks.ids, place, word), skip_special=alone),
        }


def filling(ids: list[int], place: int, word: Any) -> list[int]:
    """Return ids with other ones in place of one."""
    return [*ids[:place], *word, *ids[place + 1 :]]
