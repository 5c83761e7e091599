"""Weights that are overwritten in place while they are mapped: no silently other answers."""

import copy
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert import CheckpointError
from npbert.checkpoint.files import MappedFile, MappedFiles, map_file
from npbert.checkpoint.pickles import read_pickle
from npbert.tasks import built_in_folder

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "golden"
IDS = [[2, 5, 7, 3]]
WHY = (
    "{}: was overwritten while its weights were in use, and no answer computed since is given; "
    "start again, and replace a model's files by renaming new ones over them (mv), never by "
    "writing into them (cp), or hold a copy in memory: copy=True"
)


def other_weights(path: Path) -> bytes:
    """Return a file of the same size whose last tensors are others."""
    raw = path.read_bytes()
    half = len(raw) // 2
    return raw[:half] + bytes(b ^ 1 if i % 4 == 1 else b for i, b in enumerate(raw[half:]))


def overwrite(path: Path) -> None:
    path.write_bytes(other_weights(path))  # as cp does: cut to nothing, and filled again


def write_into(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(b"\1" * 64)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def copy_with_its_time(path: Path) -> None:
    old = path.stat()
    overwrite(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns - 10**9))


def rename_over(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(other_weights(path))
    beside.replace(path)


def unlink(path: Path) -> None:
    path.unlink()


def move_and_link(path: Path) -> None:
    moved = path.rename(path.with_name("moved"))
    os.link(moved, path.with_name("linked"))
    path.symlink_to(moved)


def restrict(path: Path) -> None:
    path.chmod(0o400)


CHANGES: list[Callable[[Path], None]] = [
    overwrite, write_into, append, Path.touch, copy_with_its_time
]  # fmt: skip
HARMLESS: list[Callable[[Path], None]] = [rename_over, unlink, move_and_link, restrict]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(built_in_folder("sentiment"), tmp_path / "model"))


@pytest.fixture
def weights(folder: Path) -> Path:
    """The file, in float32, so that it is mapped."""
    npbert.load(folder).save(folder)
    return folder / "model.safetensors"


def message(call: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("change", CHANGES)
def test_no_call_answers_from_a_file_that_was_overwritten(
    weights: Path, change: Callable[[Path], None]
) -> None:
    classify = npbert.pipeline("text-classification", weights.parent)
    model = classify.model
    classify("good")
    change(weights)
    calls: list[Callable[[], object]] = [
        lambda: classify("good"), lambda: classify(["good", "bad"]),
        lambda: list(classify(iter(["good"]))), lambda: model(IDS), lambda: model.packed(IDS),
        lambda: model.encoder_only()(IDS), lambda: npbert.trace(model, IDS),
        lambda: copy.copy(model)(IDS), lambda: npbert.explain(model, "good"),
    ]  # fmt: skip
    for call in calls:
        assert message(call) == WHY.format(weights)


@pytest.mark.parametrize("change", HARMLESS)
def test_a_file_that_was_renamed_over_or_away_is_still_the_same(
    weights: Path, change: Callable[[Path], None]
) -> None:
    model = npbert.load(weights.parent)
    before = model(IDS).logits
    change(weights)
    np.testing.assert_array_equal(model(IDS).logits, before)


@pytest.mark.parametrize("change", [*CHANGES, *HARMLESS, lambda path: os.truncate(path, 0)])
def test_a_copy_does_not_mind_what_becomes_of_the_file(
    weights: Path, change: Callable[[Path], None]
) -> None:
    model = npbert.load(weights.parent, copy=True)
    classify = npbert.pipeline("text-classification", weights.parent, copy=True)
    mapped = npbert.load(weights.parent)(IDS).logits
    answer = classify("good")
    change(weights)
    np.testing.assert_array_equal(model(IDS).logits, mapped)
    assert classify("good") == answer


def test_weights_that_were_widened_are_a_copy_already(folder: Path) -> None:
    model = npbert.load(folder, dtype="float64")
    before = model(IDS).logits
    os.truncate(folder / "model.safetensors", 0)
    np.testing.assert_array_equal(model(IDS).logits, before)


@pytest.mark.parametrize("shard", [1, 2, 3])
def test_one_shard_of_several_is_enough(tmp_path: Path, shard: int) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bins" / "shards", tmp_path / "model"))
    model, path = npbert.load(folder), folder / f"pytorch_model-0000{shard}-of-00003.bin"
    write_into(path)
    assert message(lambda: model(IDS)) == WHY.format(path)


def test_a_pickle_is_mapped_as_well(weights: Path) -> None:
    torch_file = weights.with_name("pytorch_model.bin")
    shutil.copyfile(GOLDEN / "bins" / "zip.bin", torch_file)
    arrays = [t.array(np.float32) for t in read_pickle(torch_file).values() if t.dtype == "F32"]
    mapped = MappedFiles(arrays)
    write_into(torch_file)
    assert message(mapped.require_unchanged) == WHY.format(torch_file)


def test_settings_and_the_tokenizer_are_read_once_and_may_change(weights: Path) -> None:
    classify = npbert.pipeline("text-classification", weights.parent)
    before = classify("good")
    for name in ("tokenizer.json", "config.json"):
        (weights.parent / name).write_text("{}")
    assert classify("good") == before


def test_modules_behind_the_encoder_are_copies(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "tasks" / "st_dense", tmp_path / "model"))
    embed = npbert.pipeline("sentence-embedding", folder)
    before = embed("good")
    os.truncate(folder / "2_Dense" / "model.safetensors", 0)
    np.testing.assert_array_equal(embed("good"), before)


