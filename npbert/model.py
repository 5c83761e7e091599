"""A model: its configuration, weights and tokenizer, and the two ways in, dense and packed."""

import copy
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npbert import inputs, packing, saving
from npbert.checkpoint import LoadReport
from npbert.config import Config
from npbert.encoder import Pack, Run, encode
from npbert.engines import ENGINES, engine_of
from npbert.errors import CheckpointError, InputError, shown, warn
from npbert.heads import HEADS
from npbert.hub import Remade
from npbert.taps import PER_SEQUENCE, STATES, Border, Dropout, Keeper, chain, wanted, watch
from npbert.textbook import Array, Tap, untapped
from npbert.tokenizer import Tokenizer
from npbert.weights import WORDS, Parameters, assemble

Outcome = dict[str, Array]  # an array of columns for each output


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a dense call returns: rows, (batch, length, features); what was not computed is None."""

    logits: Array | None = None
    start_logits: Array | None = None  # (batch, length)
    end_logits: Array | None = None
    hidden_state: Array | None = None
    pooled_state: Array | None = None  # (batch, D)
    hidden_states: tuple[Array, ...] | None = None  # embeddings, then after every block
    attentions: tuple[Array, ...] | None = None  # (batch, heads, query, key), a block each


class Model(Remade):
    """A DistilBERT of one architecture; made by npbert.load or npbert.init."""

    def __init__(
        self,
        config: Config,
        architecture: str,
        parameters: Parameters,
        *,
        engine: str | None = None,
        tokenizer: Tokenizer | None = None,
        load_report: LoadReport | None = None,
        folder: Path | None = None,
    ) -> None:
        self.config = config
        self.architecture = architecture
        self.parameters = parameters
        self.tokenizer = tokenizer
        self.load_report = load_report
        self.folder = folder  # that it was loaded from
        self.dtype = parameters[WORDS].dtype
        self.engine = engine_of(engine, self.dtype)
        self.encoder, self.head = assemble(parameters, config)
        if config.use_cross_attention:
            warn("use_cross_attention is true; DistilBERT has no cross-attention, and ignores it")

    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        attention_head_mask: ArrayLike | None = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        dropout: "np.random.Generator | None" = None,
        threads: int | None = None,
    ) -> Output:
        """Compute every position of a batch, padding too, as the reference systems do.

        Parameters
        ----------
        input_ids : (batch, length) array_like of int
            For multiple choice, here and below, (batch, choices, length).
        attention_mask : (batch, length) array_like, optional
            Tokens where it is 0 are heard by no other token.
        position_ids : (batch, length) array_like of int, optional
            Default: 0, 1, 2, ...
        attention_head_mask : (num_blocks, num_attention_heads) array_like, optional
            Factors for the attention weights of every head; columns are original head numbers.
        output_hidden_states, output_attentions : bool
            Whether to return what lies between.
        dropout : numpy.random.Generator, optional
            Draws dropout at the config's rates, in the order that taps.Dropout describes.
        threads : int, optional
            How many packs are computed side by side; default: all cores.  Changes no bit.

        Raises
        ------
        InputError
            Names the argument, what came, and what was expected.
        """
        if not hasattr(dropout, "random") and dropout is not None:
            raise InputError(f"dropout is {shown(dropout)}, expected a numpy.random.Generator")
        given = inputs.dense(
            self.config, self.architecture, input_ids, attention_mask, position_ids
        )
        names = wanted(hidden=output_hidden_states, attentions=output_attentions)

        def compute(rows: slice) -> dict[str, Array]:
            part = given.rows(rows)
            batch, length = part.ids.shape
            border = Border(self.architecture, batch, length, given.choices)
            kept = Keeper(border, names)
            taps: list[Tap] = [Dropout(dropout, self.config, self.architecture)] if dropout else []
            taps += [kept] if output_hidden_states or output_attentions else []
            tap = chain(taps) if taps else untapped
            columns = self.forward(part, attention_head_mask, tap, quiet)
            return {n: border.rows(n, x) for n, x in columns.items()} | kept.rows()

        # Kernels need not show what nobody listens to.
        quiet = ("ffn",) if dropout or output_attentions else ("ffn", "attention")
        # Dropout draws for the whole batch at once, in the order that it documents.
        packs = [slice(0, len(given.ids))] if dropout else packing.row_groups(given)
        parts = list(packing.side_by_side(compute, packs, inputs.threads(threads)))
        whole = parts[0]
        if len(parts) > 1:
            whole = {
                name: np.concatenate([part.pop(name) for part in parts]) for name in list(whole)
            }
        hidden = tuple(x for name, x in whole.items() if name.endswith(STATES))
        weights = tuple(x for name, x in whole.items() if name.endswith(".weights"))
        if not len(given.ids):  # then no attention was heard of
            length = given.ids.shape[1]
            counts = [len(self.config.heads(i)) for i in range(self.config.num_blocks)]
            weights = tuple(np.zeros((0, n, length, length), self.dtype) for n in counts)
        return Output(
            **{name: x for name, x in whole.items() if not name.endswith((*STATES, ".weights"))},
            hidden_states=hidden if output_hidden_states else None,
            attentions=weights if output_attentions else None,
        )

    def forward(
        self, given: inputs.Inputs, attention_head_mask: ArrayLike | None, tap: Tap,
        quiet: Collection[str] = (),
    ) -> Outcome:  # fmt: skip
        """Run checked inputs, every position of them; columns out, every step offered to a tap."""
        return self.run(packing.padded(given), attention_head_mask, tap, quiet)

    def packed(
        self,
        sequences: Iterable[Any],
        *,
        rows: Iterable[ArrayLike] | None = None,
        threads: int | None = None,
        batch_invariant: bool = False,
    ) -> Any:
        """Compute token lists of any lengths without padding, and only what the head reads.

        Parameters
        ----------
        sequences : list of (length,) array_like of int
            For multiple choice a list of groups of such lists, of equally many choices.
        rows : list of lists of int, optional
            Which positions of each sequence are wanted, where the head judges tokens.
        threads : int, optional
            How many packs are computed side by side; default: all cores.  Changes no bit.
        batch_invariant : bool
            Compute every sequence alone, so that its last bits do not depend on the others.

        Returns
        -------
        (n, classes) array for sequence classification, (n, choices) for multiple choice; otherwise
        a list with an array for every sequence: (length, classes), (length, 2) of start and end
        logits for question answering, (length, D) for base.  Raises InputError.
        """
        given = inputs.many("packed", sequences)
        choices = 1
        if self.architecture == "for_multiple_choice":
            grouped = [inputs.many("a group", group) for group in given]
            choices = inputs.one_size(grouped)
            given = [choice for group in grouped for choice in group]
        places = [None] * len(given) if rows is None else inputs.many("rows", rows)
        if len(places) != len(given):
            raise InputError(f"rows has {len(places)} lists for {len(given)} sequences")
        lists = list(self.checked(zip(given, places, strict=True)))  # all, before any is computed
        results = list(self.columns(lists, threads=threads, batch_invariant=batch_invariant))
        if self.architecture not in PER_SEQUENCE:
            return [x.T for x in results]
        classes = len(self.head["classifier"].weight) * choices
        return np.array(results, self.dtype).reshape(-1, classes)

    def stream(
        self,
        sequences: Iterable[tuple[ArrayLike, ArrayLike | None]],
        *,
        threads: int | None = None,
        batch_invariant: bool = False,
    ) -> Iterator[Array]:
        """Compute any number of token lists as packed does, in constant memory, and in order.

        Parameters
        ----------
        sequences : iterable of pairs
            A token list, and the positions that are wanted of it or None.  Up to 64 are read
            before the first is computed, and computed before the next are read.
        threads, batch_invariant
            See packed.

        Yields
        ------
        For every list (classes,) where sequences are judged, otherwise (positions, features).
        Raises InputError for a list in its turn, when what comes before it has been yielded.
        """
        lists = self.checked(sequences)
        yield from self.computed(lists, threads=threads, batch_invariant=batch_invariant)

    def computed(
        self, lists: Iterable[packing.Tokens], *, threads: int | None, batch_invariant: bool
    ) -> Iterator[Array]:
        """Compute checked token lists as stream does."""
        for window in packing.windows(lists):
            for x in self.columns(window, threads=threads, batch_invariant=batch_invariant):
                yield x[:, 0] if self.architecture in PER_SEQUENCE else x.T

    def checked(
        self, sequences: Iterable[tuple[ArrayLike, ArrayLike | None]]
    ) -> Iterator[packing.Tokens]:
        """Yield token lists and what of them is read.  Raises InputError naming the list."""
        judged = self.architecture in PER_SEQUENCE
        for i, (sequence, rows) in enumerate(sequences):
            if judged and rows is not None:
                raise InputError(f"rows was given, but {self.architecture} reads first tokens only")
            ids = inputs.token_list(self.config, i, sequence)
            first = np.zeros(1, np.intp) if judged else None
            wanted = first if rows is None else inputs.wanted_rows(i, rows, len(ids))
            yield packing.Tokens(ids, wanted)

    def columns(
        self, lists: Sequence[packing.Tokens], *, threads: int | None, batch_invariant: bool
    ) -> Iterator[Array]:
        """Yield the outputs of every list's tokens: logits, start and end, or hidden states."""

        def compute(pack: Pack) -> Array:
            outcome = self.run(pack)
            return np.concatenate([x for name, x in outcome.items() if name != "pooled_state"])

        count = inputs.threads(threads)
        return packing.run(compute, lists, threads=count, batch_invariant=batch_invariant)

    def run(
        self, pack: Pack, attention_head_mask: ArrayLike | None = None, tap: Tap = untapped,
        quiet: Collection[str] = (),
    ) -> Outcome:  # fmt: skip
        """Run a pack; columns out.  Raises CheckpointError for results that are not finite."""
        masks = inputs.head_masks(self.config, attention_head_mask, self.dtype)
        outcome = self.through(pack, masks, tap, quiet)
        if not all(np.isfinite(x).all() for x in outcome.values()):
            self.through(pack, masks, watch)  # raises where it began
            raise CheckpointError("the result is not finite, because of what a tap returned")
        return outcome

    def through(
        self, pack: Pack, masks: Sequence[Array], tap: Tap, quiet: Collection[str] = ()
    ) -> Outcome:
        """Run a pack, whatever comes of it."""
        run = Run(ENGINES[self.engine], self.config.activation, tap, quiet)
        head = self.head
        spans = pack.spans if pack.wanted is None else pack.wanted_spans
        if self.architecture == "base" and pack.wanted is not None:
            head = {}  # the pooler reads first tokens, and they may not be wanted
        with np.errstate(over="ignore", invalid="ignore"):
            x = encode(self.encoder, pack, masks[: len(self.encoder.blocks)], run)
            first = np.array([s.start for s in spans if head], np.intp)
            return HEADS[self.architecture](head, x, first, run)

    def encoder_only(self, blocks: int | None = None) -> "Model":
        """Return the base model within, with the same weights in memory, or its first blocks.

        The hidden state it computes is hidden state number `blocks` of the whole.
        """
        model = copy.copy(self)
        model.architecture, model.head, model.remake = "base", {}, None
        model.encoder = self.encoder._replace(blocks=self.encoder.blocks[:blocks])
        return model

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, model.safetensors and the tokenizer, as transformers reads them.

        Weights are written in the dtype of the model, tied ones once.  A file is replaced whole
        or not at all; a model may be saved where it was loaded from (but on Windows, where a
        mapped file cannot be replaced).  Raises CheckpointError for what cannot be written.
        """
        saving.save(Path(folder), self.config, self.architecture, self.parameters, self.tokenizer)
