"""Hostile pytorch_model.bin files are refused by name, quickly, in little memory, and run nothing.

Each is loaded as a model in a process of its own kind, in a folder that is looked over afterwards.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from corruption.checkpoint import CONFIG, PICKLE, healthy_config
from endings import Ending, endings_of, lines, too_fat
from hostile.pickles import hostile

pytest.importorskip("resource", reason="limits and peak memory are POSIX")

SECONDS = 2.0  # of processor time
MEGABYTES = 300.0
LETTERS = 2_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def endings(root: Path) -> dict[str, Ending]:
    jobs = []
    config = json.dumps(healthy_config())
    for i, (name, content) in enumerate(hostile()):
        folder = root / str(i)
        folder.mkdir()
        (folder / CONFIG).write_text(config)
        (folder / PICKLE).write_bytes(content)
        jobs.append((name, str(folder)))
    return endings_of(jobs)


def test_the_files_are_many_and_different() -> None:
    made = hostile()
    assert len(made) >= 1000
    assert len({name for name, _ in made}) == len({content for _, content in made}) == len(made)


def test_every_hostile_file_is_refused_by_its_name(endings: dict[str, Ending]) -> None:
    wrong = [
        ending
        for ending in endings.values()
        if (ending.outcome, ending.error) != ("refused", "CheckpointError")
        or PICKLE not in ending.message
        or len(ending.message) > LETTERS
    ]
    assert not wrong, lines(wrong)


@pytest.mark.parametrize(
    "asked", ["posix.system", "builtins.eval", "torch.hub.load", "\\u03bfs.system"]
)
def test_what_a_pickle_asks_for_is_told(endings: dict[str, Ending], asked: str) -> None:
    plain = (f"'{asked}' GLOBAL, REDUCE", f"'{asked}' beside tensors")
    (ending,) = (ending for name, ending in endings.items() if name.endswith(plain))
    assert f"{PICKLE}: its pickle asks for {asked}, which no tensor needs" in ending.message


def test_no_hostile_file_takes_more_than_two_seconds(endings: dict[str, Ending]) -> None:
    slow = [ending for ending in endings.values() if ending.seconds > SECONDS]
    assert not slow, "\n".join(f"{ending.name}: {ending.seconds:.1f} s" for ending in slow)


def test_no_hostile_file_takes_more_than_300_mb(endings: dict[str, Ending]) -> None:
    fat = too_fat(endings, MEGABYTES)
    assert not fat, "\n".join(fat)


def test_nothing_was_run_and_nothing_was_written(endings: dict[str, Ending], root: Path) -> None:
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert there == {f"{i}/{name}" for i in range(len(endings)) for name in (CONFIG, PICKLE)}
