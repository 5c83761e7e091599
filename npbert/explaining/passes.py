"""One forward pass to be shown, what it answers, and what it would answer without each head."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert import heads
from npbert.engine import packs
from npbert.engine.threads import count_threads, map_in_threads
from npbert.errors import InputError, shown
from npbert.families import ARCHITECTURES
from npbert.heads import HEADS, question_answering
from npbert.model import Model
from npbert.oracle.traces import Trace, trace
from npbert.tasks.options import QuestionAnsweringOptions
from npbert.tasks.question_answering import edges, ranked
from npbert.tasks.sentence_transformers import normalize
from npbert.tasks.task import best, scored, softmax
from npbert.tasks.text_classification import usual_function
from npbert.tasks.token_classification import entities, judged, tags
from npbert.text.tokenizer import Encoding, Tokenizer
from npbert.textbook import Array


@dataclass(frozen=True)
class Pass:
    """A call of a model with one text, or of multiple choice with all choices, and its trace."""

    model: Model
    tokenizer: Tokenizer
    text: str
    pairs: Sequence[str | None]  # one; of multiple choice, one for every choice
    encodings: Sequence[Encoding]  # of the text with each of its pairs
    trace: Trace  # by the textbook, in the precision of the model
    row: int  # which of the encodings is shown; of multiple choice, the choice that wins

    @property
    def encoding(self) -> Encoding:
        """The sequence that is shown."""
        return self.encodings[self.row]

    @property
    def pair(self) -> str | None:
        """The second text of the sequence that is shown."""
        return self.pairs[self.row]

    @property
    def tokens(self) -> list[str]:
        """Its tokens, padding too."""
        width, pad = max(map(len, self.encodings)), self.tokenizer.text_of("pad_token")
        return [*self.encoding.tokens, *[pad] * (width - len(self.encoding))]

    @property
    def keep(self) -> NDArray[np.bool]:
        """Which of its tokens are heard, (length,)."""
        mask = self.trace["attention_mask"].reshape(len(self.encodings), -1)
        return mask[self.row] != 0

    def rows(self, name: str) -> Array:
        """Return its values of an activation: (length, features), or (heads, query, key).

        Where the head judges a sequence as a whole, (1, features).
        """
        x: Array = self.trace[name][self.row]
        return x.reshape(1, -1) if x.ndim == 1 else x

    def heads(self, name: str, block: int) -> Array:
        """Return its values of q_lin, k_lin, v_lin or context by heads, (heads, length, K)."""
        x = self.rows(name)
        return x.reshape(len(x), len(self.model.config.heads(block)), -1).transpose(1, 0, 2)


def computed(model: Model, text: str, pair: str | Sequence[str] | None) -> Pass:
    """Read a text, and the pair that goes with it, and keep every number of the textbook's pass.

    pair : of multiple choice a list of choices, of question answering the text that answers

    Raises InputError where the model cannot read these.
    """
    if model.tokenizer is None:
        raise InputError(
            "explain reads text, but the model came without a tokenizer: its folder has neither "
            "tokenizer.json nor vocab.txt"
        )
    pairs = pairs_of(model, pair)
    encodings = [model.tokenizer.encode(text, each) for each in pairs]
    width, pad = max(map(len, encodings)), model.tokenizer.id_of("pad_token") or 0
    ids = np.array([[*e.ids, *[pad] * (width - len(e))] for e in encodings])
    mask = np.array([[True] * len(e) + [False] * (width - len(e)) for e in encodings])
    exact = copy.copy(model)  # its numbers are those of the source that the page shows
    exact.engine = "textbook"
    batch: tuple[Any, Any] = (ids, mask)
    if model.row.has_choices:
        batch = (ids[None], mask[None])
    made = trace(exact, *batch)
    row = int(made["logits"].argmax()) if model.row.has_choices else 0
    return Pass(model, model.tokenizer, text, pairs, encodings, made, row)


def pairs_of(model: Model, pair: str | Sequence[str] | None) -> list[str | None]:
    """Return what goes with a text, once for each sequence that is read.  Raises InputError."""
    if pair is not None and not isinstance(pair, str | list | tuple):
        raise InputError(f"pair is {shown(pair)}, expected a str, or a list of them")
    given: list[str | None] = [pair] if pair is None or isinstance(pair, str) else [*pair]
    if pair is not None and not all(isinstance(each, str) for each in given):
        raise InputError(f"pair is {shown(pair)}, expected a str, or a list of them")
    if model.row.has_choices and (pair is None or not given):
        raise InputError(
            f"{model.architecture} weighs choices: pass them as pair=[...], or --pair once for each"
        )
    if HEADS[model.row.head] is question_answering and pair is None:
        raise InputError(
            f"{model.architecture} reads a question and the text that answers it: pass that text "
            "as pair=, or --pair"
        )
    if not model.row.has_choices and len(given) != 1:
        several = " or ".join(name for name, row in ARCHITECTURES.items() if row.has_choices)
        raise InputError(
            f"pair has {len(given)} texts, expected one: only {several} reads several, "
            f"and this model is {model.architecture}"
        )
    return given


MOST: Final = 8  # names of an answer that are shown
ANSWERS: Final = 5  # spans of a text
TOKENS: Final = 24  # whose labels or vectors are followed
LONGEST: Final = QuestionAnsweringOptions().max_answer_length


class Answer(NamedTuple):
    """Numbers for the names of a question, and the answer in words, if there are any."""

    values: Sequence[float]
    best: str = ""


class Question(NamedTuple):
    """What is read off the head's result, in the original run and in any other."""

    about: str  # what the numbers are
    names: Sequence[str]
    read: Callable[[Array], Answer]  # of the result's rows, (rows read, classes)
    mean: bool = False  # all numbers count alike; otherwise the first is the answer's own
    wanted: Sequence[int] | None = None  # which tokens the head needs to read
    compares: bool = False  # the numbers are of two runs, and say nothing of the original one

    def measure(self, answer: Answer) -> float:
        """Return the number by which runs are compared."""
        return float(np.mean(answer.values) if self.mean else answer.values[0])


