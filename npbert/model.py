"""A model: its configuration, weights and tokenizer, and the two ways in, dense and packed."""

import copy
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npbert.checkpoint.config import Config
from npbert.checkpoint.drafts import replace_files
from npbert.checkpoint.files import MappedFiles
from npbert.checkpoint.folders import make_folder, save_checkpoint
from npbert.checkpoint.parameters import WORDS, LoadReport, Parameters, assemble
from npbert.checkpoint.summary import facts_line, facts_table, model_facts
from npbert.encoder import Pack, Run, encode
from npbert.engine import inputs, packs
from npbert.engine.activations import ACTIVATIONS
from npbert.engine.choice import OperationsBySize, choose_engine
from npbert.engine.spellings import explain_arguments
from npbert.engine.taps import Dropout, Keeper, chain_taps, raise_at_not_finite
from npbert.engine.threads import count_threads, map_in_threads
from npbert.errors import CheckpointError, InputError, quote, warn
from npbert.families import (
    ARCHITECTURES,
    ENCODER_ARCHITECTURE,
    FAMILIES,
    SEQUENCES,
    Architecture,
    own_module,
)
from npbert.heads import HEADS
from npbert.hub import Rebuildable
from npbert.text.encodings import Encoding
from npbert.text.tokenizer import Tokenizer
from npbert.textbook import Array, Tap, no_tap

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


