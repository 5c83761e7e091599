"""Moments at which a call may be caught: a fork during it or a load, the interpreter's end.

NPBERT_FORKS=200 python -m pytest -m long tests/test_moments.py
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import npbert

ROOT = Path(__file__).parent.parent
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
FORKS = int(os.environ.get("NPBERT_FORKS", "20"))
GOLDEN = ROOT / "golden" / "tasks"
PAIR = ("The ship left Bristol in 1843.", "When did it sail?")
LISTED = ("The sky is", ["blue", "made of cheese"])


def run(code: str, *args: object, ends: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True, text=True, timeout=600, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == ends, done.stderr
    return done


FIRST_CALL = """
import json, sys, warnings, npbert
task, model, given = json.loads(sys.argv[1])
given = tuple(given) if isinstance(given, list) else given
p = npbert.pipeline(task, model, threads=2)
before = set(sys.modules)
with warnings.catch_warnings(record=True):  # who shows a warning imports what he likes
    p(given)
    p([given] * 70)
    list(p(each for each in [given] * 70))
    if isinstance(given, str) and task != "fill-mask":
        p(given * 100)
    if task == "sentence-embedding":
        p([given] * 3, precision="int8")
        p.similarity(p(given), p(given))
print(sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize(
    ("task", "model", "given"),
    [
        ("text-classification", None, "A fine film."),
        ("token-classification", None, "Ada Lovelace met Charles Babbage in Zürich."),
        ("fill-mask", None, "The ship sank in the [MASK]."),
        ("feature-extraction", None, "Hello."),
        ("sentence-embedding", "st_dense", "Hello."),
        ("sentence-embedding", "st_layernorm", "Hello."),
        ("question-answering", "qa", PAIR[::-1]),
        ("multiple-choice", "choice", LISTED),
        ("zero-shot-classification", "nli", LISTED),
        ("text-ranking", "cross1", LISTED),
    ],
)
def test_a_first_call_imports_no_module(task, model, given):
    """Another thread may fork meanwhile, and the child would wait for the import for ever."""
    said = json.dumps([task, model and str(GOLDEN / model), given])
    assert run(FIRST_CALL, said).stdout == "[]\n"


def test_a_first_call_of_a_model_imports_no_module():
    code = """
import sys, npbert
model = npbert.load("npbert/demo/sentiment")
before = set(sys.modules)
model([[1, 2, 3]], [[1, 1, 0]], output_hidden_states=True, output_attentions=True, threads=2)
model([[1, 2, 3]] * 600, threads=2)
model.packed([[1, 2, 3]] * 600, threads=2)
list(model.stream(([1, 2, 3], None) for _ in range(600)))
print(sorted(set(sys.modules) - before))
"""
    assert run(code).stdout == "[]\n"


# Every run begins in a child that has loaded and not computed, so that its call is a first one.
FORKED = """
import json, os, random, signal, sys, threading, time, warnings, npbert
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about what this tries
task, given, seed, runs = json.loads(sys.argv[1]), json.loads(sys.argv[2]), *map(int, sys.argv[3:])
p, draw = npbert.pipeline(task, threads=2), random.Random(seed)

def answer_alone():
    signal.alarm(60)
    print(json.dumps(p(given)), flush=True)
    os._exit(0)

def fork_in_first_call(wait, in_thread):
    busy = threading.Thread(target=p, args=(given * 5,))
    def fork():
        time.sleep(wait)
        if (child := os.fork()) == 0:
            answer_alone()
        ended.append(os.waitpid(child, 0)[1])
    ended = []
    busy.start()
    forking = threading.Thread(target=fork)
    forking.start() if in_thread else fork()
    if in_thread:
        forking.join()
    busy.join()
    os._exit(ended != [0])

for i in range(runs):
    wait = draw.choice([0.002, 0.05, 0.3]) * draw.random()
    if (first := os.fork()) == 0:
        fork_in_first_call(wait, i % 2)
    assert os.waitpid(first, 0)[1] == 0, f"run {i}: a child forked after {wait} s did not answer"
"""


def answers_of_forks(task: str, runs: int, seed: int = 1) -> None:
    """Check that children forked at random moments of a first call answer as this process does."""
    texts = ["A fine film about Ada Lovelace [MASK]."] * 30
    lines = run(FORKED, json.dumps(task), json.dumps(texts), seed, runs).stdout.splitlines()
    assert len(lines) == runs
    assert dict.fromkeys(lines, 1) == {json.dumps(npbert.pipeline(task)(texts)): 1}


@forks
def test_a_child_forked_in_a_first_call_answers():
    answers_of_forks("text-classification", 4)


@forks
@pytest.mark.long
@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_children_forked_at_any_moment_of_a_first_call_answer(task):
    answers_of_forks(task, -(-FORKS // 3), seed=2)


# Whatever is imported on first use is imported while no other thread can fork.
LOADS = """
import json, sys, npbert
unguarded = []
class Watcher:
    def find_spec(name, *_):
        if not npbert._import_lock._is_owned():
            unguarded.append(name)
sys.meta_path.insert(0, Watcher)
for folder in json.loads(sys.argv[1]):
    npbert.load(folder)
for task, model in json.loads(sys.argv[2]):
    npbert.pipeline(task, model)
print(unguarded)
"""


def test_all_that_loading_imports_is_imported_while_no_thread_forks(tmp_path):
    folders = [ROOT / "npbert" / "demo" / "sentiment"]
    for name in ("zip.bin", "legacy.bin"):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        shutil.copy(ROOT / "golden" / "bins" / name, folders[-1] / "pytorch_model.bin")
        shutil.copy(ROOT / "golden" / "bins" / "shards" / "config.json", folders[-1])
    tasks = [
        ("text-classification", None), ("token-classification", None), ("fill-mask", None),
        ("feature-extraction", None), ("sentence-embedding", "st_dense"),
        ("question-answering", "qa"), ("multiple-choice", "choice"),
        ("zero-shot-classification", "nli"), ("text-ranking", "cross1"),
    ]  # fmt: skip
    given = [(task, model and str(GOLDEN / model)) for task, model in tasks]
    for some in ((folders[:1], []), (folders, given), ([], given)):
        said = json.dumps([str(folder) for folder in some[0]]), json.dumps(some[1])
        assert run(LOADS, *said).stdout == "[]\n"


# Every run begins in a child that has imported nothing of npbert but its name.
FORKED_LOADS = """
import json, os, random, signal, sys, threading, time, warnings, npbert
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about what this tries
seed, runs = map(int, sys.argv[1:])
draw = random.Random(seed)

def work():
    npbert.load("npbert/demo/sentiment")
    return npbert.pipeline("text-classification", threads=2)(["A fine film."] * 30)

def fork_meanwhile(wait):
    busy = threading.Thread(target=work)
    busy.start()
    time.sleep(wait)
    if (child := os.fork()) == 0:
        signal.alarm(60)
        print(json.dumps(work()), flush=True)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    busy.join()
    os._exit(ended != 0)

for i in range(runs):
    wait = draw.choice([0.02, 0.2, 0.6]) * draw.random()
    if (first := os.fork()) == 0:
        fork_meanwhile(wait)
    assert os.waitpid(first, 0)[1] == 0, f"run {i}: a child forked after {wait} s did not answer"
"""


def answers_of_loads(runs: int, seed: int) -> None:
    """Check that children forked at random moments of a load load and answer as this one does."""
    lines = run(FORKED_LOADS, seed, runs).stdout.splitlines()
    answers = json.dumps(npbert.pipeline("text-classification")(["A fine film."] * 30))
    assert (len(lines), {*lines}) == (runs, {answers})


@forks
def test_a_child_forked_while_another_thread_loads_can_load():
    answers_of_loads(3, seed=1)


@forks
@pytest.mark.long
def test_children_forked_at_any_moment_of_a_load_can_load():
    answers_of_loads(FORKS, seed=2)


COMPUTE = """
import threading, npbert
from concurrent.futures import ThreadPoolExecutor
p = npbert.pipeline("text-classification", threads=2)
given = ["good film " * 20] * 100
"""


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("threading.Thread(target=lambda: print(len(p(given)))).start()", "100\n"),
        (
            "for _ in range(3): threading.Thread(target=lambda: print(f'{len(p(given))}\\n', "
            "end='')).start()",
            "100\n" * 3,
        ),
        (
            "threading.Thread(target=lambda: print(sum(1 for _ in p(t for t in given)))).start()",
            "100\n",
        ),
        (
            "threading.Thread(target=lambda: [print(p(each)['label']) for each in given[:9]])"
            ".start()",
            "POSITIVE\n" * 9,
        ),
        (
            "threading.Thread(target=lambda: print(len(p.model.packed([[2, 5, 3]] * 2000))))"
            ".start()",
            "2000\n",
        ),
        (
            "pool = ThreadPoolExecutor(2); a = pool.submit(lambda: print(len(p(given))))",
            "100\n",
        ),
        ("threading.Timer(0.2, lambda: print(len(p(given)))).start()", "100\n"),
        ("rest = p(t for t in given); print(next(rest)['label'])", "POSITIVE\n"),
        (
            "rest = p(t for t in given); next(rest)\n"
            "threading.Thread(target=lambda: print(sum(1 for _ in rest))).start()",
            "99\n",
        ),
    ],
    ids=[
        "thread", "threads", "stream", "one-by-one", "packed", "executor", "begun-after",
        "generator-left", "generator-handed-on",
    ],
)  # fmt: skip
def test_a_thread_finishes_its_answers_while_the_interpreter_ends(work, said):
    done = run(COMPUTE + work)
    assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.parametrize("wait", [0, 0.05, 0.2])
def test_a_daemon_ends_with_the_interpreter_and_quietly(wait):
    code = "threading.Thread(target=lambda: [p(given) for _ in range(99)], daemon=True).start()"
    done = run(f"{COMPUTE}import time\n{code}\ntime.sleep({wait})\nprint('end')")
    assert (done.stdout, done.stderr) == ("end\n", "")
