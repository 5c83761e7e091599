"""A port of either family in float32, as people write them, and what their bugs do to its parts.

It goes on from FaultyPort: token types, the family's epsilon and pooler, and weights read wrongly.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from port.faults import OF_BLOCK, Array, Blocks, FaultyPort, Plan, Step, Weights, bfloat16, norm

Change = Callable[[Array], Array]
EPSILON = {"distilbert": 1e-12, "bert": 1e-6}


class ReportedPort(FaultyPort):
    """The port of one of the families."""

    def __init__(
        self, weights: Weights, config: dict[str, Any], plan: Plan, family: str = "distilbert"
    ) -> None:
        super().__init__(weights, config, plan, np.float32)
        self.family = family

    def __call__(self, architecture: str, inputs: dict[str, Array]) -> dict[str, Array]:
        self.types = inputs.get("token_type_ids")
        with np.errstate(all="ignore"):
            return super().__call__(architecture, inputs)

    def embeddings(self, ids: Array, positions: Array) -> Array:
        if self.types is None:
            return super().embeddings(ids, positions)
        if self.plan.positions is not None:
            rows = len(self.weights["embeddings.position_embeddings.weight"])
            positions = self.plan.positions(self, positions) % rows
        self.ids, self.places = ids, positions
        tables = {"word": ids, "token_type": self.types, "position": positions}
        total = np.zeros((), self.dtype)
        for name, rows in tables.items():
            step = f"embeddings.{name}_embeddings"
            total = total + self.keep(step, self.weights[f"{step}.weight"][rows])
        return self.layer_norm("embeddings.LayerNorm", self.keep("embeddings.sum", total))

    def block(self, name: str, x: Array, mask: Array, head_mask: Array) -> Array:
        if name.endswith(".0."):
            self.first = x
        self.before = x
        return super().block(name, x, mask, head_mask)

    def layer_norm(self, name: str, x: Array) -> Array:
        if self.planned(self.plan.norms, name) is not None:
            return super().layer_norm(name, x)
        gain, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.keep(name, norm(x, gain, bias, epsilon=EPSILON[self.family]))

    def classify_sequence(self, x: Array) -> Array:
        self.number = -1  # no block
        h = self.linear("pre_classifier", x[:, 0])
        pooled = np.tanh(h) if self.family == "bert" else np.maximum(h, 0)
        return self.linear("classifier", self.keep("pooled", pooled))

    def dense(self, layer: str, x: Array) -> Array:
        """A layer of this block, without keeping it."""
        return self.linear_of(f"{OF_BLOCK}{self.number}.{layer}", x)

    def weights_of(self, layer: str) -> tuple[Array, Array]:
        """The weight and the bias of a layer of this block, or of the head."""
        name = f"{OF_BLOCK}{self.number}.{layer}"
        name = name if f"{name}.weight" in self.weights else layer
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def heads_of(self, step: str) -> Array:
        """q, k or v, (batch, H, length, K)."""
        x = self.at(f"attention.{step}_lin")
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def into(self, layer: str) -> Array:
        """What goes into a layer of this block."""
        inner = {"attention.out_lin": "attention.context", "ffn.lin1": "sa_layer_norm",
                 "ffn.lin2": "ffn.activation"}  # fmt: skip
        return self.at(inner[layer]) if layer in inner else self.came


# bits


def tf32(x: Array) -> Array:
    """Eleven bits of every number, and the exponents of float32."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2048) / 2048, exponent).astype(x.dtype)


