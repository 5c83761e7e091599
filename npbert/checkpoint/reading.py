"""Small files to bytes and JSON: none is waited for, and none is read that is larger than its kind.

There is no NumPy here, so that the cache of a hub is read without.
"""

import encodings.utf_8_sig  # noqa: F401  (or the first to be decoded would import it)
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from npbert.errors import CheckpointError, listing

# Bytes of JSON; a DistilBERT has about 12,000, and parsing takes 20 times as many.
JSON_LIMIT: Final = 4 << 20
SMALL: Final = 1 << 16  # bytes up to which a file may be another's stand-in
LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
WEB_PAGES: Final = (b"<!doctype html", b"<html")
# Open without waiting for who writes to a pipe, and take no terminal for one's own.
READ_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
)


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read its bytes; a pipe or a device, which could block, is refused.

    What was opened is looked at, not the name, which may stand for something else by then.
    """
    try:
        descriptor = os.open(path, READ_FLAGS)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CheckpointError(f"{path}: is no file, but a folder, a pipe or a device")
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size < SMALL:
                refuse_stand_in(path, file.peek(SMALL)[:SMALL])
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def refuse_stand_in(path: Path, start: bytes) -> None:
    """Refuse what came in the place of a file: a pointer of Git LFS, a web page."""
    if start.startswith(LFS_POINTER):
        size = re.search(rb"^size (\d{1,20})$", start, re.MULTILINE)
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, which stands for a file"
            f"{f' of {int(size[1]):,} bytes' if size else ''} that was not downloaded; run git lfs "
            "pull in its folder, or load the model by its name on the hub"
        )
    if start.lstrip()[:15].lower().startswith(WEB_PAGES):
        raise CheckpointError(
            f"{path}: is a web page, which a server sent in place of the file; download the file "
            "itself (on the hub: resolve, not blob, in its address)"
        )


def is_listed(path: Path) -> bool:
    """Say whether a folder lists a name, be it a link to nowhere; to read that is an error."""
    return os.path.lexists(path)


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole file that has no reason to be larger than `limit` bytes."""
    with open_file(path) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise CheckpointError(f"{path}: has over {limit} bytes, far more than such a file needs")
    return raw


def read_json_object(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Read a small JSON file that must hold an object.  Raises CheckpointError naming the file."""
    return parse_json_object(read_bytes(path, limit), str(path))


def read_json(path: Path) -> Any:
    """Read a small JSON file.  Raises CheckpointError naming the file."""
    return parse_json(read_bytes(path, JSON_LIMIT), str(path))


def parse_json_object(raw: bytes, where: str) -> dict[str, Any]:
    """Parse bytes that must be a JSON object."""
    data = parse_json(raw, where)
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: holds a {type(data).__name__}, expected a JSON object")
    return data


def parse_json(raw: bytes, where: str) -> Any:
    """Parse JSON whose objects have no name twice.  Raises CheckpointError saying where."""

    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]
            raise ValueError(f"it says {listing(map(repr, twice))} twice")
        return found

    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=refuse_twice)
    except RecursionError:
        raise CheckpointError(f"{where}: is nested too deeply to be read") from None
    except ValueError as error:
        raise CheckpointError(f"{where}: is not valid JSON: {error}") from None
