"""One job at a time in an output folder on a cluster, whoever is killed, whatever lies there."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import npbert
from npbert.cli import main

pytestmark = pytest.mark.dask
WHY = "the extra is not installed: pip install 'npbert[dask]'"
distributed = pytest.importorskip("distributed", reason=WHY)
fsspec = pytest.importorskip("fsspec", reason=WHY)
memory = pytest.importorskip("fsspec.implementations.memory", reason=WHY)
pytest.importorskip("pyarrow", reason=WHY)
pytest.importorskip("dask.dataframe", reason=WHY)

from npbert.distributed import lock as locks  # noqa: E402
from npbert.distributed.lock import FolderLock, Holder, keep_folder  # noqa: E402
from npbert.distributed.remote_files import part_address, read_whole, write_part  # noqa: E402

SINGLE = Path(__file__).parent.parent / "golden" / "tasks" / "single"
NPBERT = [sys.executable, "-m", "npbert"]
CLASSIFY = "text-classification"
WORDS = ("a", "dull", "witty", "gorgeous", "mess", "of", "plots", "that", "never", "ends", "no")
NOWHERE = "tcp://127.0.0.1:9"  # where no scheduler is
HERE = Holder.from_here()


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"id": i, "text": " ".join(rng.choice(WORDS, rng.integers(1, 9)))} for i in range(count)
    ]


def write_rows(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


@pytest.fixture
def given(tmp_path):
    """Twelve files, the largest of which, and so the first, holds two inputs that fail."""
    folder = tmp_path / "given"
    folder.mkdir()
    for i in range(12):
        write_rows(folder / f"{i:02}.jsonl", rows(250, seed=i))
    write_rows(folder / "bad.jsonl", [{"id": 0}, *rows(255, 99), {"id": 256}])
    return folder


@pytest.fixture(scope="module")
def cluster():
    how = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **how) as made:
        yield made


def command_for(given, out, *args):
    """Return a job's arguments, but for the cluster."""
    return [CLASSIFY, "-i", f"{given}/*.jsonl", "-o", str(out), "--on-error", "record", *args]


def start(command, cluster):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*NPBERT, *command, "--dask", cluster.scheduler_address], **how)


