"""Token lists to packs and back: no padding, results in the order given.

Sequences of any lengths stand side by side in a pack, and every layer but attention sees only
real tokens.  A pack holds about 512 tokens, so that its activations stay in the cache.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain, islice
from typing import Final, TypeVar

import numpy as np

from npbert import blas
from npbert.encoder import Ids, Pack
from npbert.inputs import Inputs
from npbert.textbook import Array
from npbert.threads import crew

PACK: Final = 512  # tokens; 1024 is a little slower, 256 costs matrix products their efficiency

A = TypeVar("A")
B = TypeVar("B")
Outcome = dict[str, Array]  # an array of columns for each output


def groups(lengths: Sequence[int], limit: int) -> Iterator[slice]:
    """Yield runs of neighbours that have at most `limit` tokens together, or are one sequence."""
    start = total = 0
    for i, length in enumerate(lengths):
        if i > start and total + length > limit:
            yield slice(start, i)
            start, total = i, 0
        total += length
    if len(lengths) > start:
        yield slice(start, len(lengths))


def row_groups(given: Inputs) -> list[slice]:
    """Return the rows of a dense batch in packs, the choices of one question together."""
    batch, length = given.ids.shape
    unit = given.choices or 1
    units = groups([length * unit] * (batch // unit), PACK)
    return [slice(s.start * unit, s.stop * unit) for s in units] or [slice(0, 0)]


def spans(lengths: Sequence[int]) -> list[slice]:
    """Return the columns of sequences that stand side by side."""
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def packed(sequences: Sequence[Ids], wanted: Sequence[Ids] | None) -> Pack:
    """Put sequences side by side; `wanted` says which tokens of each the head will read."""
    lengths = [len(ids) for ids in sequences]
    columns = spans(lengths)
    pack = Pack(
        ids=np.concatenate(sequences),
        position_ids=np.concatenate([np.arange(n) for n in lengths]),
        spans=columns,
        keep=[np.ones((1, 1), bool)] * len(lengths),
    )
    if wanted is None:
        return pack
    places = [rows + s.start for rows, s in zip(wanted, columns, strict=True)]
    return pack._replace(
        wanted=np.concatenate(places), wanted_spans=spans([len(rows) for rows in wanted])
    )


def side_by_side(function: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Yield function(item) for every item, in order, on a pool of threads, a little ahead."""
    given = iter(items)
    with blas.one_thread():
        first = list(islice(given, 2 * threads))
        if threads == 1 or len(first) < 2:
            with crew() if threads > 1 else nullcontext():
                yield from map(function, chain(first, given))
            return
        with ThreadPoolExecutor(threads) as pool:
            under_way = deque(pool.submit(function, item) for item in first)
            while under_way:
                result = under_way.popleft().result()
                under_way.extend(pool.submit(function, item) for item in islice(given, 1))
                yield result


def run(
    forward: Callable[[Pack], Outcome],
    sequences: Sequence[Ids],
    wanted: Sequence[Ids] | None,
    *,
    threads: int,
    batch_invariant: bool = False,
) -> Iterator[tuple[Outcome, list[slice]]]:
    """Yield for each pack, in order, its outcome and the columns there of every sequence.

    Rounding depends on what shares a pack; `batch_invariant` gives every sequence its own.
    """
    lengths = [len(ids) for ids in sequences]

    def compute(group: slice) -> tuple[Outcome, list[slice]]:
        pack = packed(sequences[group], wanted if wanted is None else wanted[group])
        return forward(pack), list(pack.spans if wanted is None else pack.wanted_spans)

    limit = 1 if batch_invariant else PACK
    return side_by_side(compute, groups(lengths, limit), threads)
