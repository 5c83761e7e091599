"""The pass run again with something left out: a head, or a word; and cut short, after a block.

Variants of one text stand side by side in a pack, and share what they have in common: a head
changes nothing before its block, so that its variant begins with the hidden state found there.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, cast

import numpy as np

from npbert import heads
from npbert.encoder import Ids, Operations, Pack
from npbert.engine import inputs, packs
from npbert.engine.choice import OperationsBySize
from npbert.engine.threads import count_threads, map_in_threads
from npbert.errors import CheckpointError
from npbert.explaining.passes import NamedNumbers, Pass, Question, head_rows
from npbert.families import own_module
from npbert.model import Model
from npbert.textbook import Array, Attention, Tap, no_tap

WORDS_LEFT_OUT: Final = 64  # words, each by itself ...
TOKENS_LEFT_OUT: Final = 4096  # ... or as many as make texts of so many tokens together, at least 8


class Effect(NamedTuple):
    """The answer of a run without something."""

    without: str  # what that is, as the page says it
    answer: NamedNumbers
    change: float  # of the number by which runs are compared
    block: int = -1
    head: int = -1  # its original number


class Word(NamedTuple):
    """A word of a text: where it stands, and its tokens in every sequence that is read."""

    text: str
    source: int  # 0 the text, 1 its pair
    start: int
    end: int
    places: Sequence[Ids]
    which: str = ""  # of several that are written alike, " (2 of 3)"


class Variants(NamedTuple):
    """What is asked of every variant of a pass."""

    run: Pass
    question: Question
    lists: Sequence[packs.Tokens]  # of one variant
    before: float  # the number by which runs are compared, of the original

    def measure_effect(self, without: str, rows: Array, block: int = -1, head: int = -1) -> Effect:
        """Return the effect of leaving something out, of what the head made of the rest.

        Raises CheckpointError for what is not finite.
        """
        if not np.isfinite(rows).all():
            raise CheckpointError(f"{without}: the result is not finite")
        answer = self.question.read(rows)
        return Effect(without, answer, self.question.measure(answer) - self.before, block, head)

    @property
    def variants_at_once(self) -> int:
        """How many variants a pack holds."""
        return max(1, packs.PACK_TOKENS // max(1, sum(len(each.ids) for each in self.lists)))


def prepare_variants(run: Pass, question: Question) -> Variants:
    """Return what is asked of every variant."""
    model = run.model
    lists = model.check_lists([(each.ids, None, model.token_types(each)) for each in run.encodings])
    if question.wanted is not None:
        lists = (each._replace(wanted=np.array(question.wanted)) for each in lists)
    return Variants(run, question, [*lists], question.measure(question.read(head_rows(run))))


def split_variants(outcome: dict[str, Array], count: int) -> Iterator[Array]:
    """Yield for each variant what the head made of it, as rows."""
    columns = np.concatenate([x for name, x in outcome.items() if name != "pooled_state"])
    return (part.T for part in np.split(columns, count, axis=-1))


def head_effects(run: Pass, question: Question) -> list[Effect]:
    """Return the answer without each head, one at a time, computed by the model's engine."""
    asked, config = prepare_variants(run, question), run.model.config
    begun = keep_beginnings(run.model, asked.lists)
    size, jobs = asked.variants_at_once, []
    for block in range(config.num_blocks):
        rows = range(len(config.heads(block)))
        jobs += [(block, rows[i : i + size]) for i in range(0, len(rows), size)]

    def answer_without(job: tuple[int, range]) -> list[Effect]:
        block, rows = job
        found = run_without_heads(asked, begun[block], block, rows)
        numbers = [config.heads(block)[i] for i in rows]
        return [
            asked.measure_effect(f"without head {head} of block {block}", x, block, head)
            for head, x in zip(numbers, found, strict=True)
        ]

    found = map_in_threads(answer_without, jobs, count_threads(None))
    made = list(chain.from_iterable(found))
    run.model.mapped.require_unchanged()
    return made


class Beginning(NamedTuple):
    """What the pass had come to in a block, when its heads had listened."""

    state: Array  # (D, T), before the block
    context: Array  # (A, T), of all its heads