def answers_in(out):
    """Return the bytes of each file of a folder but the journal; nothing else may be there."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert files.pop("_npbert.json", None)
    return {name: path.read_bytes() for name, path in sorted(files.items())}


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.005)


# ---- the lock -----------------------------------------------------------------------------------


@pytest.fixture(params=["local", "memory"])
def out(request, tmp_path):
    """A folder for answers, here or where fsspec writes."""
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    yield "memory://locks/out"
    store = fsspec.filesystem("memory")
    if store.exists("/locks"):
        store.rm("/locks", recursive=True)


def lock_of(out):
    return f"{'memory:///locks/out' if '://' in out else out}/_npbert.lock"


def plant(out, raw):
    """Write a lock."""
    with fsspec.open(lock_of(out), "wb", auto_mkdir=True) as file:
        file.write(raw)


def is_free(out):
    system, path = fsspec.url_to_fs(lock_of(out))
    return not system.exists(path)


def test_a_second_job_is_refused_and_told_who_has_the_folder(out):
    with keep_folder(out, resume=False) as lock:
        me = lock.me
        who = f"a job of {me.user}, process {os.getpid()} on {me.host}, since {me.since},"
        assert Holder.from_json(read_whole(lock_of(out), 1000), "it") == me
        for resume in (False, True):
            with pytest.raises(npbert.InputError) as error, keep_folder(out, resume=resume):
                pass
            assert str(error.value) == (
                f"--output {out}: {who} has it, and seems to run; if it is over, delete "
                f"{lock_of(out)}, and --resume goes on"
                if "://" in out
                else f"--output {out}: {who} writes there; wait for its end, or take another folder"
            )
        lock.require_held()
    assert is_free(out)


@pytest.mark.parametrize("error", [npbert.InputError("a"), KeyboardInterrupt(), OSError(), None])
def test_a_folder_is_given_back_whatever_the_end(out, error):
    for _ in range(2):
        try:
            with keep_folder(out, resume=False):
                if error:
                    raise error
        except type(error or 0):
            pass
        assert is_free(out)
        assert not Path(out).exists()


def test_a_job_elsewhere_is_told_and_its_lock_is_left_until_it_is_deleted(out, capsys):
    other = HERE._replace(host="elsewhere", id="0", user="eve", pid=7, since="yesterday")
    plant(out, other.to_json())
    for resume in (False, True):
        with pytest.raises(npbert.InputError) as error, keep_folder(out, resume=resume):
            pass
        assert str(error.value) == (
            f"--output {out}: a job of eve, process 7 on elsewhere, since yesterday, has it, and "
            f"cannot be seen from here; if it is over, delete {lock_of(out)}, and --resume goes on"
        )
    system, path = fsspec.url_to_fs(lock_of(out))
    system.rm(path)
    with keep_folder(out, resume=True):
        pass
    assert is_free(out)


def test_a_killed_job_is_taken_over_on_request_only(out, capsys):
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = HERE._replace(id="0", pid=gone.pid)
    plant(out, dead.to_json())
    with pytest.raises(npbert.InputError) as error, keep_folder(out, resume=False):
        pass
    assert str(error.value) == (
        f"--output {out}: {dead} was killed there; --resume goes on with it"
    )
    with keep_folder(out, resume=True) as lock:
        assert lock.me.id != "0"
        lock.require_held()
    assert capsys.readouterr().err == f"npbert: {dead} was killed in {out}; this one takes over\n"
    assert is_free(out)


def test_a_process_that_nobody_has_asked_about_is_not_running():
    ended = subprocess.Popen(["true"])
    time.sleep(0.5)
    assert not locks.is_running(ended.pid)
    ended.wait()
    assert not locks.is_running(ended.pid)
    assert not locks.is_running(1 << 80)
    assert locks.is_running(os.getpid())
    assert locks.is_running(1)


def test_a_folder_that_was_taken_away_is_noticed_and_left_to_the_other(out):
    lock = FolderLock(out, resume=False)
    system, path = fsspec.url_to_fs(lock_of(out))
    system.rm(path)
    with pytest.raises(npbert.InputError, match=r"_npbert.lock: was taken away while this job"):
        lock.require_held()
    with keep_folder(out, resume=True) as other:
        with pytest.raises(npbert.InputError):
            lock.require_held()
        lock.give_back()
        other.require_held()


def test_a_lock_that_is_just_being_written_is_waited_for(tmp_path):
    path = tmp_path / "_npbert.lock"
    path.touch()
    with path.open("r+b") as file:
        assert locks.keep_others_out(file)
        writer = threading.Timer(0.2, lambda: path.write_bytes(HERE.to_json()))
        writer.start()
        with pytest.raises(npbert.InputError) as error, keep_folder(str(tmp_path), resume=True):
            pass
        writer.join()
    assert f"{HERE} writes there; wait for its end" in str(error.value)


def take(out, resume, barrier, results):
    """Take a folder at the same moment as others, and keep it until they have tried."""
    barrier.wait()
    try:
        with keep_folder(out, resume=resume):
            results.put(True)
            barrier.wait()
    except npbert.InputError as error:
        results.put(str(error))
        barrier.wait()


@pytest.mark.parametrize("before", ["nothing", "killed", "empty"])
def test_of_many_that_start_at_the_same_moment_one_has_the_folder(tmp_path, before):
    spawn = multiprocessing.get_context("fork")
    for turn in range(20):
        out = str(tmp_path / f"{turn}")
        if before != "nothing":
            plant(out, HERE._replace(pid=1 << 40).to_json() if before == "killed" else b"")
        results, barrier = spawn.Queue(), spawn.Barrier(4)
        tried = [
            spawn.Process(target=take, args=(out, before == "killed", barrier, results))
            for _ in range(4)
        ]
        for each in tried:
            each.start()
        for each in tried:
            each.join(30)
        told = [results.get(timeout=5) for _ in tried]
        assert told.count(True) == 1, told
        assert is_free(out)


def test_of_many_threads_one_has_a_folder_elsewhere():
    for turn in range(20):
        results, barrier = [], threading.Barrier(4)

        class Results:
            put = results.append

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(take, f"memory://locks/{turn}", False, barrier, Results)
        assert results.count(True) == 1, results


# ---- what lies in the folder --------------------------------------------------------------------


def refused(capsys, *args):
    """Run a job that never gets to a cluster; return what it says."""
    assert main([*args, "--dask", NOWHERE]) == 2
    return capsys.readouterr().err


def plant_at(path, kind, victim):
    """Let something lie at a name that a job uses."""
    path.parent.mkdir(exist_ok=True)
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(victim.with_name("nothing"))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 33)
    else:
        path.write_text(kind)


PLANTED = [
    "link", "dangling link", "loop", "device", "hard link", "pipe", "folder", "sparse", "[]", "{}",
    "5", "{", '{"job": {}}', '{"job": [], "stamps": {}, "failed": {}}',
    '{"job": {}, "stamps": [], "failed": {}}', '{"job": {}, "stamps": {"a": 1}, "failed": {}}',
    '{"job": {}, "stamps": {}, "failed": {"a": true}}',
    '{"job": {}, "stamps": {}, "failed": {}, "failed": {}}', "[" * 100_000, "\x00",
    '{"id": "0", "user": "\\u001b[2J", "host": "b", "pid": 1, "since": "c"}',
    '{"id": "0", "user": "' + "a" * 5000 + '", "host": "b", "pid": 1, "since": "c"}',
    '{"id": 0, "user": "a", "host": "b", "pid": 1, "since": "c"}',
    '{"id": "0", "user": "a", "host": "b", "pid": true, "since": "c"}',
    '{"id": "0", "user": "a", "host": "b", "pid": 1, "since": "c", "more": 1}',
]  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind[:60])
@pytest.mark.parametrize("name", ["_npbert.lock", "_npbert.json"])
def test_what_is_planted_is_refused_and_what_it_leads_to_untouched(
    given, tmp_path, capsys, monkeypatch, name, kind
):
    monkeypatch.setattr("npbert.distributed.cluster.CONNECT_SECONDS", 0.5)
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    plant_at(out / name, kind, victim)
    err = refused(capsys, *command_for(given, out, "--resume"))
    if (name, kind) == ("_npbert.json", "folder"):  # in which no answers are
        assert "no scheduler answers there" in err
    else:
        assert err.startswith(f"npbert: {out / name}: ")
        assert "delete" in err
    assert victim.read_text() == "precious"
    assert [path.name for path in out.iterdir()] == [name]
    assert not victim.with_name("nothing").exists()


def test_a_link_in_the_folder_leads_nothing_out_of_it(given, tmp_path, capsys):
    (given / "below").mkdir()
    (given / "00.jsonl").rename(given / "below" / "00.jsonl")
    command = [CLASSIFY, "-i", f"{given}/**", "-o", str(tmp_path / "out"), "--resume"]
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "below").symlink_to(tmp_path / "elsewhere")
    assert refused(capsys, *command) == (
        f"npbert: --output {tmp_path / 'out'}: {tmp_path / 'out' / 'below'} is a link that leads "
        "elsewhere; delete it\n"
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_job_leaves_the_parts_of_jobs_in_folders_below_alone(given, tmp_path, cluster):
    out = tmp_path / "out"
    main([*command_for(given, out), "--dask", cluster.scheduler_address])
    (out / "below").mkdir()
    own, others = out / ".01.jsonl.a.npbert-part", out / "below" / ".01.jsonl.b.npbert-part"
    for resumed in (True, False):
        own.write_bytes(b"")
        others.write_bytes(b"")
        if resumed:
            (out / "01.jsonl").unlink()
        main([*command_for(given, out, "--resume"), "--dask", cluster.scheduler_address])
        assert (own.exists(), others.exists()) == (False, True)


# ---- file systems that are no disk's -------------------------------------------------------------


class StrictSystem(memory.MemoryFileSystem):
    """Creates nothing in a folder that is not there, and knows no exclusive creation."""

    protocol = "strict"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("strict://"))

    def _open(self, path, mode="rb", **how):
        if "x" in mode:
            raise ValueError("unsupported file mode")
        if "w" in mode and not self.isdir(self._parent(path)):
            raise FileNotFoundError(path)
        return super()._open(path, mode, **how)


@pytest.fixture(scope="module")
def threads():
    """A cluster whose workers are threads, and see what is in this process's memory."""
    how = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    fsspec.register_implementation("strict", StrictSystem, clobber=True)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", **how
    ) as made:
        yield made


