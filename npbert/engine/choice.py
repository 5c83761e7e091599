"""Which vocabulary a pass is computed in: the kernels, those for few tokens, or the textbook."""

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Final

import numpy as np

from npbert import textbook
from npbert.encoder import Block, Operations
from npbert.engine import kernels
from npbert.engine.few_tokens import MOST_TOKENS, FewTokens, size_of_copy
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


class OperationsBySize:
    """The operations of a model's passes, as many tokens as they have.

    Parameters
    ----------
    blocks : list of Block
    heads : callable
        Returns the heads of a block by its number.
    """

    def __init__(self, blocks: Sequence[Block], heads: Callable[[int], Sized]) -> None:
        self.blocks = blocks
        self.heads = [len(heads(i)) for i in range(len(blocks))]
        self.second_copy = size_of_copy(blocks)  # bytes, as soon as a pass is short; or 0
        self.few_tokens: FewTokens | None = None  # made by the first pass that is short enough

    def choose(self, engine: str, tokens: int | None) -> Operations:
        """Return the operations for so many tokens: by that, and the model's shapes, alone."""
        few = tokens is not None and 0 < tokens <= MOST_TOKENS
        if engine != "kernels" or not (few and self.second_copy):
            return ENGINES[engine]
        if self.few_tokens is None:
            self.few_tokens = FewTokens(self.blocks, self.heads)
        return self.few_tokens

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "few_tokens": None}  # which knows its blocks by where they lie