class KnownAttention:
    """Operations of a pass in whose first block the heads have listened already."""

    def __init__(self, ops: Operations, first: Attention, context: Array) -> None:
        self.ops, self.first, self.context = ops, first, context

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.ops, verb)

    def self_attention(self, w: Attention, *given: Any, **keywords: Any) -> Array:
        """Return what the output layer makes of the context that is known, or of a new one."""
        if w is self.first:
            return self.ops.linear(w.out_lin, self.context)
        return self.ops.self_attention(w, *given, **keywords)


class KnownOperations(OperationsBySize):
    """The operations of a model, the first attention of a pass being known."""

    def __init__(self, known: OperationsBySize, first: Attention, context: Array) -> None:
        self.known, self.first, self.context = known, first, context

    def choose(self, engine: str, tokens: int | None) -> Operations:
        """See OperationsBySize.choose."""
        ops = self.known.choose(engine, tokens)
        return cast(Operations, KnownAttention(ops, self.first, self.context))


def keep_beginnings(model: Model, lists: Sequence[packs.Tokens]) -> list[Beginning]:
    """Return what the pass had come to in each block."""
    states: list[Array] = []
    contexts: list[Array] = []

    def tap(name: str, x: Array) -> Array:
        if name.endswith(("embeddings.dropout", "output_layer_norm")):
            states.append(x.copy())
        elif name.endswith("attention.context"):
            contexts.append(x.copy())
        return x

    whole = packs.pack_lists([each._replace(wanted=None) for each in lists])
    run_blocks(model.encoder_only(), whole, 0, tap, ["ffn"])
    return [*map(Beginning, states, contexts)]  # no block begins with the last state


def run_blocks(
    model: Model, pack: Pack, first: int, tap: Tap, quiet: Sequence[str] = (),
    context: Array | None = None,
) -> dict[str, Array]:  # fmt: skip
    """Run a pack through the blocks from a number on, and through the head.

    quiet : parts to which the tap does not listen;  context : of that block, where it is known
    """
    rest = copy.copy(model)
    rest.encoder = model.encoder._replace(blocks=model.encoder.blocks[first:])
    if context is not None:
        known = rest.encoder.blocks[0].attention
        rest.operations = KnownOperations(model.operations, known, context)
    masks = inputs.head_masks(model.config, None, model.dtype)
    return rest.run_unchecked(pack, masks[first:], tap, quiet)