@pytest.mark.usefixtures("threads")
def test_a_part_gets_a_folder_where_folders_are_needed():
    part = part_address("strict:///new/below/a.jsonl", "0")
    with write_part(part) as file:
        file.write(b"{}")
    assert read_whole(part, 10) == b"{}"
    assert part.startswith("strict:///new/below/.a.jsonl.0")


@pytest.mark.parametrize("protocol", ["memory", "strict", "file"])
def test_a_job_on_another_file_system_is_as_safe(given, tmp_path, threads, capsys, protocol):
    for i in range(3, 12):
        (given / f"{i:02}.jsonl").unlink()
    out = f"{protocol}://{tmp_path}/below/out"
    system, path = fsspec.url_to_fs(out)

    def run(*args, status):
        code = main([*command_for(given, out, *args), "--dask", threads.scheduler_address])
        told, err = capsys.readouterr()
        assert code == status, err
        names = {name.removeprefix(f"{path}/") for name in system.find(path)}
        return names, len(told.splitlines()), err

    names, told, _ = run(status=4)
    assert names == {"_npbert.json", *(file.name for file in given.iterdir())}
    assert told == 4
    system.rm_file(f"{path}/01.jsonl")
    system.pipe_file(f"{path}/.01.jsonl.0123.npbert-part", b"torn")
    system.pipe_file(f"{path}/_npbert.lock", HERE._replace(pid=1 << 40).to_json())
    again, told, err = run("--resume", status=4)
    assert (again, told) == (names, 1)
    assert "3 of 4 files are answered already; 2 of their inputs failed" in err
    expected = undisturbed(given, tmp_path, threads)
    assert {name: system.cat_file(f"{path}/{name}") for name in expected} == expected
    assert "is not empty" in run(status=2)[2]
    with keep_folder(out, resume=True):
        assert ("has it" if protocol != "file" else "writes there") in run("--resume", status=2)[2]


