"""Packed calls: token lists of any lengths, no padding, the same numbers."""

import math
from typing import Any

import numpy as np
import pytest
import wild

import npbert
from npbert.engine import packs

MANY = 42  # sequences of up to 31 tokens: several packs
EACH = pytest.mark.parametrize("architecture", wild.ARCHITECTURES)
PER_TOKEN = [
    "base",
    "for_masked_language_modeling",
    "for_token_classification",
    "for_question_answering",
]


def sequences(count: int, seed: int = 0, longest: int = 31) -> list[list[int]]:
    rng = np.random.default_rng([count, seed])
    lengths = rng.integers(1, longest + 1, count)
    return [rng.integers(0, wild.SIZES["vocab_size"], n).tolist() for n in lengths]


def groups_of(choices: int, lists: list[list[int]]) -> list[list[list[int]]]:
    return [lists[i : i + choices] for i in range(0, len(lists), choices)]


def padded(lists: list[list[int]]) -> tuple[Any, Any]:
    """Ids and mask of a dense call; what stands at the padding is drawn."""
    length = max(map(len, lists))
    ids, mask = wild.ids(len(lists), length, seed=99), np.zeros((len(lists), length), int)
    for i, one in enumerate(lists):
        ids[i, : len(one)] = one
        mask[i, : len(one)] = 1
    return ids, mask


def densely(model: npbert.Model, lists: list[list[int]]) -> Any:
    """What a packed call returns, from a dense one."""
    ids, mask = padded(lists)
    if model.architecture == "for_multiple_choice":
        return model(*(a.reshape(-1, 3, a.shape[-1]) for a in (ids, mask))).logits
    output = model(ids, mask)
    if model.architecture == "for_sequence_classification":
        return output.logits
    if model.architecture == "for_question_answering":
        tokens = np.stack([output.start_logits, output.end_logits], axis=-1)
    else:
        tokens = output.hidden_state if output.logits is None else output.logits
    return [rows[: len(one)] for rows, one in zip(tokens, lists, strict=True)]


def packed(model: npbert.Model, lists: list[list[int]], **options: Any) -> Any:
    if model.architecture == "for_multiple_choice":
        return model.packed(groups_of(3, lists), **options)
    return model.packed(lists, **options)


def assert_close(actual: Any, expected: Any, within: float) -> None:
    assert type(actual) is type(expected)
    for x, y in zip(actual, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=0, atol=within * np.abs(y).max(initial=1))


@pytest.mark.parametrize(("count", "batch_invariant"), [(3, False), (MANY, False), (9, True)])
@EACH
def test_packed_is_dense_without_the_padding(
    architecture: str, count: int, batch_invariant: bool
) -> None:
    model, lists = wild.model(architecture), sequences(count)
    assert (sum(map(len, lists)) > packs.PACK_TOKENS) == (count == MANY)
    actual = packed(model, lists, batch_invariant=batch_invariant)
    assert_close(actual, densely(model, lists), 1e-12)


@EACH
def test_results_are_of_the_precision_of_the_model(architecture: str) -> None:
    for result in packed(wild.model(architecture, "float32"), sequences(6)):
        assert result.dtype == np.float32


@EACH
def test_the_order_is_the_one_given(architecture: str) -> None:
    model, lists = wild.model(architecture), sequences(MANY)
    forwards, backwards = packed(model, lists), packed(model, lists[::-1])
    if architecture == "for_multiple_choice":
        forwards, backwards = forwards.ravel(), backwards.ravel()
    assert_close(list(backwards), list(forwards)[::-1], 1e-12)


@pytest.mark.parametrize("batch_invariant", [False, True])
@pytest.mark.parametrize("architecture", PER_TOKEN)
def test_rows_are_slices_of_all_rows(architecture: str, batch_invariant: bool) -> None:
    model, lists, rng = wild.model(architecture), sequences(MANY), np.random.default_rng(1)
    rows = [rng.integers(0, len(one), rng.integers(0, 4)).tolist() for one in lists]
    assert [] in rows
    actual = model.packed(lists, rows=rows, batch_invariant=batch_invariant)
    expected = [x[np.array(r, int)] for x, r in zip(model.packed(lists), rows, strict=True)]
    assert_close(actual, expected, 1e-12)