def run_without_heads(
    asked: Variants, begun: Beginning, block: int, rows: range
) -> Iterator[Array]:
    """Yield what the head makes of a text without each of some heads of a block."""
    model, count = asked.run.model, len(rows)
    pack = packs.pack_lists([*asked.lists] * count)
    context = begun.context
    last = block == model.config.num_blocks - 1
    if last and pack.wanted is not None:  # the others do not listen any more
        context = context[:, pack.wanted[: len(pack.wanted) // count]]
    variants = np.tile(context, count).reshape(
        len(model.config.heads(block)), -1, count, context.shape[-1]
    )
    for variant, row in enumerate(rows):
        variants[row, :, variant] = 0

    def tap(name: str, x: Array) -> Array:
        # What was embedded has gone through earlier blocks.
        return np.tile(begun.state, count) if name == "embeddings.dropout" else x

    quiet = [f"transformer.layer.{i}" for i in range(model.config.num_blocks)]
    silenced = variants.reshape(len(context), -1)
    return split_variants(run_blocks(model, pack, block, tap, quiet, silenced), count)


def list_words(run: Pass) -> list[Word]:
    """Return the words that can be left out: not those that are masked already."""
    mask, encoding = run.tokenizer.id_of("mask_token"), run.encoding
    found: dict[tuple[int, int], None] = {}
    for source, word, token in zip(
        encoding.sequence_ids, encoding.word_ids, encoding.ids, strict=True
    ):
        if source is not None and word is not None and token != mask:
            found[source, word] = None
    made = []
    for source, word in found:
        places = [
            np.array(
                [
                    i
                    for i, own in enumerate(zip(each.sequence_ids, each.word_ids, strict=True))
                    if own == (source, word) and (source == 0 or each is encoding)
                ],
                np.intp,
            )
            for each in run.encodings
        ]
        of = [encoding.offsets[i] for i in places[run.row]]
        start, end = min(a for a, _ in of), max(b for _, b in of)
        made.append(Word((run.text, run.pair or "")[source][start:end], source, start, end, places))
    return number_words(made)


def number_words(words: Sequence[Word]) -> list[Word]:
    """Return words in their order, those that are written alike told apart."""
    many, before, made = Counter(each.text for each in words), Counter[str](), []
    for each in words:
        before[each.text] += 1
        which = f" ({before[each.text]} of {many[each.text]})" * (many[each.text] > 1)
        made.append(each._replace(which=which))
    return made


def choose_words(run: Pass) -> tuple[list[Word], int]:
    """Return the words to leave out, by attention the most listened to, and how many there are."""
    words = list_words(run)
    length = sum(map(len, run.encodings))
    most = min(WORDS_LEFT_OUT, max(8, TOKENS_LEFT_OUT // length))
    if len(words) <= most:
        return words, len(words)
    names = [f"transformer.layer.{i}.attention.weights" for i in range(run.model.config.num_blocks)]
    heard = sum(run.rows(name).mean(0).sum(0) for name in names)  # (length,), how much each is
    order = np.argsort([-heard[each.places[run.row]].sum() for each in words], kind="stable")
    return [words[i] for i in sorted(order[:most])], len(words)


def word_effects(run: Pass, question: Question, words: Sequence[Word]) -> dict[str, list[Effect]]:
    """Return the answer without each word, by how it is left out: as the mask, and hidden.

    Hidden is a word to which no token listens.  Computed by the model's engine.
    """
    asked, mask = prepare_variants(run, question), run.tokenizer.id_of("mask_token")
    ways: dict[str, Callable[[Pack, Ids], None]] = {}
    if mask is not None:
        ways[run.tokenizer.token_text("mask_token")] = lambda pack, at: pack.ids.put(at, mask)
    ways["hidden"] = mask_columns
    size = asked.variants_at_once
    jobs = [(way, words[i : i + size]) for way in ways for i in range(0, len(words), size)]

    def answer_without(job: tuple[str, Sequence[Word]]) -> list[Effect]:
        way, some = job
        pack = packs.pack_lists([*asked.lists] * len(some))
        pack = pack._replace(key_masks=[np.ones((s.stop - s.start, 1), bool) for s in pack.spans])
        starts = iter(pack.spans)
        for word in some:
            for places in word.places:
                ways[way](pack, places + next(starts).start)
        outcome = run_blocks(run.model, pack, 0, no_tap)
        how = "hidden" if way == "hidden" else f"as {way}"
        return [
            asked.measure_effect(f"with “{word.text}”{word.which} {how}", x)
            for word, x in zip(some, split_variants(outcome, len(some)), strict=True)
        ]

    found = list(map_in_threads(answer_without, jobs, count_threads(None)))
    run.model.mapped.require_unchanged()
    return {
        way: [each for job, made in zip(jobs, found, strict=True) if job[0] == way for each in made]
        for way in ways
    }


def mask_columns(pack: Pack, at: Ids) -> None:
    """Let nobody listen to some columns of a pack."""
    for span, key_mask in zip(pack.spans, pack.key_masks, strict=True):
        key_mask[at[(at >= span.start) & (at < span.stop)] - span.start] = False


def block_answers(run: Pass, question: Question) -> list[NamedNumbers]:
    """Return what the head would answer after the embeddings, and after each block.

    A head was trained on the last block's result alone.  Source: nostalgebraist 2020, "interpreting
    GPT: the logit lens".
    """
    model = run.model
    names = ["embeddings.LayerNorm"] + [
        f"transformer.layer.{i}.output_layer_norm" for i in range(model.config.num_blocks)
    ]
    made = []
    for name in names:
        x = run.trace[own_module(model.family, name)]  # (sequences, length, D)
        first = np.arange(len(x)) * x.shape[1]
        columns = np.concatenate(list(x)).T.copy()
        with np.errstate(over="ignore", invalid="ignore"):
            outcome = heads.HEADS[model.row.head](
                {} if model.row.is_encoder else model.head, columns, first, model.make_run(no_tap)
            )
        (rows,) = split_variants(outcome, 1)
        made.append(question.read(rows))
    return made
