"""One forward pass to be shown, and what it answers."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert import heads
from npbert.errors import InputError, quote
from npbert.families import ARCHITECTURES, own_module
from npbert.heads import HEADS, find_spans
from npbert.model import Model
from npbert.oracle.traces import Trace, pad_encodings, trace
from npbert.tasks.modules import normalize
from npbert.tasks.options import QuestionAnsweringOptions
from npbert.tasks.question_answering import answer_edges, rank_spans
from npbert.tasks.task import best_indices, probabilities, scores_of
from npbert.tasks.text_classification import default_score_function
from npbert.tasks.token_classification import group_entities, parse_labels, word_labels
from npbert.text.encodings import Encoding
from npbert.text.tokenizer import Tokenizer
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
        width, pad = max(map(len, self.encodings)), self.tokenizer.token_text("pad_token")
        return [*self.encoding.tokens, *[pad] * (width - len(self.encoding))]

    @property
    def key_mask(self) -> NDArray[np.bool]:
        """Which of its tokens are heard, (length,)."""
        mask = self.trace["attention_mask"].reshape(len(self.encodings), -1)
        return mask[self.row] != 0

    def rows(self, name: str) -> Array:
        """Return its values of an activation: (length, features), or (heads, query, key).

        Where the head judges a sequence as a whole, (1, features).  Names are canonical here, and
        the trace's are those of the model's family.
        """
        x: Array = self.trace[own_module(self.model.family, name)][self.row]
        return x.reshape(1, -1) if x.ndim == 1 else x

    @property
    def types(self) -> list[int] | None:
        """The type of each of its tokens, if the model has types."""
        types = self.model.token_types(self.encoding)
        return None if types is None else list(types)

    def split_heads(self, name: str, block: int) -> Array:
        """Return its values of q_lin, k_lin, v_lin or context by heads, (heads, length, K)."""
        x = self.rows(name)
        return x.reshape(len(x), len(self.model.config.heads(block)), -1).transpose(1, 0, 2)


def trace_pass(model: Model, text: str, pair: str | Sequence[str] | None) -> Pass:
    """Read a text, and the pair that goes with it, and keep every number of the textbook's pass.

    pair : of multiple choice a list of choices, of question answering the text that answers

    Raises InputError where the model cannot read these.
    """
    if model.tokenizer is None:
        raise InputError(
            "explain reads text, but the model came without a tokenizer: its folder has neither "
            "tokenizer.json nor vocab.txt"
        )
    pairs = check_pairs(model, pair)
    encodings = [model.tokenizer.encode(text, each) for each in pairs]
    padded = pad_encodings(model, encodings)
    given: dict[str, Any] = {name: np.array(rows) for name, rows in padded.items()}
    exact = copy.copy(model)  # its numbers are those of the source that the page shows
    exact.engine = "textbook"
    if model.row.has_choices:
        given = {name: rows[None] for name, rows in given.items()}
    made = trace(exact, **given)
    row = int(made["logits"].argmax()) if model.row.has_choices else 0
    return Pass(model, model.tokenizer, text, pairs, encodings, made, row)


def check_pairs(model: Model, pair: str | Sequence[str] | None) -> list[str | None]:
    """Return what goes with a text, once for each sequence that is read.  Raises InputError."""
    if pair is not None and not isinstance(pair, str | list | tuple):
        raise InputError(f"pair is {quote(pair)}, expected a str, or a list of them")
    given: list[str | None] = [pair] if pair is None or isinstance(pair, str) else [*pair]
    if pair is not None and not all(isinstance(each, str) for each in given):
        raise InputError(f"pair is {quote(pair)}, expected a str, or a list of them")
    if model.row.has_choices and (pair is None or not given):
        raise InputError(f"{model.architecture} weighs choices: pass them as pair=[...]")
    if HEADS[model.row.head] is find_spans and pair is None:
        raise InputError(
            f"{model.architecture} reads a question and the text that answers it: pass that text "
            "as pair="
        )
    if not model.row.has_choices and len(given) != 1:
        several = " or ".join(name for name, row in ARCHITECTURES.items() if row.has_choices)
        raise InputError(
            f"pair has {len(given)} texts, expected one: only {several} reads several, "
            f"and this model is {model.architecture}"
        )
    return given


NAMES_SHOWN: Final = 8  # names of an answer that are shown
SPANS_SHOWN: Final = 5  # spans of a text
TOKENS_FOLLOWED: Final = 24  # whose labels or vectors are followed
NEXT_SENTENCE_ANSWERS: Final = ("it follows", "it does not")
ANSWER_LENGTH: Final = QuestionAnsweringOptions().max_answer_length


Mark = tuple[int, int, str]  # characters of a text, [start, end), and what they are called


class NamedNumbers(NamedTuple):
    """Numbers for the names of a question, and the answer in words, if there are any."""

    values: Sequence[float]
    best: str = ""
    chance: float | None = None  # of the answer, where the numbers are of answers
    marks: Sequence[Mark] = ()  # what of the text the answer is


class Question(NamedTuple):
    """What is read off the head's result, in the original run and in any other."""

    about: str  # what the numbers are
    names: Sequence[str]
    read: Callable[[Array], NamedNumbers]  # of the result's rows, (rows read, classes)
    mean: bool = False  # all numbers count alike; otherwise the first is the answer's own
    wanted: Sequence[int] | None = None  # which tokens the head needs to read
    compares: bool = False  # the numbers are of two runs, and say nothing of the original one

    def measure(self, answer: NamedNumbers) -> float:
        """Return the number by which runs are compared."""
        return float(np.mean(answer.values) if self.mean else answer.values[0])


