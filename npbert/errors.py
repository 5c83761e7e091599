"""Every error that npbert raises on purpose, and how it finds the word you meant.

    ValueError
    └── NpbertError
        ├── ConfigError       config.json, or a Config made by hand
        ├── CheckpointError   the files of a model: weights, shapes, tokenizer
        ├── InputError        what was passed to a model or a task
        └── HubError          a model that had to come from elsewhere

A message says where, what was found, what was expected, and what it probably means.
"""

import difflib
import sys
import warnings
from collections.abc import Iterable


class NpbertError(ValueError):
    """The root of the tree; the command line prints it without a traceback.

    Names from files and texts stand in messages, so what a terminal would obey is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
        )


class ConfigError(NpbertError):
    """A configuration that describes no DistilBERT."""


class CheckpointError(NpbertError):
    """Files that are not the model which their configuration describes."""


class InputError(NpbertError):
    """An argument that a model or a task cannot compute with."""


class HubError(NpbertError):
    """A model that is not here and could not be fetched."""


class NpbertWarning(UserWarning):
    """Something was decided for you, and the warning says what."""


def warn(message: str) -> None:
    """Warn with an NpbertWarning that points at the line of whoever called npbert."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "npbert":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, NpbertWarning, stacklevel=level)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' for the known name most like this one, or ''."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def shown(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, cut to 80 characters."""
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4,300 digits
        return "a huge number"
    except RecursionError:
        return "a deep nest"
    return text if len(text) <= 80 else f"{text[:80]}..."


def listed(things: Iterable[object], most: int = 8) -> str:
    """Return the first few things, separated by commas, and how many more there are."""
    texts = [str(thing) for thing in things]
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")
