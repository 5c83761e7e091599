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
from npbert.families import FAMILIES, POOLER_LAYERS, TYPES, list_architectures
from npbert.oracle.mistakes.blocks import round_step
from npbert.oracle.mistakes.scene import Mistake, Scene
from npbert.oracle.replay import round_to_type
from npbert.textbook import Affine, Array, linear, softmax

POSITION_STEP: Final = "embeddings.position_embeddings"
WORD_STEP: Final = "embeddings.word_embeddings"
NEXT_SENTENCE: Final = "seq_relationship"
SQUARE_LAYERS: Final = (*POOLER_LAYERS, "vocab_transform")


def embedding_mistakes(config: Config) -> Iterator[Mistake]:
    """Words, places, types where the model has them, and their sum."""
    for text, shift in {
        "positions count from 1": lambda s: token_positions(s) + 1,
        "positions count from 2, as RoBERTa's do": lambda s: token_positions(s) + 2,
        "positions run backwards": lambda s: s.call.length - 1 - token_positions(s),
        "position ids are ignored: positions are 0, 1, 2 ...": count_positions,
        "positions count real tokens only, not padding": count_real_tokens,
        "all positions are 0": lambda s: 0 * token_positions(s),
        "positions run on from one sequence to the next": lambda s: np.arange(
            len(token_positions(s))
        ),
    }.items():
        yield Mistake(text, {POSITION_STEP: partial(position_rows, shift)})
    yield Mistake(
        "positions are sines and cosines, not the file's", {POSITION_STEP: sinusoidal_positions}
    )
    yield Mistake(
        "the position embeddings are missing",
        {"embeddings.sum": lambda s: s.x - s.value(POSITION_STEP)},
    )
    yield Mistake(
        "the word embeddings are multiplied by the root of the width",
        {WORD_STEP: lambda s: s.x * math.sqrt(len(s.x))},
    )
    yield Mistake(
        "the sequences of choices are sorted by choice, then by example",
        {
            WORD_STEP: sort_by_choice,
            POSITION_STEP: sort_by_choice,
            TYPES: sort_by_choice,
            "attention.masked_scores": mask_by_choice,
        },
    )
    yield Mistake("padding has no word embedding", {WORD_STEP: zero_padding})
    if config.type_vocab_size:
        yield from token_type_mistakes()
    else:
        yield Mistake(
            "one vector is added to all embeddings, as BERT adds a token type's",
            {"embeddings.sum": add_one_vector},
        )
    for kind in ("float16", "bfloat16"):
        yield Mistake(
            f"the embedding tables are rounded to {kind}",
            {
                WORD_STEP: partial(round_step, kind),
                POSITION_STEP: partial(round_step, kind),
                TYPES: partial(round_step, kind),
            },
        )


def token_type_mistakes() -> Iterator[Mistake]:
    """Token types that are others than those given, and what becomes of their vectors."""
    for text, change in {
        "the token types are ignored: all are 0": lambda types: 0 * types,
        "all token types are 1": lambda types: 0 * types + 1,
        "token types 0 and 1 have changed places": lambda types: np.where(
            types < 2, 1 - types, types
        ),
        "token types count from 1": lambda types: types + 1,
    }.items():
        yield Mistake(text, {TYPES: partial(token_type_rows, change)})
    yield Mistake(
        "the token type embeddings are missing", {"embeddings.sum": lambda s: s.x - s.value(TYPES)}
    )
    yield Mistake(
        "the token type embeddings are added twice",
        {"embeddings.sum": lambda s: s.x + s.value(TYPES)},
    )
    yield Mistake(
        "the token type embeddings are added behind the norm, not before it",
        {
            "embeddings.sum": lambda s: s.x - s.value(TYPES),
            "embeddings.LayerNorm": lambda s: s.x + s.value(TYPES),
        },
    )


def token_type_rows(change: Callable[[Ids], Ids], scene: Scene) -> Array:
    """Rows of the table of token types; beyond its end it begins again."""
    rows = scene.call.model.encoder.token_type_embeddings
    assert rows is not None  # only models with token types have these mistakes
    return rows[change(scene.call.pack.token_type_ids) % len(rows)].T


def token_positions(scene: Scene) -> Ids:
    """The positions as they should be."""
    return scene.call.pack.position_ids


def count_positions(scene: Scene) -> Ids:
    """0, 1, 2 ... for every sequence."""
    return np.tile(np.arange(scene.call.length), scene.call.batch)


def count_real_tokens(scene: Scene) -> Ids:
    """The number of real tokens before each, as fairseq counts."""
    key_mask = scene.call.inputs.key_mask
    return np.maximum(key_mask.cumsum(axis=1) - 1, 0).ravel()


