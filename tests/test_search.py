"""semantic_search finds what is nearest, exactly, in order, and in little memory."""

import tracemalloc
import warnings

import numpy as np
import pytest

import npbert
from npbert.tasks import search

FUNCTIONS = ["cosine", "dot", "euclidean", "manhattan"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let some thousand rows be many blocks."""
    monkeypatch.setattr(search, "SEARCH_FLOATS", 500 * 24)
    monkeypatch.setattr(search, "STEP_FLOATS", 130 * 24)
    monkeypatch.setattr(search, "PAIRS_AT_ONCE", 300)


def drawn(*shape, seed=0, dtype=np.float32, scale=20.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(dtype)


def scores(queries, corpus, function):
    """Return all scores in float64, one by one."""
    q, c = queries.astype(np.float64), corpus.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        made = {
            "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
            "dot": lambda a, b: a @ b,
            "euclidean": lambda a, b: -np.linalg.norm(a - b),
            "manhattan": lambda a, b: -np.abs(a - b).sum(),
        }[function]
        return np.nan_to_num(np.array([[made(a, b) for b in c] for a in q]))


def ids(found):
    return [[hit["corpus_id"] for hit in hits] for hits in found]


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", ">f4", "i1", "u1", "i8"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_found_is_the_nearest_of_all_best_first(function, dtype):
    corpus = (
        np.abs(drawn(1800, 24)).astype(dtype) if dtype == "u1" else drawn(1800, 24, dtype=dtype)
    )
    queries = np.concatenate([corpus[[7]], drawn(3, 24, seed=1, dtype=dtype)])
    expected = scores(queries, corpus, function)
    for k in (1, 10, 700, 5000):
        found = npbert.semantic_search(queries, corpus, k, score_function=function)
        assert [len(hits) for hits in found] == [min(k, 1800)] * 4
        for hits, own in zip(found, expected, strict=True):
            made = np.array([hit["score"] for hit in hits])
            best = np.sort(own)[::-1][:k]
            np.testing.assert_allclose(made, best, rtol=1e-12, atol=1e-9)
            np.testing.assert_allclose(
                own[[h["corpus_id"] for h in hits]], made, rtol=1e-12, atol=1e-9
            )
            assert (np.diff(made) <= 0).all()
    assert type(found[0][0]["corpus_id"]) is int
    assert type(found[0][0]["score"]) is float


@pytest.mark.parametrize("function", FUNCTIONS)
def test_equal_rows_have_equal_scores_wherever_they_are_and_come_in_their_order(function):
    corpus = drawn(1800, 24) / 50
    places = [0, 3, 129, 130, 131, 499, 500, 777, 1799]
    corpus[places] = corpus[3]
    corpus[900:1100] = corpus[900]
    for threads in (1, 2, 5):
        for order in "CF":
            given = np.asarray(corpus, order=order)
            how = {"score_function": function, "threads": threads}
            (near,), (many,) = (
                npbert.semantic_search(corpus[i], given, k, **how) for i, k in ((3, 9), (900, 150))
            )
            assert [hit["corpus_id"] for hit in near] == places
            assert len({hit["score"] for hit in near}) == 1
            assert [hit["corpus_id"] for hit in many] == list(range(900, 1050))


def test_all_rows_may_be_equal_and_the_best_may_come_last():
    same = np.ones((1500, 24), np.float32)
    assert ids(npbert.semantic_search(same[:2], same, 5)) == [[0, 1, 2, 3, 4]] * 2
    rising = np.outer(np.arange(1500), np.ones(24)).astype(np.float32)
    found = npbert.semantic_search(rising[1], rising, 4, score_function="dot")
    assert ids(found) == [[1499, 1498, 1497, 1496]]


def test_rows_that_are_zero_have_a_cosine_of_zero():
    corpus = np.zeros((1200, 24), np.float32)
    corpus[3], corpus[1100] = -1, 1
    (found,) = npbert.semantic_search(np.ones(24), corpus, 1200)
    assert [found[0], found[1], found[-1]] == [
        {"corpus_id": 1100, "score": pytest.approx(1)},
        {"corpus_id": 0, "score": 0.0},
        {"corpus_id": 3, "score": pytest.approx(-1)},
    ]
    (found,) = npbert.semantic_search(np.zeros(24), corpus, 3)
    assert found == [{"corpus_id": i, "score": 0.0} for i in range(3)]


@pytest.mark.parametrize("size", [1e-300, 1e-40, 1e-25, 1e-18, 1e18, 1e30, 1e38, 1e100, 1e300])
def test_lengths_that_float32_cannot_square_are_no_less_exact(size):
    corpus = drawn(1200, 24, dtype=np.float64, scale=1.0)
    queries = drawn(2, 24, seed=3, dtype=np.float64, scale=1.0)
    expected = ids(npbert.semantic_search(queries, corpus, 30))
    corpus[::3] *= size
    assert ids(npbert.semantic_search(queries, corpus, 30)) == expected
    assert ids(npbert.semantic_search(queries * size, corpus, 30)) == expected
    dots = scores(queries, corpus, "dot")
    best = [np.argsort(-row, kind="stable")[:30].tolist() for row in dots]
    assert ids(npbert.semantic_search(queries, corpus, 30, score_function="dot")) == best


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_its_row_is_named(function, value):
    corpus = drawn(1200, 24)
    corpus[1003, 5] = value
    with pytest.raises(npbert.InputError) as raised:
        npbert.semantic_search(corpus[:2], corpus, score_function=function)
    assert str(raised.value) == (
        f"corpus_embeddings has {value} in row 1003, dimension 5, expected finite numbers"
    )
    with pytest.raises(npbert.InputError, match=r"^query_embeddings has values that are not fini"):
        npbert.semantic_search(corpus[1003], corpus[:5], score_function=function)


def test_scores_beyond_float64_are_refused_with_what_to_do():
    x = np.full((3, 24), 1e200)
    assert ids(npbert.semantic_search(x[0], x, 2)) == [[0, 1]]
    with pytest.raises(
        npbert.InputError, match=r"'dot' of values up to 1e\+200 overflows float64;"
    ):
        npbert.semantic_search(x, x, score_function="dot")


REFUSED = {
    "other dimensions": (
        (np.ones((2, 3)), np.ones((4, 5))), {},
        "query_embeddings have 3 dimensions, but corpus_embeddings 5; are they of one model?",
    ),
    "a number": ((1.0, np.ones((4, 5))), {}, "query_embeddings has shape (), expected (n, dim)"),
    "three axes": (
        (np.ones((2, 3)), np.ones((1, 4, 3))), {},
        "corpus_embeddings has shape (1, 4, 3), expected (n, dim)",
    ),
    "texts": (
        (["a"], np.ones((4, 5))), {}, "query_embeddings has dtype <U1, expected numbers",
    ),
    "none": (
        (np.ones((2, 3)), np.ones((4, 3)), 0), {}, "top_k is 0, expected a whole number from 1",
    ),
    "a half": (
        (np.ones((2, 3)), np.ones((4, 3)), 1.5), {}, "top_k is 1.5, expected a whole number from 1",
    ),
    "true": (
        (np.ones((2, 3)), np.ones((4, 3)), True), {}, "top_k is True, expected a whole number",
    ),
    "another function": (
        (np.ones((2, 3)), np.ones((4, 3))), {"score_function": "cosin"},
        "score_function is 'cosin', expected one of cosine, dot, euclidean, manhattan; did you",
    ),
    "a function itself": (
        (np.ones((2, 3)), np.ones((4, 3))), {"score_function": np.dot},
        "score_function is <",
    ),
    "no threads": (
        (np.ones((2, 3)), np.ones((4, 3))), {"threads": 0},
        "threads is 0, expected a whole number from 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "how", "why"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(given, how, why):
    with pytest.raises(npbert.InputError) as raised:
        npbert.semantic_search(*given, **how)
    assert str(raised.value).startswith(why)


def test_one_query_gives_one_list_none_no_list_and_an_empty_corpus_empty_ones():
    corpus = drawn(30, 24)
    assert len(npbert.semantic_search(corpus[0], corpus)) == 1
    assert len(npbert.semantic_search(corpus[:3].tolist(), corpus.tolist(), np.int64(2))) == 3
    assert npbert.semantic_search([], corpus) == []
    assert npbert.semantic_search(corpus[:0], corpus) == []
    assert npbert.semantic_search(corpus[:2], []) == [[], []]
    assert npbert.semantic_search(corpus[:2], corpus[:0]) == [[], []]


def test_a_mapped_corpus_is_read_in_little_memory_however_many_queries(tmp_path, monkeypatch):
    monkeypatch.undo()
    path = tmp_path / "corpus.npy"
    corpus = drawn(60_000, 64)
    np.save(path, corpus)  # 15 MB
    queries = drawn(300, 64, seed=1)
    expected = np.argsort(-scores(queries[[299]], corpus, "dot")[0])[:5].tolist()
    mapped = np.load(path, mmap_mode="r")
    npbert.semantic_search(queries[:1], mapped[:10])  # what is imported is no part of it
    tracemalloc.start()
    try:
        found = npbert.semantic_search(queries, mapped, 5, score_function="dot", threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6  # 256 queries by 4,096 rows of scores, four blocks of them
    assert ids(found)[299] == expected


def test_nothing_is_told_of_by_warnings():
    corpus = drawn(1200, 24, dtype=np.float64)
    corpus[5], corpus[6], corpus[7] = 0, 1e300, 1e-300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        npbert.semantic_search(corpus[[0, 5, 7]], corpus)
