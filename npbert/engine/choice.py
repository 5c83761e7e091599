"""Which vocabulary a model computes in: the kernels, or the textbook."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from npbert import textbook
from npbert.encoder import Operations
from npbert.engine import kernels
from npbert.errors import InputError, quote

ENGINES: Final[Mapping[str, Operations]] = {"kernels": kernels, "textbook": textbook}


def choose_engine(engine: str | None, dtype: np.dtype[np.floating]) -> str:
    """Return the engine to compute with: kernels for float32, unless the textbook was asked for."""
    fast = dtype == np.float32
    if engine not in (None, *ENGINES) or (engine == "kernels" and not fast):
        raise InputError(
            f"engine is {quote(engine)}, expected 'textbook'" + (" or 'kernels'" if fast else "")
        )
    return engine or ("kernels" if fast else "textbook")
