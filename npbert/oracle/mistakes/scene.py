"""What a fault is: a formula in place of a step's, and a tap that puts it there."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npbert.encoder import Block, Ids, embed, transformer_block
from npbert.engine.taps import Keeper
from npbert.heads import HEADS
from npbert.oracle.dumps import Arrays
from npbert.oracle.measures import Error, measure_error
from npbert.oracle.replay import Replay
from npbert.oracle.steps import place_step, step_suffix
from npbert.oracle.traces import NOT_STEPS, Call
from npbert.textbook import Affine, Array, Mask, Tap, linear

FIRST_STATE: Final = "embeddings.LayerNorm"
LAYER_INPUTS: Final = {  # of linear steps that do not read what came into the block
    "attention.out_lin": "attention.context",
    "ffn.lin1": "sa_layer_norm",
    "ffn.lin2": "ffn.activation",
}


@dataclass
class Scene:
    """What a formula sees: a step, and all that the candidate had when it came to it."""

    call: Call
    name: str  # of the step, in full
    x: Array  # what the textbook makes of the candidate's numbers, columns
    heard: Mapping[str, Array]  # what came before it, as the candidate has it
    sequence: int = 0  # in attention, which one this is
    sequences: Mapping[str, list[Array]] = field(default_factory=dict)  # attention of all of them

    @property
    def number(self) -> int:
        """Which block this is."""
        return int(self.name.split(".")[2])

    @property
    def block(self) -> Block:
        """Its weights."""
        return self.call.model.encoder.blocks[self.number]

    def value(self, step: str) -> Array:
        """Return an earlier value of the same block, or of the embeddings or the head."""
        if self.name.startswith("transformer."):
            return self.heard[f"transformer.layer.{self.number}.{step}"]
        return self.heard[step]

    @property
    def block_input(self) -> Array:
        """What came into the block."""
        return self.heard[hidden_state_name(self.number - 1)]

    @property
    def head_input(self) -> Array:
        """What came into the head."""
        return self.heard[hidden_state_name(self.call.model.config.num_blocks - 1)]

    @property
    def span(self) -> slice:
        """The columns of this sequence."""
        return self.call.pack.spans[self.sequence]

    @property
    def key_mask(self) -> Mask:
        """Which of its keys are heard, (L, 1)."""
        return self.call.pack.key_masks[self.sequence]

    @property
    def head_mask(self) -> Array:
        """The factors of the heads, (H, 1, 1)."""
        return self.call.masks[self.number]

    def head_values(self, step: str) -> Array:
        """Return q, k or v of this sequence, (H, K, L)."""
        x = self.value(f"attention.{step}")[:, self.span]
        return x.reshape(len(self.head_mask), -1, x.shape[-1])

    def first_columns(self, offset: int = 0) -> Ids:
        """Return the column of the first token of every sequence, or of one after it."""
        length = self.call.length
        return np.array([s.start + min(offset, length - 1) for s in self.call.pack.spans])


Formula = Callable[[Scene], Array]


EXACT: Final = 0.2  # of an error, in the mean: what a mistake may leave where it was made


@dataclass(frozen=True)
class Mistake:
    """A mistake that ports make, and what it does to the steps of a block, or of an end."""

    text: str
    steps: Mapping[str, Formula] = field(hash=False)
    harmless: str = ""  # why no later number shows it, if so
    leaves: float = EXACT  # more, where it can be made in ways of which none is the candidate's
    in_later_blocks: bool = False  # it may be made in all blocks but the first

    @property
    def is_inexact(self) -> bool:
        """Whether it can be made in many ways of which none is just the candidate's."""
        return self.leaves > EXACT


def hidden_state_name(block: int) -> str:
    """Return the name of the hidden state after a block; before all of them it is the norm's."""
    return FIRST_STATE if block < 0 else f"transformer.layer.{block}.output_layer_norm"


@dataclass
class Candidate:
    """A candidate, and what is known of it."""

    call: Call
    theirs: Arrays  # in our names and shapes
    order: list[str]  # of all activations
    noise: Mapping[str, Error]  # what rounding does to every step
    bound: Mapping[str, Error]  # beyond which a step is off
    known: dict[str, Array]  # hidden states as columns, the candidate's where it has them
    live: dict[str, NDArray[np.bool]]

    def errors(self, made: Arrays, names: Sequence[str]) -> dict[str, Error]:
        """Return how far the candidate is from what was made, for some activations."""
        return {
            n: measure_error(n, made[n], self.theirs[n], self.live[n]) for n in names if n in made
        }


