"""What strangers' ports got wrong, one row each: planted in the port of reported.py.

A row says how the oracle may name it, by a pattern, and on which input it is planted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from port import erf
from port.faults import (
    ACTIVATIONS,
    LINEARS,
    NORMS,
    OF_BLOCK,
    Array,
    FaultyPort,
    Plan,
    Step,
    Weights,
    int8,
    interleaved,
    joined_unturned,
    masked,
    norm,
    renamed,
    scores_and,
    weighted,
)
from port.planted import ANSWERS, CLASSES, MLM, at
from port.reported import (
    HALVES,
    ReportedPort,
    columns_of_heads,
    computed,
    four_bits,
    four_bits_and_least,
    fused,
    half,
    in_blocks,
    int8_dynamic,
    int8_of_tokens,
    random_like,
    read,
    rotary,
    tensors,
    tf32,
)


@dataclass(frozen=True, eq=False)
class Report:
    """A bug of a port."""

    kind: str
    named: str  # a pattern of what names it
    plan: Plan
    architecture: str = CLASSES
    inputs: str = "right"  # right, mixed, full
    family: str = ""  # both, without
    model: str = ""  # "outlier": one feature is large; "mean": all are; "deep": twelve blocks
    only: tuple[str, ...] = field(default=())  # levels of dumps; all, without


def mask_steps(f: Callable[[FaultyPort, Array], Array]) -> dict[str, Step]:
    """Scores that another mask hides: what is heard, by (batch, 1 or H, 1, key)."""

    def step(p: FaultyPort, name: str, x: Array) -> Array:
        return np.where(f(p, p.mask != 0), p.at("attention.scores"), np.finfo(x.dtype).min)

    return {"attention.masked_scores": step}


def lengths(p: FaultyPort, m: Array) -> Array:
    return (np.arange(m.shape[1]) < m.sum(1, keepdims=True))[:, None, None]


def one_row(p: FaultyPort, m: Array) -> Array:
    return np.broadcast_to(m[1:2], m.shape)[:, None, None]


def tiled(p: FaultyPort, m: Array) -> Array:
    """Rows and heads are mixed up where the mask is repeated for the heads."""
    return np.tile(m, (p.heads, 1)).reshape(len(m), p.heads, 1, -1)


def one_over(p: FaultyPort, name: str, x: Array) -> Array:
    """One more 1 in the denominator."""
    e = np.exp(p.at("attention.masked_scores"))
    return e / (1 + e.sum(-1, keepdims=True))


def transposed_scores(p: FaultyPort, name: str, x: Array) -> Array:
    return x.swapaxes(2, 3)


def pre_norm(p: ReportedPort, once: Callable[[Array], Array], x: Array) -> Array:
    """Every sub-layer reads the norm of what came, and adds to what came."""
    name = f"{OF_BLOCK}{p.number}"
    y = p.normed(f"{name}.sa_layer_norm", x)
    y = p.attention(f"{name}.attention", y, p.mask, p.head_masks[p.number])
    h = p.keep(f"{name}.attention_residual", x + y)
    y = p.keep(f"{name}.sa_layer_norm", p.normed(f"{name}.output_layer_norm", h))
    y = p.keep(f"{name}.ffn.activation", p.gelu(p.linear(f"{name}.ffn.lin1", y)))
    h = p.keep(f"{name}.ffn_residual", h + p.linear(f"{name}.ffn.lin2", y))
    return p.keep(f"{name}.output_layer_norm", h)


def one_pass(x: Array, gain: Array, bias: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = np.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
    return (x - mean) / np.sqrt(variance + 1e-12) * gain + bias


def half_squares(x: Array, gain: Array, bias: Array) -> Array:
    """The sum of squares overflows float16."""
    y = x - x.mean(-1, keepdims=True)
    with np.errstate(over="ignore"):
        total = (y * y).sum(-1, keepdims=True).astype(np.float16).astype(x.dtype)
    return y / np.sqrt(total / x.shape[-1] + 1e-12) * gain + bias


def gelu_table(x: Array) -> Array:
    y = half(x)
    return half(y / 2 * (1 + erf(y / math.sqrt(2))))


def on_first(layer: str, rows: slice) -> dict[str, Step]:
    """A bias on some rows of the batch only."""

    def step(p: ReportedPort, name: str, x: Array) -> Array:
        bias = p.weights_of(layer)[1]
        made = x - bias
        made[rows] += bias
        return made

    return {layer: step}


def shifted_places(start: int, padding: int) -> Callable[[FaultyPort, Array], Array]:
    """Real tokens count from `start`, and padding stays where it is."""
    return lambda p, at: np.where(p.mask != 0, np.cumsum(p.mask, axis=1) - 1 + start, padding)


def gelu_in(blocks: tuple[int, ...]) -> Plan:
    return Plan(activation=ACTIVATIONS["the tanh approximation of GELU"], blocks=blocks)


def type_rows(change: Callable[[Array], Array]) -> Step:
    """Rows of other token types."""
    table = "embeddings.token_type_embeddings.weight"
    return lambda p, name, x: p.weights[table][change(p.types)]


def dropped(rate: float) -> Step:
    def step(p: FaultyPort, name: str, x: Array) -> Array:
        rng = np.random.default_rng(len(name) + p.number)
        return np.where(rng.random(x.shape) >= rate, x / (1 - rate), 0)

    return step


def autocast(kind: str) -> dict[str, Step]:
    """Matrix products in halves; norms and softmax in float32."""
    h = HALVES[kind]

    def linear(w: Array, b: Array, x: Array) -> Array:
        return h(h(x) @ h(w).T + h(b))

    def scores(p: ReportedPort, name: str, x: Array) -> Array:
        q, k = h(p.heads_of("q")), h(p.heads_of("k"))
        return h(h(q / math.sqrt(q.shape[-1])) @ k.swapaxes(2, 3))

    def context(p: ReportedPort, name: str, x: Array) -> Array:
        y = h(p.at("attention.weights")) @ h(p.heads_of("v"))
        return h(y.transpose(0, 2, 1, 3).reshape(x.shape))

    return {
        **computed(linear, *LINEARS), "attention.scores": scores, "attention.context": context,
        "ffn.activation": lambda p, name, x: h(x),
    }  # fmt: skip


def tf32_products() -> dict[str, Step]:
    def scores(p: ReportedPort, name: str, x: Array) -> Array:
        q, k = tf32(p.heads_of("q")), tf32(p.heads_of("k"))
        return q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1])

    def context(p: ReportedPort, name: str, x: Array) -> Array:
        y = tf32(p.at("attention.weights")) @ tf32(p.heads_of("v"))
        return y.transpose(0, 2, 1, 3).reshape(x.shape)

    linear = computed(lambda w, b, x: tf32(x) @ tf32(w).T + b, *LINEARS)
    return {**linear, "attention.scores": scores, "attention.context": context}


def every_step(change: Callable[[Array], Array]) -> Plan:
    names = (*LINEARS, "attention.scores", "attention.weights", "attention.context",
             "attention_residual", "ffn.activation", "ffn_residual", *NORMS, "embeddings.sum",
             "embeddings.word_embeddings", "embeddings.position_embeddings", "pre_classifier",
             "pooled", "classifier", "vocab_transform")  # fmt: skip
    return Plan(steps=dict.fromkeys(names, lambda p, name, x: change(x)))


def in_text_order(name: str, w: Array, weights: Weights) -> Array | None:
    """Blocks in the order of their names as texts: 0, 1, 10, 11, 2 ..."""
    if not name.startswith(OF_BLOCK):
        return None
    blocks = sorted({each.split(".")[2] for each in weights if each.startswith(OF_BLOCK)})
    number = name.split(".")[2]
    return weights[name.replace(f".{number}.", f".{blocks[int(number)]}.", 1)]


def another_checkpoint(name: str, w: Array, weights: Weights) -> Array:
    rng = np.random.default_rng(len(name))
    return rng.permutation(w.ravel()).reshape(w.shape)


def pooled(which: Callable[[ReportedPort], Array]) -> dict[str, Step]:
    return {"pre_classifier": lambda p, name, x: p.linear_of("pre_classifier", which(p))}


def pool_function(f: Callable[[Array], Array]) -> dict[str, Step]:
    return {"pooled": lambda p, name, x: f(p.at("pre_classifier"))}


def steps(**named: Step) -> dict[str, Step]:
    return dict(at(**named).steps)


def reports() -> list[Report]:
    """All of them."""
    score, R = "attention.masked_scores", Report  # noqa: N806
    S, P = Plan, partial  # noqa: N806
    mask = lambda text, steps, **more: R("masks", text, S(steps=steps), **more)  # noqa: E731
    swap = {"sa_layer_norm": "output_layer_norm", "output_layer_norm": "sa_layer_norm"}
    gelu_tanh = ACTIVATIONS["the tanh approximation of GELU"]
    words, types = "embeddings.word_embeddings.weight", "embeddings.token_type_embeddings"
    turned = lambda w: w.T if w.shape[0] == w.shape[1] else w  # noqa: E731
    reread = lambda w: w.T if w.shape[0] == w.shape[1] else w.reshape(w.shape[::-1]).T  # noqa: E731
    made = [
        mask("mask is inverted", {score: masked(lambda k, q: ~k)}),
        mask("mask is ignored|keys .* heard", {score: scores_and(lambda s, m: s)}, inputs="mixed"),
        R(
            "masks",
            "mask is (used in the first block only|ignored)",
            S(steps={score: scores_and(lambda s, m: s)}, blocks=(1, 2)),
        ),
        mask("taken (as|for) a length", mask_steps(lengths), inputs="mixed"),
        mask("mask of row 1", mask_steps(one_row)),
        mask("rows and heads|mixed up", mask_steps(tiled)),
        mask("added .*as 0 and 1", {score: scores_and(lambda s, m: s + m)}),
        mask("added .*as 1 and 0", {score: scores_and(lambda s, m: s + 1 - m)}, inputs="mixed"),
        mask("-100 ", {score: scores_and(lambda s, m: s - 100 * (m == 0))}, inputs="full"),
        mask("-10 |too weak", {score: scores_and(lambda s, m: s - 10 * (m == 0))}),
        mask(
            "infin|NaN",
            {score: lambda p, n, x: half(np.where(p.mask[:, None, None], x, -1e9))},
            inputs="full",
        ),
        mask("infin|NaN", {score: scores_and(lambda s, m: np.where(m, s, -np.inf))}, inputs="full"),
        mask(
            "infin|NaN",
            {score: scores_and(lambda s, m: s + np.where(m, 0, 2 * np.finfo(s.dtype).min))},
            inputs="full",
        ),
        mask("hides both queries and keys|hides queries", {score: masked(lambda k, q: q)}),
        mask("causal", {score: masked(lambda k, q: k & np.tri(k.shape[-1], dtype=bool))}),
        mask("multiplied by the mask", {score: scores_and(lambda s, m: s * m)}),
        # activations
        R("activation", "tanh approximation", S(activation=gelu_tanh)),
        R("activation", "tanh approximation", S(activation=gelu_tanh), MLM, "mixed"),
        R("activation", "1.702", S(activation=ACTIVATIONS["x sigmoid(1.702 x) for GELU"])),
        R("activation", "table|float16", S(activation=gelu_table)),
        R("activation", "no activation", S(activation=lambda x: x)),
        R("activation", "relu", S(activation=ACTIVATIONS["relu"])),
        R("activation", "tanh approximation", gelu_in((1,))),
        # norms
        R("norms", "epsilon 1e-05", S(norms=dict.fromkeys(NORMS, P(norm, epsilon=1e-5)))),
        R(
            "norms",
            "epsilon 1e-05",
            S(norms=dict.fromkeys(("sa_layer_norm", "output_layer_norm"), P(norm, epsilon=1e-5))),
        ),
        R(
            "norms",
            "gain",
            S(norms=dict.fromkeys(NORMS, lambda x, g, b: norm(x, 1 + 0 * g, 0 * b))),
        ),
        R(
            "norms",
            "gain",
            S(norms={"sa_layer_norm": lambda x, g, b: norm(x, 1 + 0 * g, b)}, blocks=(1,)),
        ),
        R(
            "norms",
            r"E\[x\^?2?\]|cancel|x\^2",
            S(norms=dict.fromkeys(NORMS, one_pass)),
            model="mean",
            family="distilbert",
        ),
        R("norms", "overflow", S(norms=dict.fromkeys(NORMS, half_squares)), model="outlier"),
        R("norms", "over tokens", S(norms=dict.fromkeys(NORMS, P(norm, axis=1)))),
        R("norms", "changed places", renamed(lambda layer, i: (swap.get(layer, layer), i), None)),
        R("norms", "pre-norm|before attention", S(block=pre_norm)),
        R("norms", "unbiased", S(norms=dict.fromkeys(NORMS, P(norm, less=1)))),
        R("norms", "RMSNorm", S(norms=dict.fromkeys(NORMS, P(norm, centred=False)))),
        # attention
        R(
            "attention",
            "not divided by the root of the head",
            S(steps=steps(attention__scores=lambda p, n, x: x * math.sqrt(8))),
        ),
        R(
            "attention",
            "root of the model's width",
            S(steps=steps(attention__scores=lambda p, n, x: x / math.sqrt(p.heads))),
        ),
        R("attention", "transposed|k q|q and k", S(steps={"attention.scores": transposed_scores})),
        R("attention", "rotary", tensors("", rotary, "q_lin")),
        R("attention", "rotary", tensors("", rotary, "k_lin"), MLM),
        R("attention", "fused|head by head", fused("written apart")),
        R("attention", "fused|head by head", fused("head by head")),
        R(
            "attention",
            "(k_lin and v_lin|key and .*value) have changed places",
            renamed(
                lambda a, i: (
                    {
                        "attention.k_lin": "attention.v_lin",
                        "attention.v_lin": "attention.k_lin",
                    }.get(a, a),
                    i,
                ),
                None,
            ),
        ),
        R(
            "attention",
            "joined without a transpose",
            S(steps={"attention.context": joined_unturned}),
        ),
        R("attention", r"\(K, H\)", S(split=interleaved)),
        R("attention", r"\(K, H\)", tensors("weight", columns_of_heads, "out_lin")),
        R("attention", "over queries", S(steps={"attention.weights": weighted(-2)})),
        R("attention", "denominator", S(steps={"attention.weights": one_over})),
        # linear layers
        R("linear", "transposed", tensors("weight", turned, *LINEARS)),
        R("linear", "transposed|rows for columns", tensors("weight", reread, *LINEARS)),
        R(
            "linear",
            "(out_lin|attention.output.dense): bias missing",
            tensors("bias", lambda b: 0 * b, "out_lin"),
        ),
        R(
            "linear",
            "bias missing, in every|no bias anywhere",
            tensors("bias", lambda b: 0 * b, *LINEARS),
        ),
        R("linear", "first text only", S(steps=on_first("ffn.lin1", slice(1)))),
        R("linear", "bias added twice", tensors("bias", lambda b: 2 * b, "ffn.lin2")),
        R("linear", "word|id", read(lambda n, w, _: np.roll(w, -1, 0) if n == words else None)),
        # embeddings
        R("embeddings", "count from 1", S(positions=lambda p, at: at + 1)),
        R("embeddings", "count from 2", S(positions=lambda p, at: at + 2), MLM),
        R("embeddings", "real tokens", S(positions=shifted_places(1, 0)), inputs="mixed"),
        R("embeddings", "real tokens", S(positions=shifted_places(2, 1)), inputs="mixed"),
        R("embeddings", "positions are 0", S(positions=lambda p, at: 0 * at)),
        R(
            "embeddings",
            "one vector|token type",
            S(steps={"embeddings.sum": lambda p, n, x: x + (np.arange(x.shape[-1]) % 5 - 2) / 90}),
            family="distilbert",
        ),
        R(
            "embeddings",
            "changed places",
            S(steps={types: type_rows(lambda t: 1 - t)}),
            family="bert",
        ),
        R("embeddings", "ignored", S(steps={types: type_rows(lambda t: 0 * t)}), family="bert"),
        R(
            "embeddings",
            "embeddings.LayerNorm: not applied",
            S(norms={"embeddings.LayerNorm": lambda x, g, b: x}),
        ),
        R(
            "embeddings",
            "position embeddings are missing",
            S(steps={"embeddings.sum": lambda p, n, x: x - p.at("embeddings.position_embeddings")}),
        ),
        # weights
        R("weights", "order of (their )?names|as text", read(in_text_order), model="deep"),
        R("weights", "of block 0", renamed(lambda layer, i: (layer, 0), (1,))),
        R("weights", "zero", tensors("weight", lambda w: 0 * w, "pre_classifier")),
        R(
            "weights",
            "random|not the file's|other weights",
            tensors("weight", random_like(1), "pre_classifier"),
        ),
        R(
            "weights",
            "random|not the file's|other weights",
            tensors("weight", random_like(2), "attention.v_lin", blocks=(1,)),
        ),
        R("weights", "zero", tensors("weight", lambda w: 0 * w, "vocab_transform"), MLM),
        R(
            "weights",
            "random|not the file's|other weights|likeness",
            tensors("weight", random_like(3), "vocab_projector"),
            MLM,
        ),
        R("weights", "zero", tensors("weight", lambda w: 0 * w, "vocab_projector"), MLM),
        R("weights", "another checkpoint|not the file's", read(another_checkpoint)),
        R("weights", "order", tensors("", lambda w: np.roll(w, 5, 0), "ffn.lin1", blocks=(1,))),
        # heads
        R(
            "heads",
            "pooler's function is tanh",
            S(steps=pool_function(np.tanh)),
            family="distilbert",
        ),
        R(
            "heads",
            "pooler's function is relu",
            S(steps=pool_function(lambda x: np.maximum(x, 0))),
            family="bert",
        ),
        R(
            "heads",
            "tanh.* relu|relu.*tanh",
            S(steps=pool_function(lambda x: np.maximum(np.tanh(x), 0))),
        ),
        R("heads", "no function", S(steps=pool_function(lambda x: x))),
        R("heads", "mean of all", S(steps=pooled(lambda p: p.last.mean(1)))),
        R("heads", "last (real )?token", S(steps=pooled(lambda p: p.last[:, -1]))),
        R(
            "heads",
            "without (pre_classifier|pooler.dense)",
            S(steps={"pooled": lambda p, n, x: p.last[:, 0]}, silent=("pre_classifier",)),
        ),
        R(
            "heads",
            "no activation|no function",
            S(steps={"vocab_activation": lambda p, n, x: p.at("vocab_transform")}),
            MLM,
        ),
        R(
            "heads",
            "(vocab_layer_norm|transform.LayerNorm): not applied",
            S(norms={"vocab_layer_norm": lambda x, g, b: x}),
            MLM,
        ),
        R("heads", "bias missing", tensors("bias", lambda b: 0 * b, "vocab_projector"), MLM),
        R("heads", "changed places", S(base="start and end swapped"), ANSWERS),
        # precision
        R("precision", "float16", tensors("", half)),
        R("precision", "bfloat16", tensors("", HALVES["bfloat16"]), MLM),
        R("precision", "float16", S(steps=autocast("float16"))),
        R("precision", "bfloat16", S(steps=autocast("bfloat16")), MLM),
        R("precision", "float16", every_step(half), only=("full", "hidden")),
        R("precision", "int8", tensors("weight", int8, *LINEARS)),
        R("precision", "int8", S(steps=computed(int8_dynamic, *LINEARS))),
        R("precision", "int8", S(steps=computed(int8_of_tokens, *LINEARS)), MLM),
        R("precision", "4 bits", tensors("weight", in_blocks(32, four_bits), *LINEARS)),
        R(
            "precision",
            "4 bits",
            tensors("weight", in_blocks(32, four_bits_and_least), *LINEARS),
            MLM,
        ),
        R("precision", "TF32|11 bits", S(steps=tf32_products())),
        # others
        R("others", "dropout", S(steps={"attention.weights": dropped(0.1)}), only=("full",)),
        R("others", "dropout", S(steps={"ffn.lin2": dropped(0.1)}), only=("full",)),
        R(
            "others",
            "last block but one|block is skipped",
            S(steps=pooled(lambda p: p.before[:, 0])),
        ),
    ]
    return [each for row in made for each in families(row)]


def families(row: Report) -> list[Report]:
    """A row for every family that it is of."""
    both = [row.family] if row.family else ["distilbert", "bert"]
    return [replace(row, family=family) for family in both]
