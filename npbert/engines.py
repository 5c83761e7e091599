"""The two engines: the textbook, which defines, and the kernels, which are fast.

One line makes mypy hold both to the vocabulary of the forward pass.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from npbert import kernels, textbook
from npbert.encoder import Operations
from npbert.errors import InputError, shown

ENGINES: Final[Mapping[str, Operations]] = {"kernels": kernels, "textbook": textbook}


def engine_of(engine: str | None, dtype: np.dtype[np.floating]) -> str:
    """Return the engine to compute with: kernels for float32, unless the textbook was asked for."""
    fast = dtype == np.float32
    if engine not in (None, *ENGINES) or (engine == "kernels" and not fast):
        raise InputError(
            f"engine is {shown(engine)}, expected 'textbook'" + (" or 'kernels'" if fast else "")
        )
    return engine or ("kernels" if fast else "textbook")
