"""Ways to spoil any file: cut it, replace it, or put something there that is no file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corruption.checkpoint import CONFIG, TOKENIZER, WEIGHTS, Corruption

# What one more opening bracket each costs a recursive reader its stack, and an int() its limit.
DEEP = 100_000
DIGITS = "1" + "0" * 10_000
# More than a loader may hold in memory: sparse, so it costs the disk nothing.
HUGE = 300 * 10**6

REMOVED = object()


def replaced(
    name: str, file: str, content: bytes | str, *, structural: bool = True, sharded: bool = False
) -> Corruption:
    """The whole file gives way to other bytes."""
    data = content.encode() if isinstance(content, str) else content

    def apply(folder: Path) -> None:
        (folder / file).write_bytes(data)

    return Corruption(name, apply, (file,), structural, sharded)


def rewritten(
    name: str,
    file: str,
    change: Callable[[bytes], bytes],
    *,
    structural: bool = True,
    sharded: bool = False,
) -> Corruption:
    """The file's bytes become others."""

    def apply(folder: Path) -> None:
        path = folder / file
        path.write_bytes(change(path.read_bytes()))

    return Corruption(name, apply, (file,), structural, sharded)


def fields(
    name: str, file: str, *other_files: str, structural: bool = True, **changes: Any
) -> Corruption:
    """Fields of a JSON object get other values, or are REMOVED."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_bytes()) | changes
        content = {key: value for key, value in content.items() if value is not REMOVED}
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    return Corruption(name, apply, (file, *other_files), structural)


def edited(
    name: str, file: str, change: Callable[[Any], object], *, structural: bool = True
) -> Corruption:
    """A JSON file is read, changed in place deep inside, and written again."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_bytes())
        change(content)
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    return Corruption(name, apply, (file,), structural, sharded=file.endswith("index.json"))


def missing(name: str, file: str, *, structural: bool = True, sharded: bool = False) -> Corruption:
    """The file is gone."""
    return Corruption(name, lambda folder: (folder / file).unlink(), (file,), structural, sharded)


def no_file(name: str, file: str, make: Callable[[Path], object]) -> Corruption:
    """Something that is not a file, or leads to none, has the file's name."""

    def apply(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return Corruption(name, apply, (file,))


def huge(name: str, file: str, start: bytes = b"") -> Corruption:
    """The file claims hundreds of megabytes, nearly all of them a hole."""

    def apply(folder: Path) -> None:
        with (folder / file).open("wb") as stream:
            stream.write(start)
            stream.truncate(HUGE)

    return Corruption(name, apply, (file,))


def json_faults(kind: str, file: str, *, sharded: bool = False) -> list[Corruption]:
    """What can be wrong with any file that should hold one JSON object."""
    contents: dict[str, bytes | str] = {
        "empty": b"",
        "an array": "[]",
        "a string": '"distilbert"',
        "a number": "42",
        "null": "null",
        "not JSON": "dim = 24\n",
        "invalid UTF-8": b'{"a": "\xff\xfe\xc3"}',
        "deep arrays": "[" * DEEP + "]" * DEEP,
        "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
        "a deep field, never closed": '{"a":' + "[" * DEEP,
    }
    return [
        *(
            replaced(f"{kind}: {name}", file, content, sharded=sharded)
            for name, content in contents.items()
        ),
        rewritten(
            f"{kind}: half of it", file, lambda data: data[: len(data) // 2], sharded=sharded
        ),
        rewritten(
            f"{kind}: last brace cut off", file, lambda data: data.rstrip()[:-1], sharded=sharded
        ),
        rewritten(f"{kind}: text after the end", file, lambda data: data + b"}{", sharded=sharded),
    ]


NO_FILES = [
    no_file("no file: weights are a folder", WEIGHTS, Path.mkdir),
    no_file(
        "no file: weights are a dangling link",
        WEIGHTS,
        lambda path: path.symlink_to("nowhere"),
    ),
    no_file(
        "no file: weights are a link to itself",
        WEIGHTS,
        lambda path: path.symlink_to(path.name),
    ),
    no_file(
        "no file: weights are an endless device",
        WEIGHTS,
        lambda path: path.symlink_to("/dev/zero"),
    ),
    no_file("no file: weights are a pipe nobody writes to", WEIGHTS, os.mkfifo),
    no_file("no file: config is a folder", CONFIG, Path.mkdir),
    no_file(
        "no file: config is an endless device", CONFIG, lambda path: path.symlink_to("/dev/zero")
    ),
    no_file("no file: config is a pipe nobody writes to", CONFIG, os.mkfifo),
    missing("no file: config is missing", CONFIG),
    missing("no file: weights are missing", WEIGHTS),
    missing("no file: tokenizer is missing", TOKENIZER, structural=False),
]
