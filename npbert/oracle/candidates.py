"""What a port wrote, as what npbert computes: whose arrays they are, and how they are arranged.

A name is read by the tables of port_names; an array whose name nobody knows is recognised by its
shape and its values, and all that is guessed is told.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.errors import InputError, listing, quote, suggest
from npbert.families import BLOCK_PREFIX, own_module
from npbert.oracle.dialects import canonical_names, guess_dialect
from npbert.oracle.dumps import Arrays
from npbert.oracle.layouts import PADDED, Fitted, KeyMask, fit_layout, fit_parts
from npbert.oracle.maps import NameMap, check_map
from npbert.oracle.measures import is_masked
from npbert.oracle.port_names import BLOCK_STEPS, GIVEN, MAPS, PYTORCH, STEPS
from npbert.oracle.traces import Call

NEAR: Final = 0.5  # of what values vary: an array further off is no guess, nor is one as near again
WORDS_OF_NAME: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
SAMPLE: Final = 5000  # values by which an array is recognised
LAST_STATE: Final = "last_hidden_state"


class Reference(NamedTuple):
    """What a candidate's arrays are held to."""

    exact: Arrays
    family: str
    call: Call | None = None  # where it is a model
    mask: KeyMask | None = None  # where it is a trace, if that tells it

    @property
    def blocks(self) -> int | None:
        """How many blocks its steps are of; None where they are of no block."""
        numbers = [int(n.split(".")[2]) for n in self.exact if n.startswith("transformer.layer.")]
        return max(numbers) + 1 if numbers else None

    @property
    def key_mask(self) -> KeyMask | None:
        """Where tokens are, (batch, length)."""
        return self.mask if self.call is None else self.call.inputs.key_mask

    def heads(self, name: str) -> int:
        """Return how many heads the attention of a step has, 0 for a step without."""
        if ".attention." not in name:
            return 0
        if self.call is not None:
            return len(self.call.model.config.heads(int(name.split(".")[2])))
        inner = name.rpartition(".")[0]
        told = [self.exact.get(f"{inner}.{step}") for step in ("weights", "scores")]
        return next((x.shape[1] for x in told if x is not None and x.ndim == 4), 0)

    def is_input(self, x: NDArray[Any]) -> bool:
        """Tell whether an array under another name is one that the call was given."""
        given = {} if self.call is None else self.call.arrays
        return x.dtype.kind in "iub" and any(np.array_equal(x, each) for each in given.values())

    def fit(self, names: list[str], x: NDArray[Any]) -> list[Fitted] | None:
        """Return an array as these steps; None where no arrangement of its axes fits."""
        likes = [self.exact[name] for name in names]
        if len(likes) == 1:
            one = fit_layout(x, likes[0], self.heads(names[0]), self.key_mask)
            found = None if one is None else [one]
        else:
            found = fit_parts(x, likes, self.heads(names[0]), self.key_mask)
        if self.call is None and self.mask is not None and found is not None:
            # Of two traces all values count, and none is known of padding that was left out.
            for like, each in zip(likes, found, strict=True):
                if PADDED in each.how:
                    each.array[~self.mask] = like[~self.mask]
        return found


def check_names(names: NameMap | None) -> NameMap:
    """Return a map, empty for none.  Raises InputError for what maps no names."""
    if names is not None and not isinstance(names, Mapping):
        raise InputError(
            f"names is {quote(names)}, expected a mapping of their names to npbert's, as "
            f"npbert.oracle.port_names.MAPS has them of {', '.join(MAPS)}"
        )
    return names or {}


def possible_steps(blocks: int) -> list[str]:
    """Return the steps of all models of so many blocks."""
    return [
        step.replace("{n}", str(n)) for step in STEPS for n in range(blocks if "{n}" in step else 1)
    ]


def rename_arrays(
    candidate: Mapping[str, NDArray[Any]], names: NameMap, family: str, blocks: int | None,
    known: Collection[str], notes: list[str],
    fits: Callable[[str, str], bool] = lambda name, steps: True,
) -> Arrays:  # fmt: skip
    """Return a candidate's arrays by canonical names, and say by which system's they were read."""
    title, first = "pytorch", 0
    if names not in MAPS.values():
        title, first = guess_dialect(list(candidate), family, blocks, known)
        if MAPS[title] is not PYTORCH:
            notes.append(f"the names are read as those of --map {title}")
        if first:
            notes.append("the blocks are numbered from 1")
    table = canonical_names(
        candidate,
        names,
        family,
        dialect=MAPS[title],
        blocks=blocks,
        known=known,
        first=first,
        fits=fits,
    )
    return {mine: candidate[name] for name, mine in table.items()}


# ---- steps --------------------------------------------------------------------------------------


