"""Small files beside a model, mutated: settings, modules, dumps, ranges, journals, in any command.

Each of KINDS makes a folder once; a mutation spoils one file of a copy, and a command reads it.
"""

import io
import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from corruption.random import (
    STRANGE,
    Change,
    added,
    cut,
    digit,
    flip,
    lost,
    no_value,
    other_value,
    structural,
    value_elsewhere,
    value_twice,
)
from golden_cases import GOLDEN
from safetensors.numpy import load_file, save_file

import npbert
from hostile.huge_tokenizers import huge_step, huge_value, make_tokenizer, make_vocabulary
from npbert.cli import main
from npbert.tasks import built_in_folder

IDS = [[5, 17, 3, 80, 2, 9], [7, 96, 3, 0, 0, 0]]
CLASSES = GOLDEN / "DistilBertForSequenceClassification"
SENTENCE = GOLDEN / "tasks" / "st_dense"
BYTES = [cut, flip, digit, lost, added]
JSON = [
    *BYTES,
    *map(structural, (other_value, other_value, no_value, value_twice, value_elsewhere)),
]
SIZES = (0, 1, 7, 255, 2**16, 2**20, 2**31 - 1, 2**32 - 1)


class Kind(NamedTuple):
    """A folder with files to spoil, and the command that reads them; a path begins with @."""

    make: Callable[[Path], object]
    files: tuple[str, ...]
    changes: list[Change]
    command: tuple[str, ...]


def make_classifier(folder: Path) -> None:
    shutil.copytree(built_in_folder("sentiment"), folder / "m")


def make_sinusoidal(folder: Path) -> None:
    make_classifier(folder)
    weights, config = folder / "m" / "model.safetensors", folder / "m" / "config.json"
    table = "distilbert.embeddings.position_embeddings.weight"
    save_file({n: x for n, x in load_file(weights).items() if n != table}, weights)
    said = json.loads(config.read_bytes()) | {"sinusoidal_pos_embds": True}
    config.write_text(json.dumps(said))


def make_embedder(folder: Path) -> None:
    shutil.copytree(SENTENCE, folder / "m")
    np.save(folder / "ranges.npy", np.stack([-np.ones(13), np.ones(13)]))


def make_dump(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        model = npbert.load(CLASSES, dtype="float64")
        npbert.trace(model, IDS, only="*lin*").save(folder / "reference.npz")
        npbert.trace(model, IDS, only="*lin*").save(folder / name)

    return make


def make_packed_dump(folder: Path) -> None:
    make_dump("dump.npz")(folder)
    with np.load(folder / "dump.npz") as arrays:
        np.savez_compressed(folder / "dump.npz", **arrays)


def make_job(folder: Path) -> None:
    """A job that stopped at a bad line behind its first block."""
    lines = [json.dumps({"id": i, "text": "good"}) for i in range(300)]
    (folder / "in.jsonl").write_text("\n".join([*lines, "[]"]))
    ended = main(["text-classification", "-i", f"{folder}/in.jsonl", "-o", f"{folder}/o.jsonl"])
    assert ended == 2
    (folder / "in.jsonl").write_text("\n".join(lines))
    assert (folder / "o.jsonl.part.json").exists()


# ---- changes that know a format -----------------------------------------------------------------


def other_npy_header(data: bytes, rng: np.random.Generator) -> bytes:
    """The text of an array's header says something else."""
    start = data.index(b"\x93NUMPY")
    length = int.from_bytes(data[start + 8 : start + 10], "little")
    said = data[start + 10 : start + 10 + length].decode("latin-1")
    parts = said.split("'")
    kinds = [
        "<f8",
        "|O",
        "<U1000000000",
        "|V99999999",
        ">f8",
        "<c16",
        "<M8[s]",
        "[]",
        "<f2",
        "?",
        "i",
    ]
    shapes = ["()", "(1000000000000,)", "(0,)", "(-1,)", "(2**99,)", "(9" * 30, "((((", "(1,)*9"]
    which = rng.integers(4)
    if which == 0:
        parts[3] = kinds[rng.integers(len(kinds))]
    elif which == 1:
        parts[6] = parts[6].replace("False", "True")
    elif which == 2:
        parts[8] = f": {shapes[rng.integers(len(shapes))]}, }}"
    else:
        parts[8] += " " * int(rng.integers(20_000))
    text = "'".join(parts).encode("latin-1")
    text = text[:length] if rng.random() < 0.3 else text[:65_535]
    start_of_length = start + 8
    return (
        data[:start_of_length]
        + struct.pack("<H", len(text))
        + text
        + data[start_of_length + 2 + length :]
    )


def other_size(data: bytes, rng: np.random.Generator) -> bytes:
    """Two or four bytes anywhere become a size that somebody may believe."""
    wide = rng.random() < 0.5
    size = SIZES[rng.integers(len(SIZES))] & (0xFFFFFFFF if wide else 0xFFFF)
    place = int(rng.integers(len(data) - 4))
    return data[:place] + struct.pack("<I" if wide else "<H", size) + data[place + 2 + 2 * wide :]


def other_directory(data: bytes, rng: np.random.Generator) -> bytes:
    """A field of an archive's directory or of its end."""
    start = data.index(b"PK\x01\x02")
    changed = other_size if rng.random() < 0.5 else flip
    return data[:start] + changed(data[start:], rng)


def other_entries(data: bytes, rng: np.random.Generator) -> bytes:
    """Entries get other names or another packing, or stand there twice."""
    stream = io.BytesIO()
    packing = (0, 8, 12, 14)[rng.integers(4)]
    strange = ("/etc/passwd.npy", "../up.npy", "a" * 5000 + ".npy", "x.txt", "", "\x00.npy")
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w", packing) as new,
        warnings.catch_warnings(),
    ):
        for name in old.namelist()[: rng.integers(1, 6)]:
            content = old.read(name)
            if rng.random() < 0.3:
                content = other_npy_header(content, rng)
            if rng.random() < 0.3:
                name = strange[rng.integers(len(strange))]
            warnings.simplefilter("ignore")  # a name twice
            new.writestr(zipfile.ZipInfo(name or "n"), content, packing)
    return stream.getvalue()


