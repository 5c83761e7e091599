"""Where answers go: to stdout, to files that appear when they are whole, past a progress bar."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO, TypeVar

import numpy as np

from npbert.cli.commands import ERROR, RESULTS
from npbert.errors import InputError
from npbert.jobs import Item, Unsaved
from npbert.lines import written
from npbert.outputs import ArrayOutput, GzipOutput, Output
from npbert.tasks.shared import Refusal

T = TypeVar("T")

OUTPUTS: Final = {".npy": ArrayOutput, ".gz": GzipOutput}  # and JSON lines under any other name


class Stream(Unsaved):
    """Answers for whoever reads at the other end: a line as soon as it is there, nothing kept."""

    saved: Mapping[str, Any] = {}

    def __init__(self, path: Path | None) -> None:
        if path is None and sys.stdout is None:
            raise InputError("stdout is closed, so that there is nowhere to write to")
        self.file: TextIO | None = None if path is None else path.open("w", encoding="utf-8")

    def write(self, answer: Any) -> None:
        """Write a line."""
        print(written(answer), file=self.file, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.file is not None:
            self.file.close()


def destination(path: Path | None, job: Mapping[str, Any], *, resume: bool) -> Output | Stream:
    """Open where answers go; nowhere in particular is stdout.  Raises InputError."""
    if path is None:
        return Stream(None)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe, a device
            return Stream(path)
        if not path.name or path.is_dir():
            raise InputError(f"--output {path}: expected the name of a file")
        return OUTPUTS.get(path.suffix.lower(), Output)(path, job, resume=resume)
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written: {error.strerror}") from None


def answered(item: Item, result: Any) -> dict[str, Any]:
    """Return what is written of an input: all else that stands in it, and the answer."""
    beside = item.beside or {}
    if isinstance(result, Refusal):
        return {**beside, ERROR: {item.unit: item.number, "message": result.why}}
    answer = plain(result)
    return (
        answer if item.beside is None and isinstance(answer, dict) else {**beside, RESULTS: answer}
    )


def plain(result: Any) -> Any:
    """Return a result as JSON has it; an embedding with no more digits than it has."""
    if not isinstance(result, np.ndarray):
        return result
    if result.dtype == np.float32:
        return {"embedding": [float(str(x)) for x in result]}
    return {"embedding": result.tolist()}


def told(
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
