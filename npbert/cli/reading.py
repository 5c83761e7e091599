"""What a task's command reads: texts of the command line, or of a file, plain, JSON or CSV."""

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from npbert.cli.commands import COMMANDS, ERROR, RESULTS, fixed, flag
from npbert.errors import InputError, listed
from npbert.jobs import Item
from npbert.lines import Lines, Record, form_of, parsed, records


class Source:
    """Where the inputs of a command come from; `lines` are those of --input, if it is open."""

    def __init__(self, args: argparse.Namespace, lines: Lines | None = None) -> None:
        named = None if args.input in (None, "-") else Path(args.input)
        if args.texts and args.input is not None:
            raise InputError("there are TEXTs and --input, expected one of them")
        self.args = args
        self.form = args.form or (form_of(named) if named else "lines")
        self.table = self.form != "lines"
        self.unit = "text" if args.texts else "line"
        all_said = len(fixed(args)) == len(COMMANDS[args.task].fields)
        self.alone = all_said and not args.texts and args.input is None and not self.table
        self.lines = lines or (None if args.texts or self.alone else Lines(named))
        if args.field and not self.table:
            raise InputError(
                "--field says where a field stands in JSON or CSV; it needs --jsonl or --csv"
            )

    def close(self) -> None:
        """Close the file that is read, if there is one."""
        if self.lines:
            self.lines.close()

    def digest(self) -> str:
        """Return the sha256 of all that was read."""
        if self.lines:
            return self.lines.digest.hexdigest()
        return hashlib.sha256(repr(self.args.texts).encode("utf-8", "surrogatepass")).hexdigest()

    def items(self, done: int = 0, digest: str | None = None) -> Iterator[Item]:
        """Yield the inputs, without those that were done before, which must still be the same."""
        found = self.records()
        for _ in islice(found, done):
            pass
        if digest is not None and self.digest() != digest:
            raise InputError(f"--resume: the first {done} inputs are not what they were")
        return rows(found, self.args, self.unit) if self.table else self.plain(found)

    def records(self) -> Iterator[Record]:
        """Yield the TEXTs, or what stands in the lines of the input."""
        if self.lines is None:
            return (Record(i, text) for i, text in enumerate(self.args.texts))
        return records(self.lines, self.form)

    def plain(self, found: Iterator[Record]) -> Iterator[Item]:
        """Yield an input for each text, or one for all of them."""
        command, given = COMMANDS[self.args.task], fixed(self.args)
        names = [name for name in command.fields if name not in given]
        if self.alone:
            yield Item(0, given, unit=self.unit)
            return
        if command.needs and not names:
            raise InputError(
                f"{' and '.join(map(flag, given))} say all, and nothing is left to read"
            )
        if command.needs and len(given) != 1:
            one = " or ".join(map(flag, command.flags))
            raise InputError(f"{self.args.task} needs {one} (or --jsonl, with both in every line)")
        if command.gathers:
            yield gathered(found, names[0], given, self.unit)
            return
        for number, text in found:
            usable = not isinstance(text, InputError)
            yield Item(
                number, {names[0]: text, **given} if given and usable else text, unit=self.unit
            )


def keyed(args: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """Return where each field stands in a row, and which places were named by --field."""
    keys, named = {name: name for name in COMMANDS[args.task].fields}, []
    for each in args.field:
        name, separate, key = each.partition("=")
        name, key = (name, key) if separate else (COMMANDS[args.task].fields[0], each)
        if name not in keys:
            raise InputError(f"--field {each}: there are the fields {', '.join(keys)}")
        if keys[name] in named:
            raise InputError(f"--field {each}: {name} stands under {keys[name]} already")
        keys[name] = key
        named.append(key)
    if any(each.startswith("words=") for each in args.field):
        del keys["text"]  # in place of the text, not with it
    return keys, named


def rows(found: Iterable[Record], args: argparse.Namespace, unit: str) -> Iterator[Item]:
    """Yield an input for each row, and what else stands in it."""
    given, (keys, named) = fixed(args), keyed(args)
    taken = [RESULTS, ERROR] if args.on_error == "record" else [RESULTS]
    for number, value in found:
        rest: dict[str, Any] = {}
        try:
            row = parsed(value) if isinstance(value, str) else value
            if isinstance(row, InputError):
                raise row
            rest = {name: value for name, value in row.items() if name not in keys.values()}
            if clash := [name for name in taken if name in rest]:
                raise InputError(f"has a field {clash[0]!r}, where the answer would go")
            if absent := [key for key in named if key not in row]:
                raise InputError(f"has no field {listed(map(repr, absent))}")
            if not given and not any(key in row for key in keys.values()):
                raise InputError(
                    f"has no {COMMANDS[args.task].fields[0]}, but {listed(row) or 'nothing'}; "
                    "--field says where it stands"
                )
        except InputError as error:
            kept = {name: value for name, value in rest.items() if name not in taken}
            yield Item(number, error, kept, unit)
        else:
            read = {name: row[key] for name, key in keys.items() if key in row}
            yield Item(number, given | read, rest, unit)


def gathered(found: Iterator[Record], name: str, given: dict[str, Any], unit: str) -> Item:
    """Return one input of all texts."""
    texts = []
    for number, text in found:
        if isinstance(text, InputError):
            return Item(number, text, unit=unit)
        texts.append(text)
    return Item(0 if unit == "text" else 1, {name: texts, **given}, unit=unit)