def other_header(data: bytes, rng: np.random.Generator) -> bytes:
    """What the header of a safetensors file says, its length kept right or made wrong."""
    length = int.from_bytes(data[:8], "little")
    header = JSON[rng.integers(len(JSON))](data[8 : 8 + length], rng)
    said = len(header) if rng.random() < 0.8 else int(2 ** rng.uniform(0, 63.9))
    return said.to_bytes(8, "little") + header + data[8 + length :]


def strange_value(data: bytes, rng: np.random.Generator) -> bytes:
    """One field of a JSON object says something huge or strange."""
    content = json.loads(data)
    numbers = (10**9, 2**31 - 1, 2**20, 2**17, 10**6, -1, *STRANGE[:20])
    if isinstance(content, dict):
        names = list(content)
        content[names[rng.integers(len(names))]] = numbers[rng.integers(len(numbers))]
        if rng.random() < 0.2:
            content["id2label"] = {str(i * int(rng.integers(1, 3))): "a" for i in range(100_000)}
    else:
        content = content * int(rng.integers(2, 20_000))
    return json.dumps(content).replace(f'"{"a number of many digits"}"', "1" * 9999).encode()


SETTINGS = [*JSON, strange_value, strange_value]
ARCHIVE = [*BYTES, other_size, other_directory, other_directory, other_entries, other_entries]
ARRAY = [*BYTES, other_size, other_npy_header, other_npy_header, other_npy_header]
CLASSIFY = ("text-classification", "-m", "@m", "a good film \ufdfa caf\u00e9")
EMBED = ("sentence-embedding", "-m", "@m", "the cat")
COMPARE = ("compare", "@reference.npz")
KINDS = {
    "config": Kind(
        make_classifier, ("m/config.json",), SETTINGS,
        CLASSIFY,
    ),
    "sinusoidal": Kind(
        make_sinusoidal, ("m/config.json",), [*SETTINGS, *[strange_value] * 5],
        CLASSIFY,
    ),
    "modules": Kind(
        make_embedder,
        ("m/modules.json", "m/1_Pooling/config.json", "m/2_Dense/config.json",
         "m/sentence_bert_config.json", "m/config_sentence_transformers.json"),
        SETTINGS, EMBED,
    ),
    "tokenizer": Kind(
        make_tokenizer, ("m/tokenizer.json",), [*JSON, *[huge_value] * 6, huge_step],
        CLASSIFY,
    ),
    "tokenizer_config": Kind(
        make_vocabulary,
        ("m/tokenizer_config.json", "m/special_tokens_map.json", "m/added_tokens.json"),
        SETTINGS, CLASSIFY,
    ),
    "vocabulary": Kind(make_vocabulary, ("m/vocab.txt",), BYTES, CLASSIFY),
    "ranges": Kind(
        make_embedder, ("ranges.npy",), ARRAY,
        (*EMBED, "--precision", "int8", "--ranges", "@ranges.npy"),
    ),
    "npz": Kind(make_dump("dump.npz"), ("dump.npz",), ARCHIVE, (*COMPARE, "@dump.npz")),
    "packed npz": Kind(make_packed_dump, ("dump.npz",), ARCHIVE, (*COMPARE, "@dump.npz")),
    "npy": Kind(
        make_dump("dump"), ("dump/input_ids.npy", "dump/transformer.layer.0.ffn.lin1.npy"), ARRAY,
        (*COMPARE, "@dump"),
    ),
    "about": Kind(
        make_dump("dump"), ("dump/about.json",), SETTINGS, ("compare", "@dump", "@reference.npz")
    ),
    "safetensors": Kind(
        make_dump("dump.safetensors"), ("dump.safetensors",),
        [*BYTES, other_size, *[other_header] * 6],
        (*COMPARE, "@dump.safetensors"),
    ),
    "journal": Kind(
        make_job, ("o.jsonl.part.json",), SETTINGS,
        ("text-classification", "-i", "@in.jsonl", "-o", "@o.jsonl", "--resume"),
    ),
}  # fmt: skip


def spoil(kind: Kind, healthy: Path, folder: Path, seed: tuple[int, ...]) -> None:
    """Copy a healthy folder and change one of its files."""
    rng = np.random.default_rng(seed)
    shutil.copytree(healthy, folder)
    file = folder / kind.files[rng.integers(len(kind.files))]
    change = kind.changes[rng.integers(len(kind.changes))]
    file.write_bytes(change(file.read_bytes(), rng))


def command_of(kind: Kind, folder: Path) -> list[str]:
    return [f"{folder}/{word[1:]}" if word[:1] == "@" else word for word in kind.command]
