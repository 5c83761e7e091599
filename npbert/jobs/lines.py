"""Lines to records, one at a time: plain lines, JSON lines, JSON arrays, CSV.

Whatever stands in a line, it is one record, and what is wrong with it is said in its place: bytes
that are no UTF-8, a line that would fill the memory, a row of too many fields.  A blank line is
wrong in every form, and at the end of a file nothing.
"""

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from string import whitespace
from typing import Any, Final, NamedTuple, Self

from npbert.errors import InputError, listing, quote
from npbert.jobs.raw_lines import LINE_LIMIT, Lines, size_fault

FORMS_BY_SUFFIX: Final = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonlines": "jsonl", ".ldjson": "jsonl",
    ".jl": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
}  # fmt: skip
# Of files that are no text, what to do about them; read as lines they would be gibberish.
UNREAD_SUFFIXES: Final = {
    ".parquet": "--dask reads it: -i FILE -o FOLDER --dask, with pip install 'npbert[dask]'",
    **dict.fromkeys(
        (".arrow", ".avro", ".db", ".feather", ".h5", ".hdf5", ".ods", ".orc", ".pickle", ".pkl",
         ".sqlite", ".xls", ".xlsx"),
        "save it as .csv or .jsonl",
    ),
    **dict.fromkeys((".doc", ".docx", ".epub", ".odt", ".pdf", ".rtf"), "save it as .txt"),
    **dict.fromkeys((".npy", ".npz", ".pt", ".pth", ".safetensors"), "it holds numbers, not texts"),
    **dict.fromkeys((".7z", ".bz2", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"),
                    "unpack it; gzip is the one that npbert undoes"),
}  # fmt: skip
JSON_MARKS: Final = {False: re.compile(r'["\[\]{},]'), True: re.compile(r'["\\]')}  # quoted?
JSON_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"?')  # a string; without its end, to the line's
PLAIN_TEXT: Final = re.compile(r'[^",\r\n]+')  # that mean nothing to the csv module
DELIMITERS: Final = {"csv": ",", "tsv": "\t"}


class Record(NamedTuple):
    """What stands in one line, or in the lines of one CSV row."""

    line: int  # its first, counted from 1
    value: str | dict[str, Any] | InputError  # a text, a row by its names, or what is wrong


class BlankLineError(InputError):
    """What is wrong with a line in which nothing stands."""


def form_of(path: Path) -> str:
    """Return what a file holds, "lines", "jsonl", "json", "csv" or "tsv", as its name says it.

    Raises InputError for one that holds no text.
    """
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    suffix = name.suffix.lower()
    if how := UNREAD_SUFFIXES.get(suffix):
        raise InputError(f"{path}: a {suffix} file is not read as texts; {how}")
    return FORMS_BY_SUFFIX.get(suffix, "lines")


BLANK_LINES: Final = {
    "lines": BlankLineError("is blank, expected a text"),
    "jsonl": BlankLineError("is blank, expected a JSON object"),
}


def read_records(lines: Lines, form: str) -> Iterator[Record]:
    """Yield what stands in each line, row of CSV, or place of a JSON array, but for a blank end."""
    if form == "json" and lines.is_array():
        return read_elements(lines)
    if form in DELIMITERS:
        return drop_blank_end(read_rows(lines, DELIMITERS[form]))
    return drop_blank_end(
        read_objects(lines) if form == "json" else read_lines(lines, BLANK_LINES[form])
    )


def drop_blank_end(found: Iterator[Record]) -> Iterator[Record]:
    """Yield records, without the blank lines that nothing follows."""
    held, blank = 0, Record(0, "")
    for record in found:
        if isinstance(record.value, BlankLineError):
            held, blank = held + 1, record
            continue
        yield from (Record(blank.line - i, blank.value) for i in reversed(range(held)))
        held = 0
        yield record


def read_lines(lines: Lines, blank: BlankLineError) -> Iterator[Record]:
    """Yield what stands in each line."""
    for text, fault in lines:
        yield Record(
            lines.number, fault or (text.rstrip("\r\n") if text.strip(whitespace) else blank)
        )


def read_objects(lines: Lines) -> Iterator[Record]:
    """Yield JSON values, each on a line, or over as many as it takes to close its brackets."""
    kept: list[str] = []
    first, depth = 1, 0
    for text, fault in lines:
        if kept and (fault or text.startswith("{")):  # what was begun did not end
            yield Record(first, "".join(kept))
            kept, depth = [], 0
        if not kept:
            first = lines.number
            if fault or not text.strip(whitespace):
                yield Record(first, fault or BLANK_LINES["jsonl"])
                continue
        kept.append(text)
        bare = JSON_TEXT.sub("", text)
        depth += sum(map(bare.count, "{[")) - sum(map(bare.count, "}]"))
        long = sum(map(len, kept)) > LINE_LIMIT
        if depth <= 0 or long:
            yield Record(first, size_fault("an object") if long else "".join(kept).rstrip("\r\n"))
            kept, depth = [], 0
    if kept:
        yield Record(first, "".join(kept))


def read_elements(lines: Lines) -> Iterator[Record]:
    """Yield the texts of a JSON array's elements, counted from 1.

    Raises InputError for an array that does not end, or that something stands behind.
    """
    for text in split_elements(lines.read_chunks(), lines.where):
        raw = text.encode("utf-8", "surrogateescape")
        lines.digest.update(raw)
        lines.number += 1
        if len(raw) > LINE_LIMIT:
            yield Record(lines.number, size_fault("an element"))
            continue
        try:
            yield Record(lines.number, raw.decode())
        except UnicodeDecodeError as error:
            yield Record(lines.number, InputError(f"is not UTF-8: {error.reason}"))


def split_elements(chunks: Iterator[str], where: str) -> Iterator[str]:
    """Yield what stands between an array's commas; of what is too long, enough to tell."""
    kept: list[str] = []
    count = depth = after = 0
    quoted = ended = False
    for chunk in chunks:
        start, i = 0, after  # an escape may be cut in two
        while not ended and (found := JSON_MARKS[quoted].search(chunk, i)):
            mark, i = found[0], found.end()
            if mark == "\\":
                i += 1
            elif mark == '"':
                quoted = not quoted
            elif depth == 1 and mark in ",]}":
                text = "".join([*kept, chunk[start : i - 1]]).strip()
                if text or count or mark == ",":
                    yield text
                count, start, ended = count + 1, i, mark != ","
                kept.clear()
            else:
                depth += 1 if mark in "[{" else -(mark in "]}")
                start = i if mark == "[" and depth == 1 else start
        after = max(0, i - len(chunk))
        if ended and chunk[start:].strip():
            raise InputError(f"{where}: has more behind the end of its array")
        if sum(map(len, kept)) <= LINE_LIMIT:
            kept.append(chunk[start:])
    if not ended:
        raise InputError(f"{where}: its array does not end; is the file cut off?")


class Feed:
    """Lines for the csv module, which ends a row at whatever is raised, and goes on behind it."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.fault: InputError | None = None  # of the row that is read
        self.size = 0  # of it, in characters
        self.blank = True  # as all of its lines are

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        text, fault = next(self.lines)
        self.size += len(text)
        self.blank = self.blank and not fault and not text.strip(whitespace)
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
        first, row = lines.number + 1, []
        feed.fault, feed.size, feed.blank = None, 0, True
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = str(error).partition(" - do you need")[0]  # what a programmer would do
            feed.fault = feed.fault or InputError(f"is no CSV: {why}")
        blank = feed.blank and len(row) < 2  # a tab is two fields
        fault = feed.fault or (BlankLineError("is blank") if blank else row_fault(row, names))
        if names is None:
            if fault:
                raise InputError(f"{lines.where}: its first row, of column names, {fault}")
            names = row
        else:
            yield Record(first, fault or dict(zip(names, row, strict=True)))


def row_fault(row: list[str], names: list[str] | None) -> InputError | None:
    """Return what is wrong with a row, or with the first, before which there are no names."""
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
