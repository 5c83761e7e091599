"""Blocks in several processes: the same bytes, the same errors, and nothing is left behind."""

import gzip
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.errors import CheckpointError, InputError
from npbert.jobs import processes
from npbert.jobs.identity import hash_model
from npbert.jobs.job import BYTES_EACH, NARROW_WIDTH, count_processes

NPBERT = [sys.executable, "-m", "npbert"]
CLASSIFY = "text-classification"
WORDS = ("a", "dull", "witty", "gorgeous", "mess", "of", "plots", "that", "Paris", "ends", "no")
INPUTS = 600  # two blocks and a part of one


def lines(count=INPUTS, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]


@pytest.fixture
def given(tmp_path):
    """A file of texts, some of them longer than a model reads."""
    some = [*lines(), " ".join(lines(90))]
    path = tmp_path / "in.txt"
    path.write_text("\n".join(some) + "\n", "utf-8")
    return path


def run(*args, status=0):
    done = subprocess.run(
        [*NPBERT, *map(str, args)], capture_output=True, timeout=120, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return [line.partition("; ")[0] for line in done.stderr.splitlines()]  # without times


def start(*args):
    return subprocess.Popen([*NPBERT, *map(str, args)], stderr=subprocess.PIPE, text=True)


def processes_of(parent):
    """Return the processes of a pool; what tracks its locks is none of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            above = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if above == parent and b"spawn_main" in command:
            found.append(int(path.parent.name))
    return found


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("task", "suffix", "more"),
    [
        (CLASSIFY, "jsonl", ["--top-k", "2"]),
        ("token-classification", "jsonl.gz", []),
        ("sentence-embedding", "npy", []),
    ],
)
def test_answers_and_what_is_told_are_the_same_for_any_number_of_processes(
    given, tmp_path, task, suffix, more
):
    told = {}
    for n in (1, 3):
        out = tmp_path / f"{n}.{suffix}"
        told[n] = run(task, "-i", given, "-o", out, "--processes", n, *more)
    assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"3.{suffix}").read_bytes()
    assert told[1] == told[3]
    truncated = ", 1 truncated" * (task != "token-classification")
    assert told[1][-1].startswith(f"npbert: {INPUTS + 1:,} inputs, ")
    assert told[1][-1].endswith(f" tokens{truncated}")


def write_rows(path, bad):
    rows = [{"id": i, "txt" if i in bad else "text": text} for i, text in enumerate(lines())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_bad_line_stops_the_job_in_its_turn_and_another_goes_on_behind_it(tmp_path):
    bad, good = (write_rows(tmp_path / f"{n}.jsonl", n * [550, 590]) for n in (1, 0))
    out, whole = tmp_path / "o.jsonl", tmp_path / "whole.jsonl"
    run(CLASSIFY, "-i", good, "-o", whole)
    told = run(CLASSIFY, "-i", bad, "-o", out, "--processes", 2, status=2)
    assert told == [
        f"npbert: {out}: not finished",
        "npbert: line 551: has no text, but 'id', 'txt'",
    ]
    part = (tmp_path / "o.jsonl.part").read_bytes()
    assert part.count(b"\n") >= 512
    assert whole.read_bytes().splitlines()[:512] == part.splitlines()[:512]
    run(CLASSIFY, "-i", good, "-o", out, "--resume", "--processes", 3)
    assert out.read_bytes() == whole.read_bytes()


def test_errors_that_are_recorded_stand_in_their_places(tmp_path):
    given = write_rows(tmp_path / "in.jsonl", [3, 550])
    for n in (1, 2):
        flags = ["--on-error", "record", "--processes", n]
        run(CLASSIFY, "-i", given, "-o", tmp_path / f"{n}.jsonl", *flags, status=4)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_an_input_that_breaks_off_is_told_behind_the_answers_to_what_came(tmp_path):
    packed = gzip.compress("\n".join(lines()).encode())
    given = tmp_path / "in.txt.gz"
    given.write_bytes(packed[: len(packed) * 2 // 3])
    told, parts = [], []
    for n in (1, 2):
        out = tmp_path / f"{n}"
        said = run(CLASSIFY, "-i", given, "-o", out, "--processes", n, status=2)
        told.append([line.replace(str(out), "OUT") for line in said])
        parts.append((tmp_path / f"{n}.part").read_bytes())
    assert told[0] == told[1]
    safe = min(part.count(b"\n") for part in parts) // 256 * 256
    assert safe > 0
    assert parts[0].splitlines()[:safe] == parts[1].splitlines()[:safe]


def test_long_texts_are_computed_in_their_turn_and_the_same(tmp_path):
    some = lines(400)
    some[300] = "a dull mess " * 20_000
    given = tmp_path / "in.txt"
    given.write_text("\n".join(some), "utf-8")
    for n in (1, 2):
        run(CLASSIFY, "-i", given, "-o", tmp_path / f"{n}", "--processes", n)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file of many texts, and what comes of it in one process."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "in.txt").write_text("\n".join(lines(2500)), "utf-8")
    run(CLASSIFY, "-i", folder / "in.txt", "-o", folder / "whole", "--processes", 1)
    return folder / "in.txt", (folder / "whole").read_bytes()


@pytest.fixture
def under_way(many, tmp_path):
    """A job of several processes, the first answers of which are there, and its output."""
    out, part = tmp_path / "o", tmp_path / "o.part"
    job = start(CLASSIFY, "-i", many[0], "-o", out, "--processes", 2)
    wait_until(lambda: part.exists() and part.read_bytes().count(b"\n") >= 256)
    yield job, out
    job.kill()
    job.communicate()


def finish(many, out):
    """Let a job go on in one process, and compare it with one that was never stopped."""
    run(CLASSIFY, "-i", many[0], "-o", out, "--resume")
    assert out.read_bytes() == many[1]


def test_ctrl_c_answers_what_was_read_and_leaves_no_process(many, under_way):
    job, out = under_way
    pool = wait_until(lambda: processes_of(job.pid))
    for process in [*pool, job.pid]:  # as a terminal sends it to all
        os.kill(process, signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "not finished" in err
    assert "Traceback" not in err
    assert not [process for process in pool if Path(f"/proc/{process}").exists()]
    safe = json.loads(Path(f"{out}.part.json").read_text())
    assert safe["inputs"] % 256 == 0
    assert safe["inputs"] >= 256
    finish(many, out)


def test_a_process_that_is_killed_ends_the_job_and_says_so(many, under_way):
    job, out = under_way
    os.kill(wait_until(lambda: processes_of(job.pid))[0], signal.SIGKILL)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 2
    assert re.sub(r"line \d+", "line N", err.splitlines()[-1]) == (
        "npbert: a process ended while it computed from line N on: killed, perhaps for want of "
        "memory; --resume goes on, and --processes 1 takes the least"
    )
    finish(many, out)


def test_processes_end_with_a_job_that_is_killed(many, under_way):
    job, out = under_way
    pool = wait_until(lambda: processes_of(job.pid))
    job.kill()
    job.wait()
    wait_until(lambda: not [process for process in pool if Path(f"/proc/{process}").exists()])
    finish(many, out)


def test_a_model_that_has_changed_is_refused_by_a_process(monkeypatch, tmp_path):
    npbert.load("builtin:sentiment").save(tmp_path / "model")
    task = npbert.pipeline(CLASSIFY, tmp_path / "model")
    monkeypatch.setattr(processes, "_recipe", pickle.dumps((hash_model(task.folder), task)))
    rebuild_task = processes.rebuild_task.__wrapped__  # which is not kept for the next test
    assert rebuild_task()("Fine.") == task("Fine.")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    expected = f"{task.folder}: its files have changed since the job began"
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        rebuild_task()


@pytest.mark.parametrize(
    ("width", "size", "threads", "expected"),
    [
        (NARROW_WIDTH, 64 * BYTES_EACH, None, 2),
        (NARROW_WIDTH, BYTES_EACH - 1, None, 1),
        (NARROW_WIDTH, None, None, 1),  # a pipe
        (NARROW_WIDTH, 64 * BYTES_EACH, 2, 1),  # as was asked for
        (NARROW_WIDTH + 2, 64 * BYTES_EACH, None, 1),
    ],
)
def test_as_many_processes_as_pay(width, size, threads, expected, monkeypatch):
    monkeypatch.setattr("npbert.jobs.job.count_cores", lambda: 2)
    assert count_processes(None, threads, width, size) == expected


def test_a_count_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"^processes is 0, expected a whole number from 1$"):
        count_processes(0, None, 8, 10)


def test_a_cluster_has_processes_of_its_own(tmp_path):
    flags = ["--dask", "--processes", 2, "-i", tmp_path / "*.txt", "-o", tmp_path / "out"]
    assert run(CLASSIFY, *flags, status=2) == ["npbert: --dask has processes of its own"]