class Effect(NamedTuple):
    """The answer of a run without one head."""

    block: int
    head: int  # its original number
    answer: Answer
    change: float  # of the number by which runs are compared


def result(run: Pass) -> Array:
    """Return what the head made, as a row for every token or sequence that it judges."""
    row, given = run.model.row, run.trace
    if "start_logits" in row.outputs:
        return np.stack([given["start_logits"][run.row], given["end_logits"][run.row]], -1)
    if row.has_choices:
        return given["logits"].reshape(-1, 1)
    if row.is_encoder:
        return run.rows(f"transformer.layer.{run.model.config.num_blocks - 1}.output_layer_norm")
    return run.rows("logits")


def question(run: Pass) -> Question:
    """Return what a pass is asked, as its architecture implies."""
    head = heads.HEADS[run.model.row.head]
    return choices(run) if run.model.row.has_choices else QUESTIONS[head](run)


def classes(run: Pass) -> Question:
    """Which class has the text?"""
    config = run.model.config
    function = usual_function(config)

    def scores(x: Array) -> Array:
        return scored(function, x)[0]

    order = best(scores(result(run)), MOST)

    def read(x: Array) -> Answer:
        own = scores(x)
        return Answer([float(own[i]) for i in order], config.label(int(own.argmax())))

    about = {"softmax": "the chance of each class", "none": "the value of each class"}
    return Question(
        about.get(function, "the chance of each class by itself"),
        [config.label(i) for i in order],
        read,
    )


def choices(run: Pass) -> Question:
    """Which choice goes with the text?"""
    order = best(result(run)[:, 0], MOST)

    def read(x: Array) -> Answer:
        chances = softmax(x[:, 0])
        return Answer([float(chances[i]) for i in order], str(run.pairs[int(chances.argmax())]))

    return Question("the chance of each choice", [str(run.pairs[i]) for i in order], read)


def words(run: Pass) -> Question:
    """Which word stands where the first mask is?  Without one: how likely are the words there?"""
    mask, ids = run.tokenizer.id_of("mask_token"), run.encoding.ids
    if mask not in ids:
        some = texts(run)[:TOKENS]
        own = [ids[i] for i in some]

        def chances(x: Array) -> Answer:
            found = softmax(x)[np.arange(len(own)), own]
            return Answer([float(each) for each in found])

        about = "the chance that the model gives to each word which stands there"
        names = [run.tokens[i] for i in some]
        # In the original run the head has read every token, in others only these.
        return Question(
            about, names, lambda x: chances(x[some] if len(x) != len(some) else x), True, some
        )
    place = ids.index(mask)
    known = run.tokenizer.known[run.tokenizer.known < result(run).shape[-1]]
    order = known[best(result(run)[place, known], MOST)]

    def word(i: int) -> str:
        return run.tokenizer.decode([i], skip_special=False)

    def read(x: Array) -> Answer:
        scores = x[place if len(x) == len(ids) else 0]
        return Answer(
            [float(each) for each in softmax(scores)[order]],
            word(int(known[scores[known].argmax()])),
        )

    about = f"the chance of each word in the place of {run.tokens[place]}"
    wanted = [place] if len(ids) > 1 else None
    return Question(about, [word(int(i)) for i in order], read, wanted=wanted)


