"""What listens to a forward pass: a keeper of activations, and dropout."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from npbert.engine.inputs import Layout
from npbert.errors import CheckpointError
from npbert.textbook import Array, Tap


class Keeper:
    """A tap that keeps a copy of every activation whose name is wanted."""

    def __init__(self, layout: Layout, wanted: Callable[[str], bool]) -> None:
        self.layout = layout
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
            self.heard[name] = self.layout.rows(name, x)
        return x

    def rows(self) -> dict[str, Array]:
        """Return what was kept, as rows; attention as (batch, heads, query, key)."""
        return {n: np.stack(x) if isinstance(x, list) else x for n, x in self.heard.items()}


class Dropout:
    """A tap that zeroes values at random, as in training, and scales up the rest.

    The draws come in the order of the forward pass: the embeddings; in every block the attention
    weights, one sequence after the other, in BERT what attention adds, then the output of the ffn;
    the input of the classifier (at classifier_dropout_rate or, for question answering of
    DistilBERT, qa_dropout).
    A draw has the shape of the value as the engine holds it, a token a column; attention weights
    (heads, key, query).  Source: Srivastava et al. 2014; the places are the family's.
    """

    def __init__(
        self, rng: "np.random.Generator", *, states: float, attention: float, head: float,
        more: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.rng = rng
        self.rates = {
            "embeddings.dropout": states,
            "attention.dropout": attention,
            "ffn.dropout": states,
            "dropout": head,
            **dict.fromkeys(more, states),
        }

    def __call__(self, name: str, x: Array) -> Array:
        if not name.endswith("dropout"):
            return x
        last = name.rpartition(".")[2]
        place = last if last != "dropout" else ".".join(name.split(".")[-2:])
        rate = self.rates.get(place)
        if rate is None:  # no place of this family's
            return x
        if rate == 1:
            return np.zeros_like(x)
        return np.where(self.rng.random(x.shape) >= rate, x / (1 - rate), 0).astype(x.dtype)


def raise_at_not_finite(name: str, x: Array) -> Array:
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


def chain_taps(taps: Sequence[Tap]) -> Tap:
    """Return one tap for several, each hearing what the one before it returned."""

    def tap(name: str, x: Array) -> Array:
        for each in taps:
            x = each(name, x)
        return x

    return tap
