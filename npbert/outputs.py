"""Files that appear under their name when they are whole, and lose nothing on the way there.

While a job runs, OUT.part grows, and OUT.part.json says how much of it is safe: which inputs are
answered, how many bytes that is, and of what job.  It is written after those bytes are on the disk
and takes the place of its predecessor at once, so that there is no moment, of a kill or of a power
cut, at which the two say something wrong.  What follows the safe bytes is cut off and done again.
"""

import gzip
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from npbert.errors import CheckpointError, InputError, shown
from npbert.files import read_json_object
from npbert.lines import written

try:
    import fcntl
except ImportError:  # Windows, where nobody keeps two jobs from one file
    fcntl = None  # type: ignore[assignment]

SECONDS: Final = 0.5  # between two moments from which a job can go on; each waits for the disk


class Output:
    """A file of JSON lines.

    Parameters
    ----------
    path : Path
        Where it shall appear.
    job : mapping
        What makes its bytes: a job goes on only where that is the same.
    resume : bool
        Go on with what is there; otherwise an unfinished job is refused.

    Raises
    ------
    InputError, OSError
    """

    def __init__(self, path: Path, job: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.journal = path.with_name(path.name + ".part.json")
        self.job = dict(job)
        self.saved: dict[str, Any] = {}  # what is safe
        self.passed: dict[str, Any] = {}  # what could be
        self.last = 0.0
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)  # which Windows has
        self.file = os.fdopen(os.open(self.part, flags, 0o666), "r+b")
        try:
            self.lock()
            self.saved = self.found(resume)
            self.file.truncate(self.saved.get("bytes", 0))
            self.begin()
            self.file.seek(0, os.SEEK_END)
        except BaseException:
            self.file.close()
            raise

    def lock(self) -> None:
        """Keep other processes from this file, until this one ends."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.part}: another process is writing it") from None
        if not self.part.exists() or not os.path.samestat(
            os.fstat(self.file.fileno()), self.part.stat()
        ):
            raise InputError(f"{self.path}: another process has just finished it")

    def found(self, resume: bool) -> dict[str, Any]:
        """Return what an unfinished job has left, or nothing.  Raises InputError."""
        if not self.journal.exists():
            return {}
        left = read_journal(self.journal)
        job, size = left["job"], left["bytes"]
        if not resume:
            raise InputError(
                f"{self.part}: {left['inputs']:,} inputs of an unfinished job are answered there; "
                "--resume goes on with it; delete it and its .json to start anew"
            )
        for name in {**job, **self.job}:
            if job.get(name) != self.job.get(name):
                raise InputError(
                    f"--resume: {name} was {shown(job.get(name))} when the job began, and is "
                    f"{shown(self.job.get(name))} now; delete {self.part} and its .json to start "
                    "anew"
                )
        if os.fstat(self.file.fileno()).st_size < size:
            raise InputError(
                f"{self.part}: has lost some of the {size} bytes that were safe; delete it and its "
                ".json to start anew"
            )
        return left

    def begin(self) -> None:
        """Get ready to write behind what is safe."""

    def write(self, answer: Any) -> None:
        """Write the answer to one input."""
        self.put(written(answer).encode() + b"\n")

    def put(self, raw: bytes) -> None:
        """Write bytes."""
        self.file.write(raw)

    def end_block(self) -> None:
        """End what must be whole before a job can go on behind it."""

    def commit(self, state: Mapping[str, Any]) -> None:
        """Take note that a job can go on from here, and, now and then, make it safe."""
        self.end_block()
        self.passed = {**state, "bytes": self.file.tell(), "job": self.job}
        if time.monotonic() - self.last > SECONDS:
            self.make_safe()

    def make_safe(self) -> None:
        """Wait until the disk has what is written, and then how to go on behind it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        beside = self.journal.with_name(self.journal.name + ".tmp")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(self.passed, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.journal)
        sync_folder(self.path.parent)
        self.saved, self.last = self.passed, time.monotonic()

    def finish(self, state: Mapping[str, Any]) -> None:
        """Give the file its name."""
        self.commit({**state, "whole": True})
        self.make_safe()
        self.file.close()
        name(self.part, self.path, self.journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close the file; where a job is not finished, make safe what can be, or leave nothing."""
        try:
            if self.passed and self.passed is not self.saved and self.passed["bytes"]:
                self.make_safe()
            self.file.close()
        finally:
            if not self.saved:
                self.part.unlink(missing_ok=True)


class GzipOutput(Output):
    """The same, packed: a gzip member for every block, so that a job can go on behind any."""

    member: gzip.GzipFile | None = None

    def put(self, raw: bytes) -> None:
        """Pack bytes."""
        if self.member is None:
            self.member = gzip.GzipFile("", "wb", fileobj=self.file, mtime=0)
        self.member.write(raw)

    def end_block(self) -> None:
        """End the member."""
        if self.member is not None:
            self.member.close()
            self.member = None


class ArrayOutput(Output):
    """A .npy file of arrays (dim,), one row for each input.

    It begins with its shape, which is known at its end; its header has room for that.
    """

    row: tuple[np.dtype[Any], tuple[int, ...]] | None = None  # dtype and shape of each

    def begin(self) -> None:
        """Read from the file what its rows are."""
        if self.saved:
            self.file.seek(0)
            np.lib.format.read_magic(self.file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(self.file)
            self.row = dtype, shape[1:]

    def write(self, answer: Any) -> None:
        """Write one row."""
        if self.row is None:
            self.row = answer.dtype, answer.shape
            self.header(0)
        self.put(answer.tobytes())

    def header(self, count: int) -> None:
        """Write that there are so many rows."""
        assert self.row is not None
        dtype, shape = self.row
        np.lib.format.write_array_header_1_0(
            self.file,
            {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (count, *shape),
            },
        )

    def finish(self, state: Mapping[str, Any]) -> None:
        """Say how many rows there are, and give the file its name."""
        if self.row is None:
            raise InputError("there are no texts, so that there is no array to write")
        self.file.seek(0)
        self.header(state["inputs"])
        self.file.seek(0, os.SEEK_END)
        super().finish(state)


def is_whole(path: Path) -> bool:
    """Tell whether a file is there, and no job under way; end one that ended but for its name."""
    part, journal = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    if journal.exists() and read_journal(journal).get("whole"):
        name(part, path, journal)
    return path.exists() and not journal.exists()


def read_journal(path: Path) -> dict[str, Any]:
    """Return what an unfinished job has left.  Raises InputError for what is no journal."""
    try:
        left = read_json_object(path)
    except CheckpointError:
        left = {}
    kinds = {"job": dict, "bytes": int, "inputs": int, "sha256": str}
    if any(not isinstance(left.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"{path}: is no journal of a job; delete it and the .part to start anew")
    return left


def name(part: Path, path: Path, journal: Path) -> None:
    """Give a whole file its name, and forget how it came about."""
    if part.exists():
        part.replace(path)
        sync_folder(path.parent)
    journal.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder too."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder, and needs none
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
