"""Every call to the system on a file that npbert writes fails, or is the last before a kill.

Whatever happens, a file is whole or absent, the command tells what went wrong, a job can go on, and
nothing changes outside of the folder that was named.

NPBERT_FAULTS=all python -m pytest -m long tests/test_syscalls.py
"""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "golden"
CALLS = ("openat", "write", "lseek", "ftruncate", "fsync", "flock", "chmod", "rename", "unlink",
         "mkdir", "close")  # fmt: skip
FAULTS = ("error=EIO", "error=ENOSPC", "signal=KILL")
POINTS = os.environ.get("NPBERT_FAULTS", "1")  # of each command, each with one fault; or "all"
SEED = int(os.environ.get("NPBERT_LONG_SEED", "1"))
NPBERT = [sys.executable, "-m", "npbert"]
SAVE = """
import sys, npbert
model = npbert.load(sys.argv[1])
try:
    model.save("out/m")
except npbert.NpbertError as error:
    sys.exit(f"npbert: {error}")
"""
TRACE = [*NPBERT, "trace", str(GOLDEN / "DistilBertModel"), "--ids", "1 2 3", "-o"]
JOB = [*NPBERT, "sentence-embedding", "-i", "in.txt", "-o"]
COMMANDS = {
    "lines": [*JOB, "out/o.jsonl"],
    "packed lines": [*JOB, "out/o.jsonl.gz"],
    "an array": [*JOB, "out/o.npy"],
    "recorded errors": [*NPBERT, "text-classification", "-i", "in.txt", "-o", "out/o",
                        "--on-error", "record"],
    "save": [sys.executable, "-c", SAVE, str(ROOT / "npbert" / "demo" / "sentiment")],
    "convert": [*NPBERT, "convert", "in", "out/m"],
    "trace.safetensors": [*TRACE, "out/t.safetensors"],
    "trace.npz": [*TRACE, "out/t.npz"],
    "trace": [*TRACE, "out/t", "--only", "*.ffn"],
    "explain": [*NPBERT, "explain", "Hi.", "-o", "out/p.html"],
    "kit": [*NPBERT, "kit", "out/k"],
}  # fmt: skip
JOBS = ("lines", "packed lines", "an array", "recorded errors")
UNFINISHED = re.compile(r".*(\.part|\.part\.json|\.[0-9a-f]{16}\.tmp)")


class Done(NamedTuple):
    """A command that has ended: how, and what it left."""

    status: int
    said: list[str]
    files: dict[str, bytes]  # in out/
    outside: dict[str, bytes]


def run(folder, command, strace=(), *, fresh=True):
    """Run a command in a folder of its own."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        (folder / "in").mkdir()
        shutil.copy(GOLDEN / "bins" / "shards" / "config.json", folder / "in")
        shutil.copy(GOLDEN / "bins" / "zip.bin", folder / "in" / "pytorch_model.bin")
        (folder / "in.txt").write_text("good\nbad\nboth\n" * 200)
    done = subprocess.run(
        [*strace, *command], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1",
             "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    inside = {name: raw for name, raw in files.items() if name.startswith("out/")}
    said = [line for line in done.stderr.splitlines() if not line.startswith("strace:")]
    outside = {name: raw for name, raw in files.items() if name not in inside and name != "log"}
    return Done(done.returncode, said, inside, outside)


def points(folder, command):
    """Return the calls on files in out/: which, and the how many-th of its kind it is."""
    log = folder.with_name("log")
    traced = run(folder, command, ["strace", "-y", "-o", log, "-e", f"trace={','.join(CALLS)}"])
    assert traced.status == 0, traced.said
    seen = dict.fromkeys(CALLS, 0)
    for line in log.read_text("utf-8", "replace").splitlines():
        call = line.partition("(")[0]
        if call in seen:
            seen[call] += 1
            if f"{folder}/out/" in line or '"out/' in line:
                yield call, seen[call]


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_call_fails_files_are_whole_or_absent_and_the_fault_is_told(name, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not allowed to trace here")
    command, folder = COMMANDS[name], tmp_path / "run"
    whole = run(folder, command)
    assert whole.status == 0, whole.said
    every = [(*point, fault) for point in points(folder, command) for fault in FAULTS]
    assert len(every) > 3 * len(whole.files)
    chosen = (
        every
        if POINTS == "all"
        else random.Random(SEED).sample(every, min(int(POINTS), len(every)))
    )
    bad, failed = [], 0
    for call, number, fault in chosen:
        inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
                  "-e", f"inject={call}:{fault}:when={number}"]  # fmt: skip
        done = run(folder, command, inject)
        failed += done.status != 0
        if why := fault_of(name, folder, whole, done, killed="KILL" in fault):
            bad.append((call, number, fault, why, done.status, done.said))
    print(f"{name}: {len(chosen)} of {len(every)} points, {failed} failed, {len(bad)} bad")
    assert bad == []


def fault_of(name, folder, whole, done, *, killed):
    """Say what is wrong with what a command left after a fault, if anything is."""
    named = {each: raw for each, raw in done.files.items() if not UNFINISHED.fullmatch(each)}
    if done.outside != whole.outside:
        return "changed something outside"
    if torn := [each for each, raw in named.items() if whole.files.get(each) != raw]:
        return f"tore {torn}"
    if "Traceback" in "\n".join(done.said):
        return "ended in a traceback"
    if done.status == 0:
        return None if done.files == whole.files else f"left {sorted(done.files)} and calls it fine"
    if not killed and not any(line.startswith("npbert: ") for line in done.said):
        return "did not tell"
    if not killed and name not in JOBS and done.files.keys() - named.keys():
        return f"left {sorted(done.files.keys() - named.keys())}"
    if name in JOBS:
        again = run(folder, [*COMMANDS[name], "--resume"], fresh=False)
        if again.status == 2 and "move it out of the way" in "\n".join(again.said):
            return None  # a part that was made, but of which no journal tells
        if again.status or again.files != whole.files:
            return f"goes on to {again.status}, {again.said}, {sorted(again.files)}"
    return None