def labels(run: Pass) -> Question:
    """Which class has each token?"""
    config, real = run.model.config, texts(run)
    named = [config.label(i) for i in range(config.num_labels)]
    found = result(run).argmax(-1)
    some = ([i for i in real if named[found[i]] != "O"] or real)[:TOKENS]

    def read(x: Array) -> Answer:
        scores = softmax(x)
        told = [
            f"{run.text[parts[0].start : parts[-1].end]} ({kind})"
            for kind, parts in named_parts(run, scores, named)
        ]
        return Answer([float(scores[i, found[i]]) for i in some], ", ".join(told) or "no names")

    names = [f"{run.tokens[i]} → {named[found[i]]}" for i in some]
    return Question("the chance of the label that each token was given", names, read, mean=True)


def named_parts(run: Pass, scores: Array, named: Sequence[str]) -> Iterator[Any]:
    """Yield what the text names, as the task tells it."""
    real = texts(run)
    if not real:
        return
    inner = slice(real[0], real[-1] + 1)
    found = entities(judged(run.encoding[inner], scores[inner], "first"), tags(list(named)))
    yield from ((kind, parts) for kind, parts in found if kind != "O")


def spans(run: Pass) -> Question:
    """Which words of the second text answer the first?"""
    text = run.pair or ""
    inner = [i for i, source in enumerate(run.encoding.sequence_ids) if source == 1]
    cls = run.tokenizer.id_of("cls_token")
    null = [run.encoding.ids.index(cls)] if cls in run.encoding.ids else []
    places = edges(run.encoding[inner[0] : inner[-1] + 1], words=True) if inner else None

    def scores(x: Array) -> dict[tuple[int, int], float]:
        start, end = softmax(x[null + inner].T)
        skipped = len(null)
        if places is None:
            return {(0, 0): float(start[0] * end[0])}
        longest = min(LONGEST, len(inner))
        return dict(ranked(start[skipped:], end[skipped:], places, len(inner) * longest, longest))

    names = list(scores(result(run)))[:ANSWERS]

    def read(x: Array) -> Answer:
        found = scores(x)
        a, b = next(iter(found))
        return Answer([found[each] for each in names], text[a:b])

    about = "the chance that the answer starts and ends there"
    return Question(about, [text[a:b] for a, b in names], read)


def vectors(run: Pass) -> Question:
    """What does the text mean?  A vector for every token."""
    before = normalize(result(run).astype(np.float64))
    some = texts(run)[:TOKENS] or [0]

    def read(x: Array) -> Answer:
        cosines = (normalize(x.astype(np.float64)) * before).sum(-1)[some]
        return Answer([float(each) for each in cosines])

    about = "how alike each token's vector stays: the cosine of the two"
    return Question(about, [run.tokens[i] for i in some], read, mean=True, compares=True)


def texts(run: Pass) -> list[int]:
    """Return where the tokens stand that come from the texts, without [CLS] and its like."""
    found = [i for i, source in enumerate(run.encoding.sequence_ids) if source is not None]
    return found or list(range(len(run.encoding)))


def effects(run: Pass, asked: Question) -> list[Effect]:
    """Return the answer without each head, one at a time, computed by the model's engine."""
    model, config = run.model, run.model.config
    lists = list(model.check_lists([(each.ids, None) for each in run.encodings]))
    if asked.wanted is not None:
        lists = [each._replace(wanted=np.array(asked.wanted)) for each in lists]
    pack, before = packs.pack_lists(lists), asked.measure(asked.read(result(run)))
    heads = [(b, h) for b in range(config.num_blocks) for h in config.heads(b)]

    def without(place: tuple[int, int]) -> Effect:
        mask = np.ones((config.num_blocks, config.num_attention_heads))
        mask[place] = 0
        columns = [x for name, x in model.run(pack, mask).items() if name != "pooled_state"]
        answer = asked.read(np.concatenate(columns).T)
        return Effect(*place, answer, asked.measure(answer) - before)

    return list(map_in_threads(without, heads, count_threads(None)))


QUESTIONS: Final[Mapping[heads.Head, Callable[[Pass], Question]]] = {
    heads.base: vectors,
    heads.masked_lm: words,
    heads.per_sequence: classes,
    heads.per_token: labels,
    heads.question_answering: spans,
}
