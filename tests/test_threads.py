"""Packs side by side: the same bits on any number of threads, and one BLAS thread in each."""

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import wild

import npbert
from npbert import families
from npbert.engine.threads import (
    count_cores,
    limit_blas_threads,
    map_in_threads,
    run_parallel,
    split_in_two,
    thread_controls,
)

ARCHITECTURES = list(families.list_architectures("distilbert"))
RNG = np.random.default_rng(8)
LISTS = [RNG.integers(0, 97, n).tolist() for n in RNG.integers(1, 31, 120)]  # about 4 packs


def flat(result: object) -> list[np.ndarray]:
    return list(result) if isinstance(result, list) else [result]


@pytest.mark.parametrize("engine", ["kernels", "textbook"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_results_have_the_same_bits_on_any_number_of_threads(architecture, engine):
    model = wild.model(architecture, "float32")
    model.engine = engine
    given = [LISTS[i : i + 3] for i in range(0, 120, 3)] if "choice" in architecture else LISTS
    once = flat(model.packed(given, threads=1))
    for threads in (2, 3, 8):
        again = flat(model.packed(given, threads=threads))
        assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))


LARGE = {"hidden_size": 192, "intermediate_size": 768, "max_positions": 90, "num_blocks": 2}


def large(architecture: str) -> npbert.Model:
    """A model that is worth a second thread for a text of 60 tokens."""
    model = wild.model(architecture, "float32", **LARGE)
    assert len(split_in_two(3, 4 * 192 * 192, 60)) == len(split_in_two(768, 2 * 192 * 768, 60)) == 2
    for matrix in (array for array in model.parameters.values() if array.ndim == 2):
        matrix /= 4
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_text_has_the_same_bits_on_one_thread_and_on_two(architecture):
    model = large(architecture)
    ids = RNG.integers(0, 97, 70)
    given = [[ids, ids[:60]]] if "choice" in architecture else [ids]
    one, two = (flat(model.packed(given, threads=n)) for n in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_who_listens_changes_no_bit_where_the_work_is_shared(architecture):
    model = large(architecture)
    ids = RNG.integers(0, 97, (1, 2, 80) if "choice" in architecture else (2, 80))
    quiet = model(ids)
    heard = model(ids, output_attentions=True, output_hidden_states=True)
    for name, value in vars(quiet).items():
        assert value is None or np.array_equal(value, getattr(heard, name))


def test_halves_are_shared_in_order_and_errors_come_out():
    parts = split_in_two(9, 1_000_000, 1000)
    assert parts == [slice(0, 4), slice(4, 9)]
    assert split_in_two(1, 1_000_000, 1000) == [slice(0, 1)]
    assert split_in_two(9, 1000, 1000) == [slice(0, 9)]
    assert run_parallel(lambda part: part.start, parts) == [0, 4]

    def fail(part: slice) -> None:
        if part.start:
            raise npbert.InputError("no")

    for _ in map_in_threads(lambda _: None, range(1), 2):
        with pytest.raises(npbert.InputError, match=r"^no$"):
            run_parallel(fail, parts)


def answer(texts: list[str]) -> object:
    return npbert.pipeline("text-classification", threads=2)(texts)


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="only Unix forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_after_a_call_can_call_too():
    texts = ["A fine film. " * 40]
    expected = answer(texts)  # starts the helper, which a child does not inherit
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(answer, (texts,)).get(timeout=60) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dense_results_have_the_same_bits_on_any_number_of_threads(architecture):
    model = wild.model(architecture, "float32")
    ids = RNG.integers(0, 97, (40, 3, 17) if "choice" in architecture else (120, 17))
    mask = RNG.integers(0, 2, ids.shape)
    calls = [
        model(ids, mask, output_hidden_states=True, output_attentions=True, threads=threads)
        for threads in (1, 2, 5)
    ]
    for name, once in vars(calls[0]).items():
        for call in calls[1:]:
            again = getattr(call, name)
            if isinstance(once, tuple):
                assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
            else:
                assert once is again is None or np.array_equal(once, again)


def test_a_task_gives_the_same_answers_on_any_number_of_threads():
    texts = ["A fine film.", "Dull, long and loud; I left.", "Hm."] * 60
    answers = [npbert.pipeline("text-classification", threads=n)(texts) for n in (None, 1, 3)]
    assert answers[0] == answers[1] == answers[2]


def test_one_model_answers_eight_threads_of_its_user_at_once():
    model = wild.model("for_sequence_classification", "float32")
    parts = [LISTS[i::8] for i in range(8)]
    alone = [model.packed(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.packed, parts))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.skipif(thread_controls() is None, reason="this NumPy has no OpenBLAS of its own")
def test_matrix_products_have_one_thread_inside_and_as_many_as_before_outside():
    get, put = thread_controls()
    before = get()
    try:
        for outside in (1, 2):
            put(outside)
            seen = list(map_in_threads(lambda _: get(), range(5), 2))
            assert seen == [1] * 5
            with limit_blas_threads(), limit_blas_threads():
                assert get() == 1
            assert get() == outside
    finally:
        put(before)


def test_blas_threads_come_back_when_a_pack_fails():
    def fail(_: int) -> None:
        raise npbert.InputError("no")

    before = thread_controls()[0]() if thread_controls() else None
    with pytest.raises(npbert.InputError, match=r"^no$"):
        list(map_in_threads(fail, range(9), 2))
    assert (thread_controls()[0]() if thread_controls() else None) == before


def test_what_overflows_in_the_second_thread_is_told_of_by_the_error_alone():
    config = npbert.Config(num_blocks=1, vocab_size=50, max_positions=64)
    model = npbert.init(config, "for_token_classification")
    lower = model.parameters["transformer.layer.0.ffn.lin1.weight"][-768:]
    lower[:] = np.float32(3e38) * np.sign(lower)
    with pytest.raises(npbert.CheckpointError, match=r"^transformer\.layer\.0\.ffn\.lin1 is the"):
        model.packed([[1] * 64], threads=2)  # any warning would be another error


def test_items_are_taken_only_a_little_ahead_and_results_come_in_order():
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield i

    results = map_in_threads(lambda i: i * i, items(), 3)
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    assert taken <= 10 + 2 * 3
    results.close()


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "two"])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads):
    model = wild.model("base", "float32")
    with pytest.raises(npbert.InputError) as error:
        model.packed([[1]], threads=threads)
    assert str(error.value) == f"threads is {threads!r}, expected a whole number from 1"


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is asked of Linux")
def test_no_more_cores_are_counted_than_the_process_may_use():
    import os

    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


