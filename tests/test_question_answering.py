"""question-answering: an answer is a span of the context, and its score a probability."""

import numpy as np
import pytest
from rigged import rigged

import npbert
from npbert.tasks.question_answering import rank_spans
from npbert.tasks.task import split_into_chunks

START, END, BOTH, NULL, NOTHING = [0], [1], [0, 1], [0, 1], [11]
WORDS = "the a ship sailed from to in and who where when did it left on sea quietly ##ly . , ?"
MEANINGS = {
    **dict.fromkeys(WORDS.split(), NOTHING), "bristol": BOTH, "new": START, "york": END,
    "1843": BOTH, "mar": START, "##seille": END, "[CLS]": NOTHING,
}  # fmt: skip


@pytest.fixture(scope="module")
def qa(tmp_path_factory):
    folder = rigged(
        tmp_path_factory.mktemp("qa"), "for_question_answering", MEANINGS, sharpness=2.0
    )
    return npbert.pipeline("question-answering", folder)


CONTEXT = "The ship sailed from New York quietly."


def test_the_answer_is_what_stands_in_the_context(qa):
    answer = qa(question="Where from?", context=CONTEXT)
    assert set(answer) == {"score", "start", "end", "answer"}
    assert answer["answer"] == "New York" == CONTEXT[answer["start"] : answer["end"]]
    assert 0.5 < answer["score"] <= 1


def test_one_question_and_one_context_may_come_in_four_ways(qa):
    answer = qa(question="Where from?", context=CONTEXT)
    assert qa({"question": "Where from?", "context": CONTEXT}) == answer
    assert qa(("Where from?", CONTEXT)) == answer
    assert qa([("Where from?", CONTEXT)]) == [answer]
    assert list(qa(pair for pair in [("Where from?", CONTEXT)])) == [answer]


def test_many_questions_over_one_context_and_one_over_many(qa):
    questions, contexts = ["Where from?", "When?"], [CONTEXT, "It left in 1843."]
    assert qa(question=questions, context=CONTEXT) == [qa((q, CONTEXT)) for q in questions]
    assert qa(question="When?", context=contexts) == [qa(("When?", c)) for c in contexts]
    both = qa(question=questions, context=contexts)
    assert both == [qa(pair) for pair in zip(questions, contexts, strict=True)]
    assert qa(question=[], context=CONTEXT) == []
    with pytest.raises(npbert.InputError, match=r"^there are 2 questions and 1 contexts$"):
        qa(question=questions, context=[CONTEXT])
    with pytest.raises(npbert.InputError, match=r"takes inputs, or question= and context=, not"):
        qa((CONTEXT, CONTEXT), question="When?", context=CONTEXT)


def test_a_score_is_never_above_1(qa):
    """Defect of transformers 4.57: answers of equal text add up their scores, to 2.9989."""
    context = "It left Bristol. " + "The ship sailed quietly. " * 4 + "It left Bristol. The ship."
    how = {"max_length": 24, "stride": 15, "top_k": 50}  # some six windows hold each Bristol
    answers = qa(question="Where from?", context=context, **how)
    assert all(0 <= a["score"] <= 1 for a in answers)
    # Both are told, each once, and as sure as its surest window is.
    bristols = {a["start"]: a["score"] for a in answers if a["answer"] == "Bristol"}
    assert sorted(bristols) == [context.index("Bristol"), context.rindex("Bristol")]
    assert len({(a["start"], a["end"]) for a in answers}) == len(answers) == 50
    tokens = qa.tokenizer.tokenize(context)
    alone = [
        qa(question="Where from?", context=context[tokens.offsets[i][0] : tokens.offsets[j][1]])
        for i, j in ((w.start, w.stop - 1) for w in split_into_chunks(len(tokens), 18, 15))
    ]
    surest = max(a["score"] for a in alone if a["answer"] == "Bristol")
    assert max(bristols.values()) == pytest.approx(surest, rel=1e-4)


def test_an_answer_is_never_outside_the_context(qa):
    """Defect of Bumblebee, and of transformers with padding on the left."""
    answers = qa(question="Bristol or New York 1843?", context="The ship left.", top_k=99)
    text = "The ship left."
    assert all(a["answer"] == text[a["start"] : a["end"]] != "" for a in answers)
    assert len(answers) == 10  # every span of four tokens; what is in the question is not


def test_an_answer_never_ends_before_it_starts(qa):
    """Defect of Bumblebee: start and end are chosen each for itself."""
    for answer in qa(question="Where?", context="York is not New", top_k=99):
        assert answer["start"] < answer["end"]


def test_a_question_is_cut_to_max_question_length_and_that_is_told(qa):
    """Defect of transformers 4.57: max_question_len is ignored with fast tokenizers."""
    question = "when " * 50
    with pytest.warns(npbert.NpbertWarning) as told:
        answer = qa(question=question, context=CONTEXT, max_question_length=3)
    assert answer == qa(question="when when when", context=CONTEXT)
    assert [str(w.message) for w in told] == [
        "1 of the questions was truncated to 3 tokens (max_question_length), 47 tokens were not "
        "read"
    ]


