"""Every call to the system on a file that npbert writes fails, or is the last before a kill.

Whatever happens, a file is whole or absent, the command tells what went wrong, a job can go on, and
nothing changes outside of the folder that was named.  test_syscalls_cluster.py has the cluster's.

NPBERT_FAULTS=all python -m pytest -m long tests/test_syscalls.py
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from faults import (
    UNFINISHED,
    Done,
    Point,
    Stage,
    choose,
    lacks_strace,
    points_of,
    recording,
    stages_in,
    try_each,
)
from hub_server import Hub, files_of

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "golden"
MODULES = ("npbert.cli.tasks", "npbert.cli.models", "npbert.cli.oracle", "npbert.jobs.job",
           "npbert.oracle.traces", "npbert.explaining.page", "npbert.tasks.sentence_embedding",
           "npbert.tasks.text_classification", "encodings.idna", "_strptime")  # fmt: skip
SAVE = """
import sys, npbert
model = npbert.load(sys.argv[2])
try:
    model.save("out/m")
except npbert.NpbertError as error:
    sys.exit(f"npbert: {error}")
"""
KIT = """
import sys
from npbert.cli import main
from npbert.oracle import kit
classes = kit.list_classes()
kit.list_classes = lambda: classes[:1]  # of many architectures that are written alike
sys.exit(main(["kit", "out/k"]))
"""
TRACE = ["npbert", "trace", str(GOLDEN / "DistilBertModel"), "--ids", "1 2 3", "-o"]
JOB = ["npbert", "text-classification", "-i", "in.txt", "-o"]
COMMANDS = {
    "lines": [*JOB, "out/o.jsonl"],
    "packed lines": [*JOB, "out/o.jsonl.gz"],
    "an array": ["npbert", "sentence-embedding", "-i", "in.txt", "-o", "out/o.npy"],
    "recorded errors": ["npbert", "text-classification", "-i", "in.jsonl", "-o", "out/o",
                        "--on-error", "record"],
    "save": ["-c", SAVE, str(ROOT / "npbert" / "demo" / "sentiment")],
    "convert": ["npbert", "convert", "in", "out/m"],
    "trace.safetensors": [*TRACE, "out/t.safetensors"],
    "trace.npz": [*TRACE, "out/t.npz"],
    "trace": [*TRACE, "out/t", "--only", "*.ffn"],
    "explain": ["npbert", "explain", "Hi.", "-o", "out/p.html"],
    "kit": ["-c", KIT],
}  # fmt: skip
JOBS = ("lines", "packed lines", "an array", "recorded errors")
MODEL = GOLDEN / "tasks" / "single"
DOWNLOAD = ["npbert", "download", "org/model", "--cache-dir", "out"]
USE = ["npbert", "text-classification", "-m", "org/model", "--cache-dir", "out", "a bad cab"]


def lay(folder: Path) -> None:
    """Lay out what the commands read."""
    (folder / "in").mkdir()
    shutil.copy(GOLDEN / "bins" / "shards" / "config.json", folder / "in")
    shutil.copy(GOLDEN / "bins" / "zip.bin", folder / "in" / "pytorch_model.bin")
    (folder / "in.jsonl").write_text('{"text": "good"}\n{"text": "bad"}\n{}\n' * 90)
    (folder / "in.txt").write_text("good\nbad\nboth\n" * 90)


@pytest.fixture(scope="module")
def strace() -> None:
    if why := lacks_strace():
        pytest.skip(why)


@pytest.mark.long
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_call_fails_files_are_whole_or_absent_and_the_fault_is_told(name, tmp_path):
    command = COMMANDS[name]
    with stages_in(tmp_path, lay, MODULES) as stages:
        whole, every = whole_run(stages[0], command)
        assert whole.status == 4 * (name == "recorded errors"), whole.said

        def judge(stage, point):
            done = stage.run(command, point.options())
            return done, fault_of(name, stage, whole, done, point)

        report(name, every, choose(every), try_each(stages, choose(every), judge), whole)


def whole_run(stage: Stage, command: Sequence[str]) -> tuple[Done, list[Point]]:
    """Return how a command ends that nothing disturbs, and the points at which it can fail."""
    log = stage.folder.with_name("log")
    whole = stage.run(command, recording(log))
    every = points_of(stage.folder, log)
    assert len(every) > 3 * len(whole.files)
    return whole, every


def report(name: str, every: list[Point], chosen: list[Point], found: list, whole: Done) -> None:
    """Print how many points were tried, and fail with all that are bad."""
    failed = sum(done.status != whole.status for done, _ in found)
    bad = [
        f"{point}: {why}; {done.status} {done.said}"
        for point, (done, why) in zip(chosen, found, strict=True)
        if why
    ]
    print(f"{name}: {len(chosen)} of {len(every)} points, {failed} failed, {len(bad)} bad")
    assert not bad, "\n".join(bad)


def fault_of(name: str, stage: Stage, whole: Done, done: Done, point: Point) -> str | None:
    """Say what is wrong with what a command left after a fault, if anything is."""
    left = sorted(done.files.keys() - done.named().keys())
    if why := broken_promise(whole, done, point):
        return why
    if done.status == whole.status:
        return None if done.files == whole.files else f"left {sorted(done.files)} and calls it fine"
    if not point.kills and name not in JOBS and left:
        return f"left {left}"
    if name in JOBS:
        again = stage.run([*COMMANDS[name], "--resume"], fresh=False)
        if again.status == 2 and "move it out of the way" in "\n".join(again.said):
            return None  # a part that was made, but of which no journal tells
        if again.status != whole.status or again.files != whole.files:
            return f"goes on to {again.status}, {again.said}, {sorted(again.files)}"
    return None


def broken_promise(whole: Done, done: Done, point: Point) -> str | None:
    """Say what no command may do, whatever fails, and this one did."""
    if done.outside != whole.outside:
        return "changed something outside"
    if torn := [name for name, raw in done.named().items() if whole.files.get(name) != raw]:
        return f"tore {torn}"
    if "Traceback" in "\n".join(done.said):
        return "ended in a traceback"
    if done.status == whole.status or point.kills:
        return None
    return None if any(line.startswith("npbert: ") for line in done.said) else "did not tell"


@pytest.mark.long
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("command", [DOWNLOAD, USE], ids=["download", "use"])
def test_whatever_call_fails_a_cache_holds_whole_files_and_the_next_download_completes_it(
    command, tmp_path
):
    hub = Hub()
    hub.push("org/model", files_of(MODEL))
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*",
           "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
    with stages_in(tmp_path, lay, (*MODULES, "huggingface_hub.hf_api"), **env) as stages:
        whole, every = whole_run(stages[0], command)
        assert whole.status == 0, whole.said

        def judge(stage, point):
            done = stage.run(command, point.options())
            return done, fault_of_cache(stage, whole, done, point)

        report(command[1], every, choose(every), try_each(stages, choose(every), judge), whole)
    hub.close()


def fault_of_cache(stage: Stage, whole: Done, done: Done, point: Point) -> str | None:
    """Say what is wrong with a cache after a fault, if anything is."""
    if why := broken_promise(whole, done, point):
        return why
    for path in (stage.folder / "out" / "models--org--model" / "blobs").glob("*"):
        whole_name = hashlib.sha1(path.read_bytes()).hexdigest()
        if path.name != whole_name and not UNFINISHED.fullmatch(str(path)):
            return f"tore {path}"
    if models_in(done) == models_in(whole):
        return None
    # What is there is all that there is, or it is told that more is needed.
    offline = stage.run([*USE, "--offline"], fresh=False)
    told = point.kills or any(line.startswith("npbert: ") for line in done.said)
    if offline.status not in ((0, 3) if told else (0,)):
        return f"is read offline with {offline.status}, {offline.said}"
    if offline.status and not offline.said[-1].startswith("npbert: "):
        return f"does not tell offline: {offline.said}"
    again = stage.run(DOWNLOAD, fresh=False)
    if again.status or models_in(again) != models_in(whole):
        return f"goes on to {again.status}, {again.said}, {sorted(again.files)}"
    return None


def models_in(done: Done) -> dict[str, bytes]:
    """Return what is read of a cache; where a link cannot be made a file stands, and no blob."""
    return {name: raw for name, raw in done.named().items() if "/blobs/" not in name}
