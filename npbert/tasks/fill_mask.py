"""fill-mask: which words may stand where a text says [MASK]?"""

import re
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.errors import InputError
from npbert.model import Model
from npbert.tasks.options import FillMaskOptions
from npbert.tasks.rows import TaskRow
from npbert.tasks.task import Answer, Reading, Task, TokenList, best_indices, probabilities
from npbert.textbook import Array

# What a mask is called by other models, and by people.
OTHER_MASKS: Final = re.compile(
    r"[\[<{(]\|?\s*(?:mask|blank)\d*\s*\|?[\])>}]|<extra_id_\d+>|(?-i:\bMASK\b)|_{3,}|\[ *\]",
    re.IGNORECASE,
)

Pieces = tuple[int, ...]  # the ids that a word is made of
Link = tuple[int, Pieces, int]  # where a word goes, its pieces known so far, how many are hidden


class Blanks(NamedTuple):
    """A text with masks, and what may stand in them."""

    ids: list[int]
    types: list[int] | None  # of their tokens
    places: list[int]  # where the masks stand
    targets: list[Pieces]  # the only words that may; empty: all words of the vocabulary


class FillMask(Task[FillMaskOptions, Blanks]):
    """Answers a list of {"score", "token", "token_str", "sequence"} for a text's mask.

    A text with several masks gets such a list for each of them, the others left as they are.
    """

    def __init__(self, model: Model, options: FillMaskOptions, row: TaskRow, **how: Any) -> None:
        if model.tokenizer and (mask := model.tokenizer.id_of("mask_token")) is not None:
            self.mask = mask
        elif model.tokenizer:
            raise InputError(
                f"{row.name} needs a mask, but {model.tokenizer.token_text('mask_token')} is not "
                "in the model's vocabulary"
            )
        super().__init__(model, options, row, **how)

    def read(self, item: Any, options: FillMaskOptions) -> Reading[Blanks]:
        """Turn one input into tokens.  Raises InputError where no mask is left to fill."""
        texts, limit = self.parts(item), self.token_limit(options)
        encoding = self.tokenizer.encode(texts[0], texts[1], limit)
        written = self.tokenizer.token_text("mask_token")
        asked = sum(text.count(written) for text in texts if text)
        if not asked:
            found = [match[0] for text in texts if text and (match := OTHER_MASKS.search(text))]
            hint = f"; its {found[0]!r} is {written} for this model" if found else ""
            raise InputError(f"has no {written}, so that there is nothing to fill in{hint}")
        places = [i for i, token in enumerate(encoding.ids) if token == self.mask]
        if (lost := asked - len(places)) > 0:
            raise InputError(
                f"{lost} of its {asked} {written} would be cut off: the model reads {limit} "
                f"tokens, and {encoding.cut} more follow"
            )
        cut = self.check_truncation([encoding], options)
        whole = self.list_of(encoding, places)
        types = None if whole.types is None else list(whole.types)
        blanks = Blanks(list(whole.ids), types, places, self.targets(options))
        chains = [self.chain_input(blanks, *link) for link in chain_links(blanks)]
        return Reading([whole, *chains], blanks, cut)

    def prepare_options(self, options: FillMaskOptions) -> FillMaskOptions:
        """Refuse targets that cannot be scored."""
        if options.targets is not None and not self.targets(options):
            raise InputError("targets is empty, expected at least one word")
        return options

    def targets(self, options: FillMaskOptions) -> list[Pieces]:
        """Return the ids of every target, in their order, each once.  Raises InputError."""
        joint = options.multi_piece == "joint"
        found = [self.pieces_of(target, joint=joint) for target in options.targets or ()]
        return list(dict.fromkeys(found))

    def pieces_of(self, target: str, *, joint: bool) -> Pieces:
        """Return the ids of a target.  Raises InputError for one that cannot be scored."""
        known = self.tokenizer.pieces.token_to_id(target)
        if known is not None:
            return (known,)
        found = self.tokenizer.tokenize(target)
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

    def chain_input(self, blanks: Blanks, place: int, known: Pieces, hidden: int) -> TokenList:
        """Return what is read where of a word's pieces some are known, and some hidden."""
        filled = replace_token(blanks.ids, place, [*known, *[self.mask] * hidden])
        if len(filled) > self.tokenizer.max_length:
            raise InputError(
                f"has {len(filled)} tokens with a mask for each piece of a target, but the model "
                f"reads {self.tokenizer.max_length}"
            )
        types = blanks.types
        if types is not None:
            types = replace_token(types, place, [types[place]] * (len(known) + hidden))
        return TokenList(filled, [place + len(known)], types)

    def answer(
        self, reading: Reading[Blanks], values: list[Array], options: FillMaskOptions
    ) -> list[Answer] | list[list[Answer]]:
        """Turn the logits of a text's masks, (masks, words), into words."""
        blanks = reading.given
        chains = dict(zip(chain_links(blanks), map(probabilities, values[1:]), strict=True))
        results = []
        for place, scores in zip(blanks.places, probabilities(values[0]), strict=True):
            # A table may have rows that no token has, to be of a round size.
            known = self.tokenizer.known_ids[self.tokenizer.known_ids < len(scores)]
            words = blanks.targets or [
                (int(i),) for i in known[best_indices(scores[known], options.top_k or 5)]
            ]
            chances = [
                float(scores[word[0]])
                if len(word) == 1
                else float(
                    np.prod(
                        [chains[link][0, word[len(link[1])]] for link in chain_steps(place, word)]
                    )
                )
                for word in words
            ]
            order = (
                best_indices(np.array(chances), options.top_k)
                if options.top_k
                else range(len(words))
            )
            alone = len(blanks.places) == 1
            results.append(
                [self.fill(blanks, place, words[i], chances[i], alone=alone) for i in order]
            )
        return results[0] if len(results) == 1 else results

    def fill(
        self, blanks: Blanks, place: int, word: Pieces, score: float, *, alone: bool
    ) -> Answer:
        """Return a mask filled with a word."""
        decode = self.tokenizer.decode
        return {
            "score": score,
            "token": word[0] if len(word) == 1 else list(word),
            "token_str": decode(word, skip_special=False),
            "sequence": decode(replace_token(blanks.ids, place, word), skip_special=alone),
        }


def chain_steps(place: int, word: Pieces) -> list[Link]:
    """Return what is asked for a word of several pieces: one piece more is known each time.

    As many masks as pieces stand where one was.  By the chain rule the chance of all is that of
    the first, times that of the second after the first, and so on.
    """
    return [(place, word[:known], len(word) - known) for known in range(len(word))]


def chain_links(blanks: Blanks) -> list[Link]:
    """Return what is asked for all targets of several pieces, in all places, each once."""
    long = [word for word in blanks.targets if len(word) > 1]
    return list(
        dict.fromkeys(s for p in blanks.places for word in long for s in chain_steps(p, word))
    )


def replace_token(ids: list[int], place: int, word: Any) -> list[int]:
    """Return ids with other ones in place of one."""
    return [*ids[:place], *word, *ids[place + 1 :]]
