"""A file of JSON lines that grows, packed or not, and can be gone on with wherever it was stopped.

What follows the bytes that a journal calls safe (atomic.py) is cut off and done again.
"""

import gzip
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from npbert.errors import InputError
from npbert.jobs.atomic import (
    Places,
    end_whole_job,
    give_name,
    is_open,
    open_part,
    read_journal,
    remove_journal,
    require_same_job,
    write_journal,
)
from npbert.jobs.lines import to_line

COMMIT_SECONDS: Final = (
    0.5  # between two moments from which a job can go on; each waits for the disk
)


class LinesOutput:
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
        self.places = Places.from_path(path)
        self.job = dict(job)
        self.passed: Mapping[str, Any] = {}  # from where a job could go on
        self.saved: Mapping[str, Any] = {}  # from where it can, whatever happens
        self.last = 0.0
        self.whole = False
        end_whole_job(self.places)
        self.file = open_part(self.places.part, create=True)
        try:
            self.saved = self.resume_state(resume)
            self.file.truncate(self.saved["bytes"])
            self.begin()
            self.file.seek(0, os.SEEK_END)
        except BaseException:
            self.close()
            raise

    def resume_state(self, resume: bool) -> Mapping[str, Any]:
        """Return what an unfinished job has left, or begin one.  Raises InputError."""
        part, journal = self.places.part, self.places.journal
        size, anew = os.fstat(self.file.fileno()).st_size, f"delete {part} and its .json to start"
        if not journal.exists():
            if size:
                raise InputError(
                    f"{part}: is there, but no journal of a job; move it out of the way"
                )
            return self.record_state({"inputs": 0, "bytes": 0, "sha256": "", "job": self.job})
        left = read_journal(self.places)
        if not left["inputs"]:
            return self.record_state({**left, "bytes": 0, "job": self.job})
        if not resume:
            raise InputError(
                f"{part}: {left['inputs']:,} inputs of an unfinished job are answered there; "
                f"--resume goes on with it; {anew} anew"
            )
        require_same_job(left["job"], self.job, f"{anew} anew")
        if size < left["bytes"]:
            raise InputError(
                f"{part}: has lost some of the {left['bytes']} bytes that were safe; {anew} anew"
            )
        return left

    def begin(self) -> None:
        """Get ready to write behind what is safe."""

    def write(self, answer: Any) -> None:
        """Write the answer to one input."""
        self.write_bytes(to_line(answer).encode() + b"\n")

    def write_bytes(self, raw: bytes) -> None:
        """Write bytes."""
        self.file.write(raw)

    def end_block(self) -> None:
        """End what must be whole before a job can go on behind it."""

    def commit(self, state: Mapping[str, Any]) -> None:
        """Take note that a job can go on from here, and, now and then, make it safe."""
        self.end_block()
        self.passed = {**state, "bytes": self.file.tell(), "job": self.job}
        if time.monotonic() - self.last > COMMIT_SECONDS:
            self.make_safe()

    def make_safe(self) -> None:
        """Wait until the disk has what is written, and then how to go on behind it.

        It is tried once: after an error a disk may call safe what it has dropped.
        """
        passed, self.passed = self.passed, {}
        self.file.flush()
        os.fsync(self.file.fileno())
        self.saved, self.last = self.record_state(passed), time.monotonic()

    def record_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
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
        give_name(self.places)
        self.whole = True

    def close(self) -> None:
        """Close the file; where no answer is safe, leave nothing behind."""
        try:
            if not self.whole and self.saved and not self.saved["inputs"]:
                remove_journal(self.places)
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
            self.close()


class GzipOutput(LinesOutput):
    """The same, packed: a gzip member for every block, so that a job can go on behind any."""

    member: gzip.GzipFile | None = None

    def write_bytes(self, raw: bytes) -> None:
        """Pack bytes."""
        if self.member is None:
            self.member = gzip.GzipFile("", "wb", fileobj=self.file, mtime=0)
        self.member.write(raw)

    def end_block(self) -> None:
        """End the member; a file without any would be no gzip file."""
        if self.member is None and not self.file.tell():
            self.write_bytes(b"")
        if self.member is not None:
            self.member.close()
            self.member = None


class JsonOutput(LinesOutput):
    """A file of one JSON array, an element a line."""

    def write(self, answer: Any) -> None:
        """Write the answer to one input."""
        self.write_bytes((b",\n" if self.file.tell() else b"[\n") + to_line(answer).encode())

    def finish(self, state: Mapping[str, Any]) -> None:
        """Close the array, and give the file its name."""
        self.write_bytes(b"\n]\n" if self.file.tell() else b"[]\n")
        super().finish(state)
