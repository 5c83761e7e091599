"""A task's command from its first input to its last: read, answer, write, and say how it went."""

import argparse
import hashlib
import json
import os
import sys
import time
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from npbert import __version__
from npbert.cli.commands import fixed
from npbert.cli.reading import Source
from npbert.cli.results import Stream, answered, destination, told
from npbert.cli.shared import FINE, INTERRUPTED, SOME_FAILED, tell
from npbert.errors import InputError, warn
from npbert.growing import Places, is_whole
from npbert.jobs import BLOCK, Counts, Job, fingerprint
from npbert.outputs import ArrayOutput, Output
from npbert.tasks import Task

TABLES: Final = (".csv", ".tsv", ".parquet")  # that can be read, or not even that


def answer_all(task: Task[Any, Any], args: argparse.Namespace) -> int:
    """Answer for every input, in order; return the exit status."""
    path = target(args)
    if path and args.resume and is_whole(path):
        tell(f"{path} is there and whole, so that nothing is left to do")
        return FINE
    if not args.texts and args.input in (None, "-") and sys.stdin is None:
        raise InputError("there is no TEXT, and stdin is closed")
    with closing(Source(args)) as source:
        if path:
            apart(path, source)
        job = about(task, args, source.form) if path else {}
        output = destination(path, job, resume=args.resume)
        status = FINE
        try:
            with output:
                status = carry_out(task, args, source, output)
        finally:
            safe = output.saved.get("inputs", 0)
            if isinstance(output, Output) and not output.whole and (safe or status == INTERRUPTED):
                tell(f"{path}: not finished; {left(safe)}")
        return status


def carry_out(
    task: Task[Any, Any], args: argparse.Namespace, source: Source, output: Output | Stream
) -> int:
    """Take every input from the source to the output; return the exit status."""
    # Someone who types wants an answer after every line; a pipe is read a little ahead.
    typed = source.lines is not None and source.lines.own is None and sys.stdin.isatty()
    counts = Counts(**{each.name: output.saved.get(each.name, 0) for each in fields(Counts)})
    before, began = counts.tokens, time.monotonic()
    job = Job(task, counts, record=args.on_error == "record", block=1 if typed else BLOCK)
    items = source.items(counts.inputs, output.saved["sha256"] if counts.inputs else None)
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
    ends = [end.lower() for end in path.suffixes]
    if args.resume and path.exists() and not path.is_file():
        raise InputError(f"--output {path}: is no file, and --resume goes on with one")
    if ends and next((end for end in reversed(ends) if end != ".gz"), "") in TABLES:
        raise InputError(f"--output {path}: answers are written as JSON lines, not as a table")
    if ".npy" in ends[-2:-1]:
        raise InputError(f"--output {path}: an array is not packed; expected a name in .npy")
    if ends[-1:] == [".npy"] and args.task != "sentence-embedding":
        raise InputError(f"--output {path}: only sentence-embedding makes an array")
    if ends[-1:] == [".npy"] and args.on_error == "record":
        raise InputError(f"--output {path}: an array has no place to record an error")
    return path


def apart(path: Path, source: Source) -> None:
    """Refuse to write where the input is read from.  Raises InputError."""
    raw = None if source.lines is None else source.lines.raw
    with suppress(OSError):  # what has no descriptor is no file
        read = os.fstat(raw.fileno()) if raw else None
        for place in Places.of(path):
            if read and place.is_file() and os.path.samestat(read, place.stat()):
                raise InputError(f"--output {path}: writes {place}, which is the --input")


def left(inputs: int) -> str:
    """Say what an unfinished job has left."""
    if not inputs:
        return f"nothing is safe before {BLOCK} inputs are answered"
    return f"{inputs:,} answers are safe, and --resume goes on behind them"


def about(task: Task[Any, Any], args: argparse.Namespace, form: str | None) -> dict[str, Any]:
    """Return all that a job's bytes depend on but its inputs, as JSON has it."""
    said = {
        "npbert": __version__,
        "task": args.task,
        "model": fingerprint(task.folder) if task.folder else None,
        "options": {
            each.name: hashed(getattr(task.options, each.name)) for each in fields(task.options)
        },
        "flags": fixed(args),
        "form": form,
        "field": args.field,
        "on_error": args.on_error,
        "block": BLOCK,
    }
    return json.loads(json.dumps(said))


def hashed(value: Any) -> Any:
    """Return an option as JSON has it; of an array, which came from a file, its sha256."""
    return hashlib.sha256(value.tobytes()).hexdigest() if hasattr(value, "tobytes") else value


def summary(counts: Counts, before: int, seconds: float) -> str:
    """Say what was done, all in all, and how fast it went this time."""
    parts = [f"{counts.inputs:,} input{'s' * (counts.inputs != 1)}", f"{counts.tokens:,} tokens"]
    parts += [f"{counts.cut:,} cut"] if counts.cut else []
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    rate = (counts.tokens - before) / max(seconds, 1e-9)
    return f"{', '.join(parts)}; {seconds:.1f} s, {rate:,.0f} tokens/s"
