"""Recorded cases that ship with npbert: small checkpoints, and what transformers computes on them.

They check an installation, with its NumPy and its BLAS on this machine, and make the porter's kit.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from npbert.errors import InputError
from npbert.loading import load
from npbert.model import Model
from npbert.oracle.dumps import load as load_dump
from npbert.oracle.dumps import save
from npbert.oracle.shared import Call, Trace, distance
from npbert.oracle.tracing import computed, trace

FOLDER: Final = Path(__file__).parent / "recorded"
CASE: Final = "case.safetensors"
BOUNDS: Final = {  # of the worst activation, in units of its greatest value
    "textbook, float64": ("float64", "textbook", 1e-12),
    "textbook, float32": ("float32", "textbook", 5e-5),
    "kernels, float32": ("float32", "kernels", 2e-4),
}
README: Final = """# A porter's kit

One folder for each architecture of DistilBERT, made by `npbert kit`:

* `model/`: a small checkpoint as transformers saves it, config.json and model.safetensors; every
  size is different, and every parameter is drawn, so that no mistake can hide;
* `inputs/*.npy`: input_ids, attention_mask, position_ids, attention_head_mask (multiple choice has
  (batch, choices, length));
* `trace.safetensors`, `trace/*.npy`: every activation in float64, by PyTorch's names, rows outside:
  (batch, length, features), attention (batch, heads, query, key). `trace/about.json` says their
  order.

Run your port on `inputs`, write what you have under the same names (float32 is fine, some of them
are fine), the inputs too, as .npy files in a folder, an .npz, or a .safetensors; then

    npbert diagnose FOLDER/model YOUR_FOLDER
"""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One architecture on this machine, in one way to compute."""

    architecture: str
    way: str
    worst: float
    activation: str
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the worst activation is within its bound; NaN is not."""
        return self.worst <= self.bound


def folders() -> list[Path]:
    """Return the folders of all cases, one an architecture."""
    found = sorted(path for path in FOLDER.iterdir() if path.is_dir())
    if not found:
        raise InputError(f"{FOLDER}: holds no cases; was npbert installed whole?")
    return found


def verify() -> Iterator[Check]:
    """Compute every case in every way, and say how far the worst activation is off."""
    for folder in folders():
        recorded = load_dump(folder / CASE)
        for way, (dtype, engine, bound) in BOUNDS.items():
            model = load(folder, dtype=dtype, engine=engine)
            worst, name = worst_of(model, recorded)
            yield Check(
                architecture=model.architecture, way=way, worst=worst, activation=name, bound=bound
            )


def worst_of(model: Model, recorded: Trace) -> tuple[float, str]:
    """Return the greatest error of all activations that both have, and whose it is."""
    call = Call(model, recorded.given)
    every = {
        name: distance(name, recorded.activations[name], x, np.ones(x.shape, bool))
        for name, x in computed(call, recorded.activations.__contains__).items()
    }
    name = max(every, key=every.__getitem__)
    return every[name], name


def kit(target: Path) -> list[Path]:
    """Write a small checkpoint, inputs and a full trace for every architecture."""
    made = []
    for folder in folders():
        own = target / folder.name
        try:
            (own / "model").mkdir(parents=True, exist_ok=True)
            (own / "inputs").mkdir(exist_ok=True)
            for name in ("config.json", "model.safetensors"):
                shutil.copyfile(folder / name, own / "model" / name)
            (target / "README.md").write_text(README, "utf-8")
        except OSError as error:
            raise InputError(f"{own}: cannot be written: {error.strerror}") from None
        given = load_dump(folder / CASE).given
        told = trace(load(folder, dtype="float64"), **given, noise=True)  # type: ignore[arg-type]
        for name, x in told.given.items():
            np.save(own / "inputs" / f"{name}.npy", x)
        save(told, own / "trace.safetensors")
        save(told, own / "trace")
        made.append(own)
    return made


def described(checks: list[Check]) -> list[dict[str, Any]]:
    """Return checks as JSON."""
    return [{**vars(check), "passed": check.passed} for check in checks]
