"""What is seen of a step that nothing explains, in words."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.families import EMBEDDING_NORM
from npbert.oracle.dumps import Arrays
from npbert.oracle.measures import is_masked
from npbert.oracle.mistakes.scene import Candidate
from npbert.oracle.steps import step_suffix
from npbert.textbook import Affine

SHOWN: Final = 3  # tokens of which is said what they are, rows of a mask that are told


def describe_error(case: Candidate, name: str, again: Arrays) -> str:
    """Say what is seen of a step that nothing explains."""
    if name in TABLES and (said := describe_ids(case, name)):
        return said
    is_mask = name.endswith(("attention.masked_scores", "attention.weights"))
    if is_mask and (said := describe_mask(case, name, again[name])):
        return said
    live = case.live[name]
    ours, theirs = again[name][live].astype(float), case.theirs[name][live].astype(float)
    fits = np.isfinite(theirs)
    if not fits.all():
        return f"{(~fits).sum()} of {fits.size} values are not finite"
    masked = is_masked(name, ours) | is_masked(name, theirs)
    return describe_values(ours[~masked], theirs[~masked], case.bound[name].most)


FOREIGN: Final = "its weights are not the file's: never loaded, random, or of another checkpoint"
UNLIKE: Final = 0.3  # the cosine of outputs with what the file's weights make
OTHER_OUTPUT, LIKE_INPUT = 0.5, 0.95  # of a table of words: cosines of outputs, and of their Grams
FEWEST_OUTPUTS: Final = 32  # of outputs, from which on a Gram matrix is that of the inputs


def find_foreign_weights(
    case: Candidate, name: str, ours: NDArray[Any], is_alone: bool
) -> tuple[str, ...]:
    """Return that a layer's weights are others than the file's, if its numbers say so.

    Of a layer whose input is known they do where y - b has no likeness with W x; of the logits of
    the vocabulary alone where they have none, and yet are as alike each other, token by token, as
    what goes into the layer: so random weights leave them (Johnson and Lindenstrauss 1984).
    """
    live = case.live[name]
    theirs = case.theirs[name]
    if not np.isfinite(theirs[live]).all():
        return ()
    bias = linear_bias(case, name)
    if name in TABLES and describe_ids(case, name):
        return ()  # rows of the file's table, but others
    if is_alone and (bias is not None or name in TABLES):
        shift = 0 if bias is None else bias
        if similarity((ours - shift)[live], (theirs - shift)[live]) < UNLIKE:
            return (f"{step_suffix(name)}: {FOREIGN}",)
    if name == EMBEDDING_NORM:
        shift = case.call.model.encoder.layer_norm.bias.ravel()
        if similarity((ours - shift)[live], (theirs - shift)[live]) < UNLIKE:
            return (OTHER_TABLES,)
    last = "vocab_projector"
    if name in ("logits", last) and last in case.call.model.head:
        return find_foreign_vocabulary(case, theirs, ours)
    return ()


OTHER_TABLES: Final = "the embeddings are of other ids, or of another checkpoint's tables"
TABLES: Final = {  # a table of the embeddings: whose rows are taken
    "embeddings.word_embeddings": "input_ids",
    "embeddings.position_embeddings": "position_ids",
}


def linear_bias(case: Candidate, name: str) -> NDArray[Any] | None:
    """Return the bias of a linear layer; None of a step that is none."""
    head, encoder = case.call.model.head, case.call.model.encoder
    if name.startswith("transformer."):
        group, _, step = step_suffix(name).partition(".")
        block = encoder.blocks[int(name.split(".")[2])]
        layer = getattr(getattr(block, group), step, None) if step else None
    else:
        layer = head.get(name)
    return layer.bias.ravel() if isinstance(layer, Affine) else None


def find_foreign_vocabulary(
    case: Candidate, theirs: NDArray[Any], ours: NDArray[Any]
) -> tuple[str, ...]:
    """Return that logits are made of right states by other weights, if so."""
    call = case.call
    layer: Affine = call.model.head["vocab_projector"]
    live = call.inputs.key_mask
    y = theirs[live].astype(np.float64) - layer.bias.ravel()
    x = ours[live] - layer.bias.ravel()
    if len(layer.weight) < FEWEST_OUTPUTS or similarity(x, y) > OTHER_OUTPUT:
        return ()
    states = np.linalg.lstsq(layer.weight, x.T, rcond=None)[0].T  # what goes into the layer
    if similarity(similarity_matrix(states), similarity_matrix(y)) < LIKE_INPUT:
        return ()
    return (f"vocab_projector: {FOREIGN}; it is not the table of words",)


def similarity_matrix(x: NDArray[Any]) -> NDArray[Any]:
    """Return how rows go together, without their mean."""
    centred = x - x.mean(axis=0)
    made: NDArray[Any] = centred @ centred.T
    return made


def similarity(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the cosine of two arrays; 1 of what is all zero."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 1.0


def describe_values(ours: NDArray[Any], theirs: NDArray[Any], bound: float) -> str:
    """Say how values are related to those that they should be."""
    a, b = float(ours @ ours), float(theirs @ theirs)
    cosine = float(ours @ theirs) / max((a * b) ** 0.5, 1e-300)
    factor = float(ours @ theirs) / max(a, 1e-300)
    greatest = max(np.abs(theirs).max(initial=0), 1e-300)
    if float(np.abs(theirs - factor * ours).max(initial=0) / greatest) <= bound:
        return f"every value is {factor:.6g} times what it should be"
    offset, scale = theirs - ours, np.abs(ours).max(initial=0)
    if np.ptp(offset) <= bound * scale:
        return f"every value has {offset.mean():.6g} added"
    wrong = np.abs(offset) > bound * scale
    return (
        f"{wrong.mean():.1%} of its values are wrong; cosine {cosine:.6f}, "
        f"root mean square {(b / max(a, 1e-300)) ** 0.5:.4g} times ours"
    )


def describe_ids(case: Candidate, name: str) -> str:
    """Say which rows of a table a candidate took, where these are others than its inputs say."""
    call, encoder = case.call, case.call.model.encoder
    table = getattr(encoder, step_suffix(name).removeprefix("embeddings."))
    ids = call.pack.ids if TABLES[name] == "input_ids" else call.pack.position_ids
    columns = call.layout.columns(name, case.theirs[name])
    close = 1e-6 if columns.dtype.itemsize > 2 else 1e-2
    wrong = np.flatnonzero(np.abs(columns - table[ids].T).max(axis=0) > close * np.abs(table).max())
    said = []
    for i in wrong[:SHOWN].tolist():
        off = np.abs(table - columns[:, i]).max(axis=1)
        if not off.min() <= close * np.abs(table).max():
            return ""
        place = divmod(i, call.length)
        said.append(f"{place} has the embedding of {off.argmin()}, not of {ids[i]}")
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    kind = "ids" if TABLES[name] == "input_ids" else "positions"
    return f"other {kind} than {TABLES[name]}: {', '.join(said)}{more}"


def describe_mask(case: Candidate, name: str, ours: NDArray[Any]) -> str:
    """Say which keys a candidate hears, where these are others than those of its mask."""
    theirs = case.theirs[name]
    if name.endswith("weights"):
        hears, should = theirs > 0, ours > 0
    else:
        hears, should = ~is_masked(name, theirs), ~is_masked(name, ours)
    wrong = (hears != should) & case.live[name]
    if not wrong.any():
        return ""
    rows = np.flatnonzero(wrong.any(axis=(1, 2, 3))).tolist()
    said = [describe_row(row, hears[row], should[row], wrong[row]) for row in rows[:SHOWN]]
    more = f"; and of {len(rows) - SHOWN} rows more" if len(rows) > SHOWN else ""
    return "; ".join(said) + more


def describe_row(
    row: int, hears: NDArray[np.bool], should: NDArray[np.bool], wrong: NDArray[np.bool]
) -> str:
    """Say which keys of a row of the batch are wrongly heard, and which are not heard."""
    said = []
    for which, text in ((hears, "heard, and must not be"), (should, "not heard, and must be")):
        at = wrong & which  # (heads, query, key)
        keys = np.flatnonzero(at.any(axis=(0, 1))).tolist()
        if keys:
            heads = np.flatnonzero(at.any(axis=(1, 2))).tolist()
            of = f", in head {spell_ranges(heads)}" if len(heads) < len(at) else ""
            start, verb = ("keys", "are") if len(keys) > 1 else ("key", "is")
            said.append(f"{start} {spell_ranges(keys)} {verb} {text}{of}")
    return f"row {row}: {', '.join(said)}"


def spell_ranges(numbers: Sequence[int]) -> str:
    """Return numbers in order, three or more that follow each other as a range."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    texts = [f"{p[0]} to {p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts]
    return ", ".join(texts)
