"""However a task is called, it answers or raises an NpbertError: odd types, keywords, values."""

import random
from collections import deque
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.engine.spellings import SPELLINGS
from npbert.tasks import TASKS

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
SOURCES = {
    "text-classification": "classes5", "token-classification": "bio",
    "fill-mask": "builtin:fill-mask", "question-answering": "qa", "multiple-choice": "choice",
    "zero-shot-classification": "nli",
    "sentence-embedding": "st_mean", "text-ranking": "cross1", "feature-extraction": "plain",
    "sparse-embedding": "splade_max",
}  # fmt: skip
TEXTS = [
    "A cat.",
    "The [MASK] sat.",
    "Who?",
    "",
    " ",
    "[MASK]",
    "é🐈",
    "a\nb",
    "\ud800",
    "x " * 90,
    "0",
    "builtin:ner",
]
VALUES = [
    None, True, False, 0, 1, 2, -1, 10**30, 0.5, float("nan"), float("inf"), 1j, b"x", "none", "O",
    "softmax", "char", "{}", "all", (), [], {}, set(), object(), int, len, ..., range(3),
    np.float32(1.5), np.int64(2), np.array(3), np.zeros((2, 3)), np.array(["a", "b"]), ["a", "b"],
    ("a", "b"), {"a": 1}, [None], [["a"]], Path("x"), np.array([]), np.datetime64("NaT"), "error",
]  # fmt: skip
FIELDS = sorted({name for row in TASKS.values() for name in row.names} | {"sequence", "x"})


class Odd:
    """Something that looks like a container, and says little."""

    columns = 5

    def __len__(self):
        return 1

    def __getitem__(self, i):
        raise KeyError(i)


def draw_input(rng, depth=0):
    """Return something that a task may be called with."""
    kind = rng.randrange(17 if depth < 2 else 7)
    if kind < 6:
        return rng.choice(TEXTS)
    if kind == 6:
        return rng.choice([*VALUES, Odd()])
    some = [draw_input(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind < 10:
        return {rng.choice(FIELDS): each for each in some}
    make = rng.choice([list, tuple, list, tuple, deque, iter, hashed, np_objects, keyed])
    return make(some)


def hashed(values):
    return {each for each in values if isinstance(each, str)}


def keyed(values):
    return dict(enumerate(values)).values()


def np_objects(values):
    made = np.empty(len(values), object)
    made[:] = values
    return made


def draw_keywords(rng, names):
    """Return some keywords: those that a task has, and others."""
    return {
        rng.choice([*names, *names, *SPELLINGS, "x", "_"]): rng.choice([*VALUES, *TEXTS])
        for _ in range(rng.choice([0, 0, 0, 0, 1, 2]))
    }


def answer_all(call, *args, **keywords):
    """Call, and take some of what is yielded; return whether there was an answer."""
    with suppress(npbert.NpbertError):
        answer = call(*args, **keywords)
        if hasattr(answer, "__next__"):
            list(islice(answer, 5))
        return True
    return False


def try_calls(count, seed):
    """Make so many calls of npbert.pipeline and of tasks; return how many were answered."""
    rng = random.Random(seed)
    sources = {n: s if ":" in s else str(MODELS / s) for n, s in SOURCES.items()}
    tasks = {name: npbert.pipeline(name, source) for name, source in sources.items()}
    answered = 0
    for i in range(count):
        name = rng.choice(list(TASKS))
        task, options = tasks[name], list(TASKS[name].options.__dataclass_fields__)
        keywords = draw_keywords(rng, options)
        args = [draw_input(rng) for _ in range(rng.choice([1, 1, 1, 1, 1, 1, 0, 2]))]
        try:
            if i % 4:
                answered += answer_all(task, *args, **keywords)
            else:
                source = rng.choice([task.model, task.model, None, *VALUES])
                how = {**keywords, **draw_keywords(rng, ["threads", "strict", "copy", "offline"])}
                args = rng.choice([[name, source], [source], [name, source, name], []])
                answered += answer_all(npbert.pipeline, *args, **{"offline": True, **how})
        except BaseException as error:
            error.add_note(f"call {i} of seed {seed}: {name}{args!r:.300} {keywords!r:.300}")
            raise
    return answered


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_a_call_is_answered_or_refused(seed):
    assert try_calls(100, seed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_calls_are_answered_or_refused():
    assert try_calls(10_000, 100) > 1000
