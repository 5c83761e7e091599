"""How the inputs of a task stand in what is read: plain texts, JSON or tables, and their fields.

The command line, a cluster's files and a data frame say it in one InputFormat, and take the same
path from there: records, to items, to a job.
"""

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from npbert.errors import InputError, listing, quote
from npbert.jobs.lines import Record, form_of, parse_object, read_records
from npbert.jobs.raw_lines import Lines
from npbert.tasks.rows import ERROR, RESULTS, TASKS, TaskRow, flag_of

OTHER_MARKS: Final = (";", "\t", "|")  # that separate columns elsewhere
# What datasets call the fields of inputs.
FIELD_SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": (
        "sentence", "sequence", "content", "body", "review", "comment", "document", "texts",
        "sentence1", "premise", "input", "inputs", "message", "title", "tweet",
    ),
    "question": ("query", "q", "questions"),
    "documents": ("passages", "corpus", "docs", "texts", "candidates", "document", "passage"),
    "prompt": ("text", "sentence", "context", "beginning", "startphrase", "sent1"),
}  # fmt: skip


class Item(NamedTuple):
    """One input: which it is, what it is or why it is none, and what else goes with its answer."""

    number: int
    given: Any  # InputError: why there is none
    beside: Mapping[str, Any] | None = None
    unit: str = "line"  # what is counted


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """How the inputs of a task stand in what is read.

    It travels to the workers of a cluster, and stands in the journal of a job.
    """

    task: str
    form: str | None = None  # "lines", "jsonl", "json", "csv", "tsv"; None: as a file's name says
    field: tuple[str, ...] = ()  # where fields stand in an object or a table, each as [NAME=]KEY
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what all inputs share
    on_error: Literal["fail", "record"] = "fail"

    @property
    def row(self) -> TaskRow:
        """What is known of the task."""
        return TASKS[self.task]

    @property
    def records_errors(self) -> bool:
        """Whether the reason stands in the place of an answer that there is not."""
        return self.on_error == "record"

    @property
    def says_all(self) -> bool:
        """Whether no field is left to read."""
        return len(self.fixed) == len(self.row.names)

    def keys(self) -> tuple[dict[str, str], list[str]]:
        """Return where each field stands in a record, and which of these places were named.

        Raises InputError for a field that the task does not have, or that is named twice.
        """
        keys: dict[str, str] = {name: name for name in self.row.names}
        named: list[str] = []
        chosen: set[str] = set()
        for each in self.field:
            name, separate, key = each.partition("=")
            name, key = (name, key) if separate else (self.row.names[0], each)
            if name not in keys:
                raise InputError(f"--field {each}: there are the fields {', '.join(keys)}")
            if name in chosen:
                raise InputError(f"--field {each}: {name} stands under {keys[name]} already")
            keys[name] = key
            named.append(key)
            chosen.add(name)
        # A place that was named for one field is read for no other that was not.
        keys = {name: key for name, key in keys.items() if name in chosen or key not in named}
        for name in chosen & set(self.row.alternatives):  # in place of the other, not with it
            keys.pop(self.row.alternatives[name], None)
        return keys, list(dict.fromkeys(named))

    def items(self, found: Iterable[Record], unit: str) -> Iterator[Item]:
        """Yield an input for each object or row, and what else stands in it."""
        keys, named = self.keys()
        taken = [RESULTS, ERROR] if self.records_errors else [RESULTS]
        for number, value in found:
            rest: dict[str, Any] = {}
            try:
                row = parse_object(value) if isinstance(value, str) else value
                if isinstance(row, InputError):
                    raise row
                rest = {name: value for name, value in row.items() if name not in keys.values()}
                if clash := [name for name in taken if name in rest]:
                    raise InputError(f"has a field {clash[0]!r}, where the answer would go")
                if absent := [key for key in named if key not in row]:
                    hint = explain_absence(row, absent[0])
                    raise InputError(f"has no field {listing(map(repr, absent))}{hint}")
                if not self.fixed and not any(key in row for key in keys.values()):
                    name = self.row.names[0]
                    hint = explain_absence(row, name, name) or "; --field says where it stands"
                    raise InputError(
                        f"has no {name}, but {listing(map(quote, row)) or 'nothing'}{hint}"
                    )
                self.explain_fields(row, keys)
            except InputError as error:
                kept = {name: value for name, value in rest.items() if name not in taken}
                yield Item(number, error, kept, unit)
            else:
                read = {name: row[key] for name, key in keys.items() if key in row}
                yield Item(number, {**self.fixed, **read}, rest, unit)

    def explain_fields(self, row: Mapping[str, Any], keys: Mapping[str, str]) -> None:
        """Refuse a row that lacks a field, or has a list for a text, if it says how to read it.

        Raises InputError; what else is wrong the task finds.
        """
        for name in self.row.fields[: self.row.required]:
            given = {name, *(k for k, own in self.row.alternatives.items() if own == name)}
            lacking = not any(keys.get(each) in row or each in self.fixed for each in given)
            if lacking and (hint := explain_absence(row, name, name)):
                raise InputError(f"has no {name}{hint}")
        for other, name in self.row.alternatives.items():
            key = keys.get(name)
            if key is not None and isinstance(row.get(key), list):
                raise InputError(
                    f"has a list under {key!r}, where a text is read; --field {other}={key} reads "
                    f"{other}"
                )

    def plain_items(self, found: Iterator[Record], unit: str) -> Iterator[Item]:
        """Yield an input for each text, or one for all of them.  Raises InputError."""
        row, given = self.row, self.fixed
        names = [name for name in row.names if name not in given]
        if row.needs_flag and not names:
            raise InputError(
                f"{' and '.join(map(flag_of, given))} say all, and nothing is left to read"
            )
        if row.needs_flag and len(given) != 1:
            one = " or ".join(map(flag_of, row.flags))
            raise InputError(f"{self.task} needs {one} (or --jsonl, with both in every line)")
        if row.gathers:
            yield self.gather(found, names[0], unit)
            return
        for number, text in found:
            usable = not isinstance(text, InputError)
            yield Item(number, {names[0]: text, **given} if given and usable else text, unit=unit)

    def gather(self, found: Iterator[Record], name: str, unit: str) -> Item:
        """Return one input of all texts."""
        texts = []
        for number, text in found:
            if isinstance(text, InputError):
                return Item(number, text, unit=unit)
            texts.append(text)
        return Item(0 if unit == "text" else 1, {name: texts, **self.fixed}, unit=unit)