# ---- jobs that meet, and jobs that are killed ----------------------------------------------------


def test_a_job_is_refused_while_another_writes_and_goes_on_after_a_kill(given, tmp_path, cluster):
    out = tmp_path / "out"
    first = start(command_for(given, out), cluster)
    wait_for(out / "bad.jsonl")
    first.send_signal(signal.SIGSTOP)
    for args in ((), ("--resume",), ("--resume", "--top-k", "2"), ("-m", str(SINGLE))):
        second = start(command_for(given, out, *args), cluster)
        _, err = second.communicate(timeout=60)
        assert (second.returncode, f"process {first.pid} on" in err) == (2, True), err
        assert "writes there; wait for its end, or take another folder" in err
    first.kill()
    first.communicate()
    unasked = start(command_for(given, out), cluster)
    _, err = unasked.communicate(timeout=60)
    assert (unasked.returncode, "was killed there; --resume goes on" in err) == (2, True)
    for turn in range(2):  # the failed inputs were written down before the kill
        third = start(command_for(given, out, "--resume"), cluster)
        _, err = third.communicate(timeout=60)
        assert third.returncode == 4, err
        assert ("this one takes over" in err) == (turn == 0)
        assert "files are answered already; 2 of their inputs failed\n" in err
    assert answers_in(out) == undisturbed(given, tmp_path, cluster)


def test_a_job_whose_lock_is_deleted_stops_and_leaves_the_folder_to_the_next(
    given, tmp_path, cluster
):
    out = tmp_path / "out"
    first = start(command_for(given, out), cluster)
    wait_for(out / "bad.jsonl")
    first.send_signal(signal.SIGSTOP)
    (out / "_npbert.lock").unlink()
    there = set(out.glob("*.jsonl"))
    with keep_folder(str(out), resume=True) as lock:
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=60)
        assert first.returncode == 2
        assert err.splitlines()[-1].startswith(f"npbert: {out}/_npbert.lock: was taken away while")
        assert set(out.glob("*.jsonl")) == there
        lock.require_held()
    second = start(command_for(given, out, "--resume"), cluster)
    assert (second.communicate(timeout=60), second.returncode)[1] == 4
    assert answers_in(out) == undisturbed(given, tmp_path, cluster)


