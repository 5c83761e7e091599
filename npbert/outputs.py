"""Where answers grow to files: JSON lines, packed or not, and arrays; nothing is lost on the way.

What follows the bytes that a journal calls safe (npbert.growing) is cut off and done again.
"""

import gzip
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from npbert.errors import InputError
from npbert.growing import (
    Places,
    is_open,
    opened,
    read_journal,
    rename,
    same_job,
    settle,
    write_journal,
)
from npbert.lines import written

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
        self.places = Places.of(path)
        self.job = dict(job)
        self.passed: Mapping[str, Any] = {}  # from where a job could go on
        self.saved: Mapping[str, Any] = {}  # from where it can, whatever happens
        self.last = 0.0
        self.whole = False
        settle(self.places)
        self.file = opened(self.places.part, create=True)
        try:
            self.saved = self.left(resume)
            self.file.truncate(self.saved["bytes"])
            self.begin()
            self.file.seek(0, os.SEEK_END)
        except BaseException:
            self.leave()
            raise

    def left(self, resume: bool) -> Mapping[str, Any]:
        """Return what an unfinished job has left, or begin one.  Raises InputError."""
        part, journal = self.places.part, self.places.journal
        size, anew = os.fstat(self.file.fileno()).st_size, f"delete {part} and its .json to start"
        if not journal.exists():
            if size:
                raise InputError(
                    f"{part}: is there, but no journal of a job; move it out of the way"
                )
            return self.journalled({"inputs": 0, "bytes": 0, "sha256": "", "job": self.job})
        left = read_journal(self.places)
        if not left["inputs"]:
            return self.journalled({**left, "bytes": 0, "job": self.job})
        if not resume:
            raise InputError(
                f"{part}: {left['inputs']:,} inputs of an unfinished job are answered there; "
                f"--resume goes on with it; {anew} anew"
            )
        same_job(left["job"], self.job, f"{anew} anew")
        if size < left["bytes"]:
            raise InputError(
                f"{part}: has lost some of the {left['bytes']} bytes that were safe; {anew} anew"
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
        """Wait until the disk has what is written, and then how to go on behind it.

        It is tried once: after an error a disk may call safe what it has dropped.
        """
        passed, self.passed = self.passed, {}
        self.file.flush()
        os.fsync(self.file.fileno())
        self.saved, self.last = self.journalled(passed), time.monotonic()

    def journalled(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write down from where the job can go on, and return it."""
        write_journal(self.places, state)
        return state

    def finish(self, state: Mapping[str, Any]) -> None:
        """Give the file its name.  Raises InputError if somebody has taken it away."""
        self.commit({**state, "whole": True})
        if self.passed:
            self.make_safe()
        if not is_open(self.places.part, self.file):
            raise InputError(f"{self.places.part}: was taken away while it was written")
        if os.name == "nt":  # gives no name to what is open; elsewhere that keeps others away
            self.file.close()
        rename(self.places)
        self.whole = True

    def leave(self) -> None:
        """Close the file; where no answer is safe, leave nothing behind."""
        try:
            if not self.whole and self.saved and not self.saved["inputs"]:
                for place in (self.places.draft, self.places.journal):
                    place.unlink(missing_ok=True)
                if is_open(self.places.part, self.file):
                    self.places.part.unlink()
        finally:
            self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            if self.passed and not self.whole:
                self.make_safe()
        finally:
            self.leave()


class GzipOutput(Output):
    """The same, packed: a gzip member for every block, so that a job can go on behind any."""

    member: gzip.GzipFile | None = None

    def put(self, raw: bytes) -> None:
        """Pack bytes."""
        if self.member is None:
            self.member = gzip.GzipFile("", "wb", fileobj=self.file, mtime=0)
        self.member.write(raw)

    def end_block(self) -> None:
        """End the member; a file without any would be no gzip file."""
        if self.member is None and not self.file.tell():
            self.put(b"")
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
        if self.saved["inputs"]:
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