def explain_absence(row: Mapping[str, Any], key: str, field: str = "") -> str:
    """Return why a row perhaps has no such key, or ''; a field can be read from another."""
    if len(row) == 1 and (marks := [mark for mark in OTHER_MARKS if mark in next(iter(row))]):
        how = "--tsv reads tabs" if marks[0] == "\t" else "write them with commas"
        return f"; are its columns separated by {marks[0]!r}? {how}"
    like = [name for name in row if field and name.lower() in FIELD_SPELLINGS.get(field, ())]
    if like := like or difflib.get_close_matches(key, list(row), n=1):
        flag = f"--field {like[0]}" if field else repr(like[0])
        return f"; is it {like[0]!r}? {flag}" if field else f"; did you mean {flag}?"
    return ""


class Source:
    """Where the inputs of a job come from: TEXTs, or the lines of a file, or of stdin."""

    def __init__(
        self,
        given: InputFormat,
        texts: Sequence[str],
        path: str | None,
        lines: Lines | None = None,
    ) -> None:
        named = None if path in (None, "-") else Path(str(path))
        if texts and path is not None:
            raise InputError("there are TEXTs and --input, expected one of them")
        self.format = given
        self.texts = texts
        self.form = given.form or (form_of(named) if named else "lines")
        self.table = self.form != "lines"
        self.alone = given.says_all and not texts and path is None and not self.table
        self.lines = lines or (None if texts or self.alone else Lines(named))
        if given.field and not self.table:
            raise InputError(
                "--field says where a field stands in JSON or CSV; it needs --jsonl or --csv"
            )

    def close(self) -> None:
        """Close the file that is read, if there is one."""
        if self.lines:
            self.lines.close()

    @property
    def unit(self) -> str:
        """What is counted; of a JSON array that is known as soon as it is read."""
        return self.lines.unit if self.lines else "text"

    def digest(self) -> str:
        """Return the sha256 of all that was read."""
        if self.lines:
            return self.lines.digest.hexdigest()
        return hashlib.sha256(repr(self.texts).encode("utf-8", "surrogatepass")).hexdigest()

    def items(self, done: int = 0, digest: str | None = None) -> Iterator[Item]:
        """Yield the inputs, without those that were done before, which must still be the same."""
        found = self.records()
        for _ in islice(found, done):
            pass
        if digest is not None and self.digest() != digest:
            raise InputError(f"--resume: the first {done} inputs are not what they were")
        if self.table:
            return self.format.items(found, self.unit)
        if self.alone:
            return iter([Item(0, self.format.fixed, unit=self.unit)])
        return self.format.plain_items(found, self.unit)

    def records(self) -> Iterator[Record]:
        """Yield the TEXTs, or what stands in the lines of the input."""
        if self.lines is None:
            return (Record(i, text) for i, text in enumerate(self.texts))
        return read_records(self.lines, self.form)
