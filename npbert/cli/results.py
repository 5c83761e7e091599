"""Where results go: to JSON, to one .npy file, past a progress bar."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npbert.errors import CheckpointError, InputError
from npbert.files import replacing


def plain(result: Any) -> Any:
    """Return a result as JSON has it; an embedding with no more digits than it has."""
    if not isinstance(result, np.ndarray):
        return result
    if result.dtype == np.float32:
        return {"embedding": [float(str(x)) for x in result]}
    return {"embedding": result.tolist()}


def save_rows(path: Path, rows: Iterator[Any]) -> None:
    """Write arrays (dim,) as one array (n, dim), of which only one row is in memory at a time.

    A .npy file begins with the shape, which is known at its end; its header has room for that.
    """
    if not path.name or (path.exists() and not path.is_file()):
        raise InputError(f"--output {path}: expected the name of a file")
    first = next(rows, None)
    if first is None:
        raise InputError("there are no texts, so that there is no array to write")
    try:
        with replacing(path.resolve()) as temporary, temporary.open("r+b") as file:
            written = 0
            header(file, first, 0)
            while first is not None:
                file.write(first.tobytes())
                written += 1
                row, first = first, next(rows, None)
            file.seek(0)
            header(file, row, written)
    except CheckpointError as error:
        raise InputError(f"--output {error}") from None


def header(file: Any, row: Any, count: int) -> None:
    """Write the header of a .npy file of so many rows."""
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(row.dtype),
            "fortran_order": False,
            "shape": (count, *row.shape),
        },
    )


def told(results: Iterator[Any]) -> Iterator[Any]:
    """Yield results, and show how many there were so far, where a person looks at stderr."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield from results
        return
    try:
        from tqdm import tqdm  # comes along with tokenizers; nothing depends on it
    except ImportError:
        yield from results
        return
    with tqdm(unit=" texts", file=sys.stderr, dynamic_ncols=True) as bar:
        for result in results:
            if sys.stdout.isatty():
                bar.clear()  # so that the result gets a line of its own
            yield result
            bar.update()
