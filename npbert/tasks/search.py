"""Search over embeddings: which of a corpus are nearest to a query?  Exact, in constant memory.

A corpus is read block by block.  Products in float32 tell which rows may be among the best, with
all that rounding can do to them; the scores of these few are computed in float64, each by itself,
so that equal rows have equal scores wherever they stand, and come in their order.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npbert.engine.inputs import number_array
from npbert.engine.spellings import explain_arguments
from npbert.engine.threads import count_threads, map_in_threads
from npbert.errors import InputError, quote, require_count, suggest
from npbert.tasks.modules import normalize
from npbert.textbook import Array

SEARCH_FLOATS: Final = 1 << 22  # of a corpus, from which the best are chosen together
STEP_FLOATS: Final = 98_304  # of these are multiplied together, 400 kB: they are read twice
SEARCH_SCORES: Final = 1 << 20
QUERIES_AT_ONCE: Final = 256
PAIRS_AT_ONCE: Final = 2048  # whose scores are computed in float64
# Squared lengths between which float32 loses nothing but digits.
SQUARES: Final = (1e-30, 1e30)
ROUNDING: Final = 2.0**-23  # of float32, twice over


class Hit(TypedDict):
    """A row of a corpus that was found."""

    corpus_id: int
    score: float


def score_by_cosine(q: Array, x: Array) -> Array:
    """Return the cosines of the angles between rows, 0 where one is zero."""
    return (normalize(q) * normalize(x)).sum(axis=-1)


def score_by_product(q: Array, x: Array) -> Array:
    """Return the products of rows."""
    return (q * x).sum(axis=-1)


def score_by_distance(order: int, q: Array, x: Array) -> Array:
    """Return the negative distances of rows."""
    return -np.linalg.norm(q - x, ord=order, axis=-1)


# By the names of sentence-transformers: how alike two rows are; greater is nearer.
SCORE_FUNCTIONS: Final[Mapping[str, Callable[[Array, Array], Array]]] = {
    "cosine": score_by_cosine,
    "dot": score_by_product,
    "euclidean": partial(score_by_distance, 2),
    "manhattan": partial(score_by_distance, 1),
}


class Found(NamedTuple):
    """Scores of pairs, in any order: which query, which row of the corpus, how alike."""

    queries: NDArray[np.intp]
    ids: NDArray[np.intp]
    scores: Array  # float64


@explain_arguments
def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    top_k: int = 10,
    *,
    score_function: str = "cosine",
    threads: int | None = None,
) -> list[list[Hit]]:
    """Find the embeddings of a corpus that are nearest to those of queries, as they really are.

    Parameters
    ----------
    query_embeddings : (queries, dim) array_like
        Or (dim,) for one.
    corpus_embeddings : (n, dim) array_like
        Of any float or integer dtype.  One that is mapped, np.load(file, mmap_mode="r"), is read
        through once for up to 256 queries, in constant memory.  Bits that were packed into bytes
        are not unpacked.
    top_k : int
        How many to find; fewer where the corpus has fewer.
    score_function : "cosine", "dot", "euclidean" or "manhattan"
        Distances are negative, so that greater is nearer.  The cosine of a zero row is 0.
    threads : int, optional
        Default: all cores.  Results are the same for any number.

    Returns
    -------
    For every query a list of {"corpus_id", "score"}, best first, and equal scores by corpus_id: as
    sentence_transformers.util.semantic_search has it.

    Raises
    ------
    InputError
        For shapes that do not fit, and for what is not finite: it says in which row.
    """
    count = require_count("top_k", top_k)
    exact = find_score_function(score_function)
    queries = rows_of("query_embeddings", number_array("query_embeddings", query_embeddings))
    corpus = rows_of(
        "corpus_embeddings", number_array("corpus_embeddings", corpus_embeddings, finite=False)
    )
    if not queries.size or not corpus.size:
        return [[] for _ in queries]
    if queries.shape[1] != corpus.shape[1]:
        raise InputError(
            f"query_embeddings have {queries.shape[1]} dimensions, but corpus_embeddings "
            f"{corpus.shape[1]}; are they of one model?"
        )
    wide = queries.astype(np.float64)
    hits: list[list[Hit]] = []
    for start in range(0, len(wide), QUERIES_AT_ONCE):
        some = wide[start : start + QUERIES_AT_ONCE]
        search = BlockSearch(some, corpus, min(count, len(corpus)), score_function, exact)
        hits += search.run(count_threads(threads))
    return hits


class BlockSearch:
    """The search for some queries, (queries, dim) float64, in a corpus, (n, dim)."""

    def __init__(
        self, queries: Array, corpus: NDArray[Any], count: int, name: str,
        exact: Callable[[Array, Array], Array],
    ) -> None:  # fmt: skip
        self.queries, self.corpus, self.count = queries, corpus, count
        self.name, self.exact = name, exact
        self.directions = normalize(queries).astype(np.float32)
        most = np.abs(queries).max(axis=-1, initial=0)
        most[most == 0] = 1
        lengths = most * np.linalg.norm(queries / most[:, None], axis=-1)
        self.lengths = np.where(lengths == 0, 1, lengths)
        # The worst of the best so far; what is computed side by side may see an older one, and
        # then finds more than it had to.
        self.worst = np.full(len(queries), -np.inf)

    def run(self, threads: int) -> list[list[Hit]]:
        """Search all blocks, and return what is found for each query."""
        size, dim = self.corpus.shape
        rows = max(1, min(SEARCH_FLOATS // dim, SEARCH_SCORES // len(self.queries)))
        blocks = (slice(i, min(i + rows, size)) for i in range(0, size, rows))
        nothing = np.zeros(0, np.intp)
        best = Found(nothing, nothing, np.zeros(0))
        waiting = [best]
        for found in map_in_threads(self.search_block, blocks, threads):
            waiting.append(found)
            if sum(len(each.scores) for each in waiting) > 2 * len(best.scores):
                best = self.keep_best(waiting)
                waiting = [best]
        best = self.keep_best(waiting)
        hits: list[list[Hit]] = [[] for _ in self.queries]
        for query, row, score in zip(*(each.tolist() for each in best), strict=True):
            hits[query].append({"corpus_id": row, "score": score})
        return hits

    def search_block(self, where: slice) -> Found:
        """Return scores of all rows of a block that may be among the best, and of few others."""
        rows = self.corpus[where]
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            if self.name in ("cosine", "dot"):
                estimates, error = self.score_roughly(rows, where.start)
            else:
                self.require_finite_rows(rows, where.start)
                estimates = np.array([self.exact(q, rows) for q in self.queries])
                error = np.zeros(1)
        bars = self.worst / self.lengths if self.name == "dot" else self.worst.copy()
        near = estimates >= (bars - error)[:, None]
        if np.count_nonzero(near) > 4 * self.count * len(near) and len(rows) > self.count:
            known = np.where(np.isposinf(estimates), -np.inf, estimates)
            least = np.partition(known, -self.count, axis=-1)[:, -self.count]
            near = estimates >= (np.maximum(bars, least - error) - error)[:, None]
        queries, places = np.divmod(np.flatnonzero(near), len(rows))
        scores = np.zeros(len(queries))
        for start in range(0, len(queries), PAIRS_AT_ONCE):
            some = slice(start, start + PAIRS_AT_ONCE)
            wide = np.ascontiguousarray(rows[places[some]], np.float64)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                scores[some] = self.exact(self.queries[queries[some]], wide)
        if not np.isfinite(scores).all():
            raise InputError(
                f"score_function {self.name!r} of values up to "
                f"{max(np.abs(self.queries).max(), np.abs(rows).max()):.3g} overflows float64; "
                "normalize the embeddings, or ask for 'cosine'"
            )
        return Found(queries, places + where.start, scores)

    def score_roughly(self, rows: NDArray[Any], first: int) -> tuple[Array, Array]:
        """Return scores in float32, of queries of length 1, and how far they may be off.

        A row whose squares float32 cannot hold is estimated to be the best of all.
        """
        squares = np.empty(len(rows), np.float32)
        estimates = np.empty((len(self.directions), len(rows)), np.float32)
        size = max(1, STEP_FLOATS // rows.shape[1])
        for i in range(0, len(rows), size):
            some = slice(i, i + size)
            step = np.ascontiguousarray(rows[some], np.float32)
            np.vecdot(step, step, out=squares[some])
            np.matmul(self.directions, step.T, out=estimates[:, some])
        least, most = SQUARES
        unsure = np.flatnonzero(~((squares > least) & (squares < most)))
        if len(unsure):
            self.require_finite_rows(rows[unsure], first, unsure)
            squares[unsure] = 1  # of rows that are zero, the others follow
        if self.name == "cosine":
            estimates /= np.sqrt(squares)
        if len(unsure):
            estimates[:, unsure[(rows[unsure] != 0).any(axis=-1)]] = np.inf
        longest = 1.0 if self.name == "cosine" else np.sqrt(squares.max())
        return estimates, np.array([(rows.shape[1] + 8) * ROUNDING * longest])

    def require_finite_rows(
        self, rows: NDArray[Any], first: int, places: NDArray[np.intp] | None = None
    ) -> None:
        """Refuse rows that are not finite.  Raises InputError naming the first of them."""
        wrong = np.argwhere(~np.isfinite(rows))
        if len(wrong):
            i, j = wrong[0]
            row = first + int(i if places is None else places[i])
            raise InputError(
                f"corpus_embeddings has {rows[i, j]} in row {row}, dimension {j}, expected finite "
                "numbers"
            )

    def keep_best(self, several: Sequence[Found]) -> Found:
        """Return the best of all, by queries, best first; and note which is the worst of them."""
        queries, ids, scores = (np.concatenate(each) for each in zip(*several, strict=True))
        order = np.lexsort((ids, -scores, queries))
        queries, ids, scores = queries[order], ids[order], scores[order]
        starts = np.searchsorted(queries, np.arange(len(self.queries) + 1))
        full = np.flatnonzero(np.diff(starts) >= self.count)
        self.worst[full] = scores[starts[full] + self.count - 1]
        kept = np.arange(len(order)) - starts[queries] < self.count
        return Found(queries[kept], ids[kept], scores[kept])


def find_score_function(name: str) -> Callable[[Array, Array], Array]:
    """Return a score function by its name.  Raises InputError."""
    if not isinstance(name, str) or name not in SCORE_FUNCTIONS:
        hint = suggest(name, SCORE_FUNCTIONS) if isinstance(name, str) else ""
        raise InputError(
            f"score_function is {quote(name)}, expected one of {', '.join(SCORE_FUNCTIONS)}{hint}"
        )
    return SCORE_FUNCTIONS[name]


def rows_of(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return embeddings as rows, one as a single row.  Raises InputError."""
    if array.ndim == 1:
        return array[None] if array.size else array.reshape(0, 0)
    if array.ndim != 2:
        raise InputError(f"{name} has shape {array.shape}, expected (n, dim)")
    return array
