"""Malformed checkpoints: a table of known faults, and as many seeded random ones as wanted."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from corruption.checkpoint import (
    CONFIG,
    INDEX,
    PICKLE,
    SHARDS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    Corruption,
    write_checkpoint,
)
from corruption.files import NO_FILES
from corruption.header import CONTAINER, HEADER, join, split
from corruption.random import BINS, JSON, Change, cut, digit, flip
from corruption.settings import CONFIGS
from corruption.tokenizer import SETTINGS, TOKENIZERS, VOCABULARIES
from corruption.weights import INDEXES, PICKLES, TENSORS

__all__ = ["CORRUPTIONS", "Corruption", "corruptions", "drawn", "write_checkpoint"]

CORRUPTIONS = [
    *NO_FILES,
    *CONTAINER,
    *HEADER,
    *TENSORS,
    *INDEXES,
    *PICKLES,
    *CONFIGS,
    *TOKENIZERS,
    *SETTINGS,
    *VOCABULARIES,
]


def corruptions(seed: int, draws: int = 104) -> Iterator[Corruption]:
    """The whole table, then random faults: equal seeds give equal bytes."""
    yield from CORRUPTIONS
    yield from drawn(seed, range(draws))


def drawn(seed: int, numbers: Iterable[int]) -> Iterator[Corruption]:
    """Random faults, each by its number."""
    for i in numbers:
        label, file, change, into, structural = RANDOM[i % len(RANDOM)]
        yield _drawn(f"random: {label} ({i})", file, change, into, structural, (seed, i))


def _drawn(
    name: str, file: str, change: Change, into: str, structural: bool, seed: tuple[int, int]
) -> Corruption:
    def apply(folder: Path) -> None:
        data = (folder / file).read_bytes()
        if into != file:
            (folder / file).unlink()
        (folder / into).write_bytes(change(data, np.random.default_rng(seed)))

    return Corruption(name, apply, (into,), structural, sharded=file in (INDEX, *SHARDS))


def _digit_of_header(data: bytes, rng: np.random.Generator) -> bytes:
    header, tensors = split(data)
    return join(digit(header, rng), tensors)


def _flip_header(data: bytes, rng: np.random.Generator) -> bytes:
    header, tensors = split(data)
    return join(flip(header, rng), tensors)


def _flip_tensors(data: bytes, rng: np.random.Generator) -> bytes:
    header, tensors = split(data)
    return join(header, flip(tensors, rng))


def _wild_length(data: bytes, rng: np.random.Generator) -> bytes:
    """A length word of any magnitude beyond the file's, from a few kilobytes to 2**64."""
    return join(*split(data), length=len(data) + int(2 ** rng.uniform(0, 63.9)))


def _zeros_in_header(data: bytes, rng: np.random.Generator) -> bytes:
    """A block of the header's text is lost, as after a crash of the disk."""
    header, tensors = split(data)
    start = int(rng.integers(len(header.rstrip()) - 16))
    return join(header[:start] + bytes(16) + header[start + 16 :], tensors)


def _lost_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes of the header are gone, and everything after them moves up."""
    start, count = 8 + int(rng.integers(len(split(data)[0]) - 48)), int(rng.integers(1, 40))
    return data[:start] + data[start + count :]


def _more_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes slipped into the tensors, as text mode does to line ends."""
    start = len(data) - int(rng.integers(len(split(data)[1])))
    return data[:start] + rng.bytes(int(rng.integers(1, 40))) + data[start:]


# label, file that is read, how it changes, file that is written, whether that must be refused
RANDOM: list[tuple[str, str, Change, str, bool]] = [
    (label, file, change, file, structural)
    for label, file, change, structural in (
        ("weights cut", WEIGHTS, cut, True),
        ("bytes of the header flipped", WEIGHTS, _flip_header, False),
        ("a digit of the header changed", WEIGHTS, _digit_of_header, True),
        ("header length beyond the file", WEIGHTS, _wild_length, True),
        ("bytes of the tensors flipped", WEIGHTS, _flip_tensors, False),
        ("zeros in the header", WEIGHTS, _zeros_in_header, True),
        ("bytes lost in the header", WEIGHTS, _lost_bytes, True),
        ("bytes added to the tensors", WEIGHTS, _more_bytes, True),
        ("config cut", CONFIG, cut, True),
        ("bytes of the config flipped", CONFIG, flip, False),
        ("a digit of the config changed", CONFIG, digit, False),
        ("tokenizer cut", TOKENIZER, cut, True),
        ("bytes of the tokenizer flipped", TOKENIZER, flip, False),
        ("tokenizer config cut", TOKENIZER_CONFIG, cut, True),
        ("index cut", INDEX, cut, True),
        ("bytes of the index flipped", INDEX, flip, False),
        ("a shard cut", SHARDS[1], cut, True),
        *JSON,
    )
] + [(label, WEIGHTS, change, PICKLE, structural) for label, change, structural in BINS]
