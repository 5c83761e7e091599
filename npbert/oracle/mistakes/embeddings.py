"""Mistakes with the embeddings: words, places, types where a model has them, and their sum."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.checkpoint.parameters import sinusoids
from npbert.encoder import Ids
from npbert.families import TYPES
from npbert.oracle.mistakes.blocks import round_step
from npbert.oracle.mistakes.scene import Mistake, Scene
from npbert.textbook import Array

POSITION_STEP: Final = "embeddings.position_embeddings"
WORD_STEP: Final = "embeddings.word_embeddings"


def embedding_mistakes(config: Config) -> Iterator[Mistake]:
    """Words, places, types where the model has them, and their sum."""
    shifts: dict[str, Callable[[Scene], Ids]] = {
        "positions count from 1": lambda s: token_positions(s) + 1,
        "positions count from 2, as RoBERTa's do": lambda s: token_positions(s) + 2,
        "positions run backwards": lambda s: s.call.length - 1 - token_positions(s),
        "position ids are ignored: positions are 0, 1, 2 ...": count_positions,
        "positions count real tokens only, not padding": count_real_tokens,
        "positions count real tokens only, from 1; padding has 0": partial(count_from, 1, 0),
        "positions count real tokens only, from 2; padding has 1, as RoBERTa's do": partial(
            count_from, 2, 1
        ),
        "positions count real tokens only, from 1; padding counts on": lambda s: (
            count_real_tokens(s) + 1
        ),
        "all positions are 0": lambda s: 0 * token_positions(s),
        "positions run on from one sequence to the next": lambda s: np.arange(
            len(token_positions(s))
        ),
    }
    for text, shift in shifts.items():
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
    for text, offset in {"behind": 1, "before": -1}.items():
        yield Mistake(
            f"every word has the embedding of the id {text} its own: the table begins at another "
            "row",
            {WORD_STEP: partial(change_words, offset)},
        )
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


def count_from(first: int, padding: int, scene: Scene) -> Ids:
    """The number of real tokens before each, from one on; padding has one position."""
    key_mask = scene.call.inputs.key_mask
    return np.where(key_mask, key_mask.cumsum(axis=1) - 1 + first, padding).ravel()


def position_rows(places: Callable[[Scene], Ids], scene: Scene) -> Array:
    """Rows of the position table; beyond its end it begins again."""
    rows = scene.call.model.encoder.position_embeddings
    return rows[places(scene) % len(rows)].T


def sinusoidal_positions(scene: Scene) -> Array:
    """Sinusoidal positions."""
    config = scene.call.model.config
    return sinusoids(config.max_positions, config.hidden_size)[token_positions(scene)].T


def change_words(offset: int, scene: Scene) -> Array:
    """Rows of the table of words, some further on."""
    rows = scene.call.model.encoder.word_embeddings
    return rows[(scene.call.pack.ids + offset) % len(rows)].T


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
