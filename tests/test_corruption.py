"""Malformed checkpoints are refused by name, quickly, in little memory, and never by a crash."""

import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import corruption
import numpy as np
import pytest
from corruption.checkpoint import SHARDS, WEIGHTS, healthy_tensors
from endings import Ending, endings_of, lines, too_fat
from safetensors.numpy import load_file

pytest.importorskip("resource", reason="limits and peak memory are POSIX")

SEED = 20240607
CASES = list(corruption.corruptions(SEED))
HEALTHY = ("healthy", "healthy, in shards")
SECONDS = 1.0  # of processor time: the clock's would count what else the machine does
MEGABYTES = 200.0
LETTERS = 20_000  # a message with every fault of a small file is far shorter


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("corruption")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def endings(root: Path) -> dict[str, Ending]:
    """How each corruption ended."""
    jobs = []
    for name, sharded in zip(HEALTHY, (False, True), strict=True):
        folder = root / name
        corruption.write_checkpoint(folder, np.random.default_rng(SEED), sharded=sharded)
        jobs.append((name, str(folder)))
    for i, case in enumerate(CASES):
        folder = root / f"case-{i}" / "model"  # a parent of its own, for what leaves the folder
        shutil.copytree(root / HEALTHY[case.sharded], folder)
        case.apply(folder)
        jobs.append((case.name, str(folder)))
    return endings_of(jobs)


def test_at_least_two_hundred_corruptions_and_most_are_structural() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum(case.structural for case in CASES) >= 0.7 * len(CASES)


def test_the_healthy_checkpoints_are_what_safetensors_reads(tmp_path: Path) -> None:
    expected = healthy_tensors(np.random.default_rng(SEED))
    corruption.write_checkpoint(tmp_path / "one", np.random.default_rng(SEED))
    corruption.write_checkpoint(tmp_path / "two", np.random.default_rng(SEED), sharded=True)
    one = load_file(tmp_path / "one" / WEIGHTS)
    two = load_file(tmp_path / "two" / SHARDS[0]) | load_file(tmp_path / "two" / SHARDS[1])
    for found in (one, two):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    def spoil(seed: int, folder: Path) -> list[bytes]:
        drawn = [case for case in corruption.corruptions(seed, 60) if case.kind == "random"]
        for i, case in enumerate(drawn):
            rng = np.random.default_rng(0)
            corruption.write_checkpoint(folder / str(i), rng, sharded=case.sharded)
            case.apply(folder / str(i))
        return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]

    first, again, other = (spoil(seed, tmp_path / str(i)) for i, seed in enumerate((1, 1, 2)))
    assert first == again
    assert first != other


def test_healthy_checkpoints_load(endings: dict[str, Ending]) -> None:
    failed = [endings[name] for name in HEALTHY if endings[name].outcome != "loaded"]
    assert not failed, lines(failed)
    assert not any(endings[name].error for name in HEALTHY), "a healthy model must also run"


def test_the_interpreter_survives_everything(endings: dict[str, Ending]) -> None:
    died = [ending for ending in endings.values() if ending.outcome == "died"]
    assert not died, lines(died)


def test_nothing_but_npberts_own_errors_comes_out(endings: dict[str, Ending]) -> None:
    escaped = [ending for ending in endings.values() if ending.outcome == "escaped"]
    assert not escaped, lines(escaped)


def test_every_structural_corruption_is_refused(endings: dict[str, Ending]) -> None:
    structural = [endings[case.name] for case in CASES if case.structural]
    loaded = [ending for ending in structural if ending.outcome == "loaded"]
    assert not loaded, lines(loaded)


def test_every_structural_refusal_names_the_file_at_fault(endings: dict[str, Ending]) -> None:
    silent = [
        endings[case.name]
        for case in CASES
        if case.structural and endings[case.name].outcome == "refused"
        if not any(file in endings[case.name].message for file in case.files)
    ]
    assert not silent, lines(silent)


def test_every_message_is_short_enough_to_read(endings: dict[str, Ending]) -> None:
    long = [ending for ending in endings.values() if len(ending.message) > LETTERS]
    assert not long, "\n".join(f"{ending.name}: {len(ending.message)} letters" for ending in long)


def test_no_message_carries_what_a_terminal_would_obey(endings: dict[str, Ending]) -> None:
    raw = [
        f"{ending.name}: {ending.message[:300]!a}"
        for ending in endings.values()
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in ending.message if c != "\n")
    ]
    assert not raw, "\n".join(raw)


def test_no_corruption_takes_more_than_a_second(endings: dict[str, Ending]) -> None:
    slow = [ending for ending in endings.values() if ending.seconds > SECONDS]
    assert not slow, "\n".join(f"{ending.name}: {ending.seconds:.1f} s" for ending in slow)


def test_no_corruption_takes_more_than_200_mb(endings: dict[str, Ending]) -> None:
    fat = too_fat(endings, MEGABYTES)
    assert not fat, "\n".join(fat)


@pytest.mark.usefixtures("endings")
def test_no_pickle_was_executed(root: Path) -> None:
    assert not list(root.rglob("executed"))


def test_the_share_that_loaded_is_reported(
    endings: dict[str, Ending],
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    kinds = Counter(case.kind for case in CASES)
    loaded = Counter(case.kind for case in CASES if endings[case.name].outcome == "loaded")
    record_property("loaded", f"{loaded.total()} of {kinds.total()}")
    shares = ", ".join(f"{kind} {loaded[kind]}/{count}" for kind, count in kinds.items())
    with capsys.disabled():
        print(f"\nspoilt and loaded all the same: {loaded.total()}/{kinds.total()} ({shares})")
    assert loaded.total() < 0.3 * kinds.total()
