"""Every error that npbert raises on purpose, how it finds the word you meant, and exit statuses.

    ValueError
    └── NpbertError
        ├── ConfigError       config.json, or a Config made by hand
        ├── CheckpointError   the files of a model: weights, shapes, tokenizer
        ├── InputError        what was passed to a model or a task
        └── HubError          a model that had to come from elsewhere

A message says where, what was found, what was expected, and what it probably means.
"""

import difflib
import operator
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import IntEnum


class NpbertError(ValueError):
    """The root of the tree; the command line prints it without a traceback.

    Names from files and texts stand in messages, so what a terminal would obey is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
        )


class ConfigError(NpbertError):
    """A configuration that describes no model."""


class CheckpointError(NpbertError):
    """Files that are not the model which their configuration describes."""


class InputError(NpbertError):
    """An argument that a model or a task cannot compute with."""


class HubError(NpbertError):
    """A model that is not here and could not be fetched."""


class NpbertWarning(UserWarning):
    """Something was decided for you, and the warning says what."""


class ExitStatus(IntEnum):
    """What a command ends with."""

    FINE = 0
    DIFFERENT = 1  # as diff and cmp say it
    UNUSABLE = 2  # usage, or input that cannot be read
    NO_MODEL = 3
    SOME_FAILED = 4  # inputs, which were recorded
    INTERRUPTED = 130


def tell(message: str) -> None:
    """Print for the person at the terminal, beside the results."""
    if sys.stderr is not None:  # closed; print would take stdout instead
        with suppress(OSError):  # nobody hears it, and that changes no status
            print(f"npbert: {message}", file=sys.stderr)


def discard_output() -> None:
    """Send what Python still holds of stdout nowhere, so that it does not fail once more."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(message: str) -> None:
    """Warn with an NpbertWarning that points at the line of whoever called npbert."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "npbert":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, NpbertWarning, stacklevel=level)


def suggest(name: str, known: Iterable[str], show: Callable[[str], str] = repr) -> str:
    """Return '; did you mean X?' for the known name most like this one, or ''."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {show(matches[0])}?" if matches else ""


def quote(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, cut to 80 characters."""
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4,300 digits
        return "a huge number"
    except RecursionError:
        return "a deep nest"
    return text if len(text) <= 80 else f"{text[:80]}..."


def require_count(name: str, value: object) -> int:
    """Return a whole number from 1, of Python or NumPy.  Raises InputError."""
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"{name} is {quote(value)}, expected a whole number from 1")
    return count


def listing(things: Iterable[object], most: int = 8) -> str:
    """Return the first few things, separated by commas, and how many more there are."""
    texts = [str(thing) for thing in things]
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")
