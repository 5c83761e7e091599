"""Names and shapes: which parameters an architecture has, and where they hang in the forward pass.

The tables are the whole of it; loading, saving and drawing fresh weights all read them.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from npbert.config import Config
from npbert.textbook import Affine, Array, Attention, FeedForward

# A linear layer is "out in", a norm is its width, a table is "rows columns" without a bias.
TABLES: Final = {
    "embeddings.word_embeddings": "V D",
    "embeddings.position_embeddings": "P D",
}
NORM: Final = "embeddings.LayerNorm"
BLOCK: Final = {
    # below "transformer.layer.{n}."   shape of the weight
    "attention.q_lin": "A D",
    "attention.k_lin": "A D",
    "attention.v_lin": "A D",
    "attention.out_lin": "D A",
    "sa_layer_norm": "D",
    "ffn.lin1": "F D",
    "ffn.lin2": "D F",
    "output_layer_norm": "D",
}
POOLER: Final = {"pre_classifier": "D D"}
HEADS: Final[Mapping[str, Mapping[str, str]]] = {
    "base": {},  # and the pooler, if the file has it
    "for_masked_language_modeling": {
        "vocab_transform": "D D", "vocab_layer_norm": "D", "vocab_projector": "V D",
    },
    "for_sequence_classification": {**POOLER, "classifier": "C D"},
    "for_token_classification": {"classifier": "C D"},
    "for_question_answering": {"qa_outputs": "2 D"},
    "for_multiple_choice": {**POOLER, "classifier": "1 D"},
}  # fmt: skip
FAMILY: Final = {name for head in HEADS.values() for name in head}

WORDS: Final = "embeddings.word_embeddings.weight"
PROJECTOR: Final = "vocab_projector.weight"  # the words again, as PyTorch ties them
PLACES: Final = "embeddings.position_embeddings.weight"

Parameters = dict[str, Array]


class Block(NamedTuple):
    """The weights of one transformer block, under the checkpoint's own names."""

    attention: Attention
    sa_layer_norm: Affine
    ffn: FeedForward
    output_layer_norm: Affine


class Encoder(NamedTuple):
    """The weights below every head."""

    word_embeddings: Array  # (V, D)
    position_embeddings: Array  # (P, D)
    layer_norm: Affine
    blocks: tuple[Block, ...]


class Shape(NamedTuple):
    """A shape in letters and numbers."""

    letters: tuple[str, ...]
    numbers: tuple[int, ...]


def shapes(config: Config, architecture: str, *, pooled: bool = False) -> dict[str, Shape]:
    """Return every parameter's name and shape, in the order of the forward pass."""
    made: dict[str, Shape] = {}

    def add(name: str, letters: str, block: int = 0) -> None:
        sizes = config.sizes(block)
        split = tuple(letters.split())
        numbers = tuple(sizes.get(letter) or int(letter) for letter in split)
        made[f"{name}.weight"] = Shape(split, numbers)
        if name not in TABLES:
            made[f"{name}.bias"] = Shape(split[:1], numbers[:1])

    for name, letters in {**TABLES, NORM: "D"}.items():
        add(name, letters)
    for i in range(config.num_blocks):
        for name, letters in BLOCK.items():
            add(f"transformer.layer.{i}.{name}", letters, i)
    for name, letters in {**(POOLER if pooled else {}), **HEADS[architecture]}.items():
        add(name, letters)
    return made


def fresh(
    wanted: Mapping[str, Shape], config: Config, dtype: type[np.floating], seed: int
) -> Parameters:
    """Draw parameters as an untrained model has them.

    Matrices are normal(0, initializer_scale), norms 1 and 0, biases 0; positions are waves where
    the config says sinusoidal_pos_embds.  Draws are float64, so that a seed gives the same
    numbers in any dtype.
    """
    if not wanted:  # the usual case, and numpy.random takes 30 ms to import
        return {}
    rng = np.random.default_rng(seed)
    drawn: Parameters = {}
    for name, (_, shape) in wanted.items():
        if name == PLACES and config.sinusoidal_pos_embds:
            drawn[name] = sinusoids(*shape).astype(dtype)
        elif len(shape) == 2:
            drawn[name] = rng.normal(0, config.initializer_scale, shape).astype(dtype)
        else:
            drawn[name] = np.full(shape, name.endswith(".weight"), dtype)
    return drawn


def sinusoids(positions: int, width: int) -> Array:
    """sin and cos of p / 10000^(2i/D), side by side, in float32 as PyTorch keeps them.

    Source: Vaswani et al. 2017, section 3.5.  (positions, width)
    """
    angles = np.arange(positions)[:, None] / 10000 ** (np.arange(width) // 2 * 2 / width)
    waves = np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles))
    return waves.astype(np.float32)


def assemble(parameters: Parameters, config: Config) -> tuple[Encoder, dict[str, Affine]]:
    """Hang the parameters where the forward pass looks for them; vectors become columns."""

    def affine(name: str) -> Affine:
        weight = parameters[f"{name}.weight"]
        column = weight.reshape(-1, 1) if weight.ndim == 1 else weight
        return Affine(column, parameters[f"{name}.bias"].reshape(-1, 1))

    def block(under: str) -> Block:
        return Block(
            Attention(*(affine(f"{under}.attention.{name}") for name in Attention._fields)),
            affine(f"{under}.sa_layer_norm"),
            FeedForward(*(affine(f"{under}.ffn.{name}") for name in FeedForward._fields)),
            affine(f"{under}.output_layer_norm"),
        )

    blocks = [block(f"transformer.layer.{i}") for i in range(config.num_blocks)]
    encoder = Encoder(parameters[WORDS], parameters[PLACES], affine(NORM), tuple(blocks))
    heads = {name.rpartition(".")[0] for name in parameters} & FAMILY
    return encoder, {name: affine(name) for name in sorted(heads)}
