"""Every mistake of the oracle's catalogue, made on purpose by the port of port.py, and ten more.

Nothing here is npbert's: the formulas are written once more, rows outside. A fault is planted by
what the port reads (`weights`), by what it computes in place of a step (`steps`), or by a function
of its own (`split`, `norms` ...), in some blocks or in all.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import port
from port import erf, softmax

Array = NDArray[Any]
Weights = dict[str, Array]
Step = Callable[["FaultyPort", str, Array], Array]
Norm = Callable[[Array, Array, Array], Array]
Blocks = tuple[int, ...] | None  # None: all of them

LINEARS = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
           "ffn.lin1", "ffn.lin2")  # fmt: skip
NORMS = {
    "embeddings.LayerNorm": "embeddings.sum",
    "sa_layer_norm": "attention_residual",
    "output_layer_norm": "ffn_residual",
    "vocab_layer_norm": "vocab_activation",
}
OF_BLOCK = "transformer.layer."


@dataclass(frozen=True, eq=False)
class Plan:
    """What one faulty port does otherwise."""

    weights: Callable[[Weights, Blocks], Weights] = lambda w, blocks: w
    steps: Mapping[str, Step] = field(default_factory=dict)  # by name, without the block
    norms: Mapping[str, Norm] = field(default_factory=dict)
    activation: Callable[[Array], Array] | None = None
    positions: Callable[["FaultyPort", Array], Array] | None = None
    split: Callable[[Array, int], Array] | None = None
    merge: Callable[[Array], Array] | None = None
    product: Callable[[Array, Array], Array] = np.matmul
    block: Callable[["FaultyPort", Callable[[Array], Array], Array], Array] | None = None
    blocks: Blocks = None  # in which it is done
    silent: tuple[str, ...] = ()  # what such a port has no numbers for
    base: str = ""  # one of port.FAULTS


class FaultyPort(port.Port):
    """The port in float64, or in float32 as ports are, with one plan."""

    def __init__(
        self, weights: Weights, config: Mapping[str, Any], plan: Plan, dtype: Any = np.float64
    ) -> None:
        super().__init__(plan.weights(dict(weights), plan.blocks), config, plan.base)
        self.weights = {name: w.astype(dtype) for name, w in self.weights.items()}
        self.plan, self.dtype, self.number = plan, dtype, -1

    def __call__(self, architecture: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.choices = inputs["input_ids"].shape[1] if inputs["input_ids"].ndim == 3 else None
        ids = self.flat(inputs["input_ids"])
        mask = inputs.get("attention_mask")
        self.mask = ids * 0 + 1 if mask is None else self.flat(mask)
        heads = inputs.get("attention_head_mask", np.ones((self.blocks, self.heads)))
        self.head_masks = heads.astype(self.dtype)
        super().__call__(architecture, {**inputs, "attention_head_mask": self.head_masks})
        return {n: x for n, x in self.kept.items() if not n.endswith(self.plan.silent or "\n")}

    @property
    def here(self) -> bool:
        """Whether the block that is running is one of those with the fault."""
        return self.plan.blocks is None or self.number in self.plan.blocks

    def at(self, step: str) -> Array:
        """What was computed before, in this block, in the embeddings or in the head."""
        return self.kept.get(f"{OF_BLOCK}{self.number}.{step}", self.kept.get(step))

    def keep(self, name: str, x: Array) -> Array:
        step = self.planned(self.plan.steps, name)
        return super().keep(name, (x if step is None else step(self, name, x)).astype(self.dtype))

    def planned(self, table: Mapping[str, Any], name: str) -> Any:
        """What a plan has for a step, here."""
        if not name.startswith(OF_BLOCK):
            return table.get(name)
        return table.get(name.split(".", 3)[3]) if self.here else None

    def embeddings(self, ids: Array, positions: Array) -> Array:
        if self.plan.positions is not None:
            rows = len(self.weights["embeddings.position_embeddings.weight"])
            positions = self.plan.positions(self, positions) % rows
        self.ids, self.places = ids, positions
        return super().embeddings(ids, positions)

    def block(self, name: str, x: Array, mask: Array, head_mask: Array) -> Array:
        self.number, self.came = int(name.split(".")[2]), x

        def once(x: Array) -> Array:
            return super(FaultyPort, self).block(name, x, mask, head_mask)

        own = self.plan.block
        self.last = once(x) if own is None or not self.here else own(self, once, x)
        return self.last

    def split(self, x: Array) -> Array:
        own = self.plan.split
        return super().split(x) if own is None or not self.here else own(x, self.heads)

    def merge(self, x: Array) -> Array:
        own = self.plan.merge
        return super().merge(x) if own is None or not self.here else own(x)

    def normed(self, name: str, x: Array) -> Array:
        """What a norm without mistakes makes of something."""
        return norm(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))

    def layer_norm(self, name: str, x: Array) -> Array:
        own = self.planned(self.plan.norms, name)
        if own is None:
            return super().layer_norm(name, x)
        return self.keep(name, own(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")))

    def gelu(self, x: Array) -> Array:
        own = self.plan.activation
        return super().gelu(x) if own is None or not self.here else own(x)

    def masked_language(self, x: Array) -> Array:
        self.number = -1  # no block
        return super().masked_language(x)

    def linear(self, name: str, x: Array) -> Array:
        return self.keep(name, self.linear_of(name, x))

    def linear_of(self, name: str, x: Array) -> Array:
        """What a layer makes of its input, or of something else."""
        return self.plan.product(x, self.weight(f"{name}.weight").T) + self.weight(f"{name}.bias")


def norm(
    x: Array, gain: Array, bias: Array, *, epsilon: float = 1e-12, less: int = 0, axis: int = -1,
    centred: bool = True,
) -> Array:  # fmt: skip
    """A layer norm, or nearly."""
    mean = x.mean(axis, keepdims=True) if centred else np.zeros((1, 1, 1), x.dtype)
    squares = ((x - mean) ** 2).sum(axis, keepdims=True)
    return (x - mean) / np.sqrt(squares / (x.shape[axis] - less) + epsilon) * gain + bias


# what a checkpoint's numbers become


def float16(x: Array) -> Array:
    return x.astype(np.float16).astype(x.dtype)


def bfloat16(x: Array) -> Array:
    """Eight bits of every number."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(x.dtype)


