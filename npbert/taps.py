"""What listens to a forward pass: a keeper of activations, and dropout."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from npbert.config import Config
from npbert.errors import CheckpointError
from npbert.textbook import Array, Tap

STATES: Final = ("embeddings.dropout", ".output_layer_norm")  # how hidden states' names end
PER_SEQUENCE: Final = ("for_sequence_classification", "for_multiple_choice")


class Border:
    """Where columns become rows: arrays leave as (batch, length, features)."""

    def __init__(self, architecture: str, batch: int, length: int, choices: int | None) -> None:
        self.architecture = architecture
        self.batch = batch
        self.length = length
        self.choices = choices

    def rows(self, name: str, x: Array) -> Array:
        """Return an activation's columns as rows, in the shape that its name implies."""
        rows = x.mT.copy()
        if name in ("start_logits", "end_logits"):
            return rows.reshape(self.batch, self.length)
        if name == "logits" and self.choices is not None:
            return rows.reshape(-1, self.choices)
        if name in ("pre_classifier", "pooled", "pooled_state"):
            return rows
        if name in ("classifier", "logits") and self.architecture in PER_SEQUENCE:
            return rows
        return rows.reshape(self.batch, self.length, len(x))


class Keeper:
    """A tap that keeps a copy of every activation whose name is wanted."""

    def __init__(self, border: Border, wanted: Callable[[str], bool]) -> None:
        self.border = border
        self.wanted = wanted
        self.heard: dict[str, Array | list[Array]] = {}  # in the order of the pass

    def __call__(self, name: str, x: Array) -> Array:
        if not self.wanted(name):
            return x
        if x.ndim == 3:  # attention is heard once a sequence, (heads, key, query)
            sequences = self.heard.setdefault(name, [])
            assert isinstance(sequences, list)
            sequences.append(x.mT.copy())
        else:
            self.heard[name] = self.border.rows(name, x)
        return x

    def rows(self) -> dict[str, Array]:
        """Return what was kept, as rows; attention as (batch, heads, query, key)."""
        return {n: np.stack(x) if isinstance(x, list) else x for n, x in self.heard.items()}


class Dropout:
    """A tap that zeroes values at random, as in training, and scales up the rest.

    The draws come in the order of the forward pass: the embeddings; in every block the attention
    weights, one sequence after the other, then the output of the ffn; the input of the classifier
    (at classifier_dropout_rate or, for question answering, qa_dropout).
    A draw has the shape of the value as the engine holds it, a token a column; attention weights
    (heads, key, query).  Source: Srivastava et al. 2014; the places are DistilBERT's.
    """

    def __init__(self, rng: "np.random.Generator", config: Config, architecture: str) -> None:
        answers = architecture == "for_question_answering"
        self.rng = rng
        self.rates = {
            "embeddings.dropout": config.dropout_rate,
            "attention.dropout": config.attention_dropout_rate,
            "ffn.dropout": config.dropout_rate,
            "dropout": config.qa_dropout if answers else config.classifier_dropout,
        }

    def __call__(self, name: str, x: Array) -> Array:
        if not name.endswith("dropout"):
            return x
        rate = self.rates[".".join(name.split(".")[-2:])]
        if rate == 1:
            return np.zeros_like(x)
        return np.where(self.rng.random(x.shape) >= rate, x / (1 - rate), 0).astype(x.dtype)


def watch(name: str, x: Array) -> Array:
    """A tap that raises CheckpointError at the first activation that is not finite."""
    if not np.isfinite(x).all():
        wrong = np.argwhere(~np.isfinite(x))
        where = tuple(int(i) for i in wrong[0])
        raise CheckpointError(
            f"{name} is the first activation that is not finite, {len(wrong)} of {x.size} values, "
            f"{x[where]} in column {where[-1]}: either weights are not finite (npbert info --check "
            f"tells), or the computation overflows {x.dtype}"
        )
    return x


def chain(taps: Sequence[Tap]) -> Tap:
    """Return one tap for several, each hearing what the one before it returned."""

    def tap(name: str, x: Array) -> Array:
        for each in taps:
            x = each(name, x)
        return x

    return tap


def wanted(*, hidden: bool, attentions: bool) -> Callable[[str], bool]:
    """Return which activations a keeper keeps for the outputs that were asked for.

    The first hidden state is heard where dropout may thin it out; without dropout that is the
    embeddings after their norm.
    """
    states = STATES if hidden else ()
    endings = (*states, ".weights") if attentions else states
    return lambda name: name.endswith(endings)
