"""npbert TASK: texts in, plain or as JSON lines, and a JSON object a line out."""

import argparse
import os
import sys
from collections import deque
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_type_hints

from npbert.cli.commands import COMMANDS, RESULTS, flag
from npbert.cli.reading import inputs, listing, rows
from npbert.cli.shared import FINE, print_json
from npbert.cli.source import add_flags, given
from npbert.errors import InputError
from npbert.options import OPTIONS, Names, Options, alternatives

BLAS_THREADS: Final = (
    "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


def add_parsers(commands: Any) -> None:
    """Add a command for each task."""
    for name, command in COMMANDS.items():
        summary = command.summary.rstrip(".")
        parser = commands.add_parser(
            name,
            help=summary.partition("?")[0] + "?" * ("?" in summary),
            description=f"{command.summary[0].upper()}{command.summary[1:]} "
            f"Prints a JSON object{' for every text' * (not command.gathers)}.",
            epilog=f"example: {command.example}",
        )
        parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
        parser.add_argument("-m", "--model", metavar="FOLDER", help=command.model)
        add_flags(parser)
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
                "-o",
                "--output",
                metavar="FILE.npy",
                help="write one array of all texts to a file, and nothing else",
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
            if NoneType in kinds and each.default is not None:
                how |= {"type": whole}
                how["help"] += "; all of them: all"
        elif words:
            how |= {"choices": words}
            how["help"] += f" (default: {each.default})" if each.default else ""
        else:
            how["metavar"] = "FILE" if Any in kinds else "TEXT"
        parser.add_argument(flag(each.name), default=None, **how)


def whole(text: str) -> int | str:
    """Return a whole number, or "all"."""
    return text if text == "all" else int(text)


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
        name: listing(value) if isinstance(value, list) else None if value == "all" else value
        for name, value in asked.items()
        if value is not None
    }
    task = pipeline(args.task, args.model, threads=args.threads, **given(args), **options)
    beside: deque[dict[str, Any]] = deque()  # what is passed through, of each input that was read
    items = rows(args, beside) if args.jsonl else inputs(args)
    # Someone who types wants an answer after every line; a pipe is read a little ahead.
    typed = not args.texts and sys.stdin.isatty()
    if not args.texts:
        task.place = "line {}".format
        task.first = 1
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