def test_what_is_made_anew_elsewhere_is_a_copy_where_it_was_one(weights: Path) -> None:
    classify = npbert.pipeline("text-classification", weights.parent, copy=True)
    for made in (npbert.load(weights.parent, copy=True), classify.model):
        assert not made.mapped.files
        assert not pickle.loads(pickle.dumps(made)).mapped.files
    assert npbert.load(weights.parent).mapped.files
    alone = pickle.loads(pickle.dumps(npbert.load(weights.parent).encoder_only()))
    assert not alone.mapped.files  # its weights travelled with it


def test_a_model_that_is_let_go_of_leaves_no_file_open(weights: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux counts them")
    before = count()
    for _ in range(5):
        npbert.load(weights.parent)
    assert count() <= before


def start_job(folder: Path, tmp_path: Path, *more: str) -> "subprocess.Popen[str]":
    """Start a job that waits for its input, and let it map its model."""
    return subprocess.Popen(
        [sys.executable, "-m", "npbert", "text-classification", "-m", str(folder), "-o",
         str(tmp_path / "out.jsonl"), *more],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def job(weights: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    child = start_job(weights.parent, tmp_path)
    yield child
    child.kill()
    child.communicate()


def feed_blocks(child: "subprocess.Popen[str]", journal: Path) -> None:
    """Let a block become safe; then the job waits for more."""
    assert child.stdin
    child.stdin.write("good film\n" * 300)
    child.stdin.flush()
    for _ in range(600):
        if journal.exists() and json.loads(journal.read_text()).get("inputs") == 256:
            return
        time.sleep(0.05)
    raise AssertionError("no block was written")


def scores(path: Path) -> set[float]:
    """Return the scores of a file, whose last bits depend on neighbours."""
    return {round(json.loads(line)["score"], 6) for line in path.read_text().splitlines()}


def test_a_job_stops_before_it_writes_a_block_of_other_weights(
    weights: Path, tmp_path: Path, job: "subprocess.Popen[str]"
) -> None:
    feed_blocks(job, tmp_path / "out.jsonl.part.json")
    overwrite(weights)
    _, said = job.communicate("good film\n" * 300, timeout=60)
    assert WHY.format(weights).replace("copy=True", "--copy") in said
    assert (job.returncode, (tmp_path / "out.jsonl").exists()) == (3, False)
    assert len(scores(tmp_path / "out.jsonl.part")) == 1


def test_a_job_goes_on_where_new_weights_were_renamed_over_the_old(
    weights: Path, tmp_path: Path, job: "subprocess.Popen[str]"
) -> None:
    feed_blocks(job, tmp_path / "out.jsonl.part.json")
    rename_over(weights)
    _, said = job.communicate("good film\n" * 300, timeout=60)
    assert job.returncode == 0, said
    assert len(scores(tmp_path / "out.jsonl")) == 1


def test_a_job_that_the_system_ends_says_why(
    weights: Path, tmp_path: Path, job: "subprocess.Popen[str]"
) -> None:
    feed_blocks(job, tmp_path / "out.jsonl.part.json")
    os.truncate(weights, 0)
    _, said = job.communicate("good film\n" * 300, timeout=60)
    assert job.returncode == -signal.SIGBUS
    assert said.splitlines()[-1] == (
        "npbert: stopped by the system (SIGBUS): a file that was in use was cut short, probably "
        "the model's; start again, and replace a model's files by renaming new ones over them "
        "(mv), never by writing into them (cp), or say --copy"
    )


def test_a_job_with_a_copy_ends_as_it_began(weights: Path, tmp_path: Path) -> None:
    child = start_job(weights.parent, tmp_path, "--copy")
    feed_blocks(child, tmp_path / "out.jsonl.part.json")
    os.truncate(weights, 0)
    _, said = child.communicate("good film\n" * 300, timeout=60)
    assert child.returncode == 0, said
    assert len(scores(tmp_path / "out.jsonl")) == 1


@pytest.mark.filterwarnings("error")
def test_a_mapped_file_whose_descriptor_cannot_be_closed_is_let_go_without_a_word():
    mapped = map_file(built_in_folder("sentiment") / "model.safetensors", MappedFile)
    os.close(mapped.descriptor)  # as if the disk had failed: closing it again is an error
    del mapped
