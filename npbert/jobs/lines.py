"""Files to records, one at a time: plain lines, JSON lines, CSV; gzip is noticed and undone.

Whatever stands in a line, it is one record, and what is wrong with it is said in its place: bytes
that are no UTF-8, a line that would fill the memory, a row of too many fields.
"""

import csv
import hashlib
import io
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from npbert.errors import InputError, listing, quote

LINE_LIMIT: Final = 4 << 20  # bytes of a line; a tokenizer takes 150 times as many for its text
GZIP: Final = b"\x1f\x8b"
BOM: Final = "\ufeff"  # of Windows' UTF-8
FORMS_BY_SUFFIX: Final = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
}  # fmt: skip
PLAIN_TEXT: Final = re.compile(r'[^",\r\n]+')  # that mean nothing to the csv module
DELIMITERS: Final = {"csv": ",", "tsv": "\t"}


class Record(NamedTuple):
    """What stands in one line, or in the lines of one CSV row."""

    line: int  # its first, counted from 1
    value: str | dict[str, Any] | InputError  # a text, a row by its names, or what is wrong


def form_of(path: Path) -> str:
    """Return what a file holds, "lines", "jsonl", "csv" or "tsv", as its name says it."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return FORMS_BY_SUFFIX.get(name.suffix.lower(), "lines")


class Line(NamedTuple):
    """A line with its end, and what is wrong with it; then the text is only what can be shown."""

    text: str
    fault: InputError | None = None


class PutBack(io.RawIOBase):
    """A stream of which the first bytes were read already."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self.start = start
        self.rest = rest

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, room: Any) -> int:
        """Read what was put back, and then the rest, as it comes."""
        if not self.start:
            return self.rest.readinto1(room)  # type: ignore[attr-defined]
        size = min(len(room), len(self.start))
        room[:size], self.start = self.start[:size], self.start[size:]
        return size


class Lines:
    """The lines of a file, or of stdin where there is no path; what was read of them is hashed.

    `opened` opens a file that is not on this system; the path is then only told.  Raises InputError
    for a file that cannot be read, or not to its end; its cause is what the system said, if it did.
    """

    def __init__(
        self, path: Path | str | None, opened: Callable[[], BinaryIO] | None = None
    ) -> None:
        self.where = str(path or "stdin")
        self.number = 0  # of the line that was read last
        self.digest = hashlib.sha256()  # of all that was read, gzip undone
        self.own: BinaryIO | None = None  # what must be closed
        with self.guard():
            if path is not None:
                here: Callable[[], Any] = partial(Path(path).open, "rb")
                self.own = (opened or here)()
            self.raw = raw = self.own or sys.stdin.buffer
            stream: BinaryIO = raw
            start = raw.peek(2)[:2] if isinstance(raw, io.BufferedReader) else b""
            if start == GZIP[:1]:  # a pipe may bring one byte, and the other when it likes
                start = raw.read(2)
                stream = io.BufferedReader(PutBack(start, raw))
            self.stream = GzipFile(fileobj=stream) if start == GZIP else stream

    def close(self) -> None:
        """Close the file; stdin is left to whoever opened it."""
        if self.own is not None:
            self.own.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Line:
        """Return the next line."""
        with self.guard():
            raw = self.stream.readline(LINE_LIMIT + 1)
            self.digest.update(raw)
            more = raw if len(raw) > LINE_LIMIT else b""
            while more and not more.endswith(b"\n"):  # the rest of a line that is too long
                more = self.stream.readline(LINE_LIMIT)
                self.digest.update(more)
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) > LINE_LIMIT:
            return Line("", size_fault("a line"))
        first = self.number == 1
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            why = f"is not UTF-8: {error.reason} at byte {error.start}"
            utf_16 = first and raw.startswith((BOM.encode("utf-16-le"), BOM.encode("utf-16-be")))
            return Line(
                raw.decode(errors="replace"),
                InputError("is UTF-16, expected UTF-8" if utf_16 else why),
            )
        return Line(text.removeprefix(BOM) if first else text)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Say of which file, and after which line, nothing more can be read."""
        cause: OSError | None = None
        try:
            yield
        except (EOFError, zlib.error, BadGzipFile) as error:
            why = f"the gzip file is cut off or damaged: {error}"
        except OSError as error:  # there is none, it is a folder, the disk fails
            why, cause = str(error.strerror or error), error
        else:
            return
        beyond = f" beyond line {self.number}" if self.number else ""
        raise InputError(f"{self.where}: cannot be read{beyond}: {why}") from cause


def read_records(lines: Lines, form: str) -> Iterator[Record]:
    """Yield what stands in each line, or in each row of CSV."""
    if form in DELIMITERS:
        yield from read_rows(lines, DELIMITERS[form])
        return
    for text, fault in lines:
        yield Record(lines.number, fault or text.rstrip("\r\n"))


def size_fault(what: str) -> InputError:
    """Return what is wrong with what would fill the memory."""
    return InputError(f"has over {LINE_LIMIT} bytes, the most that is read of {what}")


class Feed:
    """Lines for the csv module, which ends a row at whatever is raised, and goes on behind it."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.fault: InputError | None = None  # of the row that is read
        self.size = 0  # of it, in characters

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        text, fault = next(self.lines)
        self.size += len(text)
        if self.size > LINE_LIMIT:
            fault = size_fault("a row")
            text = PLAIN_TEXT.sub("", text)  # and it still ends where it should
        self.fault = self.fault or fault
        if fault and not text:
            raise csv.Error
        return text


