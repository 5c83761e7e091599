"""The faults that are planted: for every text of the oracle's catalogue a port that does just that.

Here are those of blocks; ends.py has those of both ends.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from port.ends import of_embeddings, of_heads
from port.faults import (
    ACTIVATIONS,
    LINEARS,
    NORMS,
    OF_BLOCK,
    Array,
    FaultyPort,
    Plan,
    Step,
    altered,
    bfloat16,
    float16,
    int8,
    interleaved,
    joined_unturned,
    keys_as_values,
    masked,
    norm,
    overflowing,
    renamed,
    scores_and,
    unturned,
    weighted,
)
from port.planted import Planted, at, one, value


def catalogue(blocks: int) -> Iterator[Planted]:
    """Every fault, in some port.

    What a port's code does, it does in every block; what it reads wrongly, it may read for one.
    """
    yield from of_attention()
    for name, f in ACTIVATIONS.items():
        yield one(f"computed with {name}", Plan(activation=f))
    yield from of_linears(blocks)
    yield from of_norms()
    yield from of_residuals()
    yield from of_embeddings()
    yield from of_blocks(blocks)
    yield from of_heads()


def value_last(x: Array) -> Array:
    """(batch, length, width, heads) -> (batch, length, width * heads)."""
    return x.reshape(*x.shape[:2], -1)


def of_attention() -> Iterator[Planted]:
    def width(p: FaultyPort) -> float:
        return p.at("attention.q_lin").shape[-1]

    def head(p: FaultyPort) -> float:
        return width(p) / p.heads

    factors: dict[str, Callable[[FaultyPort], float]] = {
        "the scores are not divided by the root of the head's width": lambda p: head(p) ** 0.5,
        "the scores are multiplied by the root of the head's width, not divided": head,
        "the scores are divided by the root of the model's width, not the head's": (
            lambda p: (head(p) / width(p)) ** 0.5
        ),
        "the scores are divided by the root of the head's width twice": lambda p: head(p) ** -0.5,
        "the scores are divided by the root of the number of heads": (
            lambda p: (head(p) / p.heads) ** 0.5
        ),
        "the scores are divided by the head's width, not by its root": lambda p: head(p) ** -0.5,
    }
    for text, factor in factors.items():
        yield one(text, at(attention__scores=lambda p, name, x, f=factor: x * f(p)))
    yield one(
        "the heads are split as (K, H): their features are taken to be interleaved",
        Plan(split=interleaved),
    )
    yield one(
        "the heads are split without a transpose: (length, H, K) read as (H, length, K)",
        Plan(split=unturned),
    )
    yield one(
        "the heads are joined without a transpose: (H, length, K) read as (length, H, K)",
        at(attention__context=joined_unturned),
    )
    yield one(
        "the heads are interleaved, (K, H), where they are split and where they are joined",
        Plan(split=interleaved, merge=lambda x: value_last(x.transpose(0, 2, 3, 1))),
    )
    yield one(
        "the heads are split and joined without transposes, as (H, length, K)",
        Plan(split=unturned, merge=lambda x: x.reshape(len(x), x.shape[2], -1)),
    )
    yield one("the values are the keys", at(attention__context=keys_as_values))

    masks: dict[str, Step] = {
        "the mask is ignored": scores_and(lambda s, m: s),
        "the mask is inverted": masked(lambda k, q: ~k),
        "the mask hides queries, not keys": masked(lambda k, q: q),
        "the mask hides both queries and keys": masked(lambda k, q: k & q),
        "the mask is added to the scores as 0 and 1": scores_and(lambda s, m: s + m),
        "the mask is added to the scores as 1 and 0": scores_and(lambda s, m: s + 1 - m),
        "the scores are multiplied by the mask": scores_and(lambda s, m: s * m),
        "a causal mask: later tokens are not heard": masked(
            lambda k, q: k & np.tri(k.shape[-1], dtype=bool)
        ),
        "hidden keys get -100 added, not the smallest number": scores_and(
            lambda s, m: s - 100 * (m == 0)
        ),
        "hidden keys get -10000 added, not the smallest number": scores_and(
            lambda s, m: s - 1e4 * (m == 0)
        ),
    }
    for text, step in masks.items():
        yield one(text, at(attention__masked_scores=step))
    yield one(
        "the weights are multiplied by the mask after the softmax, the scores not",
        at(
            attention__masked_scores=masks["the mask is ignored"],
            attention__weights=lambda p, name, x: x * p.mask[:, None, None, :],
        ),
    )
    weights: dict[str, Step] = {
        "the softmax is over queries, not keys": weighted(-2),
        "the softmax is over heads, not keys": weighted(1),
    }
    for text, step in weights.items():
        yield one(text, at(attention__weights=step))
    yield one(
        "no softmax: the weights are the scores",
        at(attention__weights=lambda p, name, x: p.at("attention.masked_scores")),
        inputs="whole",  # else a hidden key's number, 1e38, is all there is to see
    )
    text = "the softmax does not subtract the greatest score, and overflows"
    yield one(text, at(attention__weights=overflowing), loud=True)
    for text, base in {
        "the head mask is ignored": "head mask ignored",
        "the head mask is multiplied to the scores, not to the weights": "head mask before softmax",
    }.items():
        yield one(text, Plan(base=base), inputs="everything")


def of_linears(blocks: int) -> Iterator[Planted]:
    def wrong(kind: str, part: str, change: Callable[[Array], Array], *names: str) -> Iterator:
        yield Planted(f"{kind}, in every linear layer", altered(part, change, *LINEARS), kind)
        for i, name in enumerate(names or LINEARS):
            yield Planted(
                f"{name}: {kind}", altered(part, change, name, blocks=(i % blocks,)), kind
            )

    def turned(w: Array) -> Array:
        return w.T if w.shape[0] == w.shape[1] else w

    yield from wrong("weights transposed", "weight", turned, *LINEARS[:4])
    yield from wrong(
        "weights read in the other order (rows for columns)", "weight",
        lambda w: w.reshape(w.shape[::-1]).T if w.shape[0] != w.shape[1] else w, *LINEARS[4:],
    )  # fmt: skip
    yield from wrong("bias missing", "bias", lambda b: b * 0)
    yield from wrong("bias added twice", "bias", lambda b: b * 2)
    for kind, change in {
        "float16": float16,
        "bfloat16": bfloat16,
        "an int8 grid, one scale for all": int8,
        "an int8 grid, a scale for each row": partial(int8, axis=1),
    }.items():
        yield from wrong(f"weights rounded to {kind}", "weight", change)

    def mixed(**takes: str) -> Plan:
        table = {f"attention.{a}_lin": f"attention.{b}_lin" for a, b in takes.items()}
        return renamed(lambda layer, i: (table.get(layer, layer), i), None)

    for a, b in ("qk", "qv", "kv"):
        text = f"the weights of {a}_lin and {b}_lin have changed places"
        yield Planted(text, mixed(**{a: b, b: a}), "q, k, v")
        for c, d in ((a, b), (b, a)):
            yield Planted(f"{c}_lin has the weights of {d}_lin", mixed(**{c: d}), "q, k, v")
    yield Planted("q, k, v have the weights of k, v, q", mixed(q="k", k="v", v="q"), "q, k, v")
    yield Planted("q, k, v have the weights of v, q, k", mixed(q="v", k="q", v="k"), "q, k, v")
    for j in range(blocks):
        for layer in LINEARS:
            plan = renamed(
                lambda each, i, j=j, layer=layer: (each, j if each == layer else i),
                ((j + 1) % blocks,),
            )
            yield Planted(f"{layer} has the weights of block {j}", plan, "of another block")


def of_norms() -> Iterator[Planted]:
    kinds = {f"epsilon {e:g}": partial(norm, epsilon=e) for e in (1e-3, 1e-5, 1e-6, 1e-7, 1e-8)}
    kinds |= {
        "unbiased variance (n - 1)": partial(norm, less=1),
        "gain ignored": lambda x, g, b: norm(x, 1 + 0 * g, b),
        "gain and bias ignored": lambda x, g, b: norm(x, 1 + 0 * g, 0 * b),
        "bias ignored": lambda x, g, b: norm(x, g, 0 * b),
        "not applied": lambda x, g, b: x,
        "without subtracting the mean (RMSNorm)": partial(norm, centred=False),
        "over tokens instead of features": partial(norm, axis=1),
    }
    for kind, f in kinds.items():
        yield Planted(f"{kind}, in every norm", Plan(norms=dict.fromkeys(NORMS, f)), kind)
        for name in NORMS:
            yield Planted(f"{name}: {kind}", Plan(norms={name: f}), kind)
    yield one("no bias anywhere, in linear layers and norms", Plan(base="biases dropped"))
    swap = {"sa_layer_norm": "output_layer_norm", "output_layer_norm": "sa_layer_norm"}
    yield one(
        "sa_layer_norm and output_layer_norm have changed places",
        renamed(lambda layer, i: (swap.get(layer, layer), i), None),
    )


def of_residuals() -> Iterator[Planted]:
    def came(p: FaultyPort, part: str) -> Array:
        return p.came if part == "attention" else p.at("sa_layer_norm")

    made = {"attention": "attention.out_lin", "ffn": "ffn.lin2"}
    norms = {"attention": "sa_layer_norm", "ffn": "output_layer_norm"}
    missing: dict[str, Step] = {}
    before: dict[str, Step] = {}
    for part, y in made.items():
        missing[f"{part}_residual"] = lambda p, name, x, y=y: p.at(y)
        before[f"{part}_residual"] = lambda p, name, x, part=part, y=y: (
            p.normed(f"{OF_BLOCK}{p.number}.{norms[part]}", p.at(y)) + came(p, part)
        )
        before[norms[part]] = lambda p, name, x, part=part: p.at(f"{part}_residual")

    def some(steps: dict[str, Step], part: str) -> Plan:
        return Plan(
            steps={n: s for n, s in steps.items() if n in (f"{part}_residual", norms[part])}
        )

    for part in made:
        yield one(f"the residual of the {part} is missing", some(missing, part))
        twice: Step = lambda p, name, x, part=part: x + came(p, part)  # noqa: E731
        yield one(
            f"the residual of the {part} is added twice", Plan(steps={f"{part}_residual": twice})
        )
        yield one(
            f"the {part} is normed before its residual is added, not after", some(before, part)
        )
    yield one("the residuals are missing", Plan(steps=missing))
    yield one(
        "attention and ffn are normed before their residuals are added, not after",
        Plan(steps=before),
    )
    yield one(
        "the ffn's residual is the block's input, not the attention's norm",
        at(ffn_residual=lambda p, name, x: p.came + p.at("ffn.lin2")),
    )


def of_blocks(blocks: int) -> Iterator[Planted]:
    steps = (*LINEARS, "attention.scores", "attention.masked_scores", "attention.weights",
             "attention.context", "attention_residual", "sa_layer_norm", "ffn.activation",
             "ffn_residual", "output_layer_norm")  # fmt: skip

    def skipped(p: FaultyPort, once: Callable[[Array], Array], x: Array) -> Array:
        return p.keep(f"{OF_BLOCK}{p.number}.output_layer_norm", x)

    def twice(p: FaultyPort, once: Callable[[Array], Array], x: Array) -> Array:
        y = once(x)
        kept = dict(p.kept)
        y = once(y)
        p.kept.update({n: a for n, a in kept.items() if not n.endswith("output_layer_norm")})
        return y

    for i in (0, blocks - 1):
        yield one("the block is skipped", Plan(block=skipped, blocks=(i,)))
        yield one("the block is run twice", Plan(block=twice, blocks=(i,)))
    text = "the block hands on all numbers of the block before it"
    yield one(text, Plan(base="last block skipped", blocks=(blocks - 1,)))
    for j in range(blocks):
        plan = renamed(lambda layer, i, j=j: (layer, j), ((j + 1) % blocks,))
        yield Planted(f"the block has all weights of block {j}", plan, "all of another block")
    for kind, f in {"float16": float16, "bfloat16": bfloat16}.items():
        yield one(
            f"the steps of the block are rounded to {kind}",
            Plan(steps=dict.fromkeys(steps, value(f)), blocks=(1,)),
        )
