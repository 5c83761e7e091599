"""sentence-embedding: one vector for a text, near those of texts that mean the same."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npbert.checkpoint.files import parse_npy
from npbert.checkpoint.reading import read_bytes
from npbert.engine.inputs import number_array
from npbert.engine.spellings import explain_arguments
from npbert.errors import CheckpointError, InputError, quote, warn
from npbert.loading import load
from npbert.model import Model
from npbert.tasks.modules import normalize
from npbert.tasks.options import EmbeddingOptions
from npbert.tasks.rows import TaskRow
from npbert.tasks.sentence_settings import SIMILARITIES, with_tokenizer_changes
from npbert.tasks.sentence_transformers import Recipe, read_recipe
from npbert.tasks.task import Reading, Task
from npbert.text.encodings import Encoding
from npbert.textbook import Array

EDGE_POOLINGS = ({"cls"}, {"lasttoken"}, {"cls", "lasttoken"})  # that read one token or two
ENOUGH_FOR_RANGES = 100  # embeddings to take ranges from
RANGES_LIMIT = 1 << 20  # bytes; those of 768 dimensions have 12,000


@dataclass(frozen=True)
class TokenIds:
    """A text as the ids of its tokens, with or without the special ones around them."""

    ids: Sequence[int]


class SentenceEmbedding(Task[EmbeddingOptions, int]):
    """Answers an array (dim,) for a text, (n, dim) for a list of them."""

    def __init__(
        self,
        model: Model,
        options: EmbeddingOptions,
        row: TaskRow,
        *,
        recipe: Recipe | None = None,
        **how: Any,
    ) -> None:
        if recipe is None and model.folder is not None:
            found = read_recipe(model.folder, model.dtype.type)
            recipe = found and found[1]
        if recipe is None:
            warn(
                "the model does not say how its embeddings are made (it has no modules.json); "
                "npbert takes the mean of its tokens"
            )
        self.recipe = recipe or Recipe()
        self.folder_limit = self.recipe.max_length
        super().__init__(with_tokenizer_changes(model.encoder_only()), options, row, **how)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        loading: Mapping[str, Any],
        options: EmbeddingOptions,
        row: TaskRow,
        **how: Any,
    ) -> Self:
        """Load a folder of sentence-transformers, or any encoder."""
        encoder, recipe = read_recipe(folder) or (folder, None)
        return cls(load(encoder, **loading), options, row, recipe=recipe, **how)

    def prepare_options(self, options: EmbeddingOptions) -> EmbeddingOptions:
        """Read ranges, and refuse what does not fit this model."""
        self.recipe.prompts.choose(options.prompt, options.prompt_name)
        dim, asked = self.recipe.dimensions(self.model.config.hidden_size), options.truncate_dim
        if asked is not None and asked > dim:
            raise InputError(f"truncate_dim is {asked}, but embeddings have {dim} dimensions")
        said = self.recipe.truncate_dim
        kept = asked or (said and min(dim, said))
        return replace(options, truncate_dim=kept, ranges=check_ranges(options.ranges, kept or dim))

    def require_streamable(self, options: EmbeddingOptions) -> None:
        """Refuse to spread bytes over values that are not all there.  Raises InputError."""
        if needs_ranges(options):
            raise InputError(
                f"precision {options.precision!r} needs ranges, (2, dim): the least and greatest "
                "values of each dimension, which a list of texts has, and a single text has not"
            )

    def collect(self, results: Iterator[Any], options: EmbeddingOptions) -> NDArray[Any]:
        """Return the embeddings of a list of texts, (n, dim)."""
        rows = list(results)
        if not rows:
            dim = options.truncate_dim or self.recipe.dimensions(self.model.config.hidden_size)
            none = np.zeros((0, dim), np.float32)
            return quantize(none, options.precision, np.zeros((2, dim), np.float32))
        made = np.stack(rows)
        if not needs_ranges(options):
            return made
        if len(made) < ENOUGH_FOR_RANGES:
            warn(
                f"{options.precision} by the ranges of {len(made)} embeddings; pass ranges=, taken "
                f"from {ENOUGH_FOR_RANGES} or more, so that other texts' embeddings can be compared"
            )
        return quantize(made, options.precision, np.stack([made.min(0), made.max(0)]))

    def read(self, item: Any, options: EmbeddingOptions) -> Reading[int]:
        """Turn a text, behind its prompt, into tokens.  Raises InputError."""
        prompt = self.recipe.prompts.choose(options.prompt, options.prompt_name)
        if isinstance(item, TokenIds):
            if prompt:
                raise InputError(
                    f"is ids of tokens, which cannot stand behind the prompt {prompt!r}"
                )
            made = self.tokenizer.encode_ids(item.ids, self.token_limit(options))
            return self.make_reading(made, 0, options)
        (text,) = self.parts(item)
        text = self.recipe.prepare_text(text, prompt)
        encoding = self.tokenizer.encode(text, max_length=self.token_limit(options))
        skipped = 0
        if prompt and not self.recipe.include_prompt:
            before = encoding.sequence_ids.index(0) if 0 in encoding.sequence_ids else 0
            lowered = prompt.lower() if self.recipe.lower else prompt
            skipped = before + len(self.tokenizer.tokenize(lowered))
            if skipped >= len(encoding):
                raise InputError(
                    f"the prompt fills all of the {len(encoding)} tokens that the model reads"
                )
        return self.make_reading(encoding, skipped, options)

    def make_reading(
        self, encoding: Encoding, skipped: int, options: EmbeddingOptions
    ) -> Reading[int]:
        """Return tokens, of which the first ones may be no text, as the model reads them."""
        cut = self.check_truncation([encoding], options)
        ends = set(self.recipe.modes) in EDGE_POOLINGS
        rows = [skipped, len(encoding) - 1] if ends else None
        return Reading([self.list_of(encoding, rows)], 0 if ends else skipped, cut)

    def answer(
        self, reading: Reading[int], values: list[Array], options: EmbeddingOptions
    ) -> NDArray[Any]:
        """Turn the vectors of tokens, (tokens, D), into one."""
        return self.finish_embedding(self.recipe.embed(values[0], reading.given), options)

    def finish_embedding(self, x: Array, options: EmbeddingOptions) -> NDArray[Any]:
        """Shorten an embedding, divide it by its length, store it in fewer bits, as asked."""
        x = x[: options.truncate_dim]
        if options.normalize:
            x = normalize(x)
        if needs_ranges(options):  # collected() will, when it has seen all
            return x
        return quantize(x, options.precision, options.ranges)

    def remove_normalize(self) -> "SentenceEmbedding":
        """Return the task without the folder's step that gives embeddings the length 1."""
        made = copy.copy(self)
        steps = [each for each in self.recipe.steps if each[1] is not normalize]
        made.recipe, made.rebuild = replace(self.recipe, steps=steps), None
        return made

    @explain_arguments
    def similarity(self, a: ArrayLike, b: ArrayLike, function: str | None = None) -> Array:
        """Return how alike are the embeddings of a to those of b: greater is nearer.

        Parameters
        ----------
        a, b : (n, dim), (m, dim) array_like
            Or (dim,) for one.  Bits that were packed into bytes are not unpacked.
        function : "cosine", "dot", "euclidean" or "manhattan", optional
            Default: what the model's folder says, or cosine.  Distances are negative.

        Returns
        -------
        (n, m) float array.  Raises InputError.
        """
        name = self.recipe.similarity if function is None else function
        if name not in SIMILARITIES:
            raise InputError(
                f"similarity is {quote(name)}, expected one of {', '.join(SIMILARITIES)}"
            )
        x, y = (number_array("embeddings", each).astype(np.float64) for each in (a, b))
        x, y = (each[None] if each.ndim == 1 and each.size else each for each in (x, y))
        if not x.size or not y.size:
            return np.zeros((len(x), len(y)))
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
            raise InputError(
                f"embeddings have the shapes {x.shape} and {y.shape}, expected one dim"
            )
        if name == "cosine":
            return normalize(x) @ normalize(y).T
        with np.errstate(over="ignore", invalid="ignore"):
            if name == "dot":
                made = x @ y.T
            else:
                order = {"euclidean": 2, "manhattan": 1}[name]
                made = np.array([-np.linalg.norm(y - row, ord=order, axis=-1) for row in x])
        if not np.isfinite(made).all():
            most = max(np.abs(x).max(), np.abs(y).max())
            raise InputError(
                f"similarity {name!r} of embeddings with values up to {most:.3g} overflows "
                "float64; normalize them, or ask for 'cosine'"
            )
        return made


