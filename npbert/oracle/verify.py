"""Is this installation right, and a real checkpoint?  Recorded cases, and published numbers.

The recorded cases are small checkpoints, and what transformers computes on them; they check an
installation, with its NumPy and its BLAS on this machine.  The published numbers are of real
checkpoints, none of which ships here.  Their sources: the tests of transformers, Bumblebee and
rust-bert, and the notes of flodl and SpawnDev.ILGPU.ML.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from npbert.errors import InputError
from npbert.families import ENCODER_ARCHITECTURE, canonical_module, own_module
from npbert.loading import load
from npbert.model import Model
from npbert.oracle.measures import distance
from npbert.oracle.traces import Call, Trace, record_activations

CASES_FOLDER: Final = Path(__file__).parent / "recorded"
CASE_FILE: Final = "case.safetensors"
BOUNDS: Final = {  # of the worst activation, in units of its greatest value
    "textbook, float64": ("float64", "textbook", 1e-12),
    "textbook, float32": ("float32", "textbook", 5e-5),
    "kernels, float32": ("float32", "kernels", 2e-4),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One architecture of a family on this machine, in one way to compute."""

    family: str
    architecture: str
    way: str
    worst: float
    activation: str
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the worst activation is within its bound; NaN is not."""
        return self.worst <= self.bound


def case_folders() -> list[Path]:
    """Return the folders of all cases, one an architecture of a family."""
    found = sorted(path for path in CASES_FOLDER.iterdir() if path.is_dir())
    if not found:
        raise InputError(f"{CASES_FOLDER}: holds no cases; was npbert installed whole?")
    return found


def verify() -> Iterator[Check]:
    """Compute every case in every way, and say how far the worst activation is off."""
    for folder in case_folders():
        recorded = Trace.load(folder / CASE_FILE)
        for way, (dtype, engine, bound) in BOUNDS.items():
            model = load(folder, dtype=dtype, engine=engine)
            worst, name = worst_activation(model, recorded)
            yield Check(
                family=model.family, architecture=model.architecture, way=way, worst=worst,
                activation=name, bound=bound,
            )  # fmt: skip


def worst_activation(model: Model, recorded: Trace) -> tuple[float, str]:
    """Return the greatest error of all activations that both have, and whose it is."""
    call = Call(model, recorded.given)
    right = {canonical_module(model.family, n): x for n, x in recorded.activations.items()}
    every = {
        name: distance(name, right[name], x, np.ones(x.shape, bool))
        for name, x in record_activations(call, right.__contains__).items()
    }
    name = max(every, key=every.__getitem__)
    return every[name], own_module(model.family, name)


def checks_json(checks: list[Check]) -> list[dict[str, Any]]:
    """Return checks as JSON."""
    return [{**vars(check), "passed": check.passed} for check in checks]


Values = Callable[[Model], ArrayLike]
TINY_IDS: Final = [[10, 20, 30, 40, 50, 60, 70, 80, 0, 0]]
TINY_MASK: Final = [[1] * 8 + [0] * 2]
SENTENCE: Final = [[0, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 2]]


class Published(NamedTuple):
    """One number or several, of one checkpoint."""

    model: str  # how the name of the repository ends
    architecture: str | None  # None: the one that its config.json names
    what: str
    values: Values
    expected: ArrayLike
    within: float  # as many digits as were published


def output_corner(name: str, ids: Any, mask: Any) -> Values:
    """Return the values [0, 1:4, 1:4], or as much as there is, of an output."""

    def values(model: Model) -> ArrayLike:
        x = getattr(model(ids, mask), name)[0]
        return x[1:4, 1:4] if x.ndim == 2 and x.shape[1] > 3 else x[1:4]

    return values


def text_logits(text: str) -> Values:
    """Return the logits of a text."""
    return lambda model: model([model.tokenizer.encode(text).ids]).logits[0]  # type: ignore[union-attr,index]


def mask_logits(text: str, words: list[int]) -> Values:
    """Return the logits of some words where a text says [MASK]."""

    def values(model: Model) -> ArrayLike:
        assert model.tokenizer is not None
        ids = model.tokenizer.encode(text).ids
        place = ids.index(model.tokenizer.id_of("mask_token") or 0)
        found = model([ids]).logits
        assert found is not None
        return found[0, place, words]

    return values


SST2: Final = "distilbert-base-uncased-finetuned-sst-2-english"
STUDENT: Final = "distilbert-base-multilingual-cased-sentiments-student"
NUMBERS: Final = (
    Published("distilbert-base-uncased", ENCODER_ARCHITECTURE,
              "hidden state [1:4, 1:4] of eleven ids",
              output_corner("hidden_state", SENTENCE, [[0] + [1] * 10]),
              [[-0.1639, 0.3299, 0.1648], [-0.1746, 0.3289, 0.1710], [-0.1884, 0.3357, 0.1810]],
              1e-4),
    Published("distilbert-base-uncased", None, "The capital of France is [MASK].",
              mask_logits("The capital of France is [MASK].", [16766, 25387, 17209, 3000, 10241]),
              [12.164, 11.706, 11.682, 11.660, 11.550], 2e-3),
    *(Published(SST2, None, text, text_logits(text), expected, 1e-4) for text, expected in (
        ("I love this movie, it is absolutely fantastic!", [-4.330832, 4.684447]),
        ("This is terrible, worst experience ever.", [4.698799, -3.782404]),
        ("The cat sat on the mat.", [2.065494, -1.663170]),
    )),
    Published(STUDENT, None, "I really love this new Rust framework",
              text_logits("I really love this new Rust framework"),
              [2.6165712, -1.0253018, -1.8185655], 1e-4),
    Published("tiny-random-DistilBertModel", ENCODER_ARCHITECTURE,
              "hidden state [1:4, 1:4] of ten ids",
              output_corner("hidden_state", TINY_IDS, TINY_MASK),
              [[-0.9427, 0.7933, 0.1031], [1.0913, 1.0214, -1.5890], [-2.1149, -0.3367, -0.6268]],
              1e-4),
    Published("tiny-random-DistilBertForMaskedLM", None, "logits [1:4, 1:4] of ten ids",
              output_corner("logits", TINY_IDS, TINY_MASK),
              [[-0.1839, -0.0195, 0.1220], [-0.2048, 0.0667, 0.0878], [-0.2045, -0.0483, -0.1567]],
              1e-4),
    Published("tiny-random-DistilBertForSequenceClassification", None, "logits of ten ids",
              lambda model: model(TINY_IDS, TINY_MASK).logits[0], [-0.0047, -0.0103], 1e-4),  # type: ignore[index]
    Published("tiny-random-DistilBertForTokenClassification", None, "logits [1:4] of ten ids",
              output_corner("logits", TINY_IDS, TINY_MASK),
              [[-0.0504, -0.0751], [0.1354, 0.2180], [-0.0386, 0.1059]], 1e-4),
    *(Published("tiny-random-DistilBertForQuestionAnswering", None,
                f"{name} [1:4] of ten ids", output_corner(name, TINY_IDS, TINY_MASK), expected,
                1e-4)
      for name, expected in (("start_logits", [0.1790, -0.0074, 0.0412]),
                             ("end_logits", [-0.1520, -0.0973, 0.0166]))),
    Published("tiny-random-DistilBertForMultipleChoice", None, "logits of ten ids",
              lambda model: model([TINY_IDS], [TINY_MASK]).logits[0], [-0.0027], 1e-4),  # type: ignore[index]
)  # fmt: skip


def verify_model(folder: Path) -> Iterator[Check]:
    """Hold a checkpoint to what was published of it.  Raises InputError where nothing was."""
    known = sorted({entry.model for entry in NUMBERS})
    name = max((n for n in known if repository_name(folder).endswith(n)), key=len, default=None)
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
            family=model.family, architecture=model.architecture, way="kernels, float32",
            worst=float(off), activation=entry.what, bound=entry.within,
        )  # fmt: skip


def repository_name(folder: Path) -> str:
    """Return the name of a checkpoint's repository, from where it lies; in the hub's cache too."""
    parts = folder.resolve().parts
    if "snapshots" in parts:
        return parts[parts.index("snapshots") - 1].split("--")[-1]
    return parts[-1] if parts else ""
