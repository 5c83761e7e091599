"""Packs side by side: the same bits on any number of threads, and one BLAS thread in each."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import wild

import npbert
from npbert import blas, packing

ARCHITECTURES = list(npbert.config.ARCHITECTURES)
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


@pytest.mark.skipif(blas.controls() is None, reason="this NumPy has no OpenBLAS of its own")
def test_matrix_products_have_one_thread_inside_and_as_many_as_before_outside():
    get, put = blas.controls()
    before = get()
    try:
        for outside in (1, 2):
            put(outside)
            seen = list(packing.side_by_side(lambda _: get(), range(5), 2))
            assert seen == [1] * 5
            with blas.one_thread(), blas.one_thread():
                assert get() == 1
            assert get() == outside
    finally:
        put(before)


def test_blas_threads_come_back_when_a_pack_fails():
    def fail(_: int) -> None:
        raise npbert.InputError("no")

    before = blas.controls()[0]() if blas.controls() else None
    with pytest.raises(npbert.InputError, match=r"^no$"):
        list(packing.side_by_side(fail, range(9), 2))
    assert (blas.controls()[0]() if blas.controls() else None) == before


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

    results = packing.side_by_side(lambda i: i * i, items(), 3)
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
        assert blas.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


ENGINES = {
    "unknown": ("fast", "float32", "engine is 'fast', expected 'textbook' or 'kernels'"),
    "kernels in float64": ("kernels", "float64", "engine is 'kernels', expected 'textbook'"),
}


@pytest.mark.parametrize(("engine", "dtype", "message"), ENGINES.values(), ids=ENGINES)
def test_an_engine_that_is_not_there_is_refused(engine, dtype, message):
    with pytest.raises(npbert.InputError) as error:
        npbert.load(npbert.tasks.demo("sentiment"), dtype=dtype, engine=engine)
    assert str(error.value) == message


def test_the_engine_is_kernels_for_float32_and_the_textbook_when_asked_for_or_in_float64():
    folder = npbert.tasks.demo("sentiment")
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
