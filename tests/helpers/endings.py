"""How loading folders ends, each in a process that may die of it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
LOADS, COMMANDS = TESTS / "corruption" / "child.py", TESTS / "hostile" / "child.py"


@dataclass(frozen=True)
class Ending:
    """How one load ended: "loaded", "refused", "escaped" (a foreign error) or "died"."""

    name: str
    outcome: str
    error: str = ""
    message: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}: {self.outcome} {self.error} {self.message[:300]}"


def lines(endings: list[Ending]) -> str:
    return "\n".join(str(ending) for ending in endings)


def run_child(jobs: Sequence[tuple[str, str | list[str]]], child: Path) -> tuple[list[Ending], int]:
    """Load folders, or run commands, in one process, as far as it gets -> endings, exit status."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "HF_HUB_OFFLINE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", child],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        timeout=600,
        check=False,
    )
    endings = [Ending(**json.loads(line)) for line in ended.stdout.splitlines()]
    if not endings and ended.returncode:
        pytest.fail(f"the child could not start:\n{ended.stderr[-2000:]}")
    return endings, ended.returncode


def endings_of(
    jobs: Sequence[tuple[str, str | list[str]]], child: Path = LOADS
) -> dict[str, Ending]:
    """How each load, or command, ended, by name; after a process that dies one does the rest."""
    found: dict[str, Ending] = {}
    while jobs:
        ended, status = run_child(jobs, child)
        found |= {ending.name: ending for ending in ended}
        jobs = jobs[len(ended) :]
        if jobs:
            found[jobs[0][0]] = Ending(jobs[0][0], "died", f"exit status {status}")
            jobs = jobs[1:]
    return found


def too_fat(endings: dict[str, Ending], megabytes: float) -> list[str]:
    """Who raised the peak above a limit; a peak never falls again, so that only raising counts."""
    fat, highest = [], megabytes
    for ending in endings.values():
        if ending.peak_mb > highest:
            fat.append(f"{ending.name}: {ending.peak_mb:.0f} MB")
            highest = ending.peak_mb
    return fat