def head_rows(run: Pass) -> Array:
    """Return what the head made, as a row for every token or sequence that it judges."""
    row, given = run.model.row, run.trace
    if "start_logits" in row.outputs:
        return np.stack([given["start_logits"][run.row], given["end_logits"][run.row]], -1)
    if row.has_choices:
        return given["logits"].reshape(-1, 1)
    if row.is_encoder:
        return run.rows(f"transformer.layer.{run.model.config.num_blocks - 1}.output_layer_norm")
    return run.rows("logits")


def question_of(run: Pass) -> Question:
    """Return what a pass is asked, as its architecture implies."""
    head = heads.HEADS[run.model.row.head]
    return choice_question(run) if run.model.row.has_choices else QUESTIONS[head](run)


def class_question(run: Pass) -> Question:
    """Which class has the text?"""
    config = run.model.config
    function = default_score_function(config)

    def scores(x: Array) -> Array:
        return scores_of(function, x)[0]

    order = best_indices(scores(head_rows(run)), NAMES_SHOWN)

    def read(x: Array) -> NamedNumbers:
        own = scores(x)
        best = int(own.argmax())
        return NamedNumbers([float(own[i]) for i in order], config.label(best), float(own[best]))

    about = {"softmax": "the chance of each class", "none": "the value of each class"}
    return Question(
        about.get(function, "the chance of each class by itself"),
        [config.label(i) for i in order],
        read,
    )


def sentence_question(run: Pass) -> Question:
    """Does the second text follow the first?"""

    def read(x: Array) -> NamedNumbers:
        chances = probabilities(x[0])
        best = int(chances.argmax())
        return NamedNumbers(
            [float(each) for each in chances], NEXT_SENTENCE_ANSWERS[best], float(chances[best])
        )

    return Question(
        "the chance that the second text follows the first", NEXT_SENTENCE_ANSWERS, read
    )


def choice_question(run: Pass) -> Question:
    """Which choice goes with the text?"""
    order = best_indices(head_rows(run)[:, 0], NAMES_SHOWN)

    def read(x: Array) -> NamedNumbers:
        chances = probabilities(x[:, 0])
        best = int(chances.argmax())
        return NamedNumbers(
            [float(chances[i]) for i in order], str(run.pairs[best]), float(chances[best])
        )

    return Question("the chance of each choice", [str(run.pairs[i]) for i in order], read)


def word_question(run: Pass) -> Question:
    """Which word stands where the first mask is?  Without one: how likely are the words there?"""
    mask, ids = run.tokenizer.id_of("mask_token"), run.encoding.ids
    if mask not in ids:
        some = text_positions(run)[:TOKENS_FOLLOWED]
        own = [ids[i] for i in some]

        def chances(x: Array) -> NamedNumbers:
            found = probabilities(x)[np.arange(len(own)), own]
            return NamedNumbers([float(each) for each in found])

        about = "the chance that the model gives to each word which stands there"
        names = [run.tokens[i] for i in some]
        # In the original run the head has read every token, in others only these.
        return Question(
            about, names, lambda x: chances(x[some] if len(x) != len(some) else x), True, some
        )
    place = ids.index(mask)
    known = run.tokenizer.known_ids[run.tokenizer.known_ids < head_rows(run).shape[-1]]
    order = known[best_indices(head_rows(run)[place, known], NAMES_SHOWN)]

    def decode_word(i: int) -> str:
        return run.tokenizer.decode([i], skip_special=False)

    def read(x: Array) -> NamedNumbers:
        scores = x[place if len(x) == len(ids) else 0]
        chances, best = probabilities(scores), int(known[scores[known].argmax()])
        return NamedNumbers(
            [float(each) for each in chances[order]], decode_word(best), float(chances[best])
        )

    about = f"the chance of each word in the place of {run.tokens[place]}"
    wanted = [place] if len(ids) > 1 else None
    return Question(about, [decode_word(int(i)) for i in order], read, wanted=wanted)


