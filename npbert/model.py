"""A model: its configuration, weights and tokenizer, and the two ways in, dense and packed."""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike
from safetensors.numpy import save_file

from npbert import inputs, packing
from npbert.checkpoint import LoadReport
from npbert.config import ARCHITECTURES, Config
from npbert.encoder import Ids, Pack, Run, encode
from npbert.engines import ENGINES, engine_of
from npbert.errors import CheckpointError, InputError, NpbertWarning, shown
from npbert.files import replacing, write_json
from npbert.heads import HEADS
from npbert.packing import Outcome
from npbert.taps import PER_SEQUENCE, Border, Dropout, Keeper, chain, watch
from npbert.textbook import Array, Tap, untapped
from npbert.tokenizer import Tokenizer
from npbert.vocabulary import SETTINGS
from npbert.weights import PROJECTOR, WORDS, Parameters, assemble

STATES: Final = ("embeddings.dropout", ".output_layer_norm")


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


class Model:
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
    ) -> None:
        self.config = config
        self.architecture = architecture
        self.parameters = parameters
        self.tokenizer = tokenizer
        self.load_report = load_report
        self.dtype = parameters[WORDS].dtype
        self.engine = engine_of(engine, self.dtype)
        self.encoder, self.head = assemble(parameters, config)
        if config.use_cross_attention:
            warnings.warn(
                "use_cross_attention is true; DistilBERT has no cross-attention, and ignores it",
                NpbertWarning,
                stacklevel=3,
            )

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
            columns = self.forward(part, attention_head_mask, chain(taps) if taps else untapped)
            return {n: border.rows(n, x) for n, x in columns.items()} | kept.rows()

        # Dropout draws for the whole batch at once, in the order that it documents.
        packs = [slice(0, len(given.ids))] if dropout else packing.row_groups(given)
        parts = list(packing.side_by_side(compute, packs, inputs.threads(threads)))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
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
        self, given: inputs.Inputs, attention_head_mask: ArrayLike | None, tap: Tap
    ) -> Outcome:
        """Run checked inputs, every position of them; columns out, every step offered to a tap."""
        batch, length = given.ids.shape
        pack = Pack(
            ids=given.ids.ravel(),
            position_ids=given.positions.ravel(),
            spans=packing.spans([length] * batch),
            keep=list(given.keep[..., None]),
        )
        return self.run(pack, attention_head_mask, tap)

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
        ids = inputs.token_lists(self.config, given)
        reads: list[Ids] | None = None
        if self.architecture in PER_SEQUENCE:
            if rows is not None:
                raise InputError(f"rows was given, but {self.architecture} reads first tokens only")
            reads = [np.zeros(1, np.intp)] * len(ids)
        elif rows is not None:
            reads = list(inputs.wanted_rows(inputs.many("rows", rows), ids))

        results: list[Array] = []
        for outcome, spans in packing.run(
            self.run, ids, reads, threads=inputs.threads(threads), batch_invariant=batch_invariant
        ):
            # The outputs of a token: its logits, start and end logits, or hidden state.
            tokens = np.concatenate([x for name, x in outcome.items() if name != "pooled_state"]).T
            results += [tokens[s] for s in spans]
        if self.architecture not in PER_SEQUENCE:
            return results
        classes = len(self.head["classifier"].weight) * choices
        return np.array(results, self.dtype).reshape(-1, classes)

    def run(
        self, pack: Pack, attention_head_mask: ArrayLike | None = None, tap: Tap = untapped
    ) -> Outcome:
        """Run a pack; columns out.  Raises CheckpointError for results that are not finite."""
        masks = inputs.head_masks(self.config, attention_head_mask, self.dtype)
        outcome = self.through(pack, masks, tap)
        if not all(np.isfinite(x).all() for x in outcome.values()):
            self.through(pack, masks, watch)  # raises where it began
            raise CheckpointError("the result is not finite, because of what a tap returned")
        return outcome

    def through(self, pack: Pack, masks: Sequence[Array], tap: Tap) -> Outcome:
        """Run a pack, whatever comes of it."""
        run = Run(ENGINES[self.engine], self.config.activation, tap)
        head = self.head
        spans = pack.spans if pack.wanted is None else pack.wanted_spans
        if self.architecture == "base" and pack.wanted is not None:
            head = {}  # the pooler reads first tokens, and they may not be wanted
        with np.errstate(over="ignore", invalid="ignore"):
            x = encode(self.encoder, pack, masks, run)
            first = np.array([s.start for s in spans if head], np.intp)
            return HEADS[self.architecture](head, x, first, run)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, model.safetensors and the tokenizer, as transformers reads them.

        Weights are written in the dtype of the model, tied ones once.  A file is replaced whole
        or not at all; a model may be saved where it was loaded from (but on Windows, where a
        mapped file cannot be replaced).  Raises CheckpointError for what cannot be written.
        """
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{target}: cannot be written: {error.strerror}") from None
        prefix = "" if self.architecture == "base" else "distilbert."
        tensors = {
            (prefix if name.startswith(("embeddings.", "transformer.")) else "") + name: array
            for name, array in self.parameters.items()
            if not (name == PROJECTOR and self.config.tie_word_embeddings)
        }
        fields = {
            **self.config.to_dict(),
            "architectures": [ARCHITECTURES[self.architecture]],
            "torch_dtype": self.dtype.name,
        }
        if "dtype" in fields:  # transformers 5 reads this one first
            fields["dtype"] = self.dtype.name
        if self.architecture == "for_question_answering" and self.config.num_labels != 2:
            fields = {n: v for n, v in fields.items() if n not in ("id2label", "label2id")}
        with replacing(target / "model.safetensors") as path:
            save_file(tensors, path, metadata={"format": "pt"})
        write_json(target / "config.json", fields)
        if self.tokenizer is not None:
            with replacing(target / "tokenizer.json") as path:
                self.tokenizer.save(path)
            write_json(target / SETTINGS, self.tokenizer.settings_in_effect())


def wanted(*, hidden: bool, attentions: bool) -> Callable[[str], bool]:
    """Return which activations a keeper keeps for the outputs that were asked for.

    The first hidden state is heard where dropout may thin it out; without dropout that is the
    embeddings after their norm.
    """
    states = STATES if hidden else ()
    endings = (*states, ".weights") if attentions else states
    return lambda name: name.endswith(endings)
