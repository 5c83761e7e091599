"""Malformed checkpoints: a table of known faults, and as many seeded random ones as wanted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from corruption_checkpoint import (
    CONFIG,
    INDEX,
    SHARDS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    Corruption,
    write_checkpoint,
)
from corruption_files import NO_FILES
from corruption_header import CONTAINER, HEADER, join, split
from corruption_settings import CONFIGS
from corruption_tokenizer import SETTINGS, TOKENIZERS, VOCABULARIES
from corruption_weights import INDEXES, PICKLES, TENSORS

__all__ = ["CORRUPTIONS", "Corruption", "corruptions", "write_checkpoint"]

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


def corruptions(seed: int, draws: int = 60) -> Iterator[Corruption]:
    """The whole table, then random faults: equal seeds give equal bytes."""
    yield from CORRUPTIONS
    for i in range(draws):
        label, file, change, structural = RANDOM[i % len(RANDOM)]
        yield _drawn(f"random: {label} ({i})", file, change, structural, (seed, i))


Change = Callable[[bytes, np.random.Generator], bytes]


def _drawn(
    name: str, file: str, change: Change, structural: bool, seed: tuple[int, int]
) -> Corruption:
    def apply(folder: Path) -> None:
        path = folder / file
        path.write_bytes(change(path.read_bytes(), np.random.default_rng(seed)))

    return Corruption(name, apply, (file,), structural, sharded=file in (INDEX, *SHARDS))


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data.rstrip()))]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes become others."""
    changed = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(len(data), size=rng.integers(1, 5))
    changed[places] ^= rng.integers(1, 256, size=len(places), dtype=np.uint8)
    return changed.tobytes()


def _digit(data: bytes, rng: np.random.Generator) -> bytes:
    """One digit becomes another: the text stays well formed, or nearly."""
    places = [i for i, byte in enumerate(data) if byte in b"0123456789"]
    place = places[rng.integers(len(places))]
    digit = (data[place] - ord("0") + rng.integers(1, 10)) % 10
    return data[:place] + b"%d" % digit + data[place + 1 :]


def _digit_of_header(data: bytes, rng: np.random.Generator) -> bytes:
    header, tensors = split(data)
    return join(_digit(header, rng), tensors)


def _flip_header(data: bytes, rng: np.random.Generator) -> bytes:
    header, tensors = split(data)
    return join(_flip(header, rng), tensors)


def _flip_tensors(data: bytes, rng: np.random.Generator) -> bytes:
    header, tensors = split(data)
    return join(header, _flip(tensors, rng))


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


RANDOM: list[tuple[str, str, Change, bool]] = [
    ("weights cut", WEIGHTS, _cut, True),
    ("bytes of the header flipped", WEIGHTS, _flip_header, False),
    ("a digit of the header changed", WEIGHTS, _digit_of_header, True),
    ("header length beyond the file", WEIGHTS, _wild_length, True),
    ("bytes of the tensors flipped", WEIGHTS, _flip_tensors, False),
    ("zeros in the header", WEIGHTS, _zeros_in_header, True),
    ("bytes lost in the header", WEIGHTS, _lost_bytes, True),
    ("bytes added to the tensors", WEIGHTS, _more_bytes, True),
    ("config cut", CONFIG, _cut, True),
    ("bytes of the config flipped", CONFIG, _flip, False),
    ("a digit of the config changed", CONFIG, _digit, False),
    ("tokenizer cut", TOKENIZER, _cut, True),
    ("bytes of the tokenizer flipped", TOKENIZER, _flip, False),
    ("tokenizer config cut", TOKENIZER_CONFIG, _cut, True),
    ("index cut", INDEX, _cut, True),
    ("bytes of the index flipped", INDEX, _flip, False),
    ("a shard cut", SHARDS[1], _cut, True),
]
