"""Files that grow beside the name which they get when they are whole.

While a job runs, OUT.part grows, and OUT.part.json says how much of it is safe: how many inputs are
answered, how many bytes that is, and of what job.  It is written after those bytes are on the disk
and takes the place of its predecessor at once, so that there is no moment, of a kill or of a power
cut, at which the two say something wrong.
"""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from npbert.checkpoint.reading import read_json_object
from npbert.errors import CheckpointError, InputError, quote

try:
    import fcntl
except ImportError:  # Windows, where nobody keeps two jobs from one file
    fcntl = None  # type: ignore[assignment]

UNFINISHED_SUFFIXES: Final = (".part", ".part.json", ".part.json.tmp")
LOCK_ERRORS: Final = (errno.EAGAIN, errno.EACCES)  # what a lock says that somebody else has
OPEN_FLAGS: Final = os.O_RDWR | getattr(os, "O_BINARY", 0)  # which Windows has
JOURNAL_TYPES: Final = {"job": dict, "sha256": str, "whole": bool}  # all else are counts


class Places(NamedTuple):
    """A file, and what stands beside it while it grows."""

    path: Path
    part: Path
    journal: Path
    draft: Path  # of the next journal

    @classmethod
    def from_path(cls, path: Path) -> Self:
        """Return the places for a file; of a link, those beside what it leads to."""
        real = Path(os.path.realpath(path))  # which takes a loop as it is
        return cls(real, *(real.with_name(real.name + end) for end in UNFINISHED_SUFFIXES))


def open_part(part: Path, *, create: bool) -> BinaryIO:
    """Open a file that grows and keep others from it.  Raises InputError, OSError."""
    file = os.fdopen(os.open(part, OPEN_FLAGS | (os.O_CREAT if create else 0), 0o666), "r+b")
    try:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in LOCK_ERRORS:  # and not that this file system has no locks
                    raise InputError(f"{part}: another process is writing it") from None
        if not is_open(part, file):
            raise InputError(f"{part}: another process has just ended it; try again")
    except BaseException:
        file.close()
        raise
    return file


def is_open(path: Path, file: BinaryIO) -> bool:
    """Tell whether an open file is the one that has this name."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def is_whole(path: Path) -> bool:
    """Tell whether a file is there and no job under way.  Raises InputError."""
    places = Places.from_path(path)
    end_whole_job(places)
    return places.path.is_file() and not places.journal.exists()


def end_whole_job(places: Places) -> None:
    """End a job that was whole when it was killed, but for the names.  Raises InputError."""
    if not places.journal.exists() or not (left := read_journal(places)).get("whole"):
        return
    there = [place for place in (places.part, places.path) if place.is_file()]
    whole = [place for place in there if place.stat().st_size == left["bytes"]]
    if not whole:
        raise InputError(
            f"{places.part}: has lost some of the {left['bytes']} bytes of a job that was whole; "
            "delete it and its .json to start anew"
        )
    if whole[0] == places.part:
        with open_part(places.part, create=False):
            give_name(places)
    else:
        places.journal.unlink(missing_ok=True)


def give_name(places: Places) -> None:
    """Give a whole file its name, and forget how it came about."""
    if places.path.exists():
        places.part.chmod(places.path.stat().st_mode)
    places.part.replace(places.path)
    sync_folder(places.path.parent)
    places.journal.unlink(missing_ok=True)


def require_same_job(then: Mapping[str, Any], now: Mapping[str, Any], instead: str) -> None:
    """Refuse to go on with another job, and say what can be done instead.  Raises InputError."""
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            raise InputError(
                f"--resume: {name} was {quote(then.get(name))} when the job began, and is "
                f"{quote(now.get(name))} now; {instead}"
            )


def read_journal(places: Places) -> dict[str, Any]:
    """Return what an unfinished job has left.  Raises InputError for what is no journal."""
    try:
        left = read_json_object(places.journal)
    except CheckpointError:
        left = {}
    if not is_journal(left):
        raise InputError(
            f"{places.journal}: is no journal of a job; delete it and the .part to start anew"
        )
    return left


def is_journal(left: Mapping[str, Any]) -> bool:
    """Tell whether a journal has what a job goes on with, each of its type."""
    return {"job", "sha256", "bytes", "inputs"} <= set(left) and all(
        isinstance(value, JOURNAL_TYPES[name])
        if name in JOURNAL_TYPES
        else type(value) is int and 0 <= value < 1 << 62
        for name, value in left.items()
    )


def write_journal(places: Places, state: Mapping[str, Any]) -> None:
    """Write down from where a job can go on, and wait until the disk has it."""
    with places.draft.open("w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    places.draft.replace(places.journal)
    sync_folder(places.path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder too, where a system can."""
    with suppress(OSError):  # Windows opens no folder; some network file systems sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
