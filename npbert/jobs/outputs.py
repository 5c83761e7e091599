"""Where answers go: to stdout, or to files that appear whole: JSON lines, packed or not, arrays."""

import gzip
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, TextIO, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from npbert.checkpoint.drafts import is_stream, replace_files
from npbert.checkpoint.files import NPY_HEADER_LIMIT, parse_npy_header
from npbert.errors import CheckpointError, InputError
from npbert.jobs.atomic import end_named_job, write_journal
from npbert.jobs.line_files import GzipOutput, JsonOutput, LinesOutput
from npbert.jobs.lines import to_line
from npbert.jobs.records import Item
from npbert.tasks.rows import ERROR, RESULTS
from npbert.tasks.task import Refusal

NO_ARRAY: Final = "there are no texts, so that there is no array to write"
ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)  # of what is in an .npz file: equal answers, equal bytes


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
        write_npy_header(self.file, dtype, (count, *shape))

    def finish(self, state: Mapping[str, Any]) -> None:
        """Say how many rows there are, and give the file its name."""
        if self.row is None:
            raise InputError(NO_ARRAY)
        self.file.seek(0)
        self.write_header(state["inputs"])
        self.file.seek(0, os.SEEK_END)
        super().finish(state)


class MatrixOutput(LinesOutput):
    """A .npz file of a sparse matrix (n, width), which scipy.sparse.load_npz reads: CSR.

    While it grows it is a row after the other: the width once, then how many values a row has,
    their columns, and the values.  The archive is made at the end, in constant memory but for
    where each row begins.
    """

    width = 0  # of all rows; 0: not known yet

    def begin(self) -> None:
        """Read from the file how wide its rows are."""
        if self.saved["inputs"]:
            self.file.seek(0)
            self.width = read_number(self.file)

    def write(self, answer: Any) -> None:
        """Write one row: its columns in order, its values, and its width."""
        indices, values, width = answer
        if not self.width:
            self.width = width
            self.write_bytes(np.int64(width).tobytes())
        self.write_bytes(np.int64(len(indices)).tobytes())
        self.write_bytes(indices.astype(np.int32).tobytes() + values.astype(np.float32).tobytes())

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the columns and the values of every row that is written."""
        self.file.seek(8)
        for _ in range(self.saved["inputs"]):
            size = 4 * read_number(self.file)
            yield self.file.read(size), self.file.read(size)

    def finish(self, state: Mapping[str, Any]) -> None:
        """Make the archive of the rows, under its name, and forget how it came about."""
        if not self.width:
            raise InputError(NO_ARRAY)
        self.commit(state)
        if self.passed:
            self.make_safe()
        path = self.places.path
        starts = np.zeros(state["inputs"] + 1, np.int64)
        np.cumsum([len(values) // 4 for _, values in self.rows()], out=starts[1:])
        count, shape = int(starts[-1]), np.array([state["inputs"], self.width])
        with replace_files(path.parent) as draft, draft(path) as file:
            with zipfile.ZipFile(file, "w") as archive:
                write_member(archive, "indices", "<i4", (count,), (row for row, _ in self.rows()))
                write_member(archive, "indptr", "<i8", starts.shape, [starts.tobytes()])
                write_member(archive, "format", "S3", (), [b"csr"])
                write_member(archive, "shape", "<i8", (2,), [shape.tobytes()])
                write_member(archive, "data", "<f4", (count,), (row for _, row in self.rows()))
            file.flush()
            os.fsync(file.fileno())
        size = path.stat().st_size
        write_journal(self.places, {**state, "whole": True, "bytes": size, "job": self.job})
        if os.name == "nt":  # removes nothing that is open; elsewhere that keeps others away
            self.file.close()
        end_named_job(self.places)
        self.whole = True


def read_number(file: IO[bytes]) -> int:
    """Return a number of eight bytes."""
    return int(np.frombuffer(file.read(8), np.int64)[0])


def write_npy_header(file: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Write what a .npy file begins with."""
    described = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(
        file, {"descr": described, "fortran_order": False, "shape": shape}
    )


def write_member(
    archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...], parts: Iterable[bytes]
) -> None:
    """Write an array into an .npz file, part by part."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy", ZIP_DATE), "w", force_zip64=True) as file:
        write_npy_header(file, dtype, shape)
        for part in parts:
            file.write(part)


T = TypeVar("T")

ARRAY_OUTPUTS: Final = {".npy": ArrayOutput, ".npz": MatrixOutput}
OUTPUTS: Final = {**ARRAY_OUTPUTS, ".gz": GzipOutput, ".json": JsonOutput}  # others: JSON lines


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
            told = (
                json.loads(line.rstrip(b",\r\n")) for line in file if f'"{ERROR}"'.encode() in line
            )
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
    results: Iterator[T],
    before: int,
    unit: str = "texts",
    total: int | None = None,
    position: Callable[[], int] | None = None,
) -> Iterator[T]:
    """Yield results, and show how many there were so far, where a person looks at stderr.

    With a `position`, in bytes of a file, `total` is the size of that, and so the bar's.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield from results
        return
    try:
        from tqdm import tqdm  # comes along with tokenizers; nothing depends on it
    except ImportError:
        yield from results
        return
    how: dict[str, Any] = {"unit": f" {unit}", "initial": before}
    if position:
        how = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with tqdm(**how, file=sys.stderr, dynamic_ncols=True, total=total) as bar:
        for count, result in enumerate(results, before + 1):
            if sys.stdout.isatty():
                bar.clear()  # so that the result gets a line of its own
            yield result
            if position:
                bar.set_postfix_str(f"{count:,} {unit}", refresh=False)
            bar.update(position() - bar.n if position else 1)
