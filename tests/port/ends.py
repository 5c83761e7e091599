"""The faults of both ends of a port, mistakes of no catalogue, and ports without any."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from port import softmax
from port.faults import (
    NORMS,
    POOLERS,
    Array,
    Blocks,
    FaultyPort,
    Plan,
    Step,
    Weights,
    altered,
    bfloat16,
    float16,
)
from port.planted import ANSWERS, CHOICES, CLASSES, MLM, Planted, at, one, value


def of_embeddings() -> Iterator[Planted]:
    def run_on(p: FaultyPort, at: Array) -> Array:
        return np.arange(at.size).reshape(at.shape)

    places: dict[str, Callable[[FaultyPort, Array], Array]] = {
        "positions count from 1": lambda p, at: at + 1,
        "positions count from 2, as RoBERTa's do": lambda p, at: at + 2,
        "positions run backwards": lambda p, at: at[:, ::-1],
        "positions count real tokens only, not padding": (
            lambda p, at: np.maximum(np.cumsum(p.mask, axis=1) - 1, 0)
        ),
        "all positions are 0": lambda p, at: at * 0,
        "positions run on from one sequence to the next": run_on,
    }
    for text, f in places.items():
        yield one(text, Plan(positions=f))
    text = "position ids are ignored: positions are 0, 1, 2 ..."
    yield one(text, Plan(base="position ids ignored"), inputs="everything")
    words, sums = "embeddings.word_embeddings", "embeddings.sum"
    yield one(
        "positions are sines and cosines, not the file's",
        Plan(steps={"embeddings.position_embeddings": sines}),
    )
    yield one(
        "the position embeddings are missing", Plan(steps={sums: lambda p, name, x: p.at(words)})
    )
    yield one(
        "the word embeddings are multiplied by the root of the width",
        Plan(base="word embeddings scaled"),
    )
    yield one(
        "padding has no word embedding",
        Plan(steps={words: lambda p, name, x: x * p.mask[..., None]}),
    )
    yield one(
        "one vector is added to all embeddings, as BERT adds a token type's",
        Plan(steps={sums: value(lambda x: x + np.sin(np.arange(x.shape[-1])) / 40)}),
    )
    for kind, f in {"float16": float16, "bfloat16": bfloat16}.items():
        yield one(
            f"the embedding tables are rounded to {kind}",
            altered("weight", f, words, "embeddings.position_embeddings"),
        )
    yield one(
        "the sequences of choices are sorted by choice, then by example",
        Plan(base="choices flattened first"), CHOICES,
    )  # fmt: skip


def of_heads() -> Iterator[Planted]:
    pooled: dict[str, Callable[[FaultyPort], Array]] = {
        "the second token is pooled, not the first": lambda p: p.last[:, 1],
        "the last token is pooled, not the first": lambda p: p.last[:, -1],
        "the last real token is pooled, not the first": last_real,
        "the mean of all tokens is pooled, not the first": lambda p: p.last.mean(1),
        "the mean of all real tokens is pooled, not the first": mean_real,
    }
    for text, which in pooled.items():
        yield one(text, at(pre_classifier=pooled_from(which)), CLASSES)
    for name, f in POOLERS.items():
        text = f"the pooler's function is {name}, not relu"
        yield one(text, at(pooled=lambda p, name, x, f=f: f(p.at("pre_classifier"))), CLASSES)
    yield one(
        "the classifier reads the first token without pre_classifier",
        Plan(steps={"pooled": lambda p, name, x: p.last[:, 0]}, silent=("pre_classifier",)),
        CLASSES,
    )
    layers = {
        "pre_classifier": CLASSES, "classifier": CLASSES, "qa_outputs": ANSWERS,
        "vocab_transform": MLM, "vocab_projector": MLM,
    }  # fmt: skip
    for layer, architecture in layers.items():
        kinds = {
            "bias missing": altered("bias", lambda b: b * 0, layer),
            "bias added twice": altered("bias", lambda b: b * 2, layer),
            "weights rounded to float16": altered("weight", float16, layer),
            "weights rounded to bfloat16": altered("weight", bfloat16, layer),
        }
        if layer in ("pre_classifier", "vocab_transform"):
            kinds["weights transposed"] = altered("weight", np.transpose, layer)
        for kind, plan in kinds.items():
            yield Planted(f"{layer}: {kind}", plan, f"head: {kind}", architecture)

    def tied(weights: Weights, blocks: Blocks) -> Weights:
        return weights | {
            "vocab_projector.weight": weights["embeddings.word_embeddings.weight"],
        }

    text = "vocab_projector has the word embeddings for its weights, though they are not tied"
    yield one(text, Plan(weights=tied))
    text = "start and end have changed places"
    yield one(text, Plan(base="start and end swapped"), ANSWERS)
    for text, f in {
        "the logits are probabilities: a softmax too many": lambda x: softmax(x, -1),
        "the logits are probabilities: a sigmoid too many": lambda x: 1 / (1 + np.exp(-x)),
        "the logits are logarithms of probabilities": lambda x: np.log(softmax(x, -1)),
    }.items():
        yield one(text, at(logits=value(f)), CLASSES)
    yield one(
        "the logits of choices are gathered as if sequences were sorted by choice",
        Plan(base="choices gathered first"), CHOICES,
    )  # fmt: skip


def pooled_from(which: Callable[[FaultyPort], Array]) -> Step:
    return lambda p, name, x: p.linear_of("pre_classifier", which(p))


def last_real(p: FaultyPort) -> Array:
    return np.stack([x[np.flatnonzero(m)[-1]] for x, m in zip(p.last, p.mask, strict=True)])


def mean_real(p: FaultyPort) -> Array:
    return np.stack([x[m != 0].mean(0) for x, m in zip(p.last, p.mask, strict=True)])


def sines(p: FaultyPort, name: str, x: Array) -> Array:
    rates = [10000.0 ** -(i // 2 * 2 / x.shape[-1]) for i in range(x.shape[-1])]
    return np.array(
        [[[(math.cos if i % 2 else math.sin)(t * r) for i, r in enumerate(rates)] for t in row]
         for row in p.places]
    )  # fmt: skip


def strangers() -> Iterator[Planted]:
    """Ten mistakes of no catalogue; which step is the first to show them, their ports tell."""

    def shifted(p: FaultyPort, once: Callable[[Array], Array], x: Array) -> Array:
        return once(np.roll(x, 1, axis=1))

    def negated(p: FaultyPort, name: str, x: Array) -> Array:
        signs = np.ones(p.heads)
        signs[1] = -1
        return x * np.repeat(signs, x.shape[-1] // p.heads)

    def wrong_axes(x: Array, gain: Array, bias: Array) -> Array:
        spread = np.sqrt(x.var(1, keepdims=True) + 1e-12)
        return (x - x.mean(-1, keepdims=True)) / spread * gain + bias

    gelu = POOLERS["gelu"]
    yield one("the weights are squared", at(attention__weights=value(lambda x: x * x)))
    yield one("a relu after lin2", at(ffn__lin2=value(lambda x: np.maximum(x, 0))))
    yield one("tokens are shifted by one before the second block", Plan(block=shifted, blocks=(1,)))
    yield one("the second head's values are negated", at(attention__context=negated))
    yield one("scores are clipped at 1", at(attention__scores=value(lambda x: np.clip(x, -1, 1))))
    yield one("a norm's variance is over tokens", Plan(norms={"sa_layer_norm": wrong_axes}))
    yield one(
        "a residual is multiplied by 0.9",
        at(attention_residual=lambda p, name, x: x - p.came / 10),
    )
    yield one("gelu is applied twice", Plan(activation=lambda x: gelu(gelu(x))))
    yield one(
        "the weights of lin1 are clipped",
        altered("weight", lambda w: np.clip(w, -0.3, 0.3), "ffn.lin1", blocks=(1,)),
    )
    yield one("positions are multiplied by 2", Plan(positions=lambda p, at: 2 * at))


def correct(style: int, rng: np.random.Generator) -> Plan:
    """Ports in which nothing is wrong: sums in other orders, formulas written otherwise."""

    def in_chunks(a: Array, b: Array) -> Array:
        order = rng.permutation(a.shape[-1])
        cuts = np.sort(rng.integers(1, len(order), 3))
        return sum(a[..., c] @ b[..., c, :] for c in np.split(order, cuts))

    def one_by_one(a: Array, b: Array) -> Array:
        return np.cumsum(a[..., None] * b[..., None, :, :], axis=-2)[..., -1, :]

    def in_one_pass(x: Array, gain: Array, bias: Array) -> Array:
        mean = x.mean(-1, keepdims=True)
        variance = np.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
        return (
            x * (gain / np.sqrt(variance + 1e-12)) - mean / np.sqrt(variance + 1e-12) * gain + bias
        )

    def scores(p: FaultyPort, name: str, x: Array) -> Array:
        q, k = (p.split(p.at(f"attention.{n}_lin")) for n in "qk")
        return p.plan.product(q, k.swapaxes(2, 3)) / np.sqrt(q.shape[-1]).astype(x.dtype)

    def context(p: FaultyPort, name: str, x: Array) -> Array:
        return p.merge(p.plan.product(p.at("attention.weights"), p.split(p.at("attention.v_lin"))))

    def unguarded(p: FaultyPort, name: str, x: Array) -> Array:
        e = np.exp(p.at("attention.masked_scores"))
        return p.head_masks[p.number][:, None, None] * e / e.sum(-1, keepdims=True)

    product = (np.matmul, in_chunks, one_by_one)[style % 3]
    steps: dict[str, Step] = {"attention.scores": scores, "attention.context": context}
    if style % 2:
        steps["attention.weights"] = unguarded
    norms = dict.fromkeys(NORMS, in_one_pass) if style % 4 == 3 else {}
    return Plan(product=product, steps=steps, norms=norms)
