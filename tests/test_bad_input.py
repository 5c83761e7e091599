"""Whatever comes in, every task gives a sensible answer or says in a sentence what is wrong."""

import json
import re
import warnings

import numpy as np
import pytest
from rigged import rigged

import npbert
from npbert.tasks import built_in_folder
from npbert.tasks.rows import TASKS

WORDS = {"the": 0, "a": 1, "ship": 2, "##s": 3, "film": 0, "é": 1, "[CLS]": 2}
NLI = ["entailment", "neutral", "contradiction"]
ARCHITECTURES = {
    "question-answering": ("for_question_answering", ()),
    "multiple-choice": ("for_multiple_choice", ()),
    "zero-shot-classification": ("for_sequence_classification", NLI),
    "text-ranking": ("for_sequence_classification", ["relevance"]),
    "token-classification": ("for_token_classification", ["O", "B-X", "I-X"]),
    "sparse-embedding": ("for_masked_language_modeling", ()),
}
# What an input is in which a text takes each of the places that there are.
PLACES = {
    "text-classification": [lambda t: t, lambda t: ("a", t)],
    "token-classification": [lambda t: t, lambda t: {"words": [t, "a"]}],
    "fill-mask": [lambda t: f"[MASK] {t}"],
    "question-answering": [lambda t: (t, "the ship"), lambda t: ("the ship", t)],
    "multiple-choice": [lambda t: (t, ["a", "b"]), lambda t: ("a", ["b", t])],
    "zero-shot-classification": [lambda t: (t, ["a", "b"]), lambda t: ("a", ["b", t])],
    "sentence-embedding": [lambda t: t],
    "sparse-embedding": [lambda t: t],
    "text-ranking": [lambda t: (t, ["a"]), lambda t: ("a", [t, "b"]), lambda t: (t, "b")],
    "feature-extraction": [lambda t: t, lambda t: (t, "b")],
}
EMPTY = ["", " ", "\n\t", "\u200b", "\0", "\x01\x1b\x7f"]
ODD = [
    "a\0b", "\x1b[31mfilm\x1b[0m", "שלום עולם", "👩\u200d👩\u200d👧 🎬 film", "e\u0301 cafe\u0301",
    "ﬁlm Ǆ İstanbul", "a" * 5000, "\u202eabc\u202c", "猫の映画", "[MASK] [CLS] [SEP]", "{} %s {0}",
    "\ufffe\U0010ffff",
]  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    made = {}
    for name in TASKS:
        source = None
        if name in ARCHITECTURES:
            architecture, labels = ARCHITECTURES[name]
            folder = tmp_path_factory.mktemp(name)
            source = rigged(folder, architecture, WORDS, labels=labels, positions=128)
        made[name] = npbert.pipeline(name, source)
    return made


def pairs():
    return [(name, i) for name, places in PLACES.items() for i in range(len(places))]


