"""npbert TASK --dask: a folder of files through a task, a file to a worker at a time."""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Final, NamedTuple

from distributed import Client, LocalCluster, as_completed

from npbert.cli.batch import about, summary
from npbert.cli.commands import BLAS_THREADS, COMMANDS
from npbert.cli.partition import Report, answer_file
from npbert.cli.places import PART, File, appearing, below, files, opened, present, resolved, swept
from npbert.cli.results import told
from npbert.cli.shared import FINE, SOME_FAILED, discard_output, print_json, tell
from npbert.distributed.shared import recipe
from npbert.distributed.warming import Deaf, cool_down, warm_up
from npbert.errors import InputError, warn
from npbert.growing import same_job
from npbert.jobs import Counts
from npbert.tasks import Task
from npbert.threads import cores

JOURNAL: Final = "_npbert.json"  # beside the answers: what job they are of
RETRIES: Final = 2  # of a file, where a disk or a network failed; deaths of workers are not counted
SAID: Final = ("task", "field", "on_error")  # that a worker must know, and the fields of flags
SECONDS: Final = 10  # to find a scheduler in


class Past(NamedTuple):
    """What is known of the files of a job: what they were when they were read, how many failed."""

    stamps: dict[str, str]  # by source
    failed: dict[str, int]  # inputs that were recorded as failed, by target


def answer_files(task: Task[Any, Any], args: argparse.Namespace) -> int:
    """Answer for every file; return the exit status.  Raises InputError."""
    given = planned(args)
    job = {**about(task, args, args.form), "input": resolved(args.input)}
    there, past = settled(args, job)
    left = [file for file in given if file.target not in there]
    if stale := [f for f in given if f.target in there and past.stamps.get(f.source) != f.stamp]:
        raise InputError(
            f"--resume: {stale[0].source} is not what it was when {stale[0].target} was made of "
            "it; delete that file, and it is made anew"
        )
    if done := len(given) - len(left):
        tell(f"{done:,} of {len(given):,} files are answered already")
    if not left:
        return SOME_FAILED if past.failed else FINE
    how, began = recipe(task, job["model"]), time.monotonic()
    with connected(args.dask, len(left)) as client:
        warm_up(client, how)
        tell(
            f"{len(left):,} files; {len(client.nthreads())} workers; "
            f"dashboard at {client.dashboard_link}"
        )
        past.stamps.update({file.source: file.stamp for file in left})
        write_journal(args.output, job, past)
        try:
            status, counts = carried_out(client, left, how.raw, args, past.failed)
        finally:
            cool_down(client, how)
            write_journal(args.output, job, past)
    swept({name for name in present(args.output) if name.endswith(PART)})
    if counts.cut:
        warn(task.told(counts.cut, counts.unread, task.options))
    tell(f"{len(left):,} files, {summary(counts, 0, time.monotonic() - began)}")
    return status


def planned(args: argparse.Namespace) -> list[File]:
    """Return what is to be done.  Raises InputError for flags that make no sense."""
    if args.texts or args.input in (None, "-") or args.output in (None, "-"):
        raise InputError(
            "--dask reads the files of --input PATTERN, and writes to the folder --output FOLDER"
        )
    return files(args.input, args.output, args.form)


def settled(args: argparse.Namespace, job: dict[str, Any]) -> tuple[set[str], Past]:
    """Return what was answered before, and how.  Raises InputError where it is another job's."""
    there = present(args.output)
    if not there:
        return there, Past({}, {})
    if not args.resume:
        raise InputError(
            f"--output {args.output}: is not empty; --resume goes on with the job that it is of"
        )
    if (journal := below(args.output, JOURNAL)) not in there:
        raise InputError(f"--resume: {args.output} has no {JOURNAL}, so that it is of no such job")
    left, past = read_journal(journal)
    same_job(left, job, f"take another folder, or delete {args.output}")
    there = swept(there)
    return there, past._replace(failed={t: n for t, n in past.failed.items() if t in there})