def half(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(x.dtype)


HALVES: dict[str, Change] = {"float16": half, "bfloat16": bfloat16}


def in_blocks(width: int, one: Change) -> Change:
    """Something done to every `width` numbers of a row."""

    def change(w: Array) -> Array:
        made = w.copy()
        for start in range(0, w.shape[-1], width):
            made[..., start : start + width] = one(w[..., start : start + width])
        return made

    return change


def four_bits(w: Array) -> Array:
    """Sixteen steps from one end, the largest number, to the other: ggml's q4_0."""
    at = np.abs(w).argmax(-1, keepdims=True)
    scale = np.take_along_axis(w, at, -1) / -8
    scale = np.where(scale == 0, 1, scale)
    return (np.clip(np.floor(w / scale + 8.5), 0, 15) - 8) * scale


def four_bits_and_least(w: Array) -> Array:
    """Sixteen steps between the least and the greatest: ggml's q4_1."""
    least = w.min(-1, keepdims=True)
    scale = (w.max(-1, keepdims=True) - least) / 15
    return np.round((w - least) / np.where(scale == 0, 1, scale)) * scale + least


def int8_dynamic(w: Array, bias: Array, x: Array) -> Array:
    """Weights of int8 with one scale, activations of uint8 with a zero for all of a call."""
    grain = np.abs(w).max() / 127
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    steps = np.clip(np.round(x / scale) + zero, 0, 255) - zero
    return (steps * scale) @ (np.round(w / grain) * grain).T + bias


def int8_of_tokens(w: Array, bias: Array, x: Array) -> Array:
    """Weights of int8 with a scale a row, activations with one a token."""
    rows, tokens = (np.abs(a).max(-1, keepdims=True) / 127 for a in (w, x))
    return (np.round(x / tokens) * tokens) @ (np.round(w / rows) * rows).T + bias


def computed(by: Callable[[Array, Array, Array], Array], *layers: str) -> dict[str, Step]:
    """Linear layers computed otherwise: from weights, bias and what goes in."""

    def step(p: Any, name: str, x: Array) -> Array:
        layer = name.split(".", 3)[3]
        return by(*p.weights_of(layer), p.into(layer))

    return dict.fromkeys(layers, step)


# weights read wrongly


def read(change: Callable[[str, Array, Weights], Array | None], blocks: Blocks = None) -> Plan:
    """A port of which some tensors become something else: None leaves one as it is."""

    def reading(weights: Weights, blocks: Blocks) -> Weights:
        made = {}
        for name, w in weights.items():
            number = int(name.split(".")[2]) if name.startswith(OF_BLOCK) else None
            there = blocks is None or number is None or number in blocks
            new = change(name, w, weights) if there else None
            made[name] = w if new is None else new
        return made

    return Plan(weights=reading, blocks=blocks)


def tensors(part: str, change: Change, *ends: str, blocks: Blocks = None) -> Plan:
    """Something becomes of the tensors of a part whose layer's name ends so; of all, without."""

    def one(name: str, w: Array, weights: Weights) -> Array | None:
        layer = name.rpartition(".")[0]
        return change(w) if name.endswith(part) and (not ends or layer.endswith(ends)) else None

    return read(one, blocks)


def random_like(seed: int) -> Change:
    return lambda w: np.random.default_rng(seed).normal(0, w.std(), w.shape)


def fused(order: str) -> Plan:
    """q, k and v in one matrix: written in one order of rows and split in the other."""

    def one(name: str, w: Array, weights: Weights) -> Array | None:
        parts = name.split(".")
        if len(parts) < 5 or parts[4] not in ("q_lin", "k_lin", "v_lin"):
            return None
        which = "qkv".index(parts[4][0])
        all_of = [weights[name.replace(parts[4], f"{a}_lin")] for a in "qkv"]
        heads = 4
        rest = w.shape[1:]
        if order == "written apart":  # [q; k; v], read as (H, 3, K)
            whole = np.concatenate(all_of).reshape(heads, 3, -1, *rest)
            return whole[:, which].reshape(w.shape)
        whole = np.stack([a.reshape(heads, -1, *rest) for a in all_of], 1)  # (H, 3, K), read apart
        return whole.reshape(3, *w.shape)[which]

    return read(one)


def rotary(w: Array, heads: int = 4) -> Array:
    """Rows of a head, halves for pairs: what llama's converters do to q and k."""
    return w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def columns_of_heads(w: Array, heads: int = 4) -> Array:
    """Columns in the order (K, H) rather than (H, K)."""
    return w.reshape(len(w), heads, -1).swapaxes(1, 2).reshape(w.shape)
