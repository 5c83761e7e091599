"""Commands that run under strace, which lets one of their calls to the system fail or be the last.

A process that has imported what they need forks for each run, so that a fault takes a tenth of a
second; strace looks at the thread that writes, and at no other, so that its calls are counted alike
every time.  As a program this is the process that forks: python faults.py MODULE ...
"""

import ctypes
import gc
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
CALLS = ("openat", "write", "lseek", "ftruncate", "fsync", "flock", "chmod", "rename", "unlink",
         "mkdir", "rmdir", "symlink", "link", "sendfile", "copy_file_range", "close")  # fmt: skip
EVERY_FAULT = ("error=EIO", "error=ENOSPC", "signal=KILL")
POINTS = os.environ.get("NPBERT_FAULTS", "1")  # of each command, each with one fault; "10%"; "all"
SEED = int(os.environ.get("NPBERT_LONG_SEED", "1"))
UNFINISHED = re.compile(
    r".*(\.part|\.part\.json|\.[0-9a-f]{16}\.tmp|\.npbert-part|\.lock"
    r"|\.incomplete|/tmp_[0-9a-f-]{36}|/tmp\w{8}/.*|/CACHEDIR\.TAG)"  # of huggingface_hub
)
ALLOW_ANY_TRACER = 0x59616D61, ctypes.c_ulong(-1 & (1 << 64) - 1)  # of prctl(), where Yama is


class Point(NamedTuple):
    """The how many-th call of its kind, and what becomes of it."""

    call: str
    number: int
    fault: str  # with a "+": of all that follow it too

    @property
    def kills(self) -> bool:
        """Whether the process ends there, and can tell nothing."""
        return "KILL" in self.fault

    def options(self) -> list[str]:
        """Return what strace is told."""
        fault, lasting = self.fault.removesuffix("+"), "+" * self.fault.endswith("+")
        inject = f"inject={self.call}:{fault}:when={self.number}{lasting}"
        return ["-o", "/dev/null", "-e", f"trace={self.call}", "-e", inject]


class Done(NamedTuple):
    """A command that has ended: how, and what it left."""

    status: int
    said: list[str]
    files: dict[str, bytes]  # in out/
    outside: dict[str, bytes]

    def named(self) -> dict[str, bytes]:
        """Return the files that are called whole."""
        return {name: raw for name, raw in self.files.items() if not UNFINISHED.fullmatch(name)}


class Stage:
    """A folder in which a command writes to out/, and the process that forks to run it."""

    def __init__(
        self, folder: Path, lay: Callable[[Path], None], modules: Sequence[str], **env: str
    ) -> None:
        self.folder, self.lay = folder, lay
        self.forking = subprocess.Popen(
            [sys.executable, __file__, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1",
                            "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1",
                            "OPENBLAS_NUM_THREADS": "1", **env},
        )  # fmt: skip

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.forking.stdin
        assert self.forking.stdout
        self.forking.stdin.close()
        self.forking.stdout.close()
        self.forking.wait(60)

    def run(
        self, command: Sequence[str], strace: Sequence[str] = (), *, fresh: bool = True
    ) -> Done:
        """Run a command, in a folder as it was at first, or as another has left it."""
        assert self.forking.stdin
        assert self.forking.stdout
        if fresh:
            self.prepare()
        asked = {"folder": str(self.folder), "command": [*command], "strace": [*strace]}
        self.forking.stdin.write(f"{json.dumps(asked)}\n")
        self.forking.stdin.flush()
        status = int(self.forking.stdout.readline())
        return self.done(status, errors_of(self.folder).read_text().splitlines())

    def prepare(self) -> None:
        """Make the folder as it is at first."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "out").mkdir(parents=True)
        self.lay(self.folder)

    def done(self, status: int, said: list[str]) -> Done:
        """Return how a command has ended, and what the folder holds."""
        there = (path for path in self.folder.rglob("*") if path.is_file())
        files = {str(path.relative_to(self.folder)): path.read_bytes() for path in there}
        inside = {name: raw for name, raw in files.items() if name.startswith("out/")}
        outside = {name: raw for name, raw in files.items() if name not in inside}
        return Done(status, said, inside, outside)


@contextmanager
def stages_in(folder: Path, lay: Callable[[Path], None], modules: Sequence[str], **env: str) -> Any:
    """Yield alike stages, as many as can be busy side by side."""
    with ExitStack() as stack:
        count = min(2, os.cpu_count() or 1)
        made = (Stage(folder / f"run{i}", lay, modules, **env) for i in range(count))
        yield [stack.enter_context(stage) for stage in made]


def try_each(
    stages: Sequence[Stage], points: list[Point], judge: Callable[[Stage, Point], Any]
) -> list[Any]:
    """Return what is judged of each point, on a stage that is free."""
    free: SimpleQueue[Stage] = SimpleQueue()
    for stage in stages:
        free.put(stage)

    def judge_one(point: Point) -> Any:
        stage = free.get()
        try:
            return judge(stage, point)
        finally:
            free.put(stage)

    with ThreadPoolExecutor(len(stages)) as pool:
        return list(pool.map(judge_one, points))


def errors_of(folder: Path) -> Path:
    """Return where a command's stderr goes, beside its folder."""
    return folder.with_name(f"{folder.name}.err")