def read_journal(path: str) -> tuple[dict[str, Any], Past]:
    """Return what job a folder is of.  Raises InputError for what does not tell."""
    try:
        with opened(path) as file:
            left = json.load(file)
        return left["job"], Past(dict(left["stamps"]), dict(left["failed"]))
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: does not say what job this is of; delete the folder") from None


def write_journal(out: str, job: dict[str, Any], past: Past) -> None:
    """Write what job a folder is of."""
    with appearing(below(out, JOURNAL)) as path:
        path.write_text(json.dumps({"job": job, **past._asdict()}, indent=1), "utf-8")


@contextmanager
def connected(address: str, most: int) -> Iterator[Client]:
    """Yield the client of a cluster that is there, or of one of this machine's cores."""
    if not address:
        blas = dict.fromkeys(BLAS_THREADS, "1")
        with (
            LocalCluster(
                n_workers=min(cores(), most), threads_per_worker=1, host="127.0.0.1",
                dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL, env=blas,
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            client.register_plugin(Deaf())
            yield client
        return
    try:
        where = address
        if address.endswith(".json"):  # Dask would wait for it without end
            with opened(address) as file:
                where = str(json.load(file)["address"])
        client = Client(where, timeout=SECONDS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--dask {address}: no scheduler answers there, expected tcp://HOST:PORT, or the "
            f".json file that it has written: {error}"
        ) from None
    with client:
        yield client


def carried_out(
    client: Client, left: list[File], raw: bytes, args: argparse.Namespace,
    failed: dict[str, int],
) -> tuple[int, Counts]:  # fmt: skip
    """Answer for every file, tell of each; return the exit status, and how much that was.

    `failed` counts the inputs that failed, by the file where that is recorded.  Raises InputError
    for a file that cannot be answered, unless that is recorded.
    """
    counts, status = Counts(), SOME_FAILED if failed else FINE
    said = {name: getattr(args, name) for name in (*SAID, *COMMANDS[args.task].flags)}
    sent = argparse.Namespace(**said, texts=[])
    futures = client.map(
        answer_file, left, raw=raw, args=sent, pure=False, retries=RETRIES, key="npbert"
    )
    known = {future.key: file for future, file in zip(futures, left, strict=True)}
    try:
        done = as_completed(futures, with_results=True, raise_errors=False)
        del futures
        for future, result in told(done, 0, "files", len(left)):
            file = known.pop(future.key)
            report = reported(file.source, result)
            counted = report.counts
            if report.error and args.on_error == "fail":
                raise InputError(f"{report.error}; --resume goes on with what is not answered yet")
            try:
                print_json(line(report))
            except BrokenPipeError:  # who watched has seen enough; the job is not done
                discard_output()
            if report.first or report.error:
                tell(report.error or f"{report.file}: {report.first}{more(counted.failed - 1)}")
                status, failed[file.target] = SOME_FAILED, counted.failed
            for each in fields(Counts):
                total = getattr(counts, each.name) + getattr(counted, each.name)
                setattr(counts, each.name, total)
    finally:
        if known:
            client.cancel(list(known), force=True)
    return status, counts


def more(failed: int) -> str:
    """Say how many more inputs of a file failed than the one that is told."""
    return f"; and {failed:,} more of that file" if failed > 0 else ""


def reported(source: str, result: Any) -> Report:
    """Return what a worker tells of a file, or what Dask does, which has tried it again."""
    if isinstance(result, Report):
        return result
    error = result[1] if isinstance(result, tuple) else result
    return Report(source, error=f"{source}: {type(error).__name__}: {error}")


def line(report: Report) -> dict[str, Any]:
    """Return what is printed of a file."""
    if report.error:
        return {"file": report.file, "error": report.error}
    counts = report.counts
    return {
        "file": report.file, "rows": counts.inputs, "tokens": counts.tokens,
        "failed": counts.failed, "seconds": report.seconds,
    }  # fmt: skip
