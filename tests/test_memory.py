"""Little memory, whatever a line holds: each task reads lines as long as they may be.

What a command needs above what it needs for a short line is measured in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npbert.jobs.lines import LINE_LIMIT

if not Path("/proc/self/status").exists():
    pytest.skip("peak memory is read as Linux tells it", allow_module_level=True)

ROOT = Path(__file__).parent.parent
TASKS = ROOT / "golden" / "tasks"
MEGABYTES = 400
PEAK = """
import sys
from npbert.cli import main
status = main(sys.argv[1:])
for line in open("/proc/self/status"):  # ru_maxrss has what the parent held, too
    if line.startswith("VmHWM:"):
        print(status, int(line.split()[1]) >> 10)
"""
MODELS = {
    "text-classification": "single", "sentence-embedding": "st_mean", "text-ranking": "cross1",
    "zero-shot-classification": "nli", "fill-mask": "", "feature-extraction": "",
    "question-answering": "qa", "token-classification": "bio",
}  # fmt: skip
# One unbroken word, words, ideographs, letters that Unicode takes apart, signs, nothing.
SHAPES = ("a", "a ", "猫", "한국어", ".", " ")


def line_of(task: str, text: str) -> str:
    """Return a line that gives a task this text, whatever else it needs."""
    given: dict[str, object] = {
        "question-answering": {"question": "who is it?", "context": text},
        "text-ranking": {"query": "a", "documents": [text, "b"]},
        "zero-shot-classification": {"text": text, "candidate_labels": ["a", "b"]},
        "fill-mask": {"text": f"[MASK] {text}"},
    }.get(task, {"text": text})  # type: ignore[assignment]
    return json.dumps(given, ensure_ascii=False)


def text_of(shape: str, size: int) -> str:
    """Return a text of so many bytes."""
    return shape * (size // len(shape.encode()))


def peak_of(task: str, lines: list[str], folder: Path, *more: str) -> tuple[int, int]:
    """Return the status and the peak memory, MB, of a command on some lines."""
    (folder / "in.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "out.jsonl").unlink(missing_ok=True)
    model = ["-m", str(TASKS / MODELS[task])] if MODELS[task] else []
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, task, *model, "-i", f"{folder}/in.jsonl",
         "-o", f"{folder}/out.jsonl", "--on-error", "record", *more],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    status, peak = done.stdout.split()
    return int(status), int(peak)


def above(task: str, lines: list[str], folder: Path, *more: str) -> int:
    """Return how many MB a command needs above what it needs for a short line."""
    base = peak_of(task, [line_of(task, "a b")], folder, *more)[1]
    status, peak = peak_of(task, lines, folder, *more)
    assert status in (0, 4)
    return peak - base


def test_a_line_as_long_as_may_be_takes_little_memory(tmp_path: Path) -> None:
    line = line_of("text-classification", text_of("a", LINE_LIMIT - 100))
    assert above("text-classification", [line], tmp_path) <= MEGABYTES


USED = [task for task in MODELS if MODELS[task] not in ("qa", "bio")]  # only as far as read
CASES = [
    *(("text-classification", shape) for shape in SHAPES),
    *((task, "a ") for task in USED[1:]),
]


@pytest.mark.long
@pytest.mark.parametrize(("task", "shape"), CASES)
def test_a_text_of_4_mb_takes_little_memory(task: str, shape: str, tmp_path: Path) -> None:
    text = text_of(shape, LINE_LIMIT - 100)
    assert above(task, [line_of(task, text)], tmp_path) <= MEGABYTES


@pytest.mark.long
@pytest.mark.parametrize("task", ["question-answering", "token-classification"])
def test_all_tokens_of_a_long_text_are_held_in_little_memory(task: str, tmp_path: Path) -> None:
    """An eighth of what a line may hold, for the time it takes; a part of it is for any text."""
    line = line_of(task, text_of("a ", LINE_LIMIT // 8))
    assert above(task, [line], tmp_path) <= MEGABYTES // 4


FEW, MANY, MORE = 2, 40, 150  # lines, and MB that many may take beyond few


@pytest.mark.long
@pytest.mark.parametrize("task", ["text-classification", "fill-mask"])
def test_many_long_lines_are_not_read_ahead_together(task: str, tmp_path: Path) -> None:
    line = line_of(task, text_of("a", LINE_LIMIT - 100))
    assert above(task, [line] * MANY, tmp_path) <= above(task, [line] * FEW, tmp_path) + MORE


@pytest.mark.long
def test_long_lines_that_fail_are_not_held_until_one_does_not(tmp_path: Path) -> None:
    bad = json.dumps({"texts": "a" * (LINE_LIMIT - 100)})
    task = "text-classification"
    assert above(task, [bad] * MANY, tmp_path) <= above(task, [bad] * FEW, tmp_path) + MORE


@pytest.mark.long
def test_a_line_of_very_many_documents_takes_little_memory(tmp_path: Path) -> None:
    line = json.dumps({"query": "a", "documents": ["b"] * 100_000})
    assert above("text-ranking", [line], tmp_path) <= MEGABYTES