def read_steps(
    reference: Reference, candidate: Mapping[str, NDArray[Any]], names: NameMap, notes: list[str],
    partial: bool,
) -> Arrays:  # fmt: skip
    """Return what a candidate has of a reference's steps, in their shapes.

    Raises InputError for an array of another shape, and where most arrays are not understood.
    """
    exact, family = reference.exact, reference.family
    notes += check_map(names, candidate, family, exact)

    def is_possible(name: str, held: str) -> bool:
        steps = held.split(", ")
        return set(steps) <= exact.keys() and reference.fit(steps, candidate[name]) is not None

    arrays = rename_arrays(
        candidate, names, family, reference.blocks, exact.keys(), notes, is_possible
    )
    arrays = {name: x for name, x in arrays.items() if name not in GIVEN}
    last = [name for name in exact if name.endswith(".output_layer_norm")][-1:]
    if LAST_STATE in arrays and LAST_STATE not in exact and last:
        arrays = {last[0]: arrays.pop(LAST_STATE)} | arrays
    made: Arrays = {}
    unknown: Arrays = {}
    for held in sorted(arrays, key=lambda held: held.count(",")):
        steps, x = held.split(", "), arrays[held]
        if not set(steps) <= exact.keys():
            if not reference.is_input(x):
                unknown[held] = x
            continue
        for name, found in fit_steps(reference, steps, x):
            if name not in made or not len(steps) > 1:
                made[name] = found.array
                notes.append(f"{name}: {found.how}" if found.how else "")
    guessed = guess_steps(reference, unknown, made)
    for name, (theirs, found, how) in guessed.items():
        made[name] = found.array
        notes.append(f"{name}: is {quote(theirs)}, guessed by its {how}")
        notes.append(f"{name}: {found.how}" if found.how else "")
    left = [name for name in unknown if name not in {theirs for theirs, _, _ in guessed.values()}]
    check_understood(reference, made, left, partial)
    notes.append(unknown_notice(left, exact, family))
    return {name: made[name] for name in exact if name in made}


def fit_steps(
    reference: Reference, steps: list[str], x: NDArray[Any]
) -> Iterator[tuple[str, Fitted]]:
    """Yield the steps that an array holds, each in its own shape.  Raises InputError."""
    found = reference.fit(steps, x)
    if found is None and len(steps) > 2:  # the embeddings may not be among the hidden states
        steps = steps[1:]
        found = reference.fit(steps, x)
    if found is None:
        one = reference.exact[steps[-1]].shape
        several = f" as {len(steps)} of" if len(steps) > 1 else ""
        what = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else steps[0]
        raise InputError(
            f"{what} has shape {x.shape}, expected{several} {one}; no arrangement of its axes fits"
        )
    more = f"one of {len(steps)} in an array of {x.shape}" if len(steps) > 1 else ""
    for name, each in zip(steps, found, strict=True):
        yield name, Fitted(each.array, "; ".join(how for how in (more, each.how) if how))


def check_understood(reference: Reference, made: Arrays, left: list[str], partial: bool) -> None:
    """Refuse to judge a candidate by a small part of what it holds.  Raises InputError."""
    if made and len(left) > len(made) and not partial:
        raise InputError(
            f"{len(made)} of {len(made) + len(left)} arrays were understood: "
            f"{listing([own_module(reference.family, name) for name in made], 4)}; not so "
            f"{listing(left, 4)}. Name them as npbert does, or in a file for --map (npbert trace "
            "MODEL --names prints one to fill in), or judge what was understood: partial=True"
        )


def unknown_notice(left: list[str], exact: Arrays, family: str) -> str:
    """Say which names were not understood, and what those that are misspelt may mean."""
    own = [own_module(family, name) for name in exact]
    said = [f"{name}{suggest(name, own).replace('; did', ' (did').replace('?', '?)')}"
            for name in sorted(left)]  # fmt: skip
    return f"not understood, and left out: {listing(said)}" if said else ""


# ---- arrays without a name ----------------------------------------------------------------------

Guess = dict[str, tuple[str, Fitted, str]]  # by our name: theirs, the array, and how it was guessed


def guess_steps(reference: Reference, unknown: Arrays, made: Arrays) -> Guess:
    """Return what arrays under unknown names are, by how these end, by shapes and by values."""
    found: Guess = {}
    groups = group_names(unknown)
    while groups:
        group = groups.pop(0)
        free = {n: x for n, x in reference.exact.items() if n not in made and n not in found}
        ranked = sorted(
            rank_guesses(reference, [unknown[name] for name in group], free),
            key=lambda guess: guess[0],
        )
        named = [count_words(group[0], guess[1][0], reference.family) for guess in ranked]
        best = named.index(max(named)) if ranked else 0
        by_name = max(named, default=(0, 0))[0] > 0 and named.count(max(named)) == 1
        others = [e for e in ranked[1:] if not has_same_values(reference, ranked[0][1], e[1])]
        near = ranked[0][0] if ranked else np.inf
        by_value = near <= NEAR and (not others or near < NEAR * others[0][0])
        if by_name or by_value or (ranked and not others):
            how = "name" if by_name else "value" if by_value else "shape"
            for name, step, each in zip(group, *ranked[best if by_name else 0][1:], strict=True):
                found[step] = (name, each, how)
        elif len(group) > 1:
            groups += [[name] for name in group]
    return found


