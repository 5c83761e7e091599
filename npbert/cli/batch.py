"""A task's command from its first input to its last: read, answer, write, and say how it went."""

import argparse
import json
import sys
import time
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from npbert import __version__
from npbert.cli.commands import fixed
from npbert.cli.reading import Source
from npbert.cli.results import Stream, answered, destination, told
from npbert.cli.shared import FINE, INTERRUPTED, SOME_FAILED, tell
from npbert.errors import InputError, warn
from npbert.jobs import BLOCK, Counts, Job, fingerprint
from npbert.options import OPTIONS
from npbert.outputs import ArrayOutput, Output, is_whole
from npbert.tasks import Task

TABLES: Final = (".csv", ".tsv", ".parquet")  # that can be read, or not even that


def answer_all(task: Task[Any, Any], args: argparse.Namespace) -> int:
    """Answer for every input, in order; return the exit status."""
    path = target(args)
    if path and args.resume and is_whole(path.resolve()):
        tell(f"{path} is there and whole, so that nothing is left to do")
        return FINE
    if not args.texts and args.input in (None, "-") and sys.stdin is None:
        raise InputError("there is no TEXT, and stdin is closed")
    with closing(Source(args)) as source:
        job = about(task, args, source.form) if path else {}
        output = destination(path, job, resume=args.resume)
        try:
            with output:
                return carry_out(task, args, source, output)
        finally:
            if output.saved and not output.saved.get("whole"):
                tell(
                    f"{path}: not finished; {output.saved['inputs']:,} answers are safe, and "
                    "--resume goes on behind them"
                )


def carry_out(
    task: Task[Any, Any], args: argparse.Namespace, source: Source, output: Output | Stream
) -> int:
    """Take every input from the source to the output; return the exit status."""
    # Someone who types wants an answer after every line; a pipe is read a little ahead.
    typed = source.lines is not None and source.lines.own is None and sys.stdin.isatty()
    counts = Counts(**{each.name: output.saved.get(each.name, 0) for each in fields(Counts)})
    before, began = counts.tokens, time.monotonic()
    job = Job(task, counts, record=args.on_error == "record", block=1 if typed else BLOCK)
    items = source.items(counts.inputs, output.saved.get("sha256"))
    answers = job.answers(items, output, source.digest)
    with job.stop:
        for item, result in answers if args.texts or typed else told(answers, counts.inputs):
            output.write(result if isinstance(output, ArrayOutput) else answered(item, result))
    if counts.cut:
        warn(task.told(counts.cut, counts.unread, task.options))
    if args.input is not None or args.output is not None:
        tell(summary(counts, before, time.monotonic() - began))
    if job.stop.asked and not job.stop.ended:
        return INTERRUPTED
    return SOME_FAILED if counts.failed else FINE


def target(args: argparse.Namespace) -> Path | None:
    """Return the file that answers go to; None is stdout.  Raises InputError."""
    path = None if args.output in (None, "-") else Path(args.output)
    if path is None:
        if args.resume:
            raise InputError("--resume goes on with a file; it needs --output FILE")
        return None
    read = Path(args.input or "-")
    if path.exists() and read.exists() and path.samefile(read):
        raise InputError(f"--output {path}: is the --input, which it would take the place of")
    if path.suffix in TABLES:
        raise InputError(f"--output {path}: answers are written as JSON lines, not as a table")
    if path.suffix == ".npy" and args.task != "sentence-embedding":
        raise InputError(f"--output {path}: only sentence-embedding makes an array")
    if path.suffix == ".npy" and args.on_error == "record":
        raise InputError(f"--output {path}: an array has no place to record an error")
    return path


def about(task: Task[Any, Any], args: argparse.Namespace, form: str | None) -> dict[str, Any]:
    """Return all that a job's bytes depend on but its inputs, as JSON has it."""
    said = {
        "npbert": __version__,
        "task": args.task,
        "model": fingerprint(task.folder) if task.folder else None,
        "options": {each.name: getattr(args, each.name) for each in fields(OPTIONS[args.task])},
        "flags": fixed(args),
        "form": form,
        "field": args.field,
        "on_error": args.on_error,
    }
    return json.loads(json.dumps(said))


def summary(counts: Counts, before: int, seconds: float) -> str:
    """Say what was done, all in all, and how fast it went this time."""
    parts = [f"{counts.inputs:,} inputs", f"{counts.tokens:,} tokens"]
    parts += [f"{counts.cut:,} cut"] if counts.cut else []
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    rate = (counts.tokens - before) / max(seconds, 1e-9)
    return f"{', '.join(parts)}; {seconds:.1f} s, {rate:,.0f} tokens/s"
