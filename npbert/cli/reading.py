"""What a task's command reads: texts of the command line, or lines of stdin, plain or JSON."""

import argparse
import json
import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from npbert.cli.commands import COMMANDS, RESULTS, flag
from npbert.errors import InputError, listed, shown
from npbert.options import split


def listing(values: list[str]) -> list[str]:
    """Return what a flag was given: names between commas, or one each time."""
    return list(split(values[0])) if len(values) == 1 else values


def fixed(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that flags give, the same for every text."""
    given = {name: getattr(args, name) for name in COMMANDS[args.task].flags}
    return {
        name: listing(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


def inputs(args: argparse.Namespace) -> Iterator[Any]:
    """Yield an input for each text of the command line, or else for each line of stdin."""
    if args.field:
        raise InputError("--field says where a field stands in JSON; it needs --jsonl")
    command, given = COMMANDS[args.task], fixed(args)
    names = [name for name in command.fields if name not in given]
    if command.needs and len(given) == len(command.fields) and not args.texts:
        yield given
        return
    if command.needs and len(given) != 1:
        one = " or ".join(map(flag, command.flags))
        raise InputError(f"{args.task} needs {one} (or --jsonl, with both in every line)")
    texts: Iterable[str] = args.texts or lines()
    if command.gathers:
        yield {names[0]: list(texts), **given}
        return
    for text in texts:
        yield {names[0]: text, **given} if given else text


def rows(args: argparse.Namespace, beside: deque[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield an input for each line of JSON, and keep what else stands in it."""
    command, given = COMMANDS[args.task], fixed(args)
    keys, named = {name: name for name in command.fields}, []
    for each in args.field:
        name, separate, key = each.rpartition("=")
        name = name if separate else command.fields[0]
        if name not in keys:
            raise InputError(f"--field {each}: there are the fields {', '.join(keys)}")
        keys[name] = key
        named.append(key)
    if any(each.startswith("words=") for each in args.field):  # in place of the text, not with it
        del keys["text"]
    for number, line in enumerate(args.texts or lines(), 1):
        row = parsed(line, f"line {number}")
        rest = {name: value for name, value in row.items() if name not in keys.values()}
        if RESULTS in rest:
            raise InputError(f"line {number} has a field {RESULTS!r}, where the answer would go")
        if absent := [key for key in named if key not in row]:
            raise InputError(f"line {number} has no field {listed(map(repr, absent))}")
        if args.output is None:
            beside.append(rest)
        yield given | {name: row[key] for name, key in keys.items() if key in row}


def parsed(line: str, where: str) -> dict[str, Any]:
    """Return a JSON object.  Raises InputError saying where it stands."""

    def number(text: str) -> float:
        if math.isinf(value := float(text)):
            raise ValueError(f"{text[:20]} is beyond the numbers that can be passed through")
        return value

    def refuse(text: str) -> float:
        raise ValueError(f"{text} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("an object has one name twice")
        return made

    try:
        row = json.loads(line, parse_float=number, parse_constant=refuse, object_pairs_hook=once)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is no JSON: {error}") from None
    except ValueError as error:
        huge = "set_int_max_str_digits" in str(error)
        raise InputError(
            f"{where}: {'a number has more than 4,300 digits' if huge else error}"
        ) from None
    if not isinstance(row, dict):
        raise InputError(f"{where} is {shown(row)}, expected a JSON object")
    return row


def lines() -> Iterator[str]:
    """Yield the lines of stdin without their ends; an empty one too, so that answers line up."""
    for line in sys.stdin:
        yield line.rstrip("\r\n")
