"""Seeded faults at random places: of JSON by its structure, of a pytorch_model.bin by its parts."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from hostile.assembly import FLOAT, dictionary, legacy, tensor, zipped
from safetensors.numpy import load

from corruption.checkpoint import CONFIG, INDEX, TOKENIZER, TOKENIZER_CONFIG
from corruption.files import DEEP, DIGITS

Change = Callable[[bytes, np.random.Generator], bytes]

# ---- any bytes ----------------------------------------------------------------------------------


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data.rstrip()))]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes become others."""
    changed = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(len(data), size=rng.integers(1, 5))
    changed[places] ^= rng.integers(1, 256, size=len(places), dtype=np.uint8)
    return changed.tobytes()


def digit(data: bytes, rng: np.random.Generator) -> bytes:
    """One digit becomes another: the text stays well formed, or nearly."""
    places = [i for i, byte in enumerate(data) if byte in b"0123456789"]
    if not places:
        return flip(data, rng)
    place = places[rng.integers(len(places))]
    other = (data[place] - ord("0") + rng.integers(1, 10)) % 10
    return data[:place] + b"%d" % other + data[place + 1 :]


def lost(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes are gone, and everything after them moves up."""
    start, count = int(rng.integers(len(data))), int(rng.integers(1, 40))
    return data[:start] + data[start + count :]


def added(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes slipped in."""
    start = int(rng.integers(len(data)))
    return data[:start] + rng.bytes(int(rng.integers(1, 40))) + data[start:]


# ---- pytorch_model.bin --------------------------------------------------------------------------


STORAGES = {"float32": FLOAT, "float16": b"ctorch\nHalfStorage\n"}


def bin_of(weights: bytes, container: str) -> bytes:
    """What torch.save would make of a safetensors file, in one of its formats."""
    tensors = load(weights)
    items, numbers = {}, {}
    for i, (name, array) in enumerate(sorted(tensors.items())):
        numbers[str(i)] = array.tobytes()
        steps = tuple(stride // array.itemsize for stride in array.strides)
        items[name] = tensor(
            kind=STORAGES[array.dtype.name], key=str(i), numel=array.size, shape=array.shape,
            strides=steps,
        )  # fmt: skip
    return (zipped if container == "zip" else legacy)(dictionary(**items), storages=numbers)


def regions(data: bytes, weights: bytes, container: str) -> dict[str, slice]:
    """Where the pickle, the numbers and the directory lie."""
    if container == "legacy":
        start = len(data) - sum(8 + array.nbytes for array in load(weights).values())
        return {"pickle": slice(0, start), "numbers": slice(start, len(data))}
    first, directory = data.index(b"PK\x03\x04", 4), data.index(b"PK\x01\x02")
    return {
        "pickle": slice(46, first),
        "numbers": slice(first, directory),
        "directory": slice(directory, len(data)),
    }


def within(container: str, region: str | None, change: Change) -> Change:
    """A change of one region of a pytorch_model.bin, or of all."""

    def apply(weights: bytes, rng: np.random.Generator) -> bytes:
        data = bin_of(weights, container)
        if region is None:
            return change(data, rng)
        place = regions(data, weights, container)[region]
        return data[: place.start] + change(data[place], rng) + data[place.stop :]

    return apply


BINS: list[tuple[str, Change, bool]] = [
    (f"{container}: {label}", within(container, region, change), structural)
    for container in ("zip", "legacy")
    for label, region, change, structural in (
        ("all of it cut", None, cut, True),
        ("bytes of the pickle flipped", "pickle", flip, False),
        ("a digit of the pickle changed", "pickle", digit, False),
        ("bytes lost in the pickle", "pickle", lost, False),
        ("bytes added to the pickle", "pickle", added, False),
        ("bytes of the numbers flipped", "numbers", flip, False),
        ("bytes lost in the numbers", "numbers", lost, True),
        ("bytes added to the numbers", "numbers", added, True),
    )
] + [
    ("zip: bytes of the directory flipped", within("zip", "directory", flip), False),
    ("zip: bytes lost in the directory", within("zip", "directory", lost), False),
    ("zip: bytes added to the directory", within("zip", "directory", added), False),
]

# ---- JSON ---------------------------------------------------------------------------------------

DEPTH = "a list of many lists"  # gives way to brackets
MANY = "a number of many digits"  # to them
AGAIN = "the same name again"
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 7, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64,
    10**40, MANY, "", "7", "a" * 100_000, "\ud800", "\0", "../..", "é", [], [None], ["a"], {},
    {"a": 1}, {"type": "BertNormalizer"}, {"type": "Sequence"}, {"Regex": "(a+)+$"}, [[1, 2]],
    {"String": ""}, [0] * 1000, DEPTH,
]  # fmt: skip


def place_in(content: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """A random container and a key of it: deep ones are as likely as those at the top."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        key = keys[rng.integers(len(keys))]
        inner = content[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            return content, key
        content = inner


def other_value(content: Any, key: Any, rng: np.random.Generator) -> None:
    content[key] = deepcopy(STRANGE[rng.integers(len(STRANGE))])


def no_value(content: Any, key: Any, rng: np.random.Generator) -> None:
    del content[key]


def value_twice(content: Any, key: Any, rng: np.random.Generator) -> None:
    if isinstance(content, dict):
        content[key + AGAIN] = deepcopy(content[key])
    else:
        content.append(deepcopy(content[key]))


def value_elsewhere(content: Any, key: Any, rng: np.random.Generator) -> None:
    """A value takes the place of a neighbour."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    content[keys[rng.integers(len(keys))]] = deepcopy(content[key])


def structural(change: Callable[[Any, Any, np.random.Generator], None]) -> Change:
    """A change of what a JSON file says, one to three times."""

    def apply(data: bytes, rng: np.random.Generator) -> bytes:
        content = json.loads(data)
        for _ in range(rng.integers(1, 4)):
            change(*place_in(content, rng), rng)
            if not content:
                break
        text = json.dumps(content).replace(AGAIN, "").replace(f'"{MANY}"', DIGITS)
        depth = DEEP if rng.random() < 0.5 else int(rng.integers(10, 2000))
        return text.replace(f'"{DEPTH}"', "[" * depth + "]" * depth).encode()

    return apply


JSON: list[tuple[str, str, Change, bool]] = [
    (f"{file}: {label}", file, structural(change), False)
    for file in (CONFIG, TOKENIZER, TOKENIZER_CONFIG, INDEX)
    for label, change in (
        ("another value", other_value),
        ("a value gone", no_value),
        ("a value twice", value_twice),
        ("a value in another's place", value_elsewhere),
    )
]
