"""sparse-embedding: which words of the vocabulary a text is about, also such as it does not have.

What a masked language model would put in the place of each token becomes one weight for each word,
most of them 0, so that texts can be searched with an index of words.  Source: Formal et al. 2021,
"SPLADE v2"; names and rules are those of sentence-transformers' SparseEncoder.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from npbert.checkpoint import MODULES
from npbert.checkpoint.known_keys import (
    POOLING_WITHOUT_EFFECT,
    SPARSE_POOLING_KEYS,
    warn_of_unknown,
)
from npbert.checkpoint.reading import read_json_object
from npbert.encoder import Pack
from npbert.engine import packs
from npbert.engine.packs import Tokens
from npbert.engine.threads import count_threads
from npbert.errors import CheckpointError, quote
from npbert.heads import HEADS
from npbert.loading import load
from npbert.model import Model
from npbert.tasks.options import SparseOptions
from npbert.tasks.rows import FILL_MASK, TaskRow
from npbert.tasks.sentence_settings import (
    EncoderOutput,
    TextSettings,
    read_text_settings,
    with_tokenizer_changes,
)
from npbert.tasks.sentence_transformers import name_modules
from npbert.tasks.task import Answer, Reading, Task
from npbert.textbook import Array, no_tap

PIECE_TOKENS: Final = 64  # tokens of a pack of which all logits are there at once
PREDICTS: Final = EncoderOutput(FILL_MASK.name, "logits")
SPARSE_SIMILARITY: Final = "dot"  # where a folder names none


def log_weights(x: Array) -> Array:
    """log(1 + relu(x)): a word that is predicted twice as surely is not twice as important."""
    return np.log1p(np.maximum(x, 0))


# By their names in the files: what becomes of a logit, and how those of several tokens are joined.
SATURATIONS: Final[Mapping[str, Callable[[Array], Array]]] = {
    "relu": log_weights,
    "log1p_relu": lambda x: np.log1p(log_weights(x)),
}
STRATEGIES: Final[Mapping[str, np.ufunc]] = {"max": np.maximum, "sum": np.add}


@dataclass(frozen=True, kw_only=True)
class SparseRecipe(TextSettings):
    """What becomes of the logits of a text."""

    strategy: str = "max"
    saturation: str = "relu"
    similarity: str = SPARSE_SIMILARITY


class SparseRow(NamedTuple):
    """A text as a row of a matrix: which of its `width` columns are not 0, in order, and what."""

    indices: NDArray[np.intp]
    values: Array
    width: int


class SparseMatrix(NamedTuple):
    """Rows of which most values are 0, in the arrays of scipy.sparse.csr_matrix.

    Row i has data[indptr[i]:indptr[i + 1]] in the columns indices[indptr[i]:indptr[i + 1]].
    """

    data: Array  # (values,)
    indices: NDArray[np.int32]  # (values,)
    indptr: NDArray[np.int64]  # (rows + 1,)
    shape: tuple[int, int]


class SparseEmbedding(Task[SparseOptions, None]):
    """Answers {"indices", "values", "tokens"}: words of the vocabulary, the largest weight first.

    `indices` are their ids, `tokens` how they are written; words with the weight 0 are left out.
    `embed_matrix` returns the weights of many texts as arrays.
    """

    def __init__(
        self,
        model: Model,
        options: SparseOptions,
        row: TaskRow,
        *,
        recipe: SparseRecipe | None = None,
        **how: Any,
    ) -> None:
        if recipe is None and model.folder is not None:
            found = read_sparse_recipe(model.folder)
            recipe = found and found[1]
        self.recipe = recipe or SparseRecipe()
        self.folder_limit = self.recipe.max_length
        super().__init__(with_tokenizer_changes(model), options, row, **how)
        self.encoder = model.encoder_only()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        loading: Mapping[str, Any],
        options: SparseOptions,
        row: TaskRow,
        **how: Any,
    ) -> Self:
        """Load a folder of sentence-transformers, or any masked language model."""
        encoder, recipe = read_sparse_recipe(folder) or (folder, None)
        return cls(load(encoder, **loading), options, row, recipe=recipe, **how)

    def prepare_options(self, options: SparseOptions) -> SparseOptions:
        """Refuse a prompt that the model does not have."""
        self.recipe.prompts.choose(options.prompt, options.prompt_name)
        return options

    def read(self, item: Any, options: SparseOptions) -> Reading[None]:
        """Turn a text, behind its prompt, into tokens.  Raises InputError."""
        (text,) = self.parts(item)
        prompt = self.recipe.prompts.choose(options.prompt, options.prompt_name)
        encoding = self.tokenizer.encode(
            self.recipe.prepare_text(text, prompt), max_length=self.token_limit(options)
        )
        return Reading([self.list_of(encoding)], None, self.check_truncation([encoding], options))

    def compute(self, lists: Iterable[Tokens | None]) -> Iterator[Iterator[Array]]:
        """Yield the weights of every token list, (vocabulary,)."""
        threads = count_threads(self.threads)
        for together in packs.read_ahead(lists):
            yield packs.compute_lists(
                self.pool_pack, together, width=self.model.config.hidden_size, threads=threads,
                batch_invariant=self.batch_invariant,
            )  # fmt: skip

    def pool_pack(self, pack: Pack) -> list[Array]:
        """Return the weights of each text of a pack, (vocabulary,).

        The head computes the logits of some tokens at a time, which are joined at once: of a whole
        pack they would take 60 MB.  Raises CheckpointError.
        """
        x = self.encoder.run(pack)["hidden_state"]
        head, run = HEADS[self.model.row.head], self.model.make_run(no_tap)
        none = np.zeros(0, np.intp)
        join, saturation = STRATEGIES[self.recipe.strategy], SATURATIONS[self.recipe.saturation]
        summed = join is np.add  # the largest of what only grows can be found before it has grown
        start = 0 if summed else -np.inf
        weights = np.full((len(pack.spans), self.model.config.vocab_size), start, x.dtype)
        for first in range(0, x.shape[-1], PIECE_TOKENS):
            some = np.ascontiguousarray(x[:, first : first + PIECE_TOKENS])
            with np.errstate(over="ignore", invalid="ignore"):
                logits = head(self.model.head, some, none, run)["logits"]
            if not np.isfinite(logits).all():
                self.model.run(pack)  # which says where it began
                raise CheckpointError("the logits are not finite")
            for row, span in zip(weights, pack.spans, strict=True):
                own = logits[:, max(0, span.start - first) : max(0, span.stop - first)]
                if own.shape[-1]:
                    join(row, join.reduce(saturation(own) if summed else own, axis=-1), out=row)
        self.model.mapped.require_unchanged()
        return list(weights if summed else saturation(weights))

    def answer(self, reading: Reading[None], values: list[Array], options: SparseOptions) -> Answer:
        """Turn the weights of all words, (vocabulary,), into those that count."""
        (weights,) = values
        words = np.flatnonzero(weights)
        words = words[np.argsort(-weights[words], kind="stable")][: options.top_k]
        return {
            "indices": words.tolist(),
            "values": [float(str(weight)) for weight in weights[words]],  # no digits but its own
            "tokens": [self.tokenizer.token_of(word) for word in words.tolist()],
        }

    def array_row(self, result: Answer) -> SparseRow:
        """Return an answer as a row of a matrix."""
        indices, values = np.array(result["indices"], np.intp), np.array(result["values"])
        order = np.argsort(indices)
        return SparseRow(
            indices[order], values[order].astype(self.model.dtype), self.model.config.vocab_size
        )

    def embed_matrix(self, texts: Iterable[Any], **changes: Any) -> SparseMatrix:
        """Return the weights of texts, (texts, vocabulary), in the arrays of a sparse matrix.

        Raises InputError.
        """
        answers = self.stream(texts, self.with_changes(changes))
        rows = [self.array_row(answer) for answer in answers]
        width = self.model.config.vocab_size
        return SparseMatrix(
            np.concatenate([np.zeros(0, self.model.dtype), *(row.values for row in rows)]),
            np.concatenate(
                [np.zeros(0, np.int32), *(row.indices.astype(np.int32) for row in rows)]
            ),
            np.cumsum([0, *(len(row.indices) for row in rows)], dtype=np.int64),
            (len(rows), width),
        )


def read_sparse_recipe(folder: Path) -> tuple[Path, SparseRecipe] | None:
    """Return the folder of the masked language model, and what happens after it.

    None where no modules.json is.  Raises CheckpointError naming the file at fault.
    """
    if not os.path.lexists(folder / MODULES):
        return None
    _, (encoder, pooling) = name_modules(folder, "SpladePooling")
    path = pooling / "config.json"
    config = read_json_object(path)
    recipe = {}
    for field, key, known in (
        ("strategy", "pooling_strategy", STRATEGIES),
        ("saturation", "activation_function", SATURATIONS),
    ):
        recipe[field] = config.get(key, next(iter(known)))
        if recipe[field] not in list(known):
            raise CheckpointError(
                f"{path}: {key} is {quote(recipe[field])}, expected one of {', '.join(known)}"
            )
    warn_of_unknown(path, config, SPARSE_POOLING_KEYS, POOLING_WITHOUT_EFFECT)
    settings = read_text_settings(folder, encoder, SPARSE_SIMILARITY, PREDICTS)
    return encoder, SparseRecipe(**recipe, **settings)
