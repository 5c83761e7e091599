"""npbert TASK: texts in, plain or as JSON lines, and a JSON object a line out."""

import argparse
import os
from collections.abc import Collection
from dataclasses import fields
from types import NoneType
from typing import Any, Final, get_type_hints

from npbert.cli.shared import (
    SOURCE,
    Commands,
    add_architecture_flags,
    add_copy_flag,
    add_hub_flags,
    load_keywords,
)
from npbert.engine.threads import blas_environment
from npbert.errors import ExitStatus, InputError, tell
from npbert.tasks.options import Names, Options, option_types, split_names
from npbert.tasks.rows import ERROR, RESULTS, TASKS, TaskRow, flag_of

NO_MODEL: Final = "there is no built-in one"


def add_task_parsers(commands: Commands) -> None:
    """Add a command for each task."""
    for name, row in TASKS.items():
        parser = commands.add(
            "tasks", name,
            f"{row.summary} Prints a JSON object{' for every text' * (not row.gathers)}.",
            epilog=f"example: {row.example}",
        )  # fmt: skip
        built_in = "default: a small built-in model" if row.built_in else NO_MODEL
        parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
        parser.add_argument("-m", "--model", metavar="MODEL", help=f"{SOURCE}; {built_in}")
        for field, meaning in row.flags.items():
            action = "append" if field in row.listed else "store"
            parser.add_argument(flag_of(field), metavar="TEXT", action=action, help=meaning)
        add_options(parser, row.options)
        parser.add_argument(
            "--threads",
            type=int,
            metavar="N",
            help="to compute with; default: all cores; changes no result",
        )
        parser.add_argument(
            "--processes",
            type=int,
            metavar="N",
            help="to compute a file of short texts with, for a narrow model whose threads would "
            "wait for Python; default: as many as pay, one where --threads is given; changes no "
            "result",
        )
        add_architecture_flags(parser, "the one that the task needs")
        add_copy_flag(parser)
        add_files(parser.add_argument_group("files"), row)
        add_hub_flags(parser)
        parser.set_defaults(run=run_task, task=name)


def add_files(parser: argparse._ArgumentGroup, row: TaskRow) -> None:
    """Add the flags that say what is read, and where answers go."""
    array = f", numbers if in {row.array_suffix}" if row.array_suffix else ""
    parser.add_argument(
        "-i", "--input", metavar="FILE", help="read a file, .gz too, in place of stdin"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write a file, which gets this name when complete: JSON lines, gzipped if it ends in "
        f".gz, an array if in .json{array}",
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
        help="stop at an input that cannot be read, or write its number and the reason in place of "
        f"an answer, under {ERROR}, and exit with {ExitStatus.SOME_FAILED:d} at the end",
    )
    add_input_flags(parser, row)


def add_input_flags(parser: argparse._ArgumentGroup, row: TaskRow) -> None:
    """Add the flags that say how inputs stand in a file."""
    parser.add_argument(
        "--jsonl",
        dest="form",
        action="store_const",
        const="jsonl",
        help=f"read JSON objects, a line each, with the fields {', '.join(row.names)}; "
        f"other fields are passed through, and the answer stands under {RESULTS}; default for "
        "files named .jsonl, .ndjson and the like; one named .json may also hold an array",
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
        help=f"where a field stands in JSON or a table; without NAME it is {row.names[0]}",
    )


def add_options(
    parser: argparse.ArgumentParser, options: type[Options], left_out: Collection[str] = ()
) -> None:
    """Add a flag for each option but some, as its declaration says it."""
    hints = get_type_hints(options)
    for each in fields(options):
        if each.name in left_out:
            continue
        kinds = option_types(hints[each.name])
        meaning = each.metadata["meaning"].replace("%", "%%")
        words = [kind for kind in kinds if isinstance(kind, str)]
        how: dict[str, Any] = {"help": meaning}
        if bool in kinds:
            how["action"] = argparse.BooleanOptionalAction if each.default else "store_true"
        elif Names in kinds:
            how |= {"action": "append", "metavar": "A,B"}
            how["help"] += "; separated by commas, or given once each"
        elif int in kinds:
            how |= {"type": int, "metavar": "N"}
            if NoneType in kinds and each.default is not None:
                how |= {"type": parse_count}
                how["help"] += "; all of them: all"
        elif words:
            how |= {"choices": words}
            how["help"] += f" (default: {each.default})" if each.default else ""
        else:
            how["metavar"] = "FILE" if Any in kinds else "TEXT"
        parser.add_argument(flag_of(each.name), default=None, **how)


def parse_count(text: str) -> int | str:
    """Return a whole number, or "all"."""
    try:
        return text if text == "all" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is given, expected a whole number, or all"
        ) from None


def run_task(args: argparse.Namespace) -> ExitStatus:
    """Answer for every text, in order."""
    os.environ.update(blas_environment())  # npbert's own threads want one of its each
    from npbert.jobs.job import run_batch
    from npbert.jobs.records import InputFormat
    from npbert.tasks import pipeline

    for text in args.texts:
        if os.path.isfile(text):  # noqa: PTH113  (pathlib raises for a name that is too long)
            tell(f"{text!r} is a file, and its name was read as a text; -i reads what is in it")
    row = TASKS[args.task]
    options = option_values(args, row.options)
    fixed = {name: getattr(args, name) for name in row.flags}
    given = InputFormat(
        task=args.task,
        form=args.form,
        field=tuple(args.field),
        fixed={
            name: list_values(value) if isinstance(value, list) else value
            for name, value in fixed.items()
            if value is not None
        },
        on_error=args.on_error,
    )
    if args.dask is None:
        task = pipeline(
            args.task, args.model, threads=args.threads, **load_keywords(args), **options
        )
        return run_batch(
            task, given, args.texts, args.input, args.output, resume=args.resume,
            processes=args.processes,
        )  # fmt: skip
    if args.processes is not None:
        raise InputError("--dask has processes of its own; --processes goes without it")
    from npbert.distributed import require_packages

    require_packages()
    from npbert.distributed.cluster import run_on_cluster

    threads = args.threads or 1  # a worker has a core; the cluster is as wide as its workers
    task = pipeline(args.task, args.model, threads=threads, **load_keywords(args), **options)
    if args.texts or args.input in (None, "-") or args.output in (None, "-"):
        raise InputError(
            "--dask reads the files of --input PATTERN, and writes to the folder --output FOLDER"
        )
    return run_on_cluster(task, given, args.input, args.output, args.dask, resume=args.resume)


def option_values(
    args: argparse.Namespace, options: type[Options], left_out: Collection[str] = ()
) -> dict[str, Any]:
    """Return what the flags of add_options were given."""
    names = [each.name for each in fields(options) if each.name not in left_out]
    return {
        name: list_values(value) if isinstance(value, list) else None if value == "all" else value
        for name in names
        if (value := getattr(args, name)) is not None
    }


def list_values(values: list[str]) -> list[str]:
    """Return what a flag was given: names between commas, or one each time."""
    return list(split_names(values[0])) if len(values) == 1 else values
