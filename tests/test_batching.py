"""Requests to batches: each caller in turn, none for those who have gone, and no bit different."""

import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.engine.packs import LISTS_AHEAD
from npbert.serving.batching import Batcher, Caller, default_batch_tokens

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
LONG = " ".join(["cat"] * 40)  # 42 tokens


@pytest.fixture(scope="module")
def task():
    return npbert.pipeline("sentence-embedding", MODELS / "st_all", batch_invariant=True)


def call(task, texts, deliver=None, fail=None, options=None):
    asked = task if options is None else task.task_for(options)
    readings = [task.read_input(text, options or task.options) for text in texts]
    return Caller(asked, readings, deliver or (lambda computed: None), fail or pytest.fail)


def queue(*callers, **how):
    """Return a batcher whose thread never starts, with callers in its queue."""
    made = Batcher(max_wait=0, **{"max_tokens": 100, **how})
    made.thread = threading.Thread()
    for each in callers:
        made.add(each)
    return made


def taken(batcher, names):
    return "".join(names[part.caller] for part in batcher.take_batch())


def test_a_caller_with_many_texts_delays_one_with_few_by_a_batch(task):
    many, one, two = call(task, [LONG] * 5), call(task, ["cat"]), call(task, ["cat"] * 2)
    names = {many: "m", one: "1", two: "2"}
    batcher = queue(many)
    assert taken(batcher, names) == "mm"
    batcher.add(one)
    batcher.add(two)
    assert taken(batcher, names) == "m12m2"
    assert taken(batcher, names) == "m"
    assert batcher.waiting == 0
    assert batcher.take_batch() == []


def test_a_batch_has_no_more_tokens_than_it_may_but_for_a_text_that_has_more(task):
    batcher = queue(call(task, [LONG, "cat", LONG]), max_tokens=20)
    sizes = [[len(part.tokens.ids) for part in batcher.take_batch()] for _ in range(3)]
    assert sizes == [[42], [3], [42]]
    batcher = queue(call(task, ["cat"] * 100), max_tokens=10_000)
    assert len(batcher.take_batch()) == LISTS_AHEAD


def test_what_wants_another_pass_comes_first_in_the_next_batch():
    task = npbert.pipeline("feature-extraction")
    other = task.with_changes({"layer": 0})
    first, second, third = call(task, ["a"]), call(task, ["b"], options=other), call(task, ["c"])
    names = {first: "1", second: "2", third: "3"}
    batcher = queue(first, second, third)
    assert taken(batcher, names) == "13"
    assert taken(batcher, names) == "2"


def test_who_has_gone_is_not_computed(task):
    gone, here = call(task, [LONG] * 4), call(task, ["cat"])
    batcher = queue(gone, here)
    assert len(batcher.take_batch()) == 3
    batcher.drop(gone)
    assert batcher.take_batch() == []
    assert batcher.waiting == 0


@pytest.mark.parametrize("seed", range(3))
def test_every_caller_gets_its_own_values_bit_for_bit(task, seed):
    rng = random.Random(seed)
    words = ["cat", "film", "red", "mat"]
    answers, told, batches = {}, Counter(), []
    batcher = Batcher(
        max_wait=0.001, max_tokens=rng.choice([1, 50, 500]),
        observe=lambda lists, tokens, seconds: batches.append(tokens),
    )  # fmt: skip

    def ask(number):
        own = random.Random((seed, number).__repr__())
        texts = [
            " ".join(own.choices(words, k=own.randint(1, 30))) for _ in range(own.randint(1, 6))
        ]
        found, done = {}, threading.Event()

        def deliver(computed):
            for i, values in computed:
                told[number, i] += 1
                found[i] = task.answer(caller.readings[i], values, task.options)
            if len(found) == len(texts):
                done.set()

        caller = call(task, texts, deliver)
        batcher.add(caller)
        assert done.wait(60)
        answers[number] = (texts, [found[i] for i in range(len(texts))])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    batcher.close()
    assert set(told.values()) == {1}
    assert len(answers) == 12
    for texts, found in answers.values():
        assert np.array_equal(np.stack(found), task(texts))
    count = sum(len(task.tokenizer.encode(t).ids) for texts, _ in answers.values() for t in texts)
    assert sum(batches) == count


def test_the_thread_ends_with_the_batcher_and_starts_again(task):
    def names():
        return [each.name for each in threading.enumerate() if each.name == "npbert-batch"]

    batcher, done = Batcher(max_wait=0, max_tokens=100), threading.Event()
    assert names() == []
    for _ in range(2):
        done.clear()
        batcher.add(call(task, ["cat"], lambda computed: done.set()))
        assert done.wait(60)
        assert len(names()) == 1
        batcher.close()
        assert names() == []


def test_one_waits_for_others_only_where_the_thread_is_busy(task):
    sizes, done = [], threading.Semaphore(0)
    batcher = Batcher(
        max_wait=30, max_tokens=9, observe=lambda lists, tokens, seconds: sizes.append(lists)
    )

    def ask():
        batcher.add(call(task, ["cat"], lambda computed: done.release()))  # 3 tokens

    ask()
    assert done.acquire(timeout=20)  # at once, not after 30 seconds
    while not sizes:
        time.sleep(0.001)
    with batcher.ready:  # as if the three had come while a batch was computed
        batcher.callers.extend(call(task, ["cat"], lambda computed: done.release()) for _ in "abc")
        batcher.waiting = 9
        batcher.ready.notify()
    for _ in "abc":
        assert done.acquire(timeout=20)
    batcher.close()
    assert sizes == [1, 3]


def test_a_batch_is_as_large_as_keeps_every_thread_busy():
    assert [default_batch_tokens(threads) for threads in (1, 2, 4, 16)] == [1024, 2048, 4096, 4096]


def test_a_reading_without_tokens_is_delivered_at_once():
    task = npbert.pipeline("text-ranking", MODELS / "cross1")
    found = []
    caller = call(task, [{"query": "a", "documents": []}], found.extend)
    Batcher(max_wait=0, max_tokens=100).add(caller)
    assert found == [(0, [])]