ROWS: dict[str, Any] = {
    "none of the last": [[0, 3], [1], []],
    "none of the first": [[], [1], [0]],
    "of one alone": [[], [0], []],
    "of none": [[], [], []],
    "twice, and backwards": [[3, 1, 1, 0], [1, 0], [0]],
    "as arrays": [np.array([2]), np.array([], int), np.array([0], np.uint8)],
    "as tuples": [(0,), (), (0,)],
    "as one array": np.zeros((3, 1), int),
}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("architecture", [*PER_TOKEN, "base with a pooler"])
def test_rows_may_be_any_places_in_any_order_or_none(architecture: str, case: str) -> None:
    name, _, pooler = architecture.partition(" ")
    model = wild.model(name, pooled=bool(pooler))
    lists, rows = [[1, 2, 3, 4], [5, 6], [7]], ROWS[case]
    expected = [x[np.array(r, int)] for x, r in zip(model.packed(lists), rows, strict=True)]
    assert_close(model.packed(lists, rows=rows), expected, 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@EACH
def test_batch_invariant_results_are_the_same_bits_whatever_the_neighbours(
    architecture: str, dtype: str
) -> None:
    model, lists = wild.model(architecture, dtype), sequences(12)
    together = packed(model, lists, batch_invariant=True)
    alone = [
        packed(model, lists[i : i + size], batch_invariant=True)[0]
        for size in [3 if architecture == "for_multiple_choice" else 1]
        for i in range(0, 12, size)
    ]
    assert all((x == y).all() for x, y in zip(together, alone, strict=True))


def test_equal_packs_give_equal_bits() -> None:
    model, lists = wild.model(dtype="float32"), sequences(MANY)
    first, again = model.packed(lists), model.packed(lists)
    assert all((x == y).all() for x, y in zip(first, again, strict=True))


@pytest.mark.parametrize("rows", [None, []])
@pytest.mark.parametrize("batch_invariant", [False, True])
@pytest.mark.parametrize("architecture", PER_TOKEN)
def test_no_sequences_give_an_empty_list(
    architecture: str, batch_invariant: bool, rows: Any
) -> None:
    model = wild.model(architecture)
    assert model.packed([], rows=rows, batch_invariant=batch_invariant) == []


def test_no_sequences_give_an_empty_array_where_sequences_are_judged() -> None:
    assert wild.model("for_sequence_classification").packed([]).shape == (0, 5)
    assert wild.model("for_multiple_choice", "float32").packed([]).dtype == np.float32


def test_groups_of_choices_may_be_of_one() -> None:
    model = wild.model("for_multiple_choice")
    assert model.packed([[[1, 2]], [[3]]]).shape == (2, 1)


def test_sequences_may_be_arrays_or_one_array() -> None:
    model, ids = wild.model("for_token_classification"), wild.ids(3, 7)
    expected = model.packed(ids.tolist())
    assert_close(model.packed(ids), expected, 0)
    assert_close(model.packed(list(ids)), expected, 0)
    assert_close(model.packed(tuple(map(tuple, ids.tolist()))), expected, 0)


def test_the_longest_sequence_and_the_shortest_fit() -> None:
    model = wild.model("for_token_classification")
    assert [x.shape for x in model.packed([[5] * 31, [5]])] == [(31, 5), (1, 5)]


def test_a_pack_may_be_one_sequence_longer_than_a_pack() -> None:
    model = wild.model(
        "for_token_classification", max_positions=packs.PACK_TOKENS + 9, num_blocks=1
    )
    lists = [[1, 2], wild.ids(packs.PACK_TOKENS + 9).tolist(), [3]]
    assert_close(model.packed(lists), densely(model, lists), 1e-12)


@pytest.mark.parametrize(
    "architecture", ["for_token_classification", "for_sequence_classification"]
)
def test_a_pruned_model_packs(architecture: str) -> None:
    model, lists = wild.model(architecture, pruned_heads={0: (1,), 2: (0, 2)}), sequences(9)
    assert_close(model.packed(lists), densely(model, lists), 1e-12)


def test_a_model_of_one_block_packs() -> None:
    model, lists = wild.model("for_masked_language_modeling", num_blocks=1), sequences(9)
    rows = [[0]] * 9
    expected = [x[:1] for x in densely(model, lists)]
    assert_close(model.packed(lists, rows=rows), expected, 1e-12)


@pytest.mark.parametrize("seed", range(100))
def test_groups_hold_every_sequence_once_in_order_and_are_even_and_near_to_their_share(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    longest = int(rng.choice([2, 30, 512]))
    lengths = rng.integers(1, longest + 1, rng.integers(0, 90)).tolist()
    width = int(rng.choice([30, 384, 600, 768, 1024]))
    groups, total = packs.split_evenly(lengths, width), sum(lengths)

    assert [i for g in groups for i in range(g.start, g.stop)] == list(range(len(lengths)))
    assert all(group.stop > group.start for group in groups)
    if total <= packs.PACK_TOKENS:
        assert len(groups) == min(1, len(lengths))
        return
    most = {30: 1024, 384: 1024, 600: 655, 768: 512, 1024: 512}[width]
    count = 2 * math.ceil(total / (2 * most))
    assert len(groups) <= count
    for group in groups:  # both of its ends are within half a sequence of where they should be
        assert sum(lengths[group]) <= total / count + longest
    if longest <= 30:
        assert len(groups) == count


def test_two_sequences_that_are_too_long_for_a_pack_are_no_pack_each_for_nothing() -> None:
    assert packs.split_evenly([300, 300], 768) == [slice(0, 1), slice(1, 2)]
    assert packs.split_evenly([24] * 64, 768) == [slice(i, i + 16) for i in range(0, 64, 16)]
    assert packs.split_evenly([512] * 3, 768) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_windows_end_after_so_many_sequences_or_tokens_and_go_on_to_the_end() -> None:
    lists = [packs.Tokens(np.zeros(n, int)) for n in [8] * 70 + [500] * 20]
    windows = list(packs.read_ahead(lists))
    assert [len(w) for w in windows] == [64, 15, 9, 2]
    assert [each for w in windows for each in w] == lists


def test_an_error_comes_when_the_results_before_it_have_been_yielded() -> None:
    model = wild.model("for_sequence_classification")
    lists = sequences(MANY)
    expected = model.packed(lists)

    for bad, threads in (([97], 1), ([97], 3), ([], 2)):
        results = model.stream(((ids, None) for ids in [*lists, bad, [1]]), threads=threads)
        assert_close([next(results) for _ in lists], list(expected), 1e-12)
        with pytest.raises(npbert.InputError, match=f"^sequence {MANY} has "):
            next(results)
        assert list(results) == []


def test_a_stream_gives_what_a_packed_call_gives() -> None:
    for architecture in ("for_token_classification", "for_question_answering", "base"):
        model, lists = wild.model(architecture), sequences(MANY)
        assert_close(list(model.stream((x, None) for x in lists)), model.packed(lists), 1e-12)
        rows = [[0, len(x) - 1] for x in lists]
        streamed = list(model.stream(zip(lists, rows, strict=True)))
        assert_close(streamed, model.packed(lists, rows=rows), 1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_spans_stand_side_by_side(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, rng.integers(0, 12)).tolist()
    spans = packs.column_slices(lengths)
    assert [s.stop - s.start for s in spans] == lengths
    assert [s.start for s in spans] == [sum(lengths[:i]) for i in range(len(lengths))]


@pytest.mark.parametrize("batch_invariant", [False, True])
def test_equal_lists_are_computed_once_and_each_gets_an_array_of_its_own(
    batch_invariant: bool,
) -> None:
    one, other, first, last = np.arange(5), np.arange(7), np.array([0]), np.array([4])
    lists = [
        packs.Tokens(one, first), packs.Tokens(other, first), packs.Tokens(one.copy(), first),
        packs.Tokens(one, last), packs.Tokens(one, first, np.ones(5, np.intp)),
    ]  # fmt: skip
    computed: list[int] = []

    def compute(pack: packs.Pack) -> list[Any]:
        computed.extend(len(range(*span.indices(99))) for span in pack.spans)
        return [np.full(2, pack.ids[span].sum()) for span in pack.spans]

    found = list(
        packs.compute_lists(compute, lists, width=8, threads=1, batch_invariant=batch_invariant)
    )
    assert sorted(computed) == [5, 5, 5, 7]
    assert [x[0] for x in found] == [10, 21, 10, 10, 10]
    found[0] += 1
    assert found[2][0] == 10


def test_answers_to_equal_texts_are_equal() -> None:
    task = npbert.pipeline("text-classification")
    texts = ["A dull mess.", "Fine.", "A dull mess."] * 30
    answers = task(texts)
    assert len({repr(each) for each in answers}) == 2
    alone = task(texts[:2])
    assert [each["score"] for each in answers[:2]] == pytest.approx([x["score"] for x in alone])
