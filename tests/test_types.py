"""What a type checker sees of npbert, in a program of somebody else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from npbert.tasks import TASKS

ROOT = Path(__file__).parent.parent
PROGRAM = """
import npbert

npbert.pipline("text-classification")  # E: Module has no attribute "pipline"
npbert.distributed.map_dataframe
model: npbert.Model = npbert.load("ner")
npbert.load("ner", dtyp="float64")  # E: Unexpected keyword argument "dtyp" for "load"
model.layers  # E: "Model" has no attribute "layers"

classify = npbert.pipeline("text-classification")
label: str = classify("a")["label"]
classify("a")["labl"]  # E: TypedDict "ClassAnswer" has no key "labl"
score: float = classify(["a"])[0]["score"]
best: float = classify("a", top_k=2)[0]["score"]
classify("a", top_k=None)["score"]  # E: No overload variant of "__getitem__" of "list"
several = npbert.pipeline("text-classification", model, top_k=3)
names: list[str] = [each["label"] for each in several(("a", "b"))]
lazily: list[str] = [each["label"] for each in classify(iter(["a"]))]

find = npbert.pipeline("token-classification", threads=1)
group: str = find("a")[0]["entity_group"]
find("a")[0]["entity"]  # E: TypedDict "EntityAnswer" has no key "entity"
tokens = npbert.pipeline("token-classification", aggregation_strategy="none")
entity: str = tokens("a")[0]["entity"]

fill = npbert.pipeline("fill-mask")
word: str = fill("[MASK]")[0]["token_str"]
ask = npbert.pipeline("question-answering", "FOLDER")
answer: str = ask(question="a", context="b")["answer"]
start: str = ask(("a", "b"))["start"]  # E: Incompatible types in assignment
choose = npbert.pipeline("multiple-choice", "FOLDER")
index: int = choose(("a", ["b"]))["index"]
zero = npbert.pipeline("zero-shot-classification", "FOLDER")
labels: list[str] = zero("a", candidate_labels=["b"])["labels"]
embed = npbert.pipeline("sentence-embedding")
shape: tuple[int, ...] = embed(["a"]).shape
nearest: float = float(embed.similarity(embed("a"), embed("b")).max())
rank = npbert.pipeline("text-ranking", "FOLDER")
about: list[str] = npbert.pipeline("sparse-embedding", "FOLDER")("a")["tokens"]
vectors: list[list[float]] = npbert.pipeline("feature-extraction")("a")
first: int = rank.rank("a", ["b"])[0]["corpus_id"]


def by_name(task: str) -> None:
    npbert.pipeline(task)("a")["anything"]
"""


def test_a_type_checker_sees_what_there_is_and_what_tasks_answer(tmp_path):
    pytest.importorskip("mypy", reason="it comes with the extra check")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = subprocess.run(  # in a second, where a check has filled the project's cache
        [sys.executable, "-m", "mypy", path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = PROGRAM.splitlines()
    expected = {i: line.split("# E: ")[1] for i, line in enumerate(lines, 1) if "# E: " in line}
    found = dict(re.findall(r"program\.py:(\d+): error: (.*)", done.stdout))
    assert {int(i) for i in found} == set(expected), done.stdout
    for i, why in expected.items():
        assert why in found[str(i)]


def test_every_task_has_an_overload():
    text = (ROOT / "npbert" / "tasks" / "__init__.py").read_text("utf-8")
    assert set(re.findall(r'task: Literal\["([\w-]+)"\]', text)) == set(TASKS)