def asked(task, item):
    """Return the answer and no sentence, or none and the sentence that says why; nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npbert.NpbertWarning)
        try:
            answer = task(item)
        except npbert.InputError as error:
            return None, str(error)
    if not isinstance(answer, np.ndarray):
        assert json.loads(json.dumps(answer)) == answer
    return answer, None


def places_of(name, answer):
    """Yield (start, end, what should stand there) of whatever an answer points at."""
    for each in answer if isinstance(answer, list) else [answer]:
        if isinstance(each, dict) and "start" in each:
            yield each["start"], each["end"], each.get("answer", each.get("word"))


def test_every_task_is_tried():
    assert PLACES.keys() == TASKS.keys()


@pytest.mark.parametrize("text", [*EMPTY, *ODD], ids=ascii)
@pytest.mark.parametrize(("name", "place"), pairs())
def test_an_odd_text_gets_an_answer_or_a_sentence(tasks, name, place, text):
    item = PLACES[name][place](text)
    answer, sentence = asked(tasks[name], item)
    if sentence is not None:
        assert text in EMPTY or name == "zero-shot-classification"
        assert re.match("text 0: the (question|context) is empty|.* leaves no room for", sentence)
        return
    if name in ("question-answering", "token-classification"):
        whole = item[1] if name == "question-answering" else item
        whole = " ".join(item["words"]) if isinstance(item, dict) else whole
        for start, end, stands in places_of(name, answer):
            assert whole[start:end] == stands


@pytest.mark.long
@pytest.mark.parametrize(("name", "place"), pairs())
def test_a_megabyte_of_text_gets_an_answer_or_a_sentence(tasks, name, place):
    text = "the ship sailed, a film " * 42_000
    assert len(text) > 1_000_000
    _, sentence = asked(tasks[name], PLACES[name][place](text))
    if sentence is not None:
        assert (name, place) == ("zero-shot-classification", 1)  # a label that fills the model
        assert "leaves no room for the first" in sentence


@pytest.mark.parametrize(("name", "place"), pairs())
def test_half_a_character_is_refused(tasks, name, place):
    with pytest.raises(
        npbert.InputError, match=r"^text 0: the text has half a character, '\\ud83d'"
    ):
        tasks[name](PLACES[name][place]("a\ud83d"))


@pytest.mark.parametrize("wrong", [5, b"x", ["a"], 1.5, object, np.array(["a"])], ids=repr)
@pytest.mark.parametrize(("name", "place"), pairs())
def test_what_is_no_text_is_refused(tasks, name, place, wrong):
    if name == "fill-mask" or (name == "text-ranking" and wrong == ["a"]):
        return  # its place is inside a str; a list of documents is right
    item = PLACES[name][place](wrong)
    with pytest.raises(npbert.InputError, match=r"expected|a text is a str, not|reads a str"):
        tasks[name]([item])


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    "wrong", [5, None, b"x", bytearray(b"x"), 1.5, object()], ids=lambda wrong: type(wrong).__name__
)
def test_an_input_of_another_kind_is_refused(tasks, name, wrong):
    with pytest.raises(npbert.InputError, match=rf"^{name} reads .*, or many, not "):
        tasks[name](wrong)


@pytest.mark.parametrize("name", TASKS)
def test_a_dict_of_other_fields_is_refused(tasks, name):
    with pytest.raises(npbert.InputError, match=r"^text 0: has 'txt', expected "):
        tasks[name]({"txt": "a"})


@pytest.mark.parametrize("name", TASKS)
def test_an_empty_list_gives_an_empty_list(tasks, name):
    """Defect of transformers 5: fill-mask of [] is an IndexError."""
    assert len(tasks[name]([])) == 0
    assert list(tasks[name](iter([]))) == []


@pytest.mark.parametrize("name", TASKS)
def test_an_option_that_is_not_there_is_refused(tasks, name):
    with pytest.raises(npbert.InputError, match=rf"^{name} has no option 'topk'"):
        tasks[name]("a", topk=3)


WRONG = {
    "text-classification": "token-classification", "token-classification": "question-answering",
    "fill-mask": "text-classification", "question-answering": "multiple-choice",
    "multiple-choice": "zero-shot-classification", "zero-shot-classification": "multiple-choice",
    "text-ranking": "token-classification",
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_model_of_another_architecture_is_refused(tasks, name):
    other = tasks[WRONG[name]].model
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline(name, other)
    assert str(error.value) == (
        f"{name} needs a model {TASKS[name].architecture}, but this one is {other.architecture}"
    )


@pytest.mark.parametrize("name", ["sentence-embedding", "feature-extraction"])
@pytest.mark.parametrize("source", ["sentiment", "fill-mask"])
def test_any_encoder_gives_vectors(name, source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npbert.NpbertWarning)
        from_folder = npbert.pipeline(name, built_in_folder(source))("A film.")
        from_model = npbert.pipeline(name, npbert.load(built_in_folder(source)))("A film.")
    assert np.array_equal(from_folder, from_model)


@pytest.mark.parametrize("name", TASKS)
def test_a_model_without_a_tokenizer_is_refused(name):
    labels = ARCHITECTURES.get(name, ("", ()))[1]
    config = npbert.Config(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=9, num_blocks=1,
        **({"id_to_label": dict(enumerate(labels))} if labels else {}),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npbert.NpbertWarning)
        model = npbert.init(config, TASKS[name].architecture)
        with pytest.raises(npbert.InputError, match=rf"^{name} reads text, but the model came w"):
            npbert.pipeline(name, model)


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name].built_in is None])
def test_a_task_without_a_built_in_model_says_so(name):
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline(name)
    assert (
        str(error.value)
        == f"{name} has no built-in model; pass a folder, a name on the hub (-m), or a Model"
    )