def hidden_states(call: Call, theirs: Arrays, again: Arrays) -> dict[str, Array]:
    """Return every hidden state as columns: the candidate's, or what follows from its others."""
    names = [hidden_state_name(i) for i in range(-1, call.model.config.num_blocks)]
    rows = {n: theirs.get(n, again[n]) for n in names if n in again}
    finite = {n: np.where(np.isfinite(x), x, again[n]) for n, x in rows.items()}
    return {n: call.layout.columns(n, x).astype(call.model.dtype) for n, x in finite.items()}


class Injection(Replay):
    """A replay in which some stages make a mistake."""

    def __init__(
        self,
        call: Call,
        candidate: Arrays,
        known: Mapping[str, Array],
        mistakes: Mapping[int, list[Mistake]],
        kept: Collection[str],
    ) -> None:
        super().__init__(call, candidate, kept)
        self.before: dict[str, Array] = dict(known)
        self.mistakes = mistakes
        self.sequences: dict[str, list[Array]] = {}
        self.computed: dict[str, list[Array]] = {}  # what was put in place of the candidate's

    def __call__(self, name: str, x: Array) -> Array:
        """Put a mistake's value in the place of the textbook's, then go on as the candidate did."""
        if name.endswith(NOT_STEPS):
            return x
        sequence = 0
        if x.ndim == 3:
            sequence = len(self.sequences.setdefault(name, []))
        stage, suffix = place_step(name, self.call.model.config.num_blocks)
        for fault in self.mistakes.get(stage, ()):
            formula = fault.steps.get(suffix)
            if formula is not None:
                made = formula(Scene(self.call, name, x, self.before, sequence, self.sequences))
                x = np.asarray(made, x.dtype).reshape(x.shape)
        self.computed.setdefault(name, []).append(x)
        y = super().__call__(name, x)
        self.before[name] = y
        if x.ndim == 3:
            self.sequences[name].append(y)
        return y


def run_stages(call: Call, x: Array, stages: range, tap: Tap) -> None:
    """Run some stages of the forward pass from what comes into the first of them."""
    model = call.model
    run = model.make_run(tap)
    spans = call.pack.spans_of(call.pack.spans)
    with np.errstate(all="ignore"):
        for stage in stages:
            if stage == 0:
                x = embed(model.encoder, call.pack, run.with_prefix("embeddings"))
            elif stage <= model.config.num_blocks:
                block, mask = model.encoder.blocks[stage - 1], call.masks[stage - 1]
                under = run.with_prefix(f"transformer.layer.{stage - 1}")
                x = transformer_block(block, x, x, spans, mask, under)
            else:
                first = np.array([s.start for s in call.pack.spans], np.intp)
                HEADS[model.row.head](model.head, x, first, run)


def run_mistakes(
    call: Call, candidate: Arrays, known: Mapping[str, Array], stages: range,
    mistakes: Mapping[int, list[Mistake]], kept: Collection[str],
) -> Injection:  # fmt: skip
    """Return a pass through some stages, from the candidate's numbers, with mistakes.

    Of what is computed it keeps some steps as rows.
    """
    tap = Injection(call, candidate, known, mistakes, kept)
    start = known.get(hidden_state_name(stages.start - 2), np.zeros((0, 0)))
    run_stages(call, start, stages, tap)
    return tap


def apply_at_step(run: Injection, name: str, fault: Mistake) -> Array:
    """Return what a mistake makes of one step alone of a pass, as rows."""
    keeper = Keeper(run.call.layout, lambda _: True)
    formula = fault.steps[step_suffix(name)]
    with np.errstate(all="ignore"):
        for i, x in enumerate(run.computed[name]):
            heard = {**run.before, **{n: each[i] for n, each in run.sequences.items()}}
            made = formula(Scene(run.call, name, x, heard, i, run.sequences))
            keeper(name, np.asarray(made, x.dtype).reshape(x.shape))
    return keeper.rows()[name]


def block_layer(block: Block, step: str) -> Affine:
    """Return the weights of a linear step."""
    group, name = step.split(".")
    layer: Affine = getattr(getattr(block, group), name)
    return layer


def layer_and_input(scene: Scene) -> tuple[Affine, Array]:
    """Return a linear layer's weights, and what goes into it."""
    step = step_suffix(scene.name)
    return block_layer(scene.block, step), scene.value(
        LAYER_INPUTS[step]
    ) if step in LAYER_INPUTS else scene.block_input


def swap_block(j: int, scene: Scene) -> Array:
    """The same input through the same layer of another block."""
    other = scene.call.model.encoder.blocks[j]
    return linear(block_layer(other, step_suffix(scene.name)), layer_and_input(scene)[1])