class Model(Rebuildable):
    """A model of one architecture; made by npbert.load or npbert.init."""

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
        self.mapped = MappedFiles(parameters.values())
        self.folder = folder  # that it was loaded from
        self.dtype = parameters[WORDS].dtype
        self.engine = choose_engine(engine, self.dtype)
        self.encoder, self.head = assemble(parameters, config)
        self.operations = OperationsBySize(self.encoder.blocks, config.heads)
        if config.use_cross_attention:
            title = FAMILIES[config.family].title
            warn(f"use_cross_attention is true; {title} has no cross-attention, and ignores it")

    @property
    def family(self) -> str:
        """The name of its family, e.g. "distilbert"."""
        return self.config.family

    @property
    def row(self) -> Architecture:
        """What is known of its architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def facts(self) -> dict[str, str]:
        """What it is at a glance, by name, in words."""
        return model_facts(self.config, self.architecture, self.parameters, self.folder)

    def __repr__(self) -> str:
        return facts_line("Model", self.facts)

    def _repr_html_(self) -> str:
        return facts_table("Model", self.facts)

    @explain_arguments
    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        attention_head_mask: ArrayLike | None = None,
        *,
        token_type_ids: ArrayLike | None = None,
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
        token_type_ids : (batch, length) array_like of int, optional
            Which of two texts a token is of, for families that have token types; default: 0.
        output_hidden_states, output_attentions : bool
            Whether to return what lies between.
        dropout : numpy.random.Generator, optional
            Draws dropout at the config's rates, in the order that taps.Dropout describes.
        threads : int, optional
            How many packs are computed side by side; default: all cores.  Results are
            bit-identical for any number.

        Raises
        ------
        InputError
            Names the argument, what came, and what was expected.
        """
        if not hasattr(dropout, "random") and dropout is not None:
            raise InputError(f"dropout is {quote(dropout)}, expected a numpy.random.Generator")
        given = inputs.check_batch(
            self.config, self.row, input_ids, attention_mask, position_ids, token_type_ids
        )
        # The first hidden state is heard where dropout may thin it out; without dropout that is
        # the embeddings after their norm.
        blocks = [f"transformer.layer.{i}" for i in range(self.config.num_blocks)]
        states = ["embeddings.dropout", *(f"{block}.output_layer_norm" for block in blocks)]
        weights = [f"{block}.attention.weights" for block in blocks]
        kept = states * output_hidden_states + weights * output_attentions
        # Kernels need not show what nobody listens to.
        quiet = ("ffn",) if dropout or output_attentions else ("ffn", "attention")

        def compute(rows: slice) -> tuple[dict[str, Array], dict[str, Array]]:
            part = given.rows(rows)
            layout = part.layout(self.row)
            keeper = Keeper(layout, kept.__contains__)
            taps: list[Tap] = [self.dropout(dropout)] if dropout else []
            tap = chain_taps([*taps, keeper]) if taps or kept else no_tap
            columns = self.run(packs.pack_rows(part), attention_head_mask, tap, quiet)
            return {name: layout.rows(name, x) for name, x in columns.items()}, keeper.rows()

        # Dropout draws for the whole batch at once, in the order that it documents.
        slices = [slice(0, len(given.ids))]
        if not dropout:
            slices = packs.batch_slices(given, self.config.hidden_size)
        parts = map_in_threads(compute, slices, count_threads(threads))
        outputs, heard = map(packs.join_rows, zip(*parts, strict=True))
        if not len(given.ids):  # then no attention was heard of
            length = given.ids.shape[1]
            counts = [len(self.config.heads(i)) for i in range(self.config.num_blocks)]
            heard |= {
                name: np.zeros((0, n, length, length), self.dtype)
                for name, n in zip(weights, counts, strict=True)
            }
        return Output(
            **outputs,
            hidden_states=tuple(heard[n] for n in states) if output_hidden_states else None,
            attentions=tuple(heard[n] for n in weights) if output_attentions else None,
        )

    def token_types(self, encoding: Encoding) -> Sequence[int] | None:
        """Return the token types of a text's tokens, or None where the family has none."""
        return encoding.type_ids if self.config.type_vocab_size else None

    def dropout(self, rng: "np.random.Generator") -> Dropout:
        """Return a tap that draws dropout at the config's rates."""
        config = self.config
        return Dropout(
            rng,
            states=config.dropout_rate,
            attention=config.attention_dropout_rate,
            head=getattr(config, self.row.dropout),
            more=FAMILIES[config.family].dropouts,
        )

    @explain_arguments
    def packed(
        self,
        sequences: Iterable[Any],
        *,
        token_type_ids: Iterable[Any] | None = None,
        rows: Iterable[ArrayLike] | None = None,
        threads: int | None = None,
        batch_invariant: bool = False,
    ) -> Any:
        """Compute token lists of any lengths without padding, and only what the head reads.

        Parameters
        ----------
        sequences : list of (length,) array_like of int
            For multiple choice a list of groups of such lists, of equally many choices.
        token_type_ids : list of lists of int, optional
            The types of all tokens, grouped as the sequences are, for families that have them.
        rows : list of lists of int, optional
            Which positions of each sequence are wanted, where the head judges tokens.
        threads : int, optional
            How many packs are computed side by side; default: all cores.  Results are
            bit-identical for any number.
        batch_invariant : bool
            Compute every sequence alone, so that its last bits do not depend on the others.

        Returns
        -------
        (n, classes) array for sequence classification, (n, choices) for multiple choice; otherwise
        a list with an array for every sequence: (length, classes), (length, 2) of start and end
        logits for question answering, (length, D) for base.  Raises InputError.
        """
        given, choices = self.list_sequences("packed", sequences)
        nothing: list[Any] = [None] * len(given)
        types = (
            nothing
            if token_type_ids is None
            else (self.list_sequences("token_type_ids", token_type_ids)[0])
        )
        places = nothing if rows is None else inputs.list_of("rows", rows)
        for name, lists_of_it in (("token_type_ids", types), ("rows", places)):
            if len(lists_of_it) != len(given):
                raise InputError(f"{name} has {len(lists_of_it)} lists for {len(given)} sequences")
        # All are checked before any is computed.
        lists = list(self.check_lists(zip(given, places, types, strict=True)))
        results = list(self.compute(lists, threads=threads, batch_invariant=batch_invariant))
        if not self.row.reads_first:
            return [x.T for x in results]
        width = choices if self.row.has_choices else self.config.num_labels
        return np.array(results, self.dtype).reshape(-1, width)

    def list_sequences(self, name: str, value: Any) -> tuple[list[Any], int]:
        """Return lists, one for each sequence, and how many neighbours are choices."""
        given = inputs.list_of(name, value)
        if not self.row.has_choices:
            return given, 1
        grouped = [inputs.list_of("a group", group) for group in given]
        return [choice for group in grouped for choice in group], inputs.count_choices(grouped)

    @explain_arguments
    def stream(
        self,
        sequences: Iterable[Sequence[Any]],
        *,
        threads: int | None = None,
        batch_invariant: bool = False,
    ) -> Iterator[Array]:
        """Compute any number of token lists as packed does, in constant memory, and in order.

        Parameters
        ----------
        sequences : iterable of pairs or triples
            A token list, the positions that are wanted of it or None, and its token types, if any.
            Up to 64 are read before the first is computed, and computed before the next are read.
        threads, batch_invariant
            See packed.

        Yields
        ------
        For every list (classes,) where sequences are judged, otherwise (positions, features).
        Raises InputError for a list in its turn, when what comes before it has been yielded.
        """
        lists = self.check_lists(sequences)
        for group in self.stream_groups(lists, threads=threads, batch_invariant=batch_invariant):
            yield from group

    def check_lists(self, sequences: Iterable[Sequence[Any]]) -> Iterator[packs.Tokens]:
        """Yield token lists and what of them is read.  Raises InputError naming the list."""
        first = np.zeros(1, np.intp) if self.row.reads_first else None
        for i, (sequence, rows, *more) in enumerate(sequences):
            if first is not None and rows is not None:
                raise InputError(f"rows was given, but {self.architecture} reads first tokens only")
            ids = inputs.check_list(self.config, i, sequence)
            wanted = first if rows is None else inputs.check_rows(i, rows, len(ids))
            types = more[0] if more else None
            if types is not None:
                title = f"token types of sequence {i}"
                types = inputs.check_types(title, types, ids.shape, self.config)
            yield packs.Tokens(ids, wanted, types)

    def stream_groups(
        self, lists: Iterable[packs.Tokens | None], *, threads: int | None, batch_invariant: bool
    ) -> Iterator[Iterator[Array]]:
        """Yield what is computed of checked token lists, those together that are read together."""
        for together in packs.read_ahead(lists):
            results = self.compute(together, threads=threads, batch_invariant=batch_invariant)
            yield (x[:, 0] if self.row.reads_first else x.T for x in results)

    def compute(
        self, lists: Sequence[packs.Tokens], *, threads: int | None, batch_invariant: bool
    ) -> Iterator[Array]:
        """Yield the outputs of every list's tokens, as columns: all of them, one below the other.

        What the pooler makes of a sequence is no part of it: first tokens may not be wanted.
        """

        def columns_of(pack: Pack) -> list[Array]:
            outcome = self.run(pack)
            axes = {name: self.row.axes(name) for name in outcome}
            some = [x for n, x in outcome.items() if self.row.reads_first or axes[n] != SEQUENCES]
            return packs.split_sequences(np.concatenate(some), pack)

        return packs.compute_lists(
            columns_of, lists, width=self.config.hidden_size, threads=count_threads(threads),
            batch_invariant=batch_invariant,
        )  # fmt: skip

    def run(
        self, pack: Pack, attention_head_mask: ArrayLike | None = None, tap: Tap = no_tap,
        untapped_prefixes: Collection[str] = (),
    ) -> Outcome:  # fmt: skip
        """Run a pack; columns out.  Raises CheckpointError.

        That is for results that are not finite, and where mapped weights were overwritten.
        """
        masks = inputs.head_masks(self.config, attention_head_mask, self.dtype)
        outcome = self.run_unchecked(pack, masks, tap, untapped_prefixes)
        self.mapped.require_unchanged()  # behind the last read of them, before anybody sees it
        if not all(np.isfinite(x).all() for x in outcome.values()):
            self.run_unchecked(
                pack, masks, lambda name, x: raise_at_not_finite(own_module(self.family, name), x)
            )  # where it began
            raise CheckpointError("the result is not finite, because of what a tap returned")
        return outcome

    def run_unchecked(
        self, pack: Pack, masks: Sequence[Array], tap: Tap, untapped_prefixes: Collection[str] = ()
    ) -> Outcome:
        """Run a pack, whatever comes of it; masks are (H, 1, 1) for each block."""
        run = self.make_run(tap, untapped_prefixes, len(pack.ids))
        head = self.head
        spans = pack.spans if pack.wanted is None else pack.wanted_spans
        if self.row.is_encoder and pack.wanted is not None:
            head = {}  # the pooler reads first tokens, and they may not be wanted
        with np.errstate(over="ignore", invalid="ignore"):
            x = encode(self.encoder, pack, masks[: len(self.encoder.blocks)], run)
            first = np.array([s.start for s in spans if head], np.intp)
            return HEADS[self.row.head](head, x, first, run)

    def make_run(
        self, tap: Tap, untapped_prefixes: Collection[str] = (), tokens: int | None = None
    ) -> Run:
        """Return how this model's passes over so many tokens are run, and who listens."""
        return Run(
            ops=self.operations.choose(self.engine, tokens),
            activation=ACTIVATIONS[self.config.activation],
            pooler=ACTIVATIONS[FAMILIES[self.family].pooler],
            tap=tap,
            untapped_prefixes=untapped_prefixes,
        )

    def encoder_only(self, blocks: int | None = None) -> "Model":
        """Return the base model within, with the same weights in memory, or its first blocks.

        The hidden state it computes is hidden state number `blocks` of the whole.
        """
        model = copy.copy(self)
        model.architecture, model.head, model.rebuild = ENCODER_ARCHITECTURE, {}, None
        model.encoder = self.encoder._replace(blocks=self.encoder.blocks[:blocks])
        return model

    @explain_arguments
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, model.safetensors and the tokenizer, as transformers reads them.

        Weights are written in the dtype of the model, tied ones once.  All files are replaced or
        none; a model may be saved where it was loaded from (but on Windows, where a mapped file
        cannot be replaced).  Raises CheckpointError for what cannot be written.
        """
        into = make_folder(Path(folder))
        with replace_files(into) as draft:
            if self.tokenizer is not None:
                self.tokenizer.write_drafts(draft, into)
            save_checkpoint(draft, into, self.config, self.architecture, self.parameters)
