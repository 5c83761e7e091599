"""npbert TASK: texts in, plain or as JSON lines, and a JSON object a line out."""

import argparse
import os
from dataclasses import fields
from types import NoneType
from typing import Any, get_type_hints

from npbert.cli.commands import BLAS_THREADS, COMMANDS, ERROR, RESULTS, Command, flag, listing
from npbert.cli.shared import SOME_FAILED
from npbert.cli.source import SOURCE, add_flags, given
from npbert.options import OPTIONS, Names, Options, alternatives


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
        parser.add_argument("-m", "--model", metavar="MODEL", help=f"{SOURCE}; {command.model}")
        for field, meaning in command.flags.items():
            action = "append" if field == "choices" else "store"
            parser.add_argument(flag(field), metavar="TEXT", action=action, help=meaning)
        add_options(parser, OPTIONS[name])
        parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
        add_files(parser.add_argument_group("files"), command)
        add_flags(parser)
        parser.set_defaults(run=run, task=name)


def add_files(parser: argparse._ArgumentGroup, command: Command) -> None:
    """Add the flags that say what is read, and where answers go."""
    parser.add_argument(
        "-i", "--input", metavar="FILE", help="read a file, .gz too, in place of stdin"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write a file, which appears when it is whole: JSON lines, packed if it ends in .gz; "
        "of embeddings also one array, if it ends in .npy",
    )
    parser.add_argument(
        "--dask",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="on a Dask cluster: --input is a pattern of files, here or where fsspec reads, "
        "--output a folder, which gets a file for each; default: a cluster of this machine's cores",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with --output where a job was interrupted; do nothing if it is whole",
    )
    parser.add_argument(
        "--on-error",
        choices=["fail", "record"],
        default="fail",
        help="stop at an input that cannot be read, or write its number and the reason in the "
        f"place of an answer, under {ERROR}, and exit with {SOME_FAILED} at the end",
    )
    parser.add_argument(
        "--jsonl",
        dest="form",
        action="store_const",
        const="jsonl",
        help=f"read JSON objects, a line each, with the fields {', '.join(command.fields)}; "
        f"other fields are passed through, and the answer stands under {RESULTS}; default for "
        "files named .jsonl",
    )
    for form, what in (("csv", "commas"), ("tsv", "tabs")):
        parser.add_argument(
            f"--{form}",
            dest="form",
            action="store_const",
            const=form,
            help=f"the same for a table with {what} and the names of its columns in the first row; "
            f"default for files named .{form}",
        )
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="[NAME=]KEY",
        help=f"where a field stands in JSON or a table; without NAME it is {command.fields[0]}",
    )


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
    from npbert.cli.batch import answer_all
    from npbert.tasks import pipeline

    asked = {each.name: getattr(args, each.name) for each in fields(OPTIONS[args.task])}
    options: dict[str, Any] = {
        name: listing(value) if isinstance(value, list) else None if value == "all" else value
        for name, value in asked.items()
        if value is not None
    }
    if args.dask is None:
        task = pipeline(args.task, args.model, threads=args.threads, **given(args), **options)
        return answer_all(task, args)
    from npbert.distributed.shared import require

    require()
    from npbert.cli.cluster import answer_files

    threads = args.threads or 1  # a worker has a core; the cluster is as wide as its workers
    task = pipeline(args.task, args.model, threads=threads, **given(args), **options)
    return answer_files(task, args)
