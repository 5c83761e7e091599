"""Files through a task on a Dask cluster, a file to a worker at a time: planned, sent, reported."""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from distributed import Client, KilledWorker, LocalCluster, as_completed

from npbert.checkpoint.reading import JSON_LIMIT, parse_json_object
from npbert.distributed.lock import LOCK_NAME, FolderLock, keep_folder
from npbert.distributed.remote_files import (
    PART_SUFFIX,
    InputFile,
    address_in,
    give_names,
    list_inputs,
    list_outputs,
    parts_of,
    pattern_address,
    read_whole,
    refuse_ways_out,
    remove_files,
    write_whole,
)
from npbert.distributed.workers import (
    FileReport,
    InterruptIgnorer,
    answer_file,
    forget_on_workers,
    load_on_workers,
    task_recipe,
)
from npbert.engine.threads import blas_environment, count_cores
from npbert.errors import CheckpointError, ExitStatus, InputError, discard_output, tell
from npbert.jobs.atomic import require_same_job
from npbert.jobs.blocks import Counts
from npbert.jobs.identity import job_identity
from npbert.jobs.job import summarize
from npbert.jobs.lines import print_json
from npbert.jobs.outputs import show_progress
from npbert.jobs.records import InputFormat
from npbert.tasks.task import Task

JOURNAL_NAME: Final = "_npbert.json"  # beside the answers: what job they are of
RETRIES: Final = 2  # of a file, where a disk or a network failed; deaths of workers are not counted
CONNECT_SECONDS: Final = 10  # to find a scheduler in
JOURNAL_BYTES: Final = 1 << 14  # of each file, at most: its name and its answers', written as ASCII
RECORD_SHARE: Final = 0.05  # of the time, for writing down what is finished


class Past(NamedTuple):
    """What is known of the files of a job: what they were when they were read, how many failed."""

    stamps: dict[str, str]  # by source
    failed: dict[str, int]  # inputs that were recorded as failed, by target


def run_on_cluster(
    task: Task[Any, Any],
    given: InputFormat,
    pattern: str,
    output: str,
    address: str,
    *,
    resume: bool = False,
) -> ExitStatus:
    """Answer for every file of a pattern into a folder, a file to a worker at a time.

    Parameters
    ----------
    task : Task
    given : InputFormat
        How the inputs stand in the files.
    pattern, output : str
        Files to read, and the folder that gets a file for each, here or where fsspec reads.
    address : str
        Of a scheduler, or the .json file that it has written; "": one of this machine's cores.
    resume : bool
        Go on with what an interrupted job has left in the folder.

    Raises
    ------
    InputError
    """
    every = list_inputs(pattern, output, given.form)
    job = {**job_identity(task, given, given.form), "input": pattern_address(pattern)}
    with keep_folder(output, resume=resume) as lock:
        refuse_ways_out(output, [file.target for file in every])
        there, past = read_past(output, job, every, resume=resume)
        left = [file for file in every if file.target not in there]
        changed = [f for f in every if f.target in there and past.stamps.get(f.source) != f.stamp]
        if changed:
            raise InputError(
                f"--resume: {changed[0].source} is not what it was when {changed[0].target} was "
                "made of it; delete that file, and it is made anew"
            )
        if done := len(every) - len(left):
            tell(f"{done:,} of {len(every):,} files are answered already{describe_past(past)}")
        if not left:
            return ExitStatus.SOME_FAILED if past.failed else ExitStatus.FINE
        recipe, began = task_recipe(task, job["model"]), time.monotonic()
        with connect(address, len(left)) as client:
            load_on_workers(client, recipe)
            tell(
                f"{len(left):,} files; {len(client.nthreads())} workers; "
                f"dashboard at {client.dashboard_link}"
            )
            past.stamps.update({file.source: file.stamp for file in left})
            record = FinishedFiles(lock, job, past)
            try:
                status, counts = answer_files(client, left, recipe.raw, given, record)
            finally:
                forget_on_workers(client, recipe)
        lock.require_held()
        remove_files(parts_of([file.target for file in every], list_outputs(output)))
    task.warn_of_losses(counts, task.options)
    tell(f"{len(left):,} files, {summarize(counts, 0, time.monotonic() - began)}")
    return status


