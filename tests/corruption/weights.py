"""Sound safetensors files with the wrong tensors, spoilt indexes of shards, and hostile pickles."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from corruption.checkpoint import (
    CONFIG,
    INDEX,
    PICKLE,
    SHARDS,
    TOKENIZER,
    WEIGHTS,
    Corruption,
    Tensors,
)
from corruption.files import edited, huge, json_faults, missing, rewritten
from corruption.header import QUERY, entry

WORDS = "distilbert.embeddings.word_embeddings.weight"


def tensors(
    name: str, change: Callable[[Tensors], object], *, structural: bool = True
) -> Corruption:
    """A sound file whose tensors are not those of the configuration."""

    def apply(folder: Path) -> None:
        content = load_file(folder / WEIGHTS)
        change(content)
        save_file(
            {k: np.ascontiguousarray(v) for k, v in content.items()},
            folder / WEIGHTS,
            metadata={"format": "pt"},
        )

    return Corruption(f"tensors: {name}", apply, (WEIGHTS, CONFIG), structural)


def _float8(folder: Path) -> None:
    """Eight bits a weight, and as many bytes as that takes."""
    eight_bits = tensors(
        "", lambda content: content.update({QUERY: content[QUERY].astype(np.uint8)})
    )
    eight_bits.apply(folder)
    entry("", lambda old: old | {"dtype": "F8_E4M3"}).apply(folder)


TENSORS = [
    tensors("query missing", lambda content: content.pop(QUERY)),
    tensors("a bias missing", lambda content: content.pop(QUERY.replace("weight", "bias"))),
    tensors("word embeddings missing", lambda content: content.pop(WORDS)),
    tensors("classifier missing", lambda content: content.pop("classifier.weight")),
    tensors("pre_classifier missing", lambda content: content.pop("pre_classifier.weight")),
    tensors("a norm missing", lambda content: content.pop("distilbert.embeddings.LayerNorm.bias")),
    tensors("query renamed", lambda content: content.update({QUERY.upper(): content.pop(QUERY)})),
    tensors(
        "all of another family",
        lambda content: [
            content.update({k.replace("distilbert.", "bert.encoder."): content.pop(k)})
            for k in [*content]
        ],
    ),
    tensors("none", lambda content: content.clear()),
    tensors(
        "classifier transposed",
        lambda content: content.update({"classifier.weight": content["classifier.weight"].T}),
    ),
    tensors(
        "word embeddings transposed", lambda content: content.update({WORDS: content[WORDS].T})
    ),
    tensors(
        "word embeddings flat", lambda content: content.update({WORDS: content[WORDS].ravel()})
    ),
    tensors("query a row short", lambda content: content.update({QUERY: content[QUERY][1:]})),
    tensors(
        "query narrower by one head", lambda content: content.update({QUERY: content[QUERY][8:]})
    ),
    tensors(
        "bias a column",
        lambda content: content.update({"classifier.bias": content["classifier.bias"][:, None]}),
    ),
    tensors(
        "a weight of int32",
        lambda content: content.update({QUERY: content[QUERY].astype(np.int32)}),
    ),
    tensors("a weight of bool", lambda content: content.update({QUERY: content[QUERY] > 0})),
    tensors(
        "a weight of uint8",
        lambda content: content.update({QUERY: content[QUERY].astype(np.uint8)}),
    ),
    Corruption("tensors: a weight of float8", _float8, (WEIGHTS,)),
    tensors(
        "one unknown more", lambda content: content.update(unknown=content[QUERY]), structural=False
    ),
    tensors(
        "a third block",
        lambda content: content.update(
            {k.replace("layer.1.", "layer.2."): v for k, v in content.items()}
        ),
        structural=False,
    ),
    tensors(
        "with and without prefix",
        lambda content: content.update(
            {k.removeprefix("distilbert."): v for k, v in content.items()}
        ),
        structural=False,
    ),
    tensors(
        "with and without prefix, and different",
        lambda content: content.update({WORDS.removeprefix("distilbert."): -content[WORDS]}),
        structural=False,
    ),
    tensors(
        "all NaN",
        lambda content: [array.fill(np.nan) for array in content.values()],
        structural=False,
    ),
]


def shard(name: str, place: object, *files: str) -> Corruption:
    """The index says that the query weight lies in some other file, which may be named instead."""
    change = edited(
        f"index: {name}", INDEX, lambda index: index["weight_map"].update({QUERY: place})
    )
    return replace(change, files=(INDEX, *files))


def all_in(name: str, place: str, *, structural: bool = True) -> Corruption:
    """The first shard, sound as it is, moves; every entry of the index follows."""

    def apply(folder: Path) -> None:
        target = folder / place
        (folder / "sub").mkdir()
        (folder / SHARDS[0]).rename(target)
        index = json.loads((folder / INDEX).read_bytes())
        said = str(target) if name.startswith("absolute") else place
        for tensor, home in index["weight_map"].items():
            if home == SHARDS[0]:
                index["weight_map"][tensor] = said
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    return Corruption(f"index: {name}", apply, (INDEX,), structural, sharded=True)


INDEXES = [
    *json_faults("index", INDEX, sharded=True),
    edited("index: no weight_map", INDEX, lambda index: index.pop("weight_map")),
    edited("index: weight_map null", INDEX, lambda index: index.update(weight_map=None)),
    edited("index: weight_map a list", INDEX, lambda index: index.update(weight_map=[*SHARDS])),
    edited("index: weight_map empty", INDEX, lambda index: index["weight_map"].clear()),
    edited(
        "index: total_size wrong",
        INDEX,
        lambda index: index["metadata"].update(total_size=10**15),
        structural=False,
    ),
    edited("index: no metadata", INDEX, lambda index: index.pop("metadata"), structural=False),
    edited(
        "index: one tensor not listed",
        INDEX,
        lambda index: index["weight_map"].pop(QUERY),
        structural=False,
    ),
    edited(
        "index: a tensor that is nowhere",
        INDEX,
        lambda index: index["weight_map"].update(nowhere=SHARDS[0]),
    ),
    # The move leaves the name's own parent: the folder above holds the sound shard.
    all_in("a sound shard outside the folder", f"../outside-{SHARDS[0]}"),
    all_in("a sound shard outside, by way of a subfolder", f"sub/../../by-way-{SHARDS[0]}"),
    all_in("absolute path to a sound shard", SHARDS[0] + ".moved"),
    all_in("a sound shard in a subfolder", f"sub/{SHARDS[0]}", structural=False),
    shard("shard missing", "model-00003.safetensors", "model-00003.safetensors"),
    shard("shard of the password file", "/etc/passwd"),
    shard("shard with Windows separators", f"..\\{SHARDS[0]}"),
    shard("tensor in the other shard", SHARDS[1]),
    shard("shard is the tokenizer", TOKENIZER, TOKENIZER),
    shard("shard is the index itself", INDEX),
    shard("shard is the folder", "."),
    shard("shard is an empty name", ""),
    shard("shard is a number", 7),
    shard("shard is null", None),
    shard("shard is a list", [SHARDS[0]]),
    shard("shard with a NUL in its name", "model\0.safetensors"),
    shard("shard with a lone surrogate in its name", "model\ud800.safetensors"),
    shard("shard with a name of 100,000 letters", "m" * 100_000),
    huge("index: 300 MB", INDEX, b'{"weight_map": {"'),
    missing("index: a shard is gone", SHARDS[1], sharded=True),
    rewritten("index: a shard is cut", SHARDS[1], lambda data: data[:-100], sharded=True),
    rewritten("index: a shard is empty", SHARDS[0], lambda data: b"", sharded=True),
    Corruption(
        "index: both shards, but no index",
        lambda folder: (folder / INDEX).unlink(),
        (INDEX, WEIGHTS),
        sharded=True,
    ),
]
INDEXES = [replace(corruption, sharded=True) for corruption in INDEXES]


class Trap:
    """Unpickles by making a folder called `executed`; a reader must not let it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def _zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _zip_bomb() -> bytes:
    """Two hundred megabytes of zeros, never held at once."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("archive/data.pkl", "w") as member,
    ):
        for _ in range(200):
            member.write(bytes(10**6))
    return stream.getvalue()


def pickled(name: str, make: Callable[[], bytes]) -> Corruption:
    """No safetensors, but a pytorch_model.bin made to hurt."""

    def apply(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / PICKLE).write_bytes(make())

    return Corruption(f"pickle: {name}", apply, (PICKLE, WEIGHTS))


PICKLES = [
    pickled("empty", lambda: b""),
    pickled("a text file", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    pickled("an empty zip archive", lambda: _zipped({})),
    pickled("a zip archive without a pickle", lambda: _zipped({"archive/version": b"3"})),
    pickled(
        "half a zip archive", lambda: _zipped({"archive/data.pkl": pickle.dumps({"a": 1})})[:60]
    ),
    pickled("a list of numbers", lambda: _zipped({"archive/data.pkl": pickle.dumps([1, 2], 2)})),
    pickled("makes a folder", lambda: pickle.dumps(Trap(), 2)),
    pickled(
        "makes a folder, in a zip archive",
        lambda: _zipped({"archive/data.pkl": pickle.dumps({"classifier.bias": Trap()}, 2)}),
    ),
    pickled(
        "a string of 2**62 letters",
        lambda: _zipped({"archive/data.pkl": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little")}),
    ),
    pickled("a zip bomb", _zip_bomb),
]
