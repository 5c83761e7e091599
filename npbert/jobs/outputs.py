"""Where answers go: to stdout, or to files that appear whole: JSON lines, packed or not, arrays.

What follows the bytes that a journal calls safe (atomic.py) is cut off and done again.
"""

import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO, TypeVar

import numpy as np

from npbert.checkpoint.drafts import is_stream
from npbert.checkpoint.files import NPY_HEADER_LIMIT, parse_npy_header
from npbert.errors import CheckpointError, InputError
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
from npbert.jobs.records import Item
from npbert.tasks.rows import ERROR, RESULTS
from npbert.tasks.task import Refusal

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


class ArrayOutput(LinesOutput):
    """A .npy file of arrays (dim,), one row for each input.

    It begins with its shape, which is known at its end; its header has room for that.
    """

    row: tuple[np.dtype[Any], tuple[int, ...]] | None = None  # dtype and shape of each

    def begin(self) -> None:
        """Read from the file what its rows are."""
        if self.saved["inputs"]:
            self.file.seek(0)
            part = self.places.part
            try:
                head = parse_npy_header(memoryview(self.file.read(NPY_HEADER_LIMIT)), str(part))
            except CheckpointError:
                raise InputError(
                    f"{part}: is no array to go on with; delete it and its .json to start anew"
                ) from None
            self.row = head.dtype, head.shape[1:]

    def write(self, answer: Any) -> None:
        """Write one row."""
        if self.row is None:
            self.row = answer.dtype, answer.shape
            self.write_header(0)
        self.write_bytes(answer.tobytes())

    def write_header(self, count: int) -> None:
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
        self.write_header(state["inputs"])
        self.file.seek(0, os.SEEK_END)
        super().finish(state)


T = TypeVar("T")

OUTPUTS: Final = {".npy": ArrayOutput, ".gz": GzipOutput}  # and JSON lines under any other name


class StreamOutput:
    """Answers for whoever reads at the other end: a line as soon as it is there, nothing kept."""

    saved: Mapping[str, Any] = {}

    def __init__(self, path: Path | None) -> None:
        if path is None and sys.stdout is None:
            raise InputError("stdout is closed, so that there is nowhere to write to")
        self.file: TextIO | None = None if path is None else path.open("w", encoding="utf-8")

    def write(self, answer: Any) -> None:
        """Write a line."""
        print(to_line(answer), file=self.file, flush=True)

    def commit(self, state: Mapping[str, Any]) -> None:
        """Do nothing: what is written is gone."""

    def finish(self, state: Mapping[str, Any]) -> None:
        """Do nothing: what is written is there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.file is not None:
            self.file.close()


def open_output(
    path: Path | None, job: Mapping[str, Any], *, resume: bool
) -> LinesOutput | StreamOutput:
    """Open where answers go; nowhere in particular is stdout.  Raises InputError."""
    if path is None:
        return StreamOutput(None)
    try:
        if is_stream(path):
            return StreamOutput(path)
        if not path.name or path.is_dir():
            raise InputError(f"--output {path}: expected the name of a file")
        return OUTPUTS.get(path.suffix.lower(), LinesOutput)(path, job, resume=resume)
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written: {error.strerror}") from None


def answer_record(item: Item, result: Any) -> dict[str, Any]:
    """Return what is written of an input: all else that stands in it, and the answer."""
    beside = item.beside or {}
    if isinstance(result, Refusal):
        return {**beside, ERROR: {item.unit: item.number, "message": result.why}}
    answer = as_json_value(result)
    return (
        answer if item.beside is None and isinstance(answer, dict) else {**beside, RESULTS: answer}
    )


def count_recorded(path: Path) -> int:
    """Return in how many lines of a whole file an error stands.  Raises InputError."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            told = (json.loads(line) for line in file if f'"{ERROR}"'.encode() in line)
            return sum(isinstance(answer, dict) and ERROR in answer for answer in told)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise InputError(
            f"{path}: is there, but holds no answers that can be read: {error}; move it out of the "
            "way"
        ) from None


def as_json_value(result: Any) -> Any:
    """Return a result as JSON has it; an embedding with no more digits than it has."""
    if not isinstance(result, np.ndarray):
        return result
    if result.dtype == np.float32:
        return {"embedding": [float(str(x)) for x in result]}
    return {"embedding": result.tolist()}


def show_progress(
    results: Iterator[T], before: int, unit: str = "texts", total: int | None = None
) -> Iterator[T]:
    """Yield results, and show how many there were so far, where a person looks at stderr."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield from results
        return
    try:
        from tqdm import tqdm  # comes along with tokenizers; nothing depends on it
    except ImportError:
        yield from results
        return
    with tqdm(
        unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, initial=before, total=total
    ) as bar:
        for result in results:
            if sys.stdout.isatty():
                bar.clear()  # so that the result gets a line of its own
            yield result
            bar.update()