def describe_past(past: Past) -> str:
    """Say how many inputs failed in the files that are answered already, if any did."""
    return f"; {sum(past.failed.values()):,} of their inputs failed" if past.failed else ""


def read_past(
    output: str, job: dict[str, Any], every: list[InputFile], *, resume: bool
) -> tuple[set[str], Past]:
    """Return what was answered before, and how.  Raises InputError where it is another job's."""
    there = list_outputs(output) - {address_in(output, LOCK_NAME)}
    if not there:
        return there, Past({}, {})
    if not resume:
        raise InputError(
            f"--output {output}: is not empty; --resume goes on with the job that it is of"
        )
    parts = {name for name in there if name.endswith(PART_SUFFIX)}
    if (journal := address_in(output, JOURNAL_NAME)) in there:
        left, past = read_cluster_journal(journal, JSON_LIMIT + len(every) * JOURNAL_BYTES)
        require_same_job(left, job, f"take another folder, or delete {output}")
    elif there - parts:
        raise InputError(f"--resume: {output} has no {JOURNAL_NAME}, so that it is of no such job")
    else:  # it was killed before there was anything
        past = Past({}, {})
    own = [address_in(output, LOCK_NAME), journal, *(file.target for file in every)]
    remove_files(parts_of(own, parts))  # of jobs that are over, or they would have the lock
    there -= parts
    return there, past._replace(failed={t: n for t, n in past.failed.items() if t in there})


def read_cluster_journal(path: str, limit: int) -> tuple[dict[str, Any], Past]:
    """Return what job a folder is of.  Raises InputError for what does not tell."""
    if Path(path).is_symlink():
        raise InputError(f"{path}: is a link, which no job makes there; delete it")
    try:
        left = parse_json_object(read_whole(path, limit), path)
    except CheckpointError:
        left = {}
    found: list[Any] = [left.get(name) for name in ("job", "stamps", "failed")]
    job, stamps, failed = found
    if isinstance(job, dict) and is_table_of(stamps, str) and is_table_of(failed, int):
        return job, Past(stamps, failed)
    raise InputError(f"{path}: does not say what job this is of; delete the folder")


def is_table_of(value: Any, kind: type) -> bool:
    """Tell whether a JSON value is an object whose values are of one type."""
    return isinstance(value, dict) and all(type(each) is kind for each in value.values())


class FinishedFiles:
    """Gives names to what workers have finished, once it is written down how many inputs failed.

    Only who has the folder's lock does, so that a worker that has outlived its job changes nothing,
    and a job that is killed at any moment leaves no file of which the journal does not know.
    """

    def __init__(self, lock: FolderLock, job: Mapping[str, Any], past: Past) -> None:
        self.lock, self.job, self.past = lock, job, past
        self.targets: dict[str, str] = {}  # of parts that are whole
        self.reports: list[FileReport] = []
        self.failed: dict[str, int] = {}  # as in the journal
        self.write_journal()
        self.due = 0.0

    def add(self, file: InputFile, report: FileReport) -> None:
        """Take note of a file."""
        self.reports.append(report)
        if report.part:
            self.targets[report.part] = file.target
        if report.first or report.error:
            self.past.failed[file.target] = report.counts.failed

    def commit(self) -> None:
        """Give every file that is finished its name, and tell of it.  Raises InputError."""
        began = time.monotonic()
        targets, self.targets = self.targets, {}
        reports, self.reports = self.reports, []
        if self.failed != self.past.failed:
            self.write_journal()
        self.lock.require_held()
        try:
            give_names(targets)
        except OSError as error:
            raise InputError(f"--output {self.lock.out}: cannot be written: {error}") from None
        now = time.monotonic()
        self.due = now + (now - began) / RECORD_SHARE  # a large journal is written less often
        for report in reports:
            tell_of_file(report)

    def write_journal(self) -> None:
        """Write what job a folder is of.  Raises InputError."""
        self.lock.require_held()
        said = {"job": self.job, **self.past._asdict()}
        try:
            write_whole(
                address_in(self.lock.out, JOURNAL_NAME), json.dumps(said, indent=1).encode()
            )
        except OSError as error:
            raise InputError(f"--output {self.lock.out}: cannot be written: {error}") from None
        self.failed = dict(self.past.failed)