ENGINES = {
    "unknown": ("fast", "float32", "engine is 'fast', expected 'textbook' or 'kernels'"),
    "kernels in float64": ("kernels", "float64", "engine is 'kernels', expected 'textbook'"),
}


@pytest.mark.parametrize(("engine", "dtype", "message"), ENGINES.values(), ids=ENGINES)
def test_an_engine_that_is_not_there_is_refused(engine, dtype, message):
    with pytest.raises(npbert.InputError) as error:
        npbert.load(npbert.tasks.built_in_folder("sentiment"), dtype=dtype, engine=engine)
    assert str(error.value) == message


def test_the_engine_is_kernels_for_float32_and_the_textbook_when_asked_for_or_in_float64():
    folder = npbert.tasks.built_in_folder("sentiment")
    assert npbert.load(folder).engine == "kernels"
    assert npbert.load(folder, engine="textbook").engine == "textbook"
    assert npbert.load(folder, dtype="float64").engine == "textbook"


def test_dropout_draws_the_same_for_both_engines():
    model = wild.model("for_sequence_classification", "float32")
    ids = RNG.integers(0, 97, (80, 13))
    fast = model(ids, dropout=np.random.default_rng(3)).logits
    model.engine = "textbook"
    slow = model(ids, dropout=np.random.default_rng(3)).logits
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-4 * np.abs(slow).max())
