"""Random faults by the thousand: no crash, no hang, no flood of memory, no write, nothing run.

NPBERT_LONG=20000 python -m pytest -m long
"""

import os
import shutil
from pathlib import Path

import corruption
import numpy as np
import pytest
from corruption.checkpoint import WEIGHTS
from corruption.random import bin_of
from endings import endings_of, lines, too_fat

import npbert

pytest.importorskip("resource", reason="limits and peak memory are POSIX")

SEED = int(os.environ.get("NPBERT_LONG_SEED", "1"))
FILES = int(os.environ.get("NPBERT_LONG", "1000"))
BATCH = 250
SECONDS = 2.0  # of processor time
MEGABYTES = 300.0


def spoilt(root: Path, numbers: range) -> list[tuple[str, str]]:
    """Make the folders of some faults -> their names and folders."""
    for sharded in (False, True):
        rng = np.random.default_rng(SEED)
        corruption.write_checkpoint(root / f"healthy-{sharded}", rng, sharded=sharded)
    jobs = []
    for i, case in enumerate(corruption.drawn(SEED, numbers)):
        folder = root / str(i) / "model"
        shutil.copytree(root / f"healthy-{case.sharded}", folder)
        case.apply(folder)
        jobs.append((case.name, str(folder)))
    return jobs


def listing(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.mark.long
@pytest.mark.parametrize("start", range(0, FILES, BATCH))
def test_random_faults_end_in_an_answer_or_in_an_error_of_npbert(
    start: int, tmp_path: Path
) -> None:
    jobs = spoilt(tmp_path, range(start, min(start + BATCH, FILES)))
    before = listing(tmp_path)
    endings = endings_of(jobs)
    after = listing(tmp_path)
    shutil.rmtree(tmp_path)
    bad = [
        ending
        for ending in endings.values()
        if ending.outcome not in ("loaded", "refused") or ending.seconds > SECONDS
    ]
    assert not bad, lines(bad)
    assert not too_fat(endings, MEGABYTES)
    assert len(endings) == len(jobs)
    assert after == before


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_the_files_to_spoil_are_sound(container: str, tmp_path: Path) -> None:
    corruption.write_checkpoint(tmp_path, np.random.default_rng(SEED))
    expected = npbert.load(tmp_path)([[2, 7, 3]]).logits
    (tmp_path / "pytorch_model.bin").write_bytes(
        bin_of((tmp_path / WEIGHTS).read_bytes(), container)
    )
    (tmp_path / WEIGHTS).unlink()
    assert np.array_equal(npbert.load(tmp_path)([[2, 7, 3]]).logits, expected)
