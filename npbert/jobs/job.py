"""Batch work that loses nothing: any number of inputs, in order, in little memory."""

import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from npbert.engine.threads import count_cores
from npbert.errors import ExitStatus, InputError, require_count, tell
from npbert.jobs.atomic import Places, is_whole
from npbert.jobs.blocks import BLOCK_INPUTS, Counts, Job
from npbert.jobs.identity import job_identity
from npbert.jobs.line_files import LinesOutput
from npbert.jobs.outputs import (
    ARRAY_OUTPUTS,
    OUTPUTS,
    StreamOutput,
    answer_record,
    count_recorded,
    open_output,
    show_progress,
)
from npbert.jobs.records import InputFormat, Source
from npbert.tasks.rows import TASKS
from npbert.tasks.task import Task

NARROW_WIDTH: Final = 512  # hidden size up to which a process gains on a thread
BYTES_EACH: Final = 1 << 18  # of a file, for which a process pays: it takes half a second to start
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".parquet")  # that can be read, or not even that
LINE_SUFFIXES: Final = (".jsonl", ".ndjson", ".jsonlines", ".ldjson", ".jl", ".txt", ".log", ".out")
FORMAT_SUFFIX: Final = re.compile(r"\.[a-z][a-z0-9]*")  # what says a format; .2026 says none


def run_batch(
    task: Task[Any, Any],
    given: InputFormat,
    texts: Sequence[str],
    input_path: str | None,
    output: str | None,
    *,
    resume: bool = False,
    processes: int | None = None,
) -> ExitStatus:
    """Answer for every input, in order, and say how it went.

    Parameters
    ----------
    task : Task
    given : InputFormat
        How the inputs stand in what is read.
    texts : list of str
        The inputs themselves; or none, and they stand in a file.
    input_path, output : str or None
        "-" and None are stdin and stdout.
    resume : bool
        Go on with an output that an interrupted job has left.
    processes : int or None
        How many compute; None: as many as pay.

    Raises
    ------
    InputError, OSError
    """
    path = check_output(task, given, output, resume=resume)
    if path and resume and is_whole(path):
        failed = count_recorded(path) if given.records_errors else 0
        also = f"; {failed:,} of its inputs failed" if failed else ""
        tell(f"{path} is there and whole, so that nothing is left to do{also}")
        return ExitStatus.SOME_FAILED if failed else ExitStatus.FINE
    if not texts and input_path in (None, "-") and sys.stdin is None:
        raise InputError("there is no TEXT, and stdin is closed")
    if not texts and not given.says_all and input_path in (None, "-") and sys.stdin.isatty():
        end = "Ctrl-Z and Enter end" if os.name == "nt" else "Ctrl-D ends"
        tell(f"reads what is typed here, a text a line; {end} it")
    with closing(Source(given, texts, input_path)) as source:
        if path:
            refuse_input_as_output(path, source)
        job = job_identity(task, given, source.form) if path else {}
        out = open_output(path, job, resume=resume)
        status, told = ExitStatus.FINE, (input_path, output) != (None, None)
        try:
            with out:
                status = answer_source(task, given, source, out, summary=told, processes=processes)
        finally:
            safe = out.saved.get("inputs", 0)
            unfinished = isinstance(out, LinesOutput) and not out.whole
            if unfinished and (safe or status == ExitStatus.INTERRUPTED):
                tell(f"{path}: not finished; {describe_rest(safe)}")
        return status


def answer_source(
    task: Task[Any, Any],
    given: InputFormat,
    source: Source,
    output: LinesOutput | StreamOutput,
    *,
    summary: bool,
    processes: int | None,
) -> ExitStatus:
    """Take every input from the source to the output; return how that ended."""
    # Someone who types wants an answer after every line; a pipe is read a little ahead.
    typed = source.lines is not None and source.lines.own is None and sys.stdin.isatty()
    counts = Counts(**{each.name: output.saved.get(each.name, 0) for each in fields(Counts)})
    before, began = counts.tokens, time.monotonic()
    size = source.lines.size if source.lines else None
    count = (
        1
        if typed
        else count_processes(processes, task.threads, task.model.config.hidden_size, size)
    )
    job = make_job(task, counts, count, record=given.records_errors, typed=typed)
    items = source.items(counts.inputs, output.saved["sha256"] if counts.inputs else None)
    answers = job.answers(items, output, source.digest)
    quiet = source.texts or typed
    arrays = type(output) in ARRAY_OUTPUTS.values()
    if not quiet:
        position = source.lines.position if source.lines and size is not None else None
        answers = show_progress(answers, counts.inputs, total=size, position=position)
    with job, job.stop:
        for item, result in answers:
            output.write(task.array_row(result) if arrays else answer_record(item, result))
    task.warn_of_losses(counts, task.options)
    if summary:
        tell(summarize(counts, before, time.monotonic() - began))
    if job.stop.asked and not job.stop.ended:
        return ExitStatus.INTERRUPTED
    return ExitStatus.SOME_FAILED if counts.failed else ExitStatus.FINE