def read_rows(lines: Lines, delimiter: str) -> Iterator[Record]:
    """Yield the rows of a table by the names in its first.  Raises InputError for no table.

    Commas stand between quotes where they are none of the table's; tabs, in texts, do not stand.
    """
    csv.field_size_limit(LINE_LIMIT)  # which is less than the module allows at first, or more
    feed = Feed(lines)
    reader = csv.reader(
        feed, delimiter=delimiter, strict=True,
        quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
    )  # fmt: skip
    names: list[str] | None = None
    while True:
        first, row, feed.fault, feed.size = lines.number + 1, [], None, 0
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = str(error).partition(" - do you need")[0]  # what a programmer would do
            feed.fault = feed.fault or InputError(f"is no CSV: {why}")
        fault = feed.fault or row_fault(row, names)
        if names is None:
            if fault:
                raise InputError(f"{lines.where}: its first row, of column names, {fault}")
            names = row
        else:
            yield Record(first, fault or dict(zip(names, row, strict=True)))


def row_fault(row: list[str], names: list[str] | None) -> InputError | None:
    """Return what is wrong with a row, or with the first, before which there are no names."""
    if not row:
        return InputError("is blank")
    if names is None:
        twice = sorted({name for name in row if row.count(name) > 1})
        return InputError(f"says {listing(map(repr, twice))} twice") if twice else None
    if len(row) != len(names):
        return InputError(f"has {len(row)} fields, but there are {len(names)} columns")
    return None


def parse_object(text: str) -> dict[str, Any]:
    """Return a JSON object.  Raises InputError for anything else, blank lines too."""

    def number(digits: str) -> float:
        if math.isinf(value := float(digits)):
            raise ValueError(f"has {digits[:20]}, beyond the numbers that can be passed through")
        return value

    def refuse(word: str) -> float:
        raise ValueError(f"has {word}, which is no JSON")

    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("has an object with one name twice")
        return made

    try:
        row = json.loads(
            text, parse_float=number, parse_constant=refuse, object_pairs_hook=refuse_twice
        )
    except RecursionError:
        raise InputError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        why = f"is no JSON: {error}" if text.strip() else "is blank, expected a JSON object"
        raise InputError(why) from None
    except ValueError as error:
        huge = "set_int_max_str_digits" in str(error)
        raise InputError("has a number of more than 4,300 digits" if huge else str(error)) from None
    if not isinstance(row, dict):
        raise InputError(f"is {quote(row)}, expected a JSON object")
    return row


def to_line(value: Any) -> str:
    """Return a JSON value as a line of JSON."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character, which JSON may hold, but only as it escapes it
        return json.dumps(value)
    return line


def print_json(value: Any) -> None:
    """Print one JSON value on a line of its own, and let a reader at the other end see it."""
    print(to_line(value), flush=True)
