"""A task is shared: between threads, with forked children, with processes that know its source."""

import copy
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import npbert
from npbert.engine import threads
from npbert.tasks.rows import TASKS

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
TEXTS = ["A gorgeous, witty film.", "Dull.", "?", "It never ends, and nobody minds. " * 9]
INPUTS = {
    "text-classification": (None, TEXTS),
    "token-classification": (None, ["Ada Lovelace met Charles Babbage in London.", *TEXTS]),
    "fill-mask": (None, ["The [MASK] sank.", "A [MASK] and a [MASK]."]),
    "question-answering": ("qa", [("Who sat?", "The cat sat on the red mat.")] * 3),
    "multiple-choice": ("choice", [("The mat is", ["red", "old", "a cat"])] * 2),
    "zero-shot-classification": ("nli", ["A red mat.", "The cat sat."]),
    "sentence-embedding": (None, TEXTS),
    "sparse-embedding": ("bert_splade", TEXTS[:3]),
    "text-ranking": ("cross1", [("cat", ["The cat.", "A mat."])] * 2),
    "feature-extraction": (None, TEXTS[:2]),
}
OPTIONS = {"zero-shot-classification": {"candidate_labels": ["red", "green"]}}


def made(name):
    folder, given = INPUTS[name]
    source = None if folder is None else MODELS / folder
    return npbert.pipeline(name, source, **OPTIONS.get(name, {})), given


def same(ours, theirs):
    return np.array_equal(ours, theirs) if isinstance(ours, np.ndarray) else ours == theirs


def answer(task, given):
    return task(given)


@pytest.mark.parametrize("name", TASKS)
def test_eight_threads_share_a_task_and_get_the_same_bits(name):
    task, given = made(name)
    expected = task(given)
    barrier = threading.Barrier(8)

    def ask(_):
        barrier.wait()
        return [task(given) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(ask, range(8)):
            assert all(same(each, expected) for each in answers)


@pytest.mark.parametrize("name", TASKS)
def test_a_pickled_task_is_small_and_answers_alike(name):
    task, given = made(name)
    raw = pickle.dumps(task)
    assert len(raw) < 1000
    again = pickle.loads(raw)
    assert again.options == task.options
    assert same(again(given), task(given))


def test_a_pickled_model_is_its_source_and_one_made_by_hand_its_weights(tmp_path):
    folder = shutil.copytree(MODELS / "single", tmp_path / "model")
    how = {"dtype": "float64", "config": {"dropout": 0.3}, "architecture": "base"}
    model = npbert.load(folder, **how)
    raw = pickle.dumps(model)
    assert len(raw) < 1000
    again = pickle.loads(raw)
    assert (again.dtype, again.architecture) == (np.float64, "base")
    assert again.config == model.config
    ids = [[2, 5, 7, 3]]
    assert same(again(ids).hidden_state, model(ids).hidden_state)

    drawn = npbert.init(npbert.Config(num_blocks=1, vocab_size=50), "base", seed=3)
    raw = pickle.dumps(drawn)
    assert len(raw) > 100_000
    assert same(pickle.loads(raw)(ids).hidden_state, drawn(ids).hidden_state)
    part = model.encoder_only(1)  # no source makes this one
    assert same(pickle.loads(pickle.dumps(part))(ids).hidden_state, part(ids).hidden_state)


def test_a_task_of_a_model_is_pickled_with_it():
    model = npbert.load(MODELS / "single")
    task = npbert.pipeline("text-classification", model, top_k=None, batch_invariant=True)
    again = pickle.loads(pickle.dumps(task))
    assert again.batch_invariant
    assert again(TEXTS[:3]) == task(TEXTS[:3])


def test_a_pickled_task_finds_its_folder_from_anywhere(tmp_path, monkeypatch):
    shutil.copytree(MODELS / "single", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    raw = pickle.dumps(npbert.pipeline("text-classification", "model"))
    monkeypatch.chdir("/")
    assert pickle.loads(raw)("The cat.")


def test_a_pickled_task_is_what_it_was_made_of_and_not_what_became_of_that(tmp_path):
    folders = [shutil.copytree(MODELS / name, tmp_path / name) for name in ("single", "classes5")]
    link = tmp_path / "link"
    link.symlink_to(folders[0])
    task = npbert.pipeline("text-classification", link, top_k=None)
    link.unlink()
    link.symlink_to(folders[1])
    task.threads, task.batch_invariant = 1, True
    again = pickle.loads(pickle.dumps(task))
    assert again(TEXTS[:2]) == task(TEXTS[:2])
    assert (again.threads, again.batch_invariant) == (1, True)

    labels = ["red", "green"]
    task = npbert.pipeline("zero-shot-classification", MODELS / "nli", candidate_labels=labels)
    labels.append("blue")
    assert pickle.loads(pickle.dumps(task)).options.candidate_labels == ("red", "green")


def test_a_pickled_model_keeps_the_fields_that_it_was_loaded_with():
    fields = {"dropout": 0.3}
    models = [
        npbert.load(MODELS / "single", config=each) for each in (fields, MappingProxyType(fields))
    ]
    fields["dropout"] = "changed since"
    assert [pickle.loads(pickle.dumps(each)).config.dropout_rate for each in models] == [0.3, 0.3]


def test_a_copy_shares_the_model_and_asks_no_disk(tmp_path):
    folder = shutil.copytree(MODELS / "single", tmp_path / "model")
    task = npbert.pipeline("text-classification", folder)
    shutil.rmtree(folder)
    again = copy.copy(task)
    assert again.model is task.model
    assert copy.copy(task.model).parameters is task.model.parameters
    assert again(TEXTS[:2]) == task(TEXTS[:2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_that_were_loaded_cannot_be_changed(dtype):
    model = npbert.load(MODELS / "single", dtype=dtype)
    assert not any(array.flags.writeable for array in model.parameters.values())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # what this is a test of
def test_processes_share_a_task(method):
    task, given = made("text-classification")
    expected = task(given)  # so that there are threads, and a BLAS at work, before a fork
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        answers = [pool.submit(answer, task, given) for _ in range(4)]
        assert all(same(each.result(timeout=60), expected) for each in answers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_others_compute_can_compute():
    task, given = made("text-classification")
    expected = task(given)
    end = threading.Event()

    def busy():
        while not end.is_set():
            task(given)

    others = [threading.Thread(target=busy) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(10):
            assert child_says(lambda: same(task(given), expected))
        with threads._lock:  # as one of them may at that moment
            assert child_says(lambda: same(task(given), expected) and threads._inside == 0)
    finally:
        end.set()
        for other in others:
            other.join()


def child_says(check):
    """Fork, and tell whether the child found something true, in time."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0