def position_rows(places: Callable[[Scene], Ids], scene: Scene) -> Array:
    """Rows of the position table; beyond its end it begins again."""
    rows = scene.call.model.encoder.position_embeddings
    return rows[places(scene) % len(rows)].T


def sinusoidal_positions(scene: Scene) -> Array:
    """Sinusoidal positions."""
    config = scene.call.model.config
    return sinusoids(config.max_positions, config.hidden_size)[token_positions(scene)].T


def zero_padding(scene: Scene) -> Array:
    """Zeros for padding."""
    return scene.x * scene.call.inputs.key_mask.reshape(1, -1)


def add_one_vector(scene: Scene) -> Array:
    """The vector that would explain most, if it is the same for all tokens."""
    theirs = scene.call.candidate.get("embeddings.sum")
    if theirs is None:
        normed = scene.call.candidate.get("embeddings.LayerNorm")
        return scene.x if normed is None else scene.x + vector_before_norm(scene, normed)
    difference = scene.call.layout.columns("embeddings.sum", theirs) - scene.x
    return scene.x + difference.mean(axis=-1, keepdims=True)


def vector_before_norm(scene: Scene, normed: Array) -> Array:
    """The vector, but for its mean, that makes of the sums what the norm gave.  (D, 1)

    A norm gives z = (x + v - mean) / sd of each token, so that sd z - v = x, all less their means:
    linear in v and in every sd.
    """
    norm = scene.call.model.encoder.layer_norm
    live = scene.call.inputs.key_mask.ravel()
    z = ((scene.call.layout.columns("embeddings.LayerNorm", normed) - norm.bias) / norm.weight)[
        :, live
    ]
    x = scene.x[:, live] - scene.x[:, live].mean(axis=0)
    if not np.isfinite(z).all():
        return np.zeros((len(z), 1), z.dtype)
    apart = np.eye(live.sum()) - 1 / live.sum()  # takes off the mean over tokens, and so v
    sd = np.linalg.lstsq(apart * (z.T @ z), (z * (x @ apart)).sum(axis=0), rcond=None)[0]
    return (z * sd - x).mean(axis=1, keepdims=True)


def choice_order(scene: Scene) -> Ids:
    """The sequence that stands in each one's place, if choices are sorted first."""
    batch = scene.call.batch
    return np.arange(batch).reshape(-1, scene.call.inputs.choices or 1).T.ravel()


def sort_by_choice(scene: Scene) -> Array:
    """Whole sequences in another order."""
    order = choice_order(scene)
    return scene.x.reshape(len(scene.x), scene.call.batch, -1)[:, order].reshape(scene.x.shape)


def mask_by_choice(scene: Scene) -> Array:
    """The mask of the sequence that stands in this one's place."""
    key_mask = scene.call.pack.key_masks[choice_order(scene)[scene.sequence]]
    return np.where(key_mask, scene.value("attention.scores"), np.finfo(scene.x.dtype).min)


def head_mistakes(config: Config) -> Iterator[Mistake]:
    """What is pooled, by what function, and what becomes of the logits."""
    for text, offset in {"the second token": 1, "the last token": 10**9}.items():
        yield Mistake(
            f"{text} is pooled, not the first",
            {"pre_classifier": partial(pool_from, partial(pick_column, offset))},
        )
    yield Mistake(
        "the last real token is pooled, not the first",
        {"pre_classifier": partial(pool_from, last_token)},
    )
    yield Mistake(
        "the mean of all tokens is pooled, not the first",
        {"pre_classifier": partial(pool_from, partial(average_tokens, False))},
    )
    yield Mistake(
        "the mean of all real tokens is pooled, not the first",
        {"pre_classifier": partial(pool_from, partial(average_tokens, True))},
    )
    right = FAMILIES[config.family].pooler
    for name in ("tanh", "relu", "linear", "gelu", "sigmoid", "silu"):
        text = "no function at all" if name == "linear" else name
        if name != right:
            yield Mistake(
                f"the pooler's function is {text}, not {right}",
                {"pooled": partial(pool_with, name)},
            )
    yield Mistake(
        "the classifier reads the first token without pre_classifier",
        {"pooled": lambda s: s.head_input[:, s.first_columns()]},
    )
    for name in linear_head_layers(config):
        yield Mistake(f"{name}: bias missing", {name: lambda s: s.x - head_layer(s).bias})
        yield Mistake(f"{name}: bias added twice", {name: lambda s: s.x + head_layer(s).bias})
        for kind in ("float16", "bfloat16"):
            yield Mistake(
                f"{name}: weights rounded to {kind}",
                {name: partial(change_head, partial(round_weights, kind))},
            )
        if name in SQUARE_LAYERS:
            yield Mistake(
                f"{name}: weights transposed", {name: partial(change_head, lambda w: w.T)}
            )
    yield Mistake(
        "vocab_projector has the word embeddings for its weights, though they are not tied",
        {"vocab_projector": project_by_words},
    )
    yield Mistake(
        "start and end have changed places",
        {
            "start_logits": lambda s: s.value("qa_outputs")[1:],
            "end_logits": lambda s: s.value("qa_outputs")[:1],
        },
    )
    if NEXT_SENTENCE in linear_head_layers(config):
        yield Mistake(
            "the logits of the next sentence have changed places: the first says that it follows",
            {NEXT_SENTENCE: swap_rows, "logits": swap_logits},
        )
    yield Mistake(
        "the logits are probabilities: a softmax too many", {"logits": lambda s: softmax(s.x)}
    )
    yield Mistake(
        "the logits are probabilities: a sigmoid too many", {"logits": lambda s: sigmoid(s.x)}
    )
    yield Mistake(
        "the logits are logarithms of probabilities", {"logits": lambda s: np.log(softmax(s.x))}
    )
    yield Mistake(
        "the logits of choices are gathered as if sequences were sorted by choice",
        {"logits": logits_by_choice},
    )