def int8(x: Array, axis: int | None = None) -> Array:
    scale = abs(x).max(axis=axis, keepdims=True) / 127
    return np.round(x / scale) * scale


def altered(
    part: str, change: Callable[[Array], Array], *layers: str, blocks: Blocks = None
) -> Plan:
    """A port that makes something of the `part`, weight or bias, of some layers."""

    def read(weights: Weights, blocks: Blocks) -> Weights:
        made = dict(weights)
        for name, w in weights.items():
            number, layer = place(name)
            is_there = blocks is None or number is None or number in blocks
            if is_there and name.endswith(f".{part}") and layer in layers:
                made[name] = change(w)
        return made

    return Plan(weights=read, blocks=blocks)


def renamed(rename: Callable[[str, int], tuple[str, int]], blocks: Blocks) -> Plan:
    """A port that takes another layer's tensors: (layer, block) -> (layer, block)."""

    def read(weights: Weights, blocks: Blocks) -> Weights:
        made = dict(weights)
        for name in weights:
            number, layer = place(name)
            if number is not None and (blocks is None or number in blocks):
                other, j = rename(layer, number)
                made[name] = weights[f"{OF_BLOCK}{j}.{other}.{name.rpartition('.')[2]}"]
        return made

    return Plan(weights=read, blocks=blocks)


def place(tensor: str) -> tuple[int | None, str]:
    """The block of a tensor, if it has one, and its layer."""
    layer = tensor.rpartition(".")[0]
    if not tensor.startswith(OF_BLOCK):
        return None, layer
    number, layer = layer.removeprefix(OF_BLOCK).split(".", 1)
    return int(number), layer


# functions


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "the tanh approximation of GELU": lambda x: (
        0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    ),
    "x sigmoid(1.702 x) for GELU": lambda x: x / (1 + np.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "relu": lambda x: (x > 0) * x,
    "relu6": lambda x: np.minimum((x > 0) * x, 6),
    "gelu_10": lambda x: np.minimum(np.maximum(x / 2 * (1 + erf(x / math.sqrt(2))), -10), 10),
    "relu2": lambda x: (x > 0) * x * x,
    "leaky_relu": lambda x: np.maximum(x, x / 100),
    "hardswish": lambda x: x * np.minimum(np.maximum(x / 6 + 0.5, 0), 1),
    "sqrtsoftplus": lambda x: np.sqrt(np.log1p(np.exp(x))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: 1 - 2 / (np.exp(2 * x) + 1),
    "laplace": lambda x: 0.5 + erf((x - 0.707107) / (0.282095 * math.sqrt(2))) / 2,
    "no activation function at all": lambda x: x,
}
POOLERS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "no function at all": lambda x: x,
    "gelu": lambda x: x / 2 * (1 + erf(x / math.sqrt(2))),
    "sigmoid": ACTIVATIONS["sigmoid"],
    "silu": ACTIVATIONS["silu"],
}


def interleaved(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], -1, heads).transpose(0, 3, 1, 2)


def unturned(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, x.shape[1], -1)


def joined_unturned(p: FaultyPort, name: str, x: Array) -> Array:
    heads = x.reshape(*x.shape[:2], p.heads, -1).transpose(0, 2, 1, 3)
    return heads.reshape(x.shape)


def keys_as_values(p: FaultyPort, name: str, x: Array) -> Array:
    k = p.at("attention.k_lin").reshape(*x.shape[:2], p.heads, -1)
    return np.einsum("bhqk,bkhd->bqhd", p.at("attention.weights"), k).reshape(x.shape)


def masked(heard: Callable[[Array, Array], Array]) -> Step:
    """Other keys are heard: what is heard is told from (batch, 1, 1, key) and (…, query, 1)."""

    def step(p: FaultyPort, name: str, x: Array) -> Array:
        m = p.mask != 0
        return np.where(
            heard(m[:, None, None, :], m[:, None, :, None]),
            p.at("attention.scores"),
            np.finfo(x.dtype).min,
        )

    return step


def scores_and(f: Callable[[Array, Array], Array]) -> Step:
    """Something made of scores and mask, where others hide."""
    return lambda p, name, x: f(p.at("attention.scores"), p.mask[:, None, None, :])


def overflowing(p: FaultyPort, name: str, x: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(p.at("attention.masked_scores").astype(np.float32))
        return e / e.sum(-1, keepdims=True) * p.head_masks[p.number][:, None, None]


def weighted(axis: int) -> Step:
    def step(p: FaultyPort, name: str, x: Array) -> Array:
        return (
            softmax(p.at("attention.masked_scores"), axis) * p.head_masks[p.number][:, None, None]
        )

    return step