@contextmanager
def connect(address: str, most: int) -> Iterator[Client]:
    """Yield the client of a cluster that is there, or of one of this machine's cores."""
    if not address:
        with (
            LocalCluster(
                n_workers=min(count_cores(), most), threads_per_worker=1, host="127.0.0.1",
                dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
                env=blas_environment(),
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            client.register_plugin(InterruptIgnorer())
            yield client
        return
    try:
        where = address
        if address.endswith(".json"):  # Dask would wait for it without end
            where = str(parse_json_object(read_whole(address, JSON_LIMIT), address)["address"])
        client = Client(where, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--dask {address}: no scheduler answers there, expected tcp://HOST:PORT, or the "
            f".json file that it has written: {error}"
        ) from None
    with client:
        yield client


def answer_files(
    client: Client, left: list[InputFile], raw: bytes, given: InputFormat, record: FinishedFiles
) -> tuple[ExitStatus, Counts]:
    """Answer for every file, tell of each; return the exit status, and how much that was.

    Raises InputError for a file that cannot be answered, unless that is recorded.
    """
    counts = Counts()
    futures = client.map(
        answer_file, left, raw=raw, given=given, job=record.lock.me.id, pure=False,
        retries=RETRIES, key="npbert",
    )  # fmt: skip
    known = {future.key: file for future, file in zip(futures, left, strict=True)}
    try:
        done = as_completed(futures, with_results=True, raise_errors=False)
        del futures
        for future, result in show_progress(done, 0, "files", len(left)):
            file = known.pop(future.key)
            report = report_of(file.source, result)
            if report.error and not given.records_errors:
                raise InputError(f"{report.error}; --resume goes on with what is not answered yet")
            record.add(file, report)
            if not done.has_ready() or time.monotonic() >= record.due:
                record.commit()
            for each in fields(Counts):
                total = getattr(counts, each.name) + getattr(report.counts, each.name)
                setattr(counts, each.name, total)
    finally:
        if known:
            client.cancel(list(known), force=True)
        record.commit()
    return ExitStatus.SOME_FAILED if record.past.failed else ExitStatus.FINE, counts


def tell_of_file(report: FileReport) -> None:
    """Print what became of a file, for programs and for people."""
    try:
        print_json(report_line(report))
    except BrokenPipeError:  # who watched has seen enough; the job is not done
        discard_output()
    if report.first or report.error:
        more = count_more(report.counts.failed - 1)
        tell(report.error or f"{report.file}: {report.first}{more}")


def count_more(failed: int) -> str:
    """Say how many more inputs of a file failed than the one that is told."""
    return f"; and {failed:,} more of that file" if failed > 0 else ""


def report_of(source: str, result: Any) -> FileReport:
    """Return what a worker tells of a file, or what Dask does, which has tried it again.

    Raises CheckpointError for a model that cannot answer for any file.
    """
    if isinstance(result, FileReport):
        return result
    error = result[1] if isinstance(result, tuple) else result
    if isinstance(error, CheckpointError):
        raise error
    if not isinstance(error, KilledWorker):
        why = f"{type(error).__name__}: {error}"
    else:
        why = (
            "every worker that took it died; probably the memory was not enough for it, or the "
            "model's files were overwritten while they were mapped: replace them by renaming new "
            "ones over them (mv), or say --copy"
        )
    return FileReport(source, error=f"{source}: {why}")


def report_line(report: FileReport) -> dict[str, Any]:
    """Return what is printed of a file."""
    if report.error:
        return {"file": report.file, "error": report.error}
    counts = report.counts
    return {
        "file": report.file, "rows": counts.inputs, "tokens": counts.tokens,
        "failed": counts.failed, "seconds": report.seconds,
    }  # fmt: skip
