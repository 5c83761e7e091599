"""What the commands share: output that people and programs can read, and exit statuses."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

FINE: Final = 0
UNUSABLE: Final = 2  # usage, or input that cannot be read
NO_MODEL: Final = 3
SOME_FAILED: Final = 4  # inputs, which were recorded
INTERRUPTED: Final = 130


def print_json(value: Any) -> None:
    """Print one JSON value on a line of its own, and let a reader at the other end see it."""
    from npbert.lines import written

    print(written(value), flush=True)


def print_table(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns."""
    pairs = [(name, str(value)) for name, value in rows]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}")


def tell(message: str) -> None:
    """Print for the person at the terminal, beside the results."""
    if sys.stderr is not None:  # closed; print would take stdout instead
        with suppress(OSError):  # nobody hears it, and that changes no status
            print(f"npbert: {message}", file=sys.stderr)


def discard_output() -> None:
    """Send what Python still holds of stdout nowhere, so that it does not fail once more."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
