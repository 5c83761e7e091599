"""Every call to the system on a file of a cluster's job fails, or is the last before a kill.

Parts are written by the thread of a worker that runs tasks, and all else by the client's main one.

NPBERT_FAULTS=all python -m pytest -m "long and dask" tests/test_syscalls_cluster.py
"""

import gzip
import json
import os
import re
import threading

import pytest
from faults import (
    EVERY_FAULT,
    Stage,
    allow_tracing,
    attach,
    choose,
    lacks_strace,
    points_of,
    recording,
)

pytestmark = [pytest.mark.dask, pytest.mark.long]
WHY = "the extra is not installed: pip install 'npbert[dask]'"
distributed = pytest.importorskip("distributed", reason=WHY)
pa = pytest.importorskip("pyarrow", reason=WHY)
pq = pytest.importorskip("pyarrow.parquet", reason=WHY)

ROWS = [{"id": i, "text": text} for i, text in enumerate(["good", "bad", "both"] * 10)]
JOURNAL = "out/_npbert.json"
MODULES = ("npbert.cli.tasks", "npbert.distributed.cluster", "npbert.tasks.text_classification",
           "dask.dataframe")  # fmt: skip
TOLD = re.compile(r"npbert: .*(cannot be|Error:|system:)")
LASTING = (*EVERY_FAULT, "error=ENOSPC+")  # a disk that stays full, however often Dask tries again


@pytest.fixture(scope="module")
def cluster():
    if why := lacks_strace():
        pytest.skip(why)
    how = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **how) as made:
        yield made


def lay(folder):
    """Lay out a file in each form that answers are written in; one holds an input that fails."""
    given = folder / "in"
    given.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (given / "a.jsonl").write_text(text + "{}\n")
    (given / "b.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    pq.write_table(pa.Table.from_pylist(ROWS), given / "c.parquet")
    for path in given.iterdir():
        os.utime(path, (1, 1))


def command_for(cluster, *args):
    return ["npbert", "text-classification", "-i", "in/*", "-o", "out", "--on-error", "record",
            "--dask", cluster.scheduler_address, *args]  # fmt: skip


def answers_in(files):
    """Return files of a job, with what its journal says, in whatever order."""
    return {**files, JOURNAL: json.loads(files[JOURNAL])} if JOURNAL in files else files


class Worker:
    """The cluster's worker, and strace on the thread that runs its tasks."""

    def __init__(self, stage, cluster, client):
        self.stage, self.command, self.client, self.pid = stage, command_for(cluster), client, 0

    def run(self, options):
        """Run a job whose worker is traced; a new one has run one before, and imports nothing."""
        self.client.wait_for_workers(1)
        if self.pid != (pid := self.client.submit(os.getpid, pure=False).result(60)):
            self.client.run(allow_tracing)
            warm = self.stage.run(self.command)
            self.pid = pid
            assert warm.status == 4, warm.said
        self.stage.prepare()
        thread = self.client.submit(threading.get_native_id, pure=False).result(60)
        tracer = attach(thread, options)
        done = self.stage.run(self.command, fresh=False)
        tracer.terminate()
        tracer.communicate(timeout=60)
        return done


@pytest.mark.parametrize("where", ["client", "worker"])
def test_whatever_call_fails_a_folder_is_complete_or_can_be_completed(where, tmp_path, cluster):
    log = tmp_path / "log"
    with Stage(tmp_path / "run", lay, MODULES) as stage, distributed.Client(cluster) as client:
        worker = Worker(stage, cluster, client)

        def run(options):
            if where == "worker":
                return worker.run(options)
            return stage.run(command_for(cluster), options)

        whole = run(recording(log))
        assert whole.status == 4, whole.said
        assert sorted(whole.files) == [JOURNAL, "out/a.jsonl", "out/b.jsonl.gz", "out/c.parquet"]
        every = points_of(stage.folder, log, LASTING if where == "worker" else EVERY_FAULT)
        assert len(every) > 3 * len(whole.files)
        bad, stopped = [], 0
        for point in (chosen := choose(every)):
            done = run(point.options())
            stopped += done.files.keys() != whole.files.keys()
            killed = where == "client" and point.kills
            if why := fault_of(stage, cluster, whole, done, killed=killed):
                bad.append((point, why, done.status, done.said))
    print(f"{where}: {len(chosen)} of {len(every)} points, {stopped} stopped, {len(bad)} bad")
    assert not bad, "\n".join(map(str, bad))


def fault_of(stage, cluster, whole, done, *, killed):
    """Say what is wrong with what a job left after a fault, if anything is."""
    named, expected = answers_in(done.named()), answers_in(whole.files)
    if done.outside != whole.outside:
        return "changed something outside"
    if torn := [name for name in named if name != JOURNAL and named[name] != expected.get(name)]:
        return f"tore {torn}"
    if "Traceback" in "\n".join(done.said):
        return "ended in a traceback"
    if done.status == whole.status and answers_in(done.files) == expected:
        return None
    if not killed and not any(TOLD.match(line) for line in done.said):
        return "did not tell"
    again = stage.run(command_for(cluster, "--resume"), fresh=False)
    if again.status != whole.status or answers_in(again.files) != expected:
        return f"goes on to {again.status}, {again.said}, {sorted(again.files)}"
    return None