def count_words(theirs: str, step: str, family: str) -> tuple[int, int]:
    """Return how many words at its end a name has of a step's, 0 without all of the last part.

    And whether it has the number of the step's block.
    """
    most = 0
    words = WORDS_OF_NAME.findall(theirs)
    for name in {step, own_module(family, step)}:
        ours = [word.lower() for word in WORDS_OF_NAME.findall(name)]
        alike = 0
        for one, other in zip(reversed(words), reversed(ours), strict=False):
            if one.lower() != other:
                break
            alike += 1
        whole = len(WORDS_OF_NAME.findall(name.rpartition(".")[2]))
        most = max(most, alike if alike >= whole else 0)
    block = step.split(".")[2:3] if step.startswith("transformer.") else []
    return most, int(bool(block) and block[0] in words[: len(words) - most])


def group_names(names: Iterable[str]) -> list[list[str]]:
    """Return names in groups that differ in one number, by that number; others alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[re.sub(r"\d+", "0", name)].append(name)
    made: list[list[str]] = []
    for group in groups.values():
        numbers = [[int(n) for n in re.findall(r"\d{1,9}", name)] for name in group]
        vary = [place for place in zip(*numbers, strict=False) if len(set(place)) > 1]
        if len(group) > 1 and len(vary) == 1:
            order = sorted(range(len(group)), key=lambda i: vary[0][i])
            made.append([group[i] for i in order])
        else:
            made += [[name] for name in group]
    return made


def rank_guesses(
    reference: Reference, arrays: list[NDArray[Any]], free: Arrays
) -> Iterator[tuple[float, list[str], list[Fitted]]]:
    """Yield what steps some arrays may be, one of each block or one alone, and how far they are."""
    blocks = reference.blocks or 0
    choices: list[list[str]] = []
    if len(arrays) == 1:
        choices = [[name] for name in free]
    elif len(arrays) in (blocks, blocks + 1):
        prefixes = [BLOCK_PREFIX.replace("{n}", str(n)) for n in range(blocks)]
        choices = [[prefix + step for prefix in prefixes] for step in BLOCK_STEPS]
        if len(arrays) > blocks:
            choices = [["embeddings.LayerNorm", *choices[-1]]]
    for steps in choices:
        if not set(steps) <= free.keys():
            continue
        fits = [reference.fit([name], x) for name, x in zip(steps, arrays, strict=True)]
        fitted = [each[0] for each in fits if each is not None]
        if len(fitted) == len(steps):
            far = [
                distance_in_spreads(reference, name, each.array)
                for name, each in zip(steps, fitted, strict=True)
            ]
            yield float(np.median(far)), steps, fitted


def distance_in_spreads(reference: Reference, name: str, x: NDArray[Any]) -> float:
    """Return how far some values of an array are from a step's, in units of how those vary."""
    shape = x.shape
    live = np.broadcast_to(True, shape)
    if reference.call is not None and len(shape) == 4 and ".attention." in name:
        queries = reference.call.inputs.key_mask[:, None, :, None]
        live = np.broadcast_to(queries, shape)  # all keys: what is masked tells two steps apart
    elif reference.call is not None:
        live = reference.call.live_values(name, shape)
    places = np.unravel_index(np.linspace(0, x.size - 1, min(x.size, SAMPLE), dtype=int), shape)
    counts, theirs, ours = live[places], x[places], reference.exact[name][places]
    hidden = is_masked(name, ours)
    counts = counts & np.isfinite(theirs) & ~hidden
    if not counts.any() or not np.array_equal(hidden, is_masked(name, theirs)):
        return np.inf
    ours = ours[counts].astype(np.float64).clip(-1e100, 1e100)
    off = theirs[counts].astype(np.float64).clip(-1e100, 1e100) - ours
    return float(np.sqrt(np.mean(off**2)) / max(float(np.std(ours)), 1e-300))


def has_same_values(reference: Reference, one: list[str], other: list[str]) -> bool:
    """Tell whether steps have the same numbers, as the last layer's and the logits."""
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(reference.exact[a].ravel(), reference.exact[b].ravel())
               for a, b in pairs)  # fmt: skip


BLOCK_NOTE: Final = re.compile(r"transformer\.layer\.(\d+)(\.\S+): (.*)")


def join_notes(notes: Iterable[str]) -> list[str]:
    """Return notes with what is said of a step of several blocks in one of them."""
    joined: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for note in filter(None, notes):
        block, step, said = (
            found.groups() if (found := BLOCK_NOTE.fullmatch(note)) else ("", "", note)
        )
        alike = re.sub(r"'.*'", "", said) if step else said  # but for the names of a port
        joined.setdefault((step, alike), (note, []))[1].append(block)
    return [
        note.replace(": ", f" (blocks {', '.join(blocks)}): ", 1) if blocks[1:] else note
        for note, blocks in joined.values()
    ]
