"""Mistakes at both ends: the embeddings, and the heads."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.checkpoint.parameters import sinusoids
from npbert.encoder import Ids
from npbert.engine.activations import ACTIVATIONS, sigmoid
from npbert.oracle.mistakes.blocks import rounded_off
from npbert.oracle.mistakes.scene import Fault, Scene
from npbert.oracle.replay import rounded
from npbert.textbook import Affine, Array, linear, softmax

PLACES: Final = "embeddings.position_embeddings"
WORDS: Final = "embeddings.word_embeddings"


def of_embeddings() -> Iterator[Fault]:
    """Words, places, and their sum."""
    for text, shift in {
        "positions count from 1": lambda s: positions(s) + 1,
        "positions count from 2, as RoBERTa's do": lambda s: positions(s) + 2,
        "positions run backwards": lambda s: s.call.length - 1 - positions(s),
        "position ids are ignored: positions are 0, 1, 2 ...": counted,
        "positions count real tokens only, not padding": real,
        "all positions are 0": lambda s: 0 * positions(s),
        "positions run on from one sequence to the next": lambda s: np.arange(len(positions(s))),
    }.items():
        yield Fault(text, {PLACES: partial(table, shift)})
    yield Fault("positions are sines and cosines, not the file's", {PLACES: waves})
    yield Fault("the position embeddings are missing", {"embeddings.sum": lambda s: s.at(WORDS)})
    yield Fault(
        "the word embeddings are multiplied by the root of the width",
        {WORDS: lambda s: s.x * math.sqrt(len(s.x))},
    )
    yield Fault(
        "the sequences of choices are sorted by choice, then by example",
        {
            WORDS: sorted_by_choice,
            PLACES: sorted_by_choice,
            "attention.masked_scores": masked_by_choice,
        },
    )
    yield Fault("padding has no word embedding", {WORDS: unpadded})
    yield Fault(
        "one vector is added to all embeddings, as BERT adds a token type's",
        {"embeddings.sum": one_vector},
    )
    for kind in ("float16", "bfloat16"):
        yield Fault(
            f"the embedding tables are rounded to {kind}",
            {
                WORDS: partial(rounded_off, kind),
                PLACES: partial(rounded_off, kind),
            },
        )


def positions(scene: Scene) -> Ids:
    """The positions as they should be."""
    return scene.call.pack.position_ids


def counted(scene: Scene) -> Ids:
    """0, 1, 2 ... for every sequence."""
    return np.tile(np.arange(scene.call.length), scene.call.batch)


def real(scene: Scene) -> Ids:
    """The number of real tokens before each, as fairseq counts."""
    keep = scene.call.inputs.keep
    return np.maximum(keep.cumsum(axis=1) - 1, 0).ravel()


def table(places: Callable[[Scene], Ids], scene: Scene) -> Array:
    """Rows of the position table; beyond its end it begins again."""
    rows = scene.call.model.encoder.position_embeddings
    return rows[places(scene) % len(rows)].T


def waves(scene: Scene) -> Array:
    """Sinusoidal positions."""
    config = scene.call.model.config
    return sinusoids(config.max_positions, config.hidden_size)[positions(scene)].T


def unpadded(scene: Scene) -> Array:
    """Zeros for padding."""
    return scene.x * scene.call.inputs.keep.reshape(1, -1)


def one_vector(scene: Scene) -> Array:
    """The vector that would explain most, if it is the same for all tokens."""
    theirs = scene.call.candidate.get("embeddings.sum")
    if theirs is None:
        normed = scene.call.candidate.get("embeddings.LayerNorm")
        return scene.x if normed is None else scene.x + behind_the_norm(scene, normed)
    difference = scene.call.layout.columns("embeddings.sum", theirs) - scene.x
    return scene.x + difference.mean(axis=-1, keepdims=True)


def behind_the_norm(scene: Scene, normed: Array) -> Array:
    """The vector, but for its mean, that makes of the sums what the norm gave.  (D, 1)

    A norm gives z = (x + v - mean) / sd of each token, so that sd z - v = x, all less their means:
    linear in v and in every sd.
    """
    norm = scene.call.model.encoder.layer_norm
    live = scene.call.inputs.keep.ravel()
    z = ((scene.call.layout.columns("embeddings.LayerNorm", normed) - norm.bias) / norm.weight)[
        :, live
    ]
    x = scene.x[:, live] - scene.x[:, live].mean(axis=0)
    if not np.isfinite(z).all():
        return np.zeros((len(z), 1), z.dtype)
    apart = np.eye(live.sum()) - 1 / live.sum()  # takes off the mean over tokens, and so v
    sd = np.linalg.lstsq(apart * (z.T @ z), (z * (x @ apart)).sum(axis=0), rcond=None)[0]
    return (z * sd - x).mean(axis=1, keepdims=True)


def by_choice_first(scene: Scene) -> Ids:
    """The sequence that stands in each one's place, if choices are sorted first."""
    batch = scene.call.batch
    return np.arange(batch).reshape(-1, scene.call.inputs.choices or 1).T.ravel()


def sorted_by_choice(scene: Scene) -> Array:
    """Whole sequences in another order."""
    order = by_choice_first(scene)
    return scene.x.reshape(len(scene.x), scene.call.batch, -1)[:, order].reshape(scene.x.shape)