def undisturbed(given, tmp_path, cluster, *args):
    """Return the answers of a job that nothing disturbs."""
    out = tmp_path / "undisturbed"
    shutil.rmtree(out, ignore_errors=True)
    main([*command_for(given, out, *args), "--dask", cluster.scheduler_address])
    return answers_in(out)


def test_a_worker_that_outlives_its_client_changes_nothing_of_the_next_job(tmp_path, cluster):
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    for i in range(4):
        write_rows(given / f"{i}.jsonl", rows(1500, seed=i))
    expected = undisturbed(given, tmp_path, cluster, "-m", str(SINGLE))
    first = start(command_for(given, out), cluster)
    wait_for(out / "_npbert.json")
    while not list(out.glob(".*.jsonl.*")):
        time.sleep(0.005)
    first.kill()
    first.communicate()
    shutil.rmtree(out)  # while the workers go on
    second = start(command_for(given, out, "-m", str(SINGLE)), cluster)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert answers_in(out) == expected


PAIRS = [
    ((), ()),
    (("--resume",), ("--resume",)),
    ((), ("--top-k", "2")),
    (("--resume",), ("-m", str(SINGLE), "--resume")),
    ((), ("--on-error", "fail")),
]


@pytest.mark.long
def test_of_two_jobs_that_start_together_in_one_folder_each_is_whole_or_refused(
    given, tmp_path, cluster
):
    expected = {
        args: undisturbed(given, tmp_path, cluster, *args)
        for args in {a for pair in PAIRS for a in pair if "fail" not in a}
    }
    rng = np.random.default_rng(5)
    for turn in range(int(os.environ.get("NPBERT_KILLS", 10)) // 5):
        pair, out = PAIRS[turn % len(PAIRS)], tmp_path / f"pair{turn}"
        jobs = []
        for args in pair:
            jobs.append(start(command_for(given, out, *args), cluster))
            time.sleep(rng.uniform(0, 0.3))
        said = [each.communicate(timeout=90)[1] for each in jobs]
        codes = [each.returncode for each in jobs]
        assert all(code in (2, 4) for code in codes), said
        assert not any("Traceback" in err for err in said)
        found = answers_in(out) if (out / "_npbert.json").exists() else {}
        winners = [args for args, code in zip(pair, codes, strict=True) if code == 4]
        if winners:
            assert found == expected[winners[0]], (pair, said)
        else:  # the one that has the folder ends by a bad row
            assert "fail" in pair[1]
            assert any("has no text" in err for err in said), said
        refused = [err for err, code in zip(said, codes, strict=True) if code == 2]
        reasons = ("writes there", "is not empty", "has no text", "was when the job began", "was ")
        assert all(any(why in err for why in reasons) for err in refused), refused


@pytest.mark.long
def test_killed_clients_and_workers_leave_nothing_wrong(given, tmp_path, cluster):
    kills, turn, rng = int(os.environ.get("NPBERT_KILLS", 10)), 0, np.random.default_rng(6)
    expected = undisturbed(given, tmp_path, cluster)
    with distributed.Client(cluster) as client:
        while kills > 0:
            out, code = tmp_path / f"kill{turn}", None
            while code is None:
                process = start(command_for(given, out, "--resume"), cluster)
                wait_for(out / "_npbert.lock")
                for _ in range(2):
                    time.sleep(rng.uniform(0, 0.5))
                    if kills > 0 and rng.random() < 0.5:
                        process.kill()
                        kills -= 1
                        break
                    if kills > 0 and (pids := list(client.run(os.getpid).values())):
                        os.kill(rng.choice(pids), signal.SIGKILL)
                        kills -= 1
                end = time.monotonic() + 120
                while process.poll() is None and time.monotonic() < end:
                    cluster.scale(2)  # Dask gives up those that are killed while they start
                    time.sleep(0.1)
                _, err = process.communicate(timeout=1)
                code = None if process.returncode == -signal.SIGKILL else process.returncode
                if code is None and out.exists():
                    torn = {p.name for p in out.glob("*.jsonl")} - set(expected)
                    assert not torn
                    for path in out.glob("*.jsonl"):
                        assert path.read_bytes() == expected[path.name]
            assert code == 4, err
            assert answers_in(out) == expected
            turn += 1
