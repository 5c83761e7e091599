"""Small files that are hostile, and mutated by the thousand: each ends in a message, quickly.

No crash, no traceback, no hang, no flood of memory, in a process with a limit on it.

NPBERT_MUTATIONS=20000 python -m pytest -m long tests/test_small_files.py
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from endings import COMMANDS, Ending, endings_of, lines, too_fat
from hostile.readers import apply, attacks
from hostile.small_files import KINDS, command_of, spoil

pytest.importorskip("resource", reason="limits and peak memory are POSIX")

SEED = int(os.environ.get("NPBERT_LONG_SEED", "1"))
MUTATIONS = int(os.environ.get("NPBERT_MUTATIONS", "1000")) // len(KINDS)  # of each kind
BATCH = 100
SECONDS = 2.0  # of processor time
MEGABYTES = 400.0
LETTERS = 20_000

ATTACKS = attacks()


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ending]]:
    """How each attack ended."""
    root = tmp_path_factory.mktemp("attacks")
    for name, kind in KINDS.items():
        (root / name).mkdir()
        kind.make(root / name)
    jobs = []
    homes = {id(kind): root / name for name, kind in KINDS.items()}
    for i, (name, attack) in enumerate(ATTACKS.items()):
        apply(attack, homes[id(attack[0])], root / str(i))
        jobs.append((name, command_of(attack[0], root / str(i))))
    yield endings_of(jobs, COMMANDS)
    shutil.rmtree(root)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_small_file_is_refused_with_a_message(
    endings: dict[str, Ending], name: str
) -> None:
    ending = endings[name]
    assert ending.outcome == "refused", f"{ending}{ending.error}"
    assert ending.seconds <= SECONDS
    assert len(ending.message) < LETTERS


def test_no_hostile_small_file_takes_more_than_400_mb(endings: dict[str, Ending]) -> None:
    assert not too_fat(endings, MEGABYTES)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_a_mutated_small_file_ends_in_an_answer_or_in_an_error_of_npbert(
    name: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    healthy = tmp_path / "healthy"
    healthy.mkdir()
    kind.make(healthy)
    for start in range(0, MUTATIONS, BATCH):
        jobs = []
        for i in range(start, min(start + BATCH, MUTATIONS)):
            spoil(kind, healthy, tmp_path / str(i), (SEED, i))
            jobs.append((f"{name} {i}", command_of(kind, tmp_path / str(i))))
        endings = endings_of(jobs, COMMANDS)
        bad = [
            ending
            for ending in endings.values()
            if ending.outcome not in ("loaded", "refused") or ending.seconds > SECONDS
        ]
        assert not bad, lines(bad)
        assert not too_fat(endings, MEGABYTES)
        assert len(endings) == len(jobs)
        for i in range(start, min(start + BATCH, MUTATIONS)):
            shutil.rmtree(tmp_path / str(i))


@pytest.mark.parametrize("name", KINDS)
def test_the_small_files_to_spoil_are_sound(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    kind.make(tmp_path)
    (ending,) = endings_of([(name, command_of(kind, tmp_path))], COMMANDS).values()
    assert ending.outcome == "loaded", f"{ending.error}{ending.message}"
