"""npbert TASK: texts in, plain or as JSON lines, and a JSON object a line out."""

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

from npbert.cli.shared import FINE, print_json
from npbert.errors import InputError, listed, shown
from npbert.options import OPTIONS, Names, Options, alternatives, split

BLAS_THREADS: Final = (
    "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
RESULTS: Final = "results"


class Command(NamedTuple):
    """What a task's command is for, and what its TEXT is."""

    summary: str
    example: str
    fields: tuple[str, ...]  # of an input; TEXT is the first of them that no flag gives
    flags: Mapping[str, str] = {}  # a field that can be given for all texts: what it is
    needs: bool = False  # one of the flags, where texts come plain
    gathers: bool = False  # all TEXTs together are one input
    model: str = "default: a small built-in model"


NEEDED: Final = "there is no built-in one"
COMMANDS: Final = {
    "text-classification": Command(
        "which class has a text, or a pair of texts?",
        'npbert text-classification "A gorgeous, witty, seductive movie."',
        ("text", "text_pair"),
        {"text_pair": "a second text, to go with each"},
    ),
    "token-classification": Command(
        "which words name a person, a place, an organisation?",
        'npbert token-classification "Ada Lovelace met Charles Babbage in London."',
        ("text", "words"),
    ),
    "fill-mask": Command(
        "which words may stand where a text says [MASK]?",
        'npbert fill-mask "The ship sank in the [MASK]."',
        ("text", "text_pair"),
    ),
    "question-answering": Command(
        "which words of a text answer a question? TEXT is a question, or, with --question, a text.",
        'npbert question-answering -m FOLDER --context "The ship left Bristol in 1843." "When?"',
        ("question", "context"),
        {"context": "the text that answers each question", "question": "what to ask each text"},
        needs=True,
        model=NEEDED,
    ),
    "multiple-choice": Command(
        "which of some endings goes with a beginning?",
        'npbert multiple-choice -m FOLDER --choices "blue, made of cheese" "The sky is"',
        ("prompt", "choices"),
        {"choices": "the endings, separated by commas; or said once each"},
        needs=True,
        model=NEEDED,
    ),
    "zero-shot-classification": Command(
        "which of your own labels fits a text?",
        'npbert zero-shot-classification -m FOLDER --candidate-labels "sport, politics" "A goal!"',
        ("text", "candidate_labels"),
        model=NEEDED,
    ),
    "sentence-embedding": Command(
        "one vector for a text, near those of texts that mean the same.",
        "npbert sentence-embedding --output embeddings.npy < texts.txt",
        ("text",),
    ),
    "text-ranking": Command(
        "which texts answer a query best? All texts are ranked together.",
        'npbert text-ranking -m FOLDER --query "How deep is the sea?" "A cat." "Some 3,700 m."',
        ("documents", "query"),
        {"query": "what the texts should answer"},
        needs=True,
        gathers=True,
        model=NEEDED,
    ),
    "feature-extraction": Command(
        "what the model makes of every token, a vector each.",
        'npbert feature-extraction --layer 0 --offsets "Hello."',
        ("text", "text_pair"),
    ),
}


def add_parsers(commands: Any) -> None:
    """Add a command for each task."""
    for name, command in COMMANDS.items():
        summary = command.summary.rstrip(".")
        parser = commands.add_parser(
            name,
            help=summary.partition("?")[0] + "?" * ("?" in summary),
            description=f"{command.summary[0].upper()}{command.summary[1:]} "
            "Prints a JSON object for every text.",
            epilog=f"example: {command.example}",
        )
        parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
        parser.add_argument("-m", "--model", metavar="FOLDER", help=command.model)
        for field, meaning in command.flags.items():
            action = "append" if field == "choices" else "store"
            parser.add_argument(flag(field), metavar="TEXT", action=action, help=meaning)
        add_options(parser, OPTIONS[name])
        parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
        parser.add_argument(
            "--jsonl",
            action="store_true",
            help=f"read JSON objects, a line each, with the fields {', '.join(command.fields)}; "
            f"other fields are passed through, and the answer stands under {RESULTS}",
        )
        parser.add_argument(
            "--field",
            action="append",
            default=[],
            metavar="[NAME=]KEY",
            help=f"with --jsonl: where a field stands; without NAME it is {command.fields[0]}",
        )
        if name == "sentence-embedding":
            parser.add_argument(
                "-o", "--output", metavar="FILE.npy", help="write one array of all texts to a file"
            )
        parser.set_defaults(run=run, task=name, output=None)


def add_options(parser: argparse.ArgumentParser, options: type[Options]) -> None:
    """Add a flag for each option, as its declaration says it."""
    hints = get_type_hints(options)
    for each in fields(options):
        kinds = alternatives(hints[each.name])
        meaning = each.metadata["meaning"].replace("%", "%%")
        words = [kind for kind in kinds if isinstance(kind, str)]
        how: dict[str, Any] = {"help": meaning}
        if bool in kinds:
            how["action"] = argparse.BooleanOptionalAction if each.default else "store_true"
        elif Names in kinds:
            how |= {"action": "append", "metavar": "A,B"}
            how["help"] += "; separated by commas, or said once each"
        elif int in kinds:
            how |= {"type": int, "metavar": "N"}
        elif words:
            how |= {"choices": words}
            how["help"] += f" (default: {each.default})" if each.default else ""
        else:
            how["metavar"] = "TEXT"
        parser.add_argument(flag(each.name), default=None, **how)


def flag(name: str) -> str:
    """Return the flag for a name."""
    return f"--{name.replace('_', '-')}"


def run(args: argparse.Namespace) -> int:
    """Answer for every text, in order."""
    # Any BLAS reads one of these when NumPy loads; npbert's own threads want one of its each.
    os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
    from npbert.cli.results import plain, save_rows, told
    from npbert.tasks import pipeline

    if not args.texts and sys.stdin is None:
        raise InputError("there is no TEXT, and stdin is closed")
    asked = {each.name: getattr(args, each.name) for each in fields(OPTIONS[args.task])}
    options: dict[str, Any] = {
        name: listing(value) if isinstance(value, list) else value
        for name, value in asked.items()
        if value is not None
    }
    task = pipeline(args.task, args.model, threads=args.threads, **options)
    beside: deque[dict[str, Any]] = deque()  # what is passed through, of each input that was read
    items = rows(args, beside) if args.jsonl else inputs(args)
    # Someone who types wants an answer after every line; a pipe is read a little ahead.
    typed = not args.texts and sys.stdin.isatty()
    results = map(task, items) if typed else task(items)
    if not args.texts and not typed:
        results = told(results)
    if args.output is not None:
        save_rows(Path(args.output), results)
        return FINE
    for result in results:
        answer = plain(result)
        if args.jsonl:
            print_json({**beside.popleft(), RESULTS: answer})
        else:
            print_json(answer if isinstance(answer, dict) else {RESULTS: answer})
    return FINE


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
    for number, line in enumerate(args.texts or lines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"line {number} is {shown(row)}, expected a JSON object")
        rest = {name: value for name, value in row.items() if name not in keys.values()}
        if RESULTS in rest:
            raise InputError(f"line {number} has a field {RESULTS!r}, where the answer would go")
        beside.append(rest)
        if absent := [key for key in named if key not in row]:
            raise InputError(f"line {number} has no field {listed(map(repr, absent))}")
        yield given | {name: row[key] for name, key in keys.items() if key in row}


def lines() -> Iterator[str]:
    """Yield the lines of stdin without their ends; an empty one too, so that answers line up."""
    for line in sys.stdin:
        yield line.rstrip("\r\n")