def make_job(task: Task[Any, Any], counts: Counts, count: int, *, record: bool, typed: bool) -> Job:
    """Return a job that so many processes compute; of what is typed a line at a time."""
    if count == 1:
        return Job(task, counts, record=record, block=1 if typed else BLOCK_INPUTS)
    from npbert.jobs.processes import ProcessJob  # and all of multiprocessing, that few jobs need

    return ProcessJob(task, counts, record=record, processes=count)


def count_processes(asked: int | None, threads: int | None, width: int, size: int | None) -> int:
    """Return how many processes compute a file of `size` bytes: as asked, or as many as pay.

    threads : that were asked for;  width : hidden size.  Raises InputError.
    """
    if asked is not None:
        return require_count("processes", asked)
    if size is None or threads is not None or width > NARROW_WIDTH:
        return 1
    return max(1, min(count_cores(), size // BYTES_EACH))


def check_output(
    task: Task[Any, Any], given: InputFormat, output: str | None, *, resume: bool
) -> Path | None:
    """Return the file that answers go to; None is stdout.  Raises InputError."""
    path = None if output in (None, "-") else Path(str(output))
    if path is None:
        if resume:
            raise InputError("--resume goes on with a file; it needs --output FILE")
        return None
    ends = [end.lower() for end in path.suffixes]
    if resume and path.exists() and not path.is_file():
        raise InputError(f"--output {path}: is no file, and --resume goes on with one")
    inner = next((end for end in reversed(ends) if end != ".gz"), "")
    if inner in TABLE_SUFFIXES:
        raise InputError(f"--output {path}: answers are written as JSON lines, not as a table")
    if inner == ".json" != ends[-1]:
        raise InputError(
            f"--output {path}: an array of JSON is not packed; expected .json, or .jsonl.gz"
        )
    written = not FORMAT_SUFFIX.fullmatch(inner) or inner in (*LINE_SUFFIXES, *OUTPUTS)
    if not written and (path.is_file() or not path.exists()):
        also = f", or {task.row.array_suffix}" if task.row.array_suffix else ""
        raise InputError(
            f"--output {path}: no {inner} file is written, but JSON lines (.jsonl, .jsonl.gz) or "
            f"an array of JSON (.json){also}"
        )
    last, before = [*ends[::-1], "", ""][:2]
    if before in ARRAY_OUTPUTS:
        raise InputError(f"--output {path}: an array is not packed; expected a name in {before}")
    if last in ARRAY_OUTPUTS and task.row.array_suffix != last:
        able = " and ".join(name for name, row in TASKS.items() if row.array_suffix == last)
        raise InputError(f"--output {path}: only {able} makes an array in {last}")
    if last in ARRAY_OUTPUTS and given.records_errors:
        raise InputError(f"--output {path}: an array has no place to record an error")
    return path


def refuse_input_as_output(path: Path, source: Source) -> None:
    """Refuse to write where the input is read from.  Raises InputError."""
    raw = None if source.lines is None else source.lines.raw
    with suppress(OSError):  # what has no descriptor is no file
        read = os.fstat(raw.fileno()) if raw else None
        for place in Places.from_path(path):
            if read and place.is_file() and os.path.samestat(read, place.stat()):
                raise InputError(f"--output {path}: writes {place}, which is the --input")


def describe_rest(inputs: int) -> str:
    """Say what an unfinished job has left."""
    if not inputs:
        return f"nothing is safe before {BLOCK_INPUTS} inputs are answered"
    return f"{inputs:,} answers are safe, and --resume goes on behind them"


def summarize(counts: Counts, before: int, seconds: float) -> str:
    """Say what was done, all in all, and how fast it went this time."""
    parts = [f"{counts.inputs:,} input{'s' * (counts.inputs != 1)}", f"{counts.tokens:,} tokens"]
    parts += [f"{counts.cut:,} truncated"] if counts.cut else []
    parts += [f"{counts.empty:,} with an empty text"] if counts.empty else []
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    rate = (counts.tokens - before) / max(seconds, 1e-9)
    return f"{', '.join(parts)}; {seconds:.1f} s, {rate:,.0f} tokens/s"