def label_question(run: Pass) -> Question:
    """Which class has each token?"""
    config, real = run.model.config, text_positions(run)
    named = [config.label(i) for i in range(config.num_labels)]
    found = head_rows(run).argmax(-1)
    some = ([i for i in real if named[found[i]] != "O"] or real)[:TOKENS_FOLLOWED]

    def read(x: Array) -> NamedNumbers:
        scores = probabilities(x)
        marks = [
            (parts[0].start, parts[-1].end, kind)
            for kind, parts in find_entities(run, scores, named)
        ]
        told = [f"{run.text[start:end]} ({kind})" for start, end, kind in marks]
        return NamedNumbers(
            [float(scores[i, found[i]]) for i in some], ", ".join(told) or "no names", None, marks
        )

    names = [f"{run.tokens[i]} → {named[found[i]]}" for i in some]
    return Question("the chance of the label that each token was given", names, read, mean=True)


def find_entities(run: Pass, scores: Array, named: Sequence[str]) -> Iterator[Any]:
    """Yield what the text names, as the task tells it."""
    real = text_positions(run)
    if not real:
        return
    inner = slice(real[0], real[-1] + 1)
    tags = parse_labels(list(named))
    found = group_entities(word_labels(run.encoding[inner], scores[inner], "first"), tags)
    yield from ((kind, parts) for kind, parts in found if not tags[parts[-1].label].outside)


def span_question(run: Pass) -> Question:
    """Which words of the second text answer the first?"""
    text = run.pair or ""
    inner = [i for i, source in enumerate(run.encoding.sequence_ids) if source == 1]
    cls = run.tokenizer.id_of("cls_token")
    null = [run.encoding.ids.index(cls)] if cls in run.encoding.ids else []
    places = answer_edges(run.encoding[inner[0] : inner[-1] + 1], words=True) if inner else None

    def scores(x: Array) -> dict[tuple[int, int], float]:
        start, end = probabilities(x[null + inner].T)
        skipped = len(null)
        if places is None:
            return {(0, 0): float(start[0] * end[0])}
        longest = min(ANSWER_LENGTH, len(inner))
        return dict(
            rank_spans(start[skipped:], end[skipped:], places, len(inner) * longest, longest)
        )

    names = list(scores(head_rows(run)))[:SPANS_SHOWN]

    def read(x: Array) -> NamedNumbers:
        found = scores(x)
        a, b = next(iter(found))
        return NamedNumbers(
            [found[each] for each in names], text[a:b], found[a, b], [(a, b, "answer")]
        )

    about = "the chance that the answer starts and ends there"
    return Question(about, [text[a:b] for a, b in names], read)


def vector_question(run: Pass) -> Question:
    """What does the text mean?  A vector for every token."""
    before = normalize(head_rows(run).astype(np.float64))
    some = text_positions(run)[:TOKENS_FOLLOWED] or [0]

    def read(x: Array) -> NamedNumbers:
        cosines = (normalize(x.astype(np.float64)) * before).sum(-1)[some]
        return NamedNumbers([float(each) for each in cosines])

    about = "how alike each token's vector stays: the cosine of the two"
    return Question(about, [run.tokens[i] for i in some], read, mean=True, compares=True)


def text_positions(run: Pass) -> list[int]:
    """Return where the tokens stand that come from the texts, without [CLS] and its like."""
    found = [i for i, source in enumerate(run.encoding.sequence_ids) if source is not None]
    return found or list(range(len(run.encoding)))


QUESTIONS: Final[Mapping[heads.Head, Callable[[Pass], Question]]] = {
    heads.return_states: vector_question,
    heads.predict_words: word_question,
    heads.classify_sequences: class_question,
    heads.predict_next_sentence: sentence_question,
    heads.classify_tokens: label_question,
    heads.find_spans: span_question,
}
