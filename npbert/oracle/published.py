"""Numbers that others have published of real checkpoints, for npbert verify MODEL.

None of these checkpoints ships here; whoever has one can check it.  Sources: the tests of
transformers, Bumblebee and rust-bert, and the notes of flodl and SpawnDev.ILGPU.ML.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from npbert.errors import InputError
from npbert.loading import load
from npbert.model import Model
from npbert.oracle.cases import Check

Values = Callable[[Model], ArrayLike]
TINY: Final = [[10, 20, 30, 40, 50, 60, 70, 80, 0, 0]]
TINY_MASK: Final = [[1] * 8 + [0] * 2]
SENTENCE: Final = [[0, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 2]]


class Published(NamedTuple):
    """One number or several, of one checkpoint."""

    model: str  # how the name of the repository ends
    architecture: str
    what: str
    values: Values
    expected: ArrayLike
    within: float  # as many digits as were published


def corner(name: str, ids: Any, mask: Any) -> Values:
    """Return the values [0, 1:4, 1:4], or as much as there is, of an output."""

    def values(model: Model) -> ArrayLike:
        x = getattr(model(ids, mask), name)[0]
        return x[1:4, 1:4] if x.ndim == 2 and x.shape[1] > 3 else x[1:4]

    return values


def logits(text: str) -> Values:
    """Return the logits of a text."""
    return lambda model: model([model.tokenizer.encode(text).ids]).logits[0]  # type: ignore[union-attr,index]


def at_mask(text: str, words: list[int]) -> Values:
    """Return the logits of some words where a text says [MASK]."""

    def values(model: Model) -> ArrayLike:
        assert model.tokenizer is not None
        ids = model.tokenizer.encode(text).ids
        place = ids.index(model.tokenizer.id_of("mask_token") or 0)
        found = model([ids]).logits
        assert found is not None
        return found[0, place, words]

    return values


WORDS, CLASSES, TOKENS = (
    "for_masked_language_modeling", "for_sequence_classification", "for_token_classification",
)  # fmt: skip
SST2: Final = "distilbert-base-uncased-finetuned-sst-2-english"
STUDENT: Final = "distilbert-base-multilingual-cased-sentiments-student"
NUMBERS: Final = (
    Published("distilbert-base-uncased", "base", "hidden state [1:4, 1:4] of eleven ids",
              corner("hidden_state", SENTENCE, [[0] + [1] * 10]),
              [[-0.1639, 0.3299, 0.1648], [-0.1746, 0.3289, 0.1710], [-0.1884, 0.3357, 0.1810]],
              1e-4),
    Published("distilbert-base-uncased", WORDS, "The capital of France is [MASK].",
              at_mask("The capital of France is [MASK].", [16766, 25387, 17209, 3000, 10241]),
              [12.164, 11.706, 11.682, 11.660, 11.550], 2e-3),
    *(Published(SST2, CLASSES, text, logits(text), expected, 1e-4) for text, expected in (
        ("I love this movie, it is absolutely fantastic!", [-4.330832, 4.684447]),
        ("This is terrible, worst experience ever.", [4.698799, -3.782404]),
        ("The cat sat on the mat.", [2.065494, -1.663170]),
    )),
    Published(STUDENT, CLASSES, "I really love this new Rust framework",
              logits("I really love this new Rust framework"), [2.6165712, -1.0253018, -1.8185655],
              1e-4),
    Published("tiny-random-DistilBertModel", "base", "hidden state [1:4, 1:4] of ten ids",
              corner("hidden_state", TINY, TINY_MASK),
              [[-0.9427, 0.7933, 0.1031], [1.0913, 1.0214, -1.5890], [-2.1149, -0.3367, -0.6268]],
              1e-4),
    Published("tiny-random-DistilBertForMaskedLM", WORDS, "logits [1:4, 1:4] of ten ids",
              corner("logits", TINY, TINY_MASK),
              [[-0.1839, -0.0195, 0.1220], [-0.2048, 0.0667, 0.0878], [-0.2045, -0.0483, -0.1567]],
              1e-4),
    Published("tiny-random-DistilBertForSequenceClassification", CLASSES, "logits of ten ids",
              lambda model: model(TINY, TINY_MASK).logits[0], [-0.0047, -0.0103], 1e-4),  # type: ignore[index]
    Published("tiny-random-DistilBertForTokenClassification", TOKENS, "logits [1:4] of ten ids",
              corner("logits", TINY, TINY_MASK),
              [[-0.0504, -0.0751], [0.1354, 0.2180], [-0.0386, 0.1059]], 1e-4),
    *(Published("tiny-random-DistilBertForQuestionAnswering", "for_question_answering",
                f"{name} [1:4] of ten ids", corner(name, TINY, TINY_MASK), expected, 1e-4)
      for name, expected in (("start_logits", [0.1790, -0.0074, 0.0412]),
                             ("end_logits", [-0.1520, -0.0973, 0.0166]))),
    Published("tiny-random-DistilBertForMultipleChoice", "for_multiple_choice", "logits of ten ids",
              lambda model: model([TINY], [TINY_MASK]).logits[0], [-0.0027], 1e-4),  # type: ignore[index]
)  # fmt: skip


def verify_model(folder: Path) -> Iterator[Check]:
    """Hold a checkpoint to what was published of it.  Raises InputError where nothing was."""
    known = sorted({entry.model for entry in NUMBERS})
    name = max((n for n in known if named(folder).endswith(n)), key=len, default=None)
    if name is None:
        raise InputError(
            f"{folder}: nothing was published of a checkpoint of this name; there is something of "
            f"{', '.join(known)}"
        )
    for entry in (e for e in NUMBERS if e.model == name):
        model = load(folder, entry.architecture)
        values = np.asarray(entry.values(model), np.float64)
        expected = np.asarray(entry.expected, np.float64)
        off = np.abs(values - expected).max() if values.shape == expected.shape else np.inf
        yield Check(
            architecture=entry.architecture, way="kernels, float32", worst=float(off),
            activation=entry.what, bound=entry.within,
        )  # fmt: skip


def named(folder: Path) -> str:
    """Return the name of a checkpoint's repository, from where it lies; in the hub's cache too."""
    parts = folder.resolve().parts
    if "snapshots" in parts:
        return parts[parts.index("snapshots") - 1].split("--")[-1]
    return parts[-1] if parts else ""
