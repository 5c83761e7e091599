"""Token lists to packs and back: no padding, results in the order given.

Sequences of any lengths stand side by side in a pack, and every layer but attention sees only
real tokens.  A pack holds about 512 tokens, so that its activations stay in the cache, or in a
narrow model up to 1024, so that fewer calls of NumPy do more each.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Final, NamedTuple

import numpy as np

from npbert.encoder import Ids, Pack
from npbert.engine.inputs import Inputs
from npbert.engine.threads import map_in_threads
from npbert.textbook import Array

PACK_TOKENS: Final = 512  # at width 768; 256 costs matrix products their efficiency
WIDE_PACK: Final = 1024  # at most, in a narrow model
PACK_FLOATS: Final = 768 * PACK_TOKENS  # of a hidden state
LISTS_AHEAD: Final = 64  # token lists that are read before the first is computed ...
TOKENS_AHEAD: Final = 8 * PACK_TOKENS  # ... or as many as have that many tokens


class Tokens(NamedTuple):
    """A token list, and which of its tokens the head will read: of all lists of a call, or none."""

    ids: Ids
    wanted: Ids | None = None
    types: Ids | None = None  # None: all of type 0


def split_evenly(lengths: Sequence[int], width: int) -> list[slice]:
    """Return runs of neighbours, about equally long: one, or an even number for cores to share.

    A run is as near to its share of the whole as whole neighbours allow, and at most what is best
    for a model of that width.  One run has at most PACK_TOKENS, whatever the width.
    """
    ends = np.cumsum([0, *lengths])
    total = int(ends[-1])
    most = min(WIDE_PACK, max(PACK_TOKENS, PACK_FLOATS // width))
    count = 1 if total <= PACK_TOKENS else 2 * -(-total // (2 * most))
    targets = total * np.arange(1, count) / count
    above = np.searchsorted(ends, targets)
    nearest = above - (targets - ends[above - 1] < ends[above] - targets)
    # A set, since np.unique would import at the first call, under a lock that a fork would copy.
    cuts = sorted({0, *nearest.tolist(), len(lengths)})
    return [slice(i, j) for i, j in pairwise(cuts)]


def batch_slices(given: Inputs, width: int) -> list[slice]:
    """Return the rows of a dense batch in packs, the choices of one question together."""
    batch, length = given.ids.shape
    unit = given.choices or 1
    units = split_evenly([length * unit] * (batch // unit), width)
    return [slice(s.start * unit, s.stop * unit) for s in units] or [slice(0, 0)]


def column_slices(lengths: Sequence[int]) -> list[slice]:
    """Return the columns of sequences that stand side by side."""
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def pack_rows(given: Inputs) -> Pack:
    """Put the rows of a dense batch side by side, every position of them."""
    batch, length = given.ids.shape
    return Pack(
        ids=given.ids.ravel(),
        position_ids=given.positions.ravel(),
        token_type_ids=given.types.ravel(),
        spans=column_slices([length] * batch),
        key_masks=list(given.key_mask[..., None]),
    )


def pack_lists(lists: Sequence[Tokens]) -> Pack:
    """Put token lists side by side."""
    lengths = [len(each.ids) for each in lists]
    columns = column_slices(lengths)
    pack = Pack(
        ids=np.concatenate([each.ids for each in lists]),
        position_ids=np.concatenate([np.arange(n) for n in lengths]),
        token_type_ids=np.concatenate(
            [
                np.zeros(len(each.ids), np.intp) if each.types is None else each.types
                for each in lists
            ]
        ),
        spans=columns,
        key_masks=[np.ones((1, 1), bool)] * len(lengths),
    )
    wanted = [each.wanted for each in lists if each.wanted is not None]
    if not wanted:
        return pack
    places = [rows + s.start for rows, s in zip(wanted, columns, strict=True)]
    return pack._replace(
        wanted=np.concatenate(places), wanted_spans=column_slices([len(rows) for rows in wanted])
    )


def read_ahead(lists: Iterable[Tokens | None]) -> Iterator[list[Tokens]]:
    """Yield token lists that are read together; if reading fails, those before that first.

    None among them ends a group early.
    """
    together: list[Tokens] = []
    tokens = 0
    try:
        for each in lists:
            if each is not None:
                together.append(each)
                tokens += len(each.ids)
            if each is None or len(together) == LISTS_AHEAD or tokens >= TOKENS_AHEAD:
                yield together
                together, tokens = [], 0
    except Exception:
        yield together
        raise
    yield together


def split_sequences(x: Array, pack: Pack) -> list[Array]:
    """Return the columns of what is computed of a pack by its sequences."""
    return [x[:, s] for s in (pack.spans if pack.wanted is None else pack.wanted_spans)]


def compute_lists(
    compute: Callable[[Pack], list[Array]],
    lists: Sequence[Tokens],
    *,
    width: int,
    threads: int,
    batch_invariant: bool = False,
) -> Iterator[Array]:
    """Yield for every token list, in order, what is computed of it: `compute` says it of a pack's.

    Rounding depends on what shares a pack; `batch_invariant` gives every list its own.  Of lists
    that are equal one is computed, and the others get copies.
    """
    places = unique_places(lists)
    # Those of one length side by side: attention takes them together.
    distinct = sorted(dict.fromkeys(places), key=lambda i: len(lists[i].ids))
    lists = [lists[i] for i in distinct]
    lengths = [len(each.ids) for each in lists]
    alone = [slice(i, i + 1) for i in range(len(lists))]
    packs = alone if batch_invariant else split_evenly(lengths, width)
    # The largest first, so that the cores have done at about the same time.
    order = sorted(range(len(packs)), key=lambda i: -sum(lengths[packs[i]]))

    def compute_pack(i: int) -> list[Array]:
        return compute(pack_lists(lists[packs[i]]))

    results = dict(zip(order, map_in_threads(compute_pack, order, threads), strict=True))
    computed = chain.from_iterable(results[i] for i in range(len(packs)))
    made = dict(zip(distinct, computed, strict=True))
    return (made[place].copy() if place < i else made[i] for i, place in enumerate(places))


def unique_places(lists: Sequence[Tokens]) -> list[int]:
    """Return for every list the place of the first that is equal to it: mostly its own."""
    if len(lists) < 2:
        return [0] * len(lists)
    first: dict[tuple[bytes | None, ...], int] = {}
    return [
        first.setdefault(tuple(None if x is None else x.tobytes() for x in each), i)
        for i, each in enumerate(lists)
    ]


def join_rows(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Join the rows of parts of a batch under each name."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