def linear_head_layers(config: Config) -> list[str]:
    """Return the linear layers of all heads that models of this family may have."""
    rows = list_architectures(config.family).values()
    shapes = {name: shape for row in rows for name, shape in row.layers.items()}
    return [name for name, shape in shapes.items() if len(shape.split()) == 2]


def swap_rows(scene: Scene) -> Array:
    """Two logits in the other order, unless the candidate's stand as they should."""
    theirs = scene.call.candidate.get(scene.name)
    if theirs is None:
        return scene.x  # swap_logits will do it
    columns = scene.call.layout.columns(scene.name, theirs)
    return min((scene.x, scene.x[::-1]), key=lambda x: float(np.abs(x - columns).max()))


def swap_logits(scene: Scene) -> Array:
    """The logits of the next sentence in the other order; those of other heads as they are."""
    layer = scene.call.model.head.get(NEXT_SENTENCE)
    return scene.x if layer is None else linear(layer, scene.value("pooled"))[::-1]


def project_by_words(scene: Scene) -> Array:
    """The vocabulary's logits by the embeddings, where the file has a projector of its own."""
    words = scene.call.model.encoder.word_embeddings
    return words @ scene.heard["vocab_layer_norm"] + head_layer(scene).bias


def pick_column(offset: int, scene: Scene) -> Array:
    """One token of every sequence."""
    return scene.head_input[:, scene.first_columns(offset)]


def last_token(scene: Scene) -> Array:
    """The last token of every sequence that is heard."""
    key_mask = scene.call.inputs.key_mask
    ends = key_mask.shape[1] - 1 - key_mask[:, ::-1].argmax(axis=1)
    return scene.head_input[:, np.array([s.start for s in scene.call.pack.spans]) + ends]


def average_tokens(real_only: bool, scene: Scene) -> Array:
    """The mean of every sequence's tokens."""
    key_mask = scene.call.inputs.key_mask if real_only else np.ones_like(scene.call.inputs.key_mask)
    means = [
        (scene.head_input[:, s] * k).sum(axis=-1) / max(k.sum(), 1)
        for s, k in zip(scene.call.pack.spans, key_mask, strict=True)
    ]
    return np.stack(means, axis=-1)


def pool_with(name: str, scene: Scene) -> Array:
    """Another function of what is pooled."""
    return ACTIVATIONS[name](scene.value("pre_classifier"))


def pool_from(which: Callable[[Scene], Array], scene: Scene) -> Array:
    """pre_classifier of something else than the first token."""
    return linear(scene.call.model.head["pre_classifier"], which(scene))


def head_layer(scene: Scene) -> Affine:
    """The weights of this layer of the head."""
    layer: Affine = scene.call.model.head[scene.name]
    return layer


def change_head(change: Callable[[Array], Array], scene: Scene) -> Array:
    """A layer of the head with weights of which something has become."""
    layer, name = head_layer(scene), scene.name
    if name == "pre_classifier":
        x = scene.head_input[:, scene.first_columns()]
    elif name == "vocab_projector":
        x = scene.heard["vocab_layer_norm"]
    else:  # of one that judges tokens, or of a classifier, which may have pooled
        x = scene.heard.get("pooled", scene.head_input)
    return change(layer.weight) @ x + layer.bias


def round_weights(kind: str, weight: Array) -> Array:
    """Return weights in fewer bits."""
    return round_to_type(weight, kind)


def logits_by_choice(scene: Scene) -> Array:
    """Logits in another order, where there are choices."""
    choices = scene.call.inputs.choices
    return scene.x.reshape(choices, -1).T.reshape(1, -1) if choices else scene.x
