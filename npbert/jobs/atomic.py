"""Files that grow beside the name which they get when they are whole.

While a job runs, OUT.part grows, and OUT.part.json says how much of it is safe: how many inputs are
answered, how many bytes that is, and of what job.  It is written after those bytes are on the disk
and takes the place of its predecessor at once, so that there is no moment, of a kill or of a power
cut, at which the two say something wrong.
"""

import errno
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from npbert.checkpoint.drafts import NEW_FLAGS, OPEN_FLAGS, make_draft, remove_drafts
from npbert.checkpoint.reading import read_json_object
from npbert.errors import CheckpointError, InputError, quote

try:
    import fcntl
except ImportError:  # Windows, where nobody keeps two jobs from one file
    fcntl = None  # type: ignore[assignment]

UNFINISHED_SUFFIXES: Final = (".part", ".part.json")
LOCK_ERRORS: Final = (errno.EAGAIN, errno.EACCES)  # what a lock says that somebody else has
JOURNAL_TYPES: Final = {"job": dict, "bytes": int, "inputs": int, "sha256": str}  # and counts
COUNT_LIMIT: Final = 1 << 62  # of inputs, tokens, bytes


class Places(NamedTuple):
    """A file, and what stands beside it while it grows."""

    path: Path
    part: Path
    journal: Path

    @classmethod
    def from_path(cls, path: Path) -> Self:
        """Return the places for a file; a link is taken for itself, and will be replaced."""
        real = Path(os.path.realpath(path.parent)) / path.name
        return cls(real, *(real.with_name(real.name + end) for end in UNFINISHED_SUFFIXES))


def open_part(part: Path, *, create: bool) -> BinaryIO:
    """Open a file that grows and keep others from it.  Raises InputError, OSError."""
    refuse_link(part)
    try:
        descriptor = os.open(part, OPEN_FLAGS | os.O_RDWR)
    except FileNotFoundError:
        if not create:
            raise
        try:
            descriptor = os.open(part, NEW_FLAGS | os.O_RDWR, 0o666)
        except FileExistsError:
            raise InputError(f"{part}: another process is writing it") from None
    file = os.fdopen(descriptor, "r+b")
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
    return os.path.lexists(path) and os.path.samestat(path.lstat(), os.fstat(file.fileno()))


def refuse_link(place: Path) -> None:
    """Refuse what is a link, or no file: no job has made it.  Raises InputError."""
    try:
        told = place.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(told.st_mode):
        kind = "a link"
    elif not stat.S_ISREG(told.st_mode):
        kind = "no file"
    elif told.st_nlink > 1:
        kind = f"a file with {told.st_nlink} names"
    else:
        return
    raise InputError(
        f"{place}: is {kind}, which no job makes; nothing is read or written through it; move it "
        "out of the way"
    )


def is_whole(path: Path) -> bool:
    """Tell whether a file is there and no job under way.  Raises InputError."""
    places = Places.from_path(path)
    end_whole_job(places)
    return places.path.is_file() and not places.journal.exists()


def end_whole_job(places: Places) -> None:
    """End a job that was whole when it was killed, but for the names.  Raises InputError."""
    for place in (places.part, places.journal):
        refuse_link(place)
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
        end_named_job(places)


def end_named_job(places: Places) -> None:
    """Remove what a job has left of which the file has its name."""
    places.part.unlink(missing_ok=True)
    remove_journal(places)


def give_name(places: Places) -> None:
    """Give a whole file its name, and forget how it came about."""
    if places.path.is_file() and not places.path.is_symlink():
        places.part.chmod(places.path.stat().st_mode)
    places.part.replace(places.path)
    sync_folder(places.path.parent)
    remove_journal(places)


def remove_journal(places: Places) -> None:
    """Remove a job's journal, and the drafts of it that a kill has left."""
    remove_drafts(places.journal)
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
    """Tell whether all that a journal says is of the type that it is written as."""
    said = {key: value for key, value in left.items() if key not in JOURNAL_TYPES}
    return (
        all(type(left.get(key)) is kind for key, kind in JOURNAL_TYPES.items())
        and all(0 <= value <= COUNT_LIMIT for value in left.values() if type(value) is int)
        and said.pop("whole", True) is True
        and all(type(value) is int for value in said.values())
    )


def write_journal(places: Places, state: Mapping[str, Any]) -> None:
    """Write down from where a job can go on, and wait until the disk has it."""
    draft, file = make_draft(places.journal)
    try:
        with file:
            file.write(json.dumps(state).encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(places.journal)
    except BaseException:
        with suppress(OSError):  # what went wrong before is what is told
            draft.unlink()
        raise
    sync_folder(places.path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder too, where a system can."""
    with suppress(OSError):  # Windows opens no folder; some network file systems sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
