"""What a pass answers, as a few named numbers; and what they would be without each head."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from npbert import inputs, packing
from npbert.explaining.passes import Pass
from npbert.options import OPTIONS
from npbert.sentences import normalize
from npbert.tasks.question_answering import edges, ranked
from npbert.tasks.shared import best, scored, softmax
from npbert.tasks.text_classification import usual_function
from npbert.tasks.token_classification import entities, judged, tags
from npbert.textbook import Array

MOST: Final = 8  # names of an answer that are shown
ANSWERS: Final = 5  # spans of a text
TOKENS: Final = 24  # whose labels or vectors are followed
LONGEST: Final = OPTIONS["question-answering"]().max_answer_length  # type: ignore[attr-defined]


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
    kind, given = run.model.architecture, run.trace
    if kind == "for_question_answering":
        return np.stack([given["start_logits"][run.row], given["end_logits"][run.row]], -1)
    if kind == "for_multiple_choice":
        return given["logits"].reshape(-1, 1)
    if kind == "base":
        return run.rows(f"transformer.layer.{run.model.config.num_blocks - 1}.output_layer_norm")
    return run.rows("logits")


def question(run: Pass) -> Question:
    """Return what a pass is asked, as its architecture implies."""
    return QUESTIONS[run.model.architecture](run)


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
    lists = list(model.checked([(each.ids, None) for each in run.encodings]))
    if asked.wanted is not None:
        lists = [each._replace(wanted=np.array(asked.wanted)) for each in lists]
    pack, before = packing.packed(lists), asked.measure(asked.read(result(run)))
    heads = [(b, h) for b in range(config.num_blocks) for h in config.heads(b)]

    def without(place: tuple[int, int]) -> Effect:
        mask = np.ones((config.num_blocks, config.num_attention_heads))
        mask[place] = 0
        columns = [x for name, x in model.run(pack, mask).items() if name != "pooled_state"]
        answer = asked.read(np.concatenate(columns).T)
        return Effect(*place, answer, asked.measure(answer) - before)

    return list(packing.side_by_side(without, heads, inputs.threads(None)))


QUESTIONS: Final[Mapping[str, Callable[[Pass], Question]]] = {
    "base": vectors,
    "for_masked_language_modeling": words,
    "for_sequence_classification": classes,
    "for_token_classification": labels,
    "for_question_answering": spans,
    "for_multiple_choice": choices,
}