def needs_ranges(options: EmbeddingOptions) -> bool:
    """Tell whether bytes are to be spread over values that only all embeddings together tell."""
    return options.precision in ("int8", "uint8") and options.ranges is None


def check_ranges(given: Any, dim: int) -> NDArray[Any] | None:
    """Return ranges as they were given, or as a .npy file holds them.  Raises InputError."""
    if given is None:
        return None
    if isinstance(given, str | Path):
        try:
            given = parse_npy(memoryview(read_bytes(Path(given), RANGES_LIMIT)), str(given))
        except CheckpointError as error:
            raise InputError(f"ranges: {error}") from None
    ranges = number_array("ranges", given)
    if ranges.shape != (2, dim):
        raise InputError(
            f"ranges has shape {ranges.shape}, expected (2, {dim}): the least and the greatest "
            "value of each dimension"
        )
    if len(wrong := np.flatnonzero(ranges[0] > ranges[1])):
        i = wrong[0]
        raise InputError(
            f"ranges has {ranges[0, i]} to {ranges[1, i]} for dimension {i}, expected the least "
            "value, then the greatest; are its rows the other way round?"
        )
    measure_steps(ranges)
    return ranges


def measure_steps(ranges: NDArray[Any]) -> NDArray[Any]:
    """Return the 255th parts of ranges.  Raises InputError where one is too wide for its dtype."""
    with np.errstate(over="ignore"):
        steps: NDArray[Any] = (ranges[1] - ranges[0]) / 255
    if len(wrong := np.flatnonzero(~np.isfinite(steps))):
        i = wrong[0]
        raise InputError(
            f"ranges has {ranges[0, i]} to {ranges[1, i]} for dimension {i}, which is wider than "
            f"{ranges.dtype} can tell; normalize embeddings, or pass narrower ranges="
        )
    return steps


def quantize(x: Array, precision: str, ranges: NDArray[Any] | None) -> NDArray[Any]:
    """Return embeddings, (..., dim), in fewer bits; the arithmetic is sentence-transformers'."""
    if precision == "float32":
        return x
    if precision == "ubinary":
        return np.packbits(x > 0, axis=-1)
    if precision == "binary":
        return (np.packbits(x > 0, axis=-1).astype(np.int16) - 128).astype(np.int8)
    assert ranges is not None
    steps = measure_steps(ranges)
    with np.errstate(over="ignore"):  # what is far beyond a range is cut to it
        spread = np.clip(np.floor((x - ranges[0]) / np.where(steps == 0, 1, steps)), 0, 255)
    return spread.astype(np.uint8) if precision == "uint8" else (spread - 128).astype(np.int8)