def recording(log: Path) -> list[str]:
    """Return what strace is told to write down the calls that can fail."""
    return ["-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}"]


def points_of(folder: Path, log: Path, faults: Sequence[str] = EVERY_FAULT) -> list[Point]:
    """Return the calls on files in out/ that strace saw, each with every fault."""
    seen, found = dict.fromkeys(CALLS, 0), []
    for line in log.read_text("utf-8", "replace").splitlines():
        call = line.partition("(")[0]
        if call in seen:
            seen[call] += 1
            if f"{folder}/out" in line or '"out/' in line:
                found += [Point(call, seen[call], fault) for fault in faults]
    return found


def choose(every: list[Point]) -> list[Point]:
    """Return as many points as NPBERT_FAULTS wants."""
    count = len(every)
    if POINTS.endswith("%"):
        count = -(-count * int(POINTS[:-1]) // 100)
    elif POINTS != "all":
        count = min(int(POINTS), count)
    return every if count == len(every) else random.Random(SEED).sample(every, count)


def lacks_strace() -> str:
    """Say why nothing can be traced here; "" where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        tracer = attach(child.pid, ["-o", "/dev/null"])
        child.communicate(b"\n")
    if tracer:
        tracer.communicate(timeout=10)
    return "" if tracer else "strace is not allowed to trace here"


def attach(thread: int, options: Sequence[str]) -> subprocess.Popen[str] | None:
    """Let strace look at one thread; return it once it sees every call, None where it may not."""
    tracer = subprocess.Popen(
        ["strace", "-p", str(thread), *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tracer.stderr
    said = tracer.stderr.readline()
    if "attached" not in said:
        tracer.communicate(timeout=10)
        return None
    return tracer


def allow_tracing() -> None:
    """Let any process of this user trace this one, as its parent could."""
    ctypes.CDLL(None).prctl(*ALLOW_ANY_TRACER)


def serve_forks() -> Iterator[dict[str, Any]]:
    """Yield, each in a process of its own, what shall be run; print how it ended."""
    for line in sys.stdin:
        asked = json.loads(line)
        ready, go = os.pipe()
        if (child := os.fork()) == 0:
            os.close(go)
            allow_tracing()
            become(asked, ready)
            yield asked
            return
        os.close(ready)
        tracer = attach(child, asked["strace"]) if asked["strace"] else None
        os.close(go)
        _, status = os.waitpid(child, 0)
        if tracer:
            tracer.communicate(timeout=60)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(asked: dict[str, Any], ready: int) -> None:
    """Take the place of a command that begins, once whoever traces it is there."""
    os.chdir(asked["folder"])
    for number, name in enumerate([os.devnull, os.devnull, errors_of(Path(asked["folder"]))]):
        opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = asked["command"]
    os.read(ready, 1)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()  # so that children look through what they made alone, and share all else
    for run in serve_forks():
        if run["command"][0] == "-c":
            exec(run["command"][1], {"__name__": "__main__"})
        else:
            from npbert.cli import main

            sys.exit(main(run["command"][1:]))
