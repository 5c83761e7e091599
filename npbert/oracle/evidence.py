"""A candidate as the diagnosis holds it, and what is seen of a step that nothing explains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npbert.oracle.faults import hidden
from npbert.oracle.shared import Arrays, Call, distance
from npbert.textbook import Array

WORDS: Final = "embeddings.word_embeddings"
SHOWN: Final = 3  # tokens of which is said what they are


@dataclass
class Case:
    """A candidate, and what is known of it."""

    call: Call
    theirs: Arrays  # in our names and shapes
    order: list[str]  # of all activations
    tolerance: Mapping[str, float]
    known: dict[str, Array]  # hidden states as columns, the candidate's where it has them
    live: dict[str, NDArray[np.bool]]

    def errors(self, made: Arrays, names: Sequence[str]) -> dict[str, float]:
        """Return how far the candidate is from what was made, for some activations."""
        return {n: distance(n, made[n], self.theirs[n], self.live[n]) for n in names if n in made}


def states(call: Call, theirs: Arrays, again: Arrays) -> dict[str, Array]:
    """Return every hidden state as columns: the candidate's, or what follows from its others."""
    names = [hidden(i) for i in range(-1, call.model.config.num_blocks)]
    rows = {n: theirs.get(n, again[n]) for n in names if n in again}
    finite = {n: np.where(np.isfinite(x), x, again[n]) for n, x in rows.items()}
    return {n: call.columns(n, x).astype(call.model.dtype) for n, x in finite.items()}


def other_ids(case: Case) -> str:
    """Say which ids a candidate embedded, where these are others than its input_ids."""
    call, table = case.call, case.call.model.encoder.word_embeddings
    columns = call.columns(WORDS, case.theirs[WORDS])
    wrong = np.flatnonzero(np.abs(columns - table[call.pack.ids].T).max(axis=0) > 1e-6)
    said = []
    for i in wrong[:SHOWN].tolist():
        off = np.abs(table - columns[:, i]).max(axis=1)
        if off.min() > 1e-6 * np.abs(table).max():
            return ""
        place = divmod(i, call.length)
        said.append(f"{place} has the embedding of {off.argmin()}, not of {call.pack.ids[i]}")
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return f"other ids than input_ids: {', '.join(said)}{more}"


def evidence(case: Case, name: str, again: Arrays) -> str:
    """Say what is seen of a step that nothing explains."""
    live = case.live[name]
    if name == WORDS and (said := other_ids(case)):
        return said
    ours, theirs = again[name][live].astype(float), case.theirs[name][live].astype(float)
    fits = np.isfinite(theirs)
    if not fits.all():
        return f"{(~fits).sum()} of {fits.size} values are not finite"
    a, b = float(ours @ ours), float(theirs @ theirs)
    cosine = float(ours @ theirs) / max((a * b) ** 0.5, 1e-300)
    factor = float(ours @ theirs) / max(a, 1e-300)
    rest = float(np.abs(theirs - factor * ours).max() / max(np.abs(theirs).max(), 1e-300))
    wrong = np.abs(theirs - ours) > case.tolerance[name] * np.abs(ours).max()
    if rest <= case.tolerance[name]:
        return f"every value is {factor:.6g} times what it should be"
    offset = theirs - ours
    if np.ptp(offset) <= case.tolerance[name] * np.abs(ours).max():
        return f"every value has {offset.mean():.6g} added"
    return (
        f"{wrong.mean():.1%} of its values are wrong; cosine {cosine:.6f}, "
        f"root mean square {(b / max(a, 1e-300)) ** 0.5:.4g} times ours"
    )