def masked_by_choice(scene: Scene) -> Array:
    """The mask of the sequence that stands in this one's place."""
    keep = scene.call.pack.keep[by_choice_first(scene)[scene.sequence]]
    return np.where(keep, scene.at("attention.scores"), np.finfo(scene.x.dtype).min)


def of_heads(config: Config) -> Iterator[Fault]:
    """What is pooled, by what function, and what becomes of the logits."""
    for text, offset in {"the second token": 1, "the last token": 10**9}.items():
        yield Fault(
            f"{text} is pooled, not the first",
            {"pre_classifier": partial(pooled_by, partial(column, offset))},
        )
    yield Fault(
        "the last real token is pooled, not the first",
        {"pre_classifier": partial(pooled_by, last_real)},
    )
    yield Fault(
        "the mean of all tokens is pooled, not the first",
        {"pre_classifier": partial(pooled_by, partial(averaged, False))},
    )
    yield Fault(
        "the mean of all real tokens is pooled, not the first",
        {"pre_classifier": partial(pooled_by, partial(averaged, True))},
    )
    for name in ("tanh", "linear", "gelu", "sigmoid", "silu"):
        text = "no function at all" if name == "linear" else name
        yield Fault(
            f"the pooler's function is {text}, not relu",
            {"pooled": partial(pooled_with, name)},
        )
    yield Fault(
        "the classifier reads the first token without pre_classifier",
        {"pooled": lambda s: s.last[:, s.first()]},
    )
    for name in (
        "pre_classifier",
        "classifier",
        "qa_outputs",
        "vocab_transform",
        "vocab_projector",
    ):
        yield Fault(f"{name}: bias missing", {name: lambda s: s.x - head(s).bias})
        yield Fault(f"{name}: bias added twice", {name: lambda s: s.x + head(s).bias})
        for kind in ("float16", "bfloat16"):
            yield Fault(
                f"{name}: weights rounded to {kind}",
                {name: partial(head_with, partial(in_bits, kind))},
            )
        if name in ("pre_classifier", "vocab_transform"):
            yield Fault(f"{name}: weights transposed", {name: partial(head_with, lambda w: w.T)})
    yield Fault(
        "vocab_projector has the word embeddings for its weights, though they are not tied",
        {"vocab_projector": projected_by_words},
    )
    yield Fault(
        "start and end have changed places",
        {
            "start_logits": lambda s: s.at("qa_outputs")[1:],
            "end_logits": lambda s: s.at("qa_outputs")[:1],
        },
    )
    yield Fault(
        "the logits are probabilities: a softmax too many", {"logits": lambda s: softmax(s.x)}
    )
    yield Fault(
        "the logits are probabilities: a sigmoid too many", {"logits": lambda s: sigmoid(s.x)}
    )
    yield Fault(
        "the logits are logarithms of probabilities", {"logits": lambda s: np.log(softmax(s.x))}
    )
    yield Fault(
        "the logits of choices are gathered as if sequences were sorted by choice",
        {"logits": by_choice},
    )


def projected_by_words(scene: Scene) -> Array:
    """The vocabulary's logits by the embeddings, where the file has a projector of its own."""
    words = scene.call.model.encoder.word_embeddings
    return words @ scene.heard["vocab_layer_norm"] + head(scene).bias


def column(offset: int, scene: Scene) -> Array:
    """One token of every sequence."""
    return scene.last[:, scene.first(offset)]


def last_real(scene: Scene) -> Array:
    """The last token of every sequence that is heard."""
    keep = scene.call.inputs.keep
    ends = keep.shape[1] - 1 - keep[:, ::-1].argmax(axis=1)
    return scene.last[:, np.array([s.start for s in scene.call.pack.spans]) + ends]


def averaged(real_only: bool, scene: Scene) -> Array:
    """The mean of every sequence's tokens."""
    keep = scene.call.inputs.keep if real_only else np.ones_like(scene.call.inputs.keep)
    means = [
        (scene.last[:, s] * k).sum(axis=-1) / max(k.sum(), 1)
        for s, k in zip(scene.call.pack.spans, keep, strict=True)
    ]
    return np.stack(means, axis=-1)


def pooled_with(name: str, scene: Scene) -> Array:
    """Another function of what is pooled."""
    return ACTIVATIONS[name](scene.at("pre_classifier"))


def pooled_by(which: Callable[[Scene], Array], scene: Scene) -> Array:
    """pre_classifier of something else than the first token."""
    return linear(scene.call.model.head["pre_classifier"], which(scene))


def head(scene: Scene) -> Affine:
    """The weights of this layer of the head."""
    return scene.call.model.head[scene.name]


def head_with(change: Callable[[Array], Array], scene: Scene) -> Array:
    """A layer of the head with weights of which something has become."""
    layer, name = head(scene), scene.name
    if name == "pre_classifier":
        x = scene.last[:, scene.first()]
    elif name == "vocab_projector":
        x = scene.heard["vocab_layer_norm"]
    else:  # of one that judges tokens, or of a classifier, which may have pooled
        x = scene.heard.get("pooled", scene.last) if name == "classifier" else scene.last
    return change(layer.weight) @ x + layer.bias


def in_bits(kind: str, weight: Array) -> Array:
    """Return weights in fewer bits."""
    return rounded(weight, kind)


def by_choice(scene: Scene) -> Array:
    """Logits in another order, where there are choices."""
    choices = scene.call.inputs.choices
    return scene.x.reshape(choices, -1).T.reshape(1, -1) if choices else scene.x
