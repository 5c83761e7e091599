"""One forward pass to be shown: the texts as the model reads them, and every number of it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npbert.errors import InputError, shown
from npbert.model import Model
from npbert.oracle.shared import Trace
from npbert.oracle.tracing import trace
from npbert.textbook import Array
from npbert.tokenizer import Encoding, Tokenizer

CHOICE = "for_multiple_choice"


@dataclass(frozen=True)
class Pass:
    """A call of a model with one text, or of multiple choice with all choices, and its trace."""

    model: Model
    tokenizer: Tokenizer
    text: str
    pairs: Sequence[str | None]  # one; of multiple choice, one for every choice
    encodings: Sequence[Encoding]  # of the text with each of its pairs
    trace: Trace  # by the textbook, in the precision of the model
    row: int  # which of the encodings is shown; of multiple choice, the choice that wins

    @property
    def encoding(self) -> Encoding:
        """The sequence that is shown."""
        return self.encodings[self.row]

    @property
    def pair(self) -> str | None:
        """The second text of the sequence that is shown."""
        return self.pairs[self.row]

    @property
    def tokens(self) -> list[str]:
        """Its tokens, padding too."""
        width, pad = max(map(len, self.encodings)), self.tokenizer.text_of("pad_token")
        return [*self.encoding.tokens, *[pad] * (width - len(self.encoding))]

    @property
    def keep(self) -> NDArray[np.bool]:
        """Which of its tokens are heard, (length,)."""
        mask = self.trace["attention_mask"].reshape(len(self.encodings), -1)
        return mask[self.row] != 0

    def rows(self, name: str) -> Array:
        """Return its values of an activation: (length, features), or (heads, query, key).

        Where the head judges a sequence as a whole, (1, features).
        """
        x: Array = self.trace[name][self.row]
        return x.reshape(1, -1) if x.ndim == 1 else x

    def heads(self, name: str, block: int) -> Array:
        """Return its values of q_lin, k_lin, v_lin or context by heads, (heads, length, K)."""
        x = self.rows(name)
        return x.reshape(len(x), len(self.model.config.heads(block)), -1).transpose(1, 0, 2)


def computed(model: Model, text: str, pair: str | Sequence[str] | None) -> Pass:
    """Read a text, and the pair that goes with it, and keep every number of the textbook's pass.

    pair : of multiple choice a list of choices, of question answering the text that answers

    Raises InputError where the model cannot read these.
    """
    if model.tokenizer is None:
        raise InputError(
            "explain reads text, but the model came without a tokenizer: its folder has neither "
            "tokenizer.json nor vocab.txt"
        )
    pairs = pairs_of(model.architecture, pair)
    encodings = [model.tokenizer.encode(text, each) for each in pairs]
    width, pad = max(map(len, encodings)), model.tokenizer.id_of("pad_token") or 0
    ids = np.array([[*e.ids, *[pad] * (width - len(e))] for e in encodings])
    mask = np.array([[True] * len(e) + [False] * (width - len(e)) for e in encodings])
    exact = copy.copy(model)  # its numbers are those of the source that the page shows
    exact.engine = "textbook"
    batch: tuple[Any, Any] = (ids, mask)
    if model.architecture == CHOICE:
        batch = (ids[None], mask[None])
    made = trace(exact, *batch)
    row = int(made["logits"].argmax()) if model.architecture == CHOICE else 0
    return Pass(model, model.tokenizer, text, pairs, encodings, made, row)


def pairs_of(architecture: str, pair: str | Sequence[str] | None) -> list[str | None]:
    """Return what goes with a text, once for each sequence that is read.  Raises InputError."""
    if pair is not None and not isinstance(pair, str | list | tuple):
        raise InputError(f"pair is {shown(pair)}, expected a str, or a list of them")
    given: list[str | None] = [pair] if pair is None or isinstance(pair, str) else [*pair]
    if pair is not None and not all(isinstance(each, str) for each in given):
        raise InputError(f"pair is {shown(pair)}, expected a str, or a list of them")
    if architecture == CHOICE and (pair is None or not given):
        raise InputError(
            "for_multiple_choice weighs choices: pass them as pair=[...], or --pair once for each"
        )
    if architecture == "for_question_answering" and pair is None:
        raise InputError(
            "for_question_answering reads a question and the text that answers it: pass that text "
            "as pair=, or --pair"
        )
    if architecture != CHOICE and len(given) != 1:
        raise InputError(
            f"pair has {len(given)} texts, expected one: only for_multiple_choice reads several, "
            f"and this model is {architecture}"
        )
    return given