def test_a_question_that_leaves_no_room_is_refused(qa):
    with pytest.raises(npbert.InputError) as error:
        qa(question="when " * 62, context=CONTEXT)
    assert str(error.value) == (
        "text 0: max_length is 64, and the question with the special tokens takes 65: there is no "
        "room for context"
    )


def test_the_end_of_a_long_context_is_read_too(qa):
    context = "The ship sailed quietly. " * 2000 + "It left in 1843."
    answer = qa(question="When?", context=context)
    assert answer["answer"] == "1843"
    assert answer["start"] == context.index("1843")


def test_no_answer_is_longer_than_asked(qa):
    context = "New the ship sailed York."
    assert qa(question="Where?", context=context)["answer"] == "New the ship sailed York"
    short = qa(question="Where?", context=context, max_answer_length=2, top_k=99)
    assert max(len(a["answer"].split()) for a in short) == 2


def test_top_k_gives_as_many_different_answers_as_there_are(qa):
    """Defect of transformers (#38984): fewer come than asked for, or the same twice."""
    context = "It left Marseille quietly."
    for k in (1, 3, 7):
        answers = qa(question="Where?", context=context, top_k=k)
        assert len({(a["start"], a["end"]) for a in answers}) == k
        scores = [a["score"] for a in answers]
        assert scores == sorted(scores, reverse=True)
    # it | left | marseille | quietly | .   make 15 spans of whole words
    assert len(qa(question="Where?", context=context, top_k=99)) == 15


def test_answers_are_whole_words_unless_pieces_are_asked_for(qa):
    context = "It left Marseilles."
    pieces = qa(question="Where?", context="It left Marseille", align_to_words=False, top_k=99)
    assert "Mar" in [a["answer"] for a in pieces]
    whole = qa(question="Where?", context="It left Marseille", top_k=99)
    assert "Mar" not in [a["answer"] for a in whole]
    assert whole[0]["answer"] == "Marseille"
    assert qa(question="Where?", context=context)["answer"] in context


def test_the_empty_answer_is_possible_when_that_is_asked(tmp_path):
    folder = rigged(tmp_path, "for_question_answering", {**MEANINGS, "[CLS]": BOTH}, sharpness=2.0)
    qa = npbert.pipeline("question-answering", folder, handle_impossible_answer=True)
    answer = qa(question="Who?", context="The ship left.")
    assert answer == {"score": answer["score"], "start": 0, "end": 0, "answer": ""}
    assert 0.5 < answer["score"] <= 1
    assert qa(question="Who?", context="The ship.", handle_impossible_answer=False)["answer"]
    # Somewhere in a long context there is an answer, so that none is not the best.
    context = "The ship left quietly. " * 20 + "It left New York."
    assert qa(question="Where?", context=context)["answer"] != ""


def test_offsets_count_in_the_unit_asked_for(qa):
    context = "🐈 é New York"
    for unit, before in (("char", 4), ("byte", 8), ("utf16", 5)):
        answer = qa(question="Where?", context=context, offset_unit=unit)
        assert (answer["start"], answer["end"]) == (before, before + 8)
        assert answer["answer"] == "New York"


def test_spans_are_ranked_as_every_pair_of_start_and_end_would_be():
    rng = np.random.default_rng(20)
    start, end = rng.random(9), rng.random(9)
    places = np.arange(9), np.arange(1, 10)
    every = {(i, j + 1): start[i] * end[j] for i in range(9) for j in range(i, min(9, i + 4))}
    got = list(rank_spans(start, end, places, 99, 4))
    assert [span for span, _ in got] == sorted(every, key=every.get, reverse=True)
    assert all(score == every[span] for span, score in got)
    assert list(rank_spans(start, end, places, 5, 4)) == got[:5]


EMPTY = {
    "no question": (("", CONTEXT), "text 0: the question is empty"),
    "blank context": (("Who?", " \n\t"), "text 0: the context is empty"),
    "one text": ("Who?", "text 0: is 'Who?', expected a dict or tuple of question and context"),
    "no context": ({"question": "Who?"}, "text 0: has no context"),
    "a number": (("Who?", 5), "text 0: a text is a str, not int: 5"),
    "three": (
        ("a", "b", "c"),
        "text 0: is a tuple of 3, expected question and context; many inputs are a list",
    ),
    "nothing": (
        None,
        "question-answering reads a dict of question and context, or many, not NoneType",
    ),
}


@pytest.mark.parametrize(("given", "message"), EMPTY.values(), ids=EMPTY)
def test_what_cannot_be_answered_is_refused(qa, given, message):
    with pytest.raises(npbert.InputError) as error:
        qa(given)
    assert str(error.value) == message
