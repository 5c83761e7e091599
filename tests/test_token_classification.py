"""token-classification: entities are found to the end of the text, and cut where they should be."""

import json

import numpy as np
import pytest
from rigged import SPECIALS, rigged

import npbert
from npbert.engine.packs import LISTS_AHEAD
from npbert.tasks.task import split_into_chunks
from npbert.tasks.token_classification import (
    Part,
    Tag,
    group_entities,
    parse_labels,
    slices_to_score,
    word_labels,
)
from npbert.text.tokenizer import Encoding

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-DATE-TIME", "I-DATE-TIME"]
OUT, B_PER, I_PER, B_LOC, I_LOC, B_DATE, I_DATE = range(7)
MEANINGS = {
    "ada": B_PER, "lovelace": I_PER, "zoe": B_PER, "cafe": B_PER, "##e": OUT, "paris": B_LOC,
    "monday": B_DATE, "noon": I_DATE, "bab": B_PER, "##bage": B_LOC,
    "##s": I_LOC, **dict.fromkeys(["met", "in", "on", ".", ",", "'", "s", *SPECIALS], OUT),
}  # fmt: skip


@pytest.fixture(scope="module")
def ner(tmp_path_factory):
    folder = rigged(
        tmp_path_factory.mktemp("ner"), "for_token_classification", MEANINGS, labels=LABELS
    )
    return npbert.pipeline("token-classification", folder)


def found(answers):
    return [(a["entity_group"], a["word"]) for a in answers]


def test_entities_are_words_of_the_text_with_their_places(ner):
    text = "Ada Lovelace met Zoe in Paris."
    answers = ner(text)
    assert found(answers) == [("PER", "Ada Lovelace"), ("PER", "Zoe"), ("LOC", "Paris")]
    assert [text[a["start"] : a["end"]] for a in answers] == ["Ada Lovelace", "Zoe", "Paris"]
    assert all(set(a) == {"entity_group", "score", "word", "start", "end"} for a in answers)
    assert all(0.5 < a["score"] <= 1 for a in answers)


def test_none_gives_every_piece_its_own_label(ner):
    answers = ner("Ada met Babbage", aggregation_strategy="none")
    assert [(a["entity"], a["word"], a["index"], a["start"], a["end"]) for a in answers] == [
        ("B-PER", "ada", 1, 0, 3), ("B-PER", "bab", 3, 8, 11), ("B-LOC", "##bage", 4, 11, 15),
    ]  # fmt: skip


def test_scores_are_numbers_that_json_accepts(ner):
    """Defect of transformers 4.57 and 5: scores are np.float32, and json.dumps raises."""
    for strategy in ("none", "simple", "first", "average", "max"):
        answers = ner("Ada Lovelace met Babbage on Monday", aggregation_strategy=strategy)
        assert json.loads(json.dumps(answers)) == answers


def test_a_long_text_is_read_to_its_end_and_nothing_is_dropped(ner):
    """Defect of transformers and Bumblebee: what does not fit the model is dropped silently."""
    text = "Ada Lovelace met Zoe in Paris on Monday noon. " * 100
    answers = ner(text)
    assert len(answers) == 400
    assert [text[a["start"] : a["end"]] for a in answers] == [a["word"] for a in answers]
    assert found(answers) == found(ner("Ada Lovelace met Zoe in Paris on Monday noon.")) * 100


@pytest.mark.parametrize("stride", [0, 1, 5, 40])
@pytest.mark.parametrize("length", [8, 17, 64])
def test_windows_of_any_size_give_every_token_once(ner, length, stride):
    text = "Ada met Zoe . " * 30
    if stride >= length - 2:
        with pytest.raises(npbert.InputError, match=r"^text 0: stride is \d+, but a window has"):
            ner(text, max_length=length, stride=stride)
        return
    answers = ner(
        text, max_length=length, stride=stride, aggregation_strategy="none", ignore_labels=[]
    )
    assert [a["index"] for a in answers] == list(range(1, 121))


def test_a_token_is_scored_in_the_window_that_shows_most_around_it():
    spans = split_into_chunks(100, 40, 20)
    assert spans == [slice(0, 40), slice(20, 60), slice(40, 80), slice(60, 100)]
    assert slices_to_score(spans) == [slice(0, 30), slice(30, 50), slice(50, 70), slice(70, 100)]
    assert split_into_chunks(40, 40, 20) == [slice(0, 40)]
    assert split_into_chunks(41, 40, 20) == [slice(0, 40), slice(20, 41)]
    assert split_into_chunks(0, 40, 20) == [slice(0, 0)]


def test_a_kind_keeps_its_hyphens(ner):
    """Defect of transformers: an unprefixed "DATE-TIME" is cut to "TIME"."""
    assert found(ner("Monday noon in Paris")) == [("DATE-TIME", "Monday noon"), ("LOC", "Paris")]
    assert parse_labels(["O", "DATE-TIME", "PER"]) == [Tag("O"), Tag("DATE-TIME"), Tag("PER")]
    assert parse_labels(["B-DATE-TIME"]) == [Tag("DATE-TIME", begins=True)]


def test_an_accent_does_not_glue_a_word_to_the_one_before(ner):
    """Defect of Bumblebee and transformers: pieces are told by the length of their text."""
    text = "Ada Zoe\u0301 Cafe\u0301"  # e and a combining accent, which the tokenizer strips
    answers = ner(text, aggregation_strategy="first")
    assert found(answers) == [("PER", "Ada"), ("PER", "Zoe\u0301"), ("PER", "Cafe\u0301")]


def test_an_unknown_word_does_not_glue_to_the_one_before(ner):
    """Defect of Bumblebee: [UNK] is longer than what it stands for, so counts as a piece."""
    assert found(ner("Ada 🐈 Zoe")) == [("PER", "Ada"), ("PER", "Zoe")]


def test_strategies_differ_in_how_a_word_of_several_pieces_is_judged(tmp_path):
    labels = ["O", "B-A", "B-B", "B-C"]
    head = np.zeros((4, 12))
    head[1, 1], head[2, 2], head[2, 4], head[3, 3] = 1.0, 0.8, 0.8, 3.0
    folder = rigged(
        tmp_path, "for_token_classification", {"one": 1, "##two": 2, "##too": 4, "##three": 3},
        labels=labels, head=head,
    )  # fmt: skip
    ner = npbert.pipeline("token-classification", folder)
    kinds = {
        strategy: [a["entity_group"] for a in ner("onetwotoothree", aggregation_strategy=strategy)]
        for strategy in ("first", "average", "max", "simple")
    }
    assert kinds == {
        "first": ["A"], "average": ["B"], "max": ["C"], "simple": ["A", "B", "B", "C"],
    }  # fmt: skip


def test_max_takes_the_surest_piece_not_the_last_label():
    """Defect of Bumblebee: word_max takes the piece whose label has the greatest number."""
    pieces = Encoding([1, 2], ["a", "##b"], [(0, 1), (1, 2)], [0, 0], [0, 0], 0)
    scores = np.array([[0.1, 0.9, 0.0], [0.4, 0.0, 0.6]])
    assert list(word_labels(pieces, scores, "max")) == [Part(0, 2, 1, 0.9)]


def test_bumblebees_names_of_strategies_are_understood(ner):
    names = {
        ":same": "simple",
        "same": "simple",
        "word_first": "first",
        "word_average": "average",
        "word_max": "max",
    }
    for theirs, ours in names.items():
        text = "Ada met Babbage in Paris"
        assert ner(text, aggregation_strategy=theirs) == ner(text, aggregation_strategy=ours)


SCHEMES = {
    "BIO": (
        ["B-X", "I-X", "B-X", "I-Y", "O", "I-X"],
        [("X", 2), ("X", 1), ("Y", 1), ("O", 1), ("X", 1)],
    ),
    "BIOES": (["B-X", "I-X", "E-X", "I-X", "S-X", "S-X"], [("X", 3), ("X", 1), ("X", 1), ("X", 1)]),
    "BILOU": (["B-X", "L-X", "U-X", "B-X", "I-X", "L-X"], [("X", 2), ("X", 1), ("X", 3)]),
    "without prefixes": (["X", "X", "O", "X", "Y"], [("X", 2), ("O", 1), ("X", 1), ("Y", 1)]),
    "kinds that look like prefixes": (["E-MAIL", "E-MAIL", "U-2"], [("E-MAIL", 2), ("U-2", 1)]),
}  # fmt: skip


@pytest.mark.parametrize(("labels", "expected"), SCHEMES.values(), ids=SCHEMES)
def test_every_scheme_of_labels_is_read(labels, expected):
    names = sorted(set(labels))
    parts = [Part(i, i + 1, names.index(label), 1.0) for i, label in enumerate(labels)]
    made = [(kind, len(some)) for kind, some in group_entities(iter(parts), parse_labels(names))]
    assert made == expected


def test_labels_are_ignored_by_kind_or_as_they_are(ner):
    text = "Ada Lovelace met Zoe in Paris"
    assert found(ner(text, ignore_labels=["O", "PER"])) == [("LOC", "Paris")]
    everything = ner(text, ignore_labels=[])
    assert "".join(a["word"] for a in everything).replace(" ", "") == text.replace(" ", "")
    assert ner(text, ignore_labels={"O", "PER"}) == ner(text, ignore_labels=("O", "PER"))
    with pytest.raises(npbert.InputError) as error:
        ner(text, ignore_labels=["B-PER"])
    assert str(error.value) == (
        "ignore_labels has 'B-PER', but with aggregation_strategy 'first' there are DATE-TIME, "
        "LOC, O, PER"
    )
    pieces = ner(text, aggregation_strategy="none", ignore_labels=["O", "I-PER"])
    assert [a["entity"] for a in pieces] == ["B-PER", "B-PER", "B-LOC"]


def test_offsets_count_characters_bytes_or_utf16_units(ner):
    text = "🐈é Ada"
    for unit, before, length in (
        ("char", "🐈é ", 3), ("byte", "🐈é ".encode(), 3), ("utf16", range(4), 3),
    ):  # fmt: skip
        (answer,) = ner(text, offset_unit=unit)
        assert (answer["start"], answer["end"]) == (len(before), len(before) + length)
        assert answer["word"] == "Ada"


def test_words_may_come_split(ner):
    words = ["Ada", "Lovelace's", "caf\u00e9", "in", "Paris,"]
    answers = ner({"words": words})
    joined = " ".join(words)
    assert [joined[a["start"] : a["end"]] for a in answers] == [a["word"] for a in answers]
    assert ("LOC", "Paris,") in found(answers)  # one word is one word, punctuation and all
    assert found(ner([{"words": words}, "Ada"])[1]) == found(ner("Ada"))
    assert ner({"words": []}) == []


def test_the_built_in_model_finds_people_and_places():
    ner = npbert.pipeline("token-classification")
    expected = [("PER", "Ada Lovelace"), ("PER", "Charles Babbage"), ("LOC", "London")]
    assert found(ner("Ada Lovelace met Charles Babbage in London.")) == expected
    assert ner("I like tea and biscuits.") == []


def test_tokens_of_the_same_characters_are_of_one_word():
    tokenizer = npbert.pipeline("token-classification").tokenizer
    tokens = tokenizer.tokenize("Ada met Bob.")  # a capital has a token of its own
    assert tokens.tokens == ["⇧", "ad", "##a", "met", "⇧", "bo", "##b", "."]
    assert tokens.word_ids == [0, 0, 0, 1, 2, 2, 2, 3]
    assert tokenizer.tokenize_words(["Ada", "met", "Bob."]).word_ids == [0, 0, 0, 1, 2, 2, 2, 2]


@pytest.mark.filterwarnings("ignore:.* an empty text")
def test_a_text_without_tokens_has_no_entities(ner):
    assert npbert.pipeline("token-classification")("") == []  # large enough to go in pieces
    assert ner(["", " \n", "Ada", ""]) == [[], [], ner("Ada"), []]
    assert list(ner(text for text in ("", ""))) == [[], []]
    read = []
    next(ner(read.append(i) or "" for i in range(10**9)))
    assert len(read) <= LISTS_AHEAD


def test_a_window_without_room_is_refused(ner):
    with pytest.raises(npbert.InputError) as error:
        ner("Ada", max_length=2)
    assert str(error.value) == (
        "text 0: max_length is 2, which leaves no room for text beside the special tokens"
    )


def test_words_that_are_none_are_refused(ner):
    with pytest.raises(npbert.InputError) as error:
        ner({"words": "Ada"})
    assert str(error.value) == "text 0: words is 'Ada', expected a list of str"
    with pytest.raises(npbert.InputError) as error:
        ner({"words": ["Ada", 5]})
    assert str(error.value) == "text 0: a text is a str, not int: 5"


# ---- labels as people have them -----------------------------------------------------------------


def labelled(folder, labels, words, **changes):
    """A task that gives each of some words the label of its number."""
    meanings = {**words, **dict.fromkeys(SPECIALS, 0)}
    made = rigged(
        folder, "for_token_classification", meanings, labels=[f"L{i}" for i in range(len(labels))]
    )
    config = json.loads((made / "config.json").read_text())
    config["id2label"] = dict(enumerate(labels))
    (made / "config.json").write_text(json.dumps(config | changes))
    return npbert.pipeline("token-classification", made)


def test_a_kind_called_o_is_told_and_the_outside_label_is_not(tmp_path):
    words = {"oak": 1, "tree": 2, "grows": 0, "here": 1}
    task = labelled(tmp_path, ["O", "B-O", "I-O"], words)
    text = "oak tree grows here grows"
    assert found(task(text)) == [("O", "oak tree"), ("O", "here")]
    assert found(task("grows tree grows")) == [("O", "tree")]  # and runs of them do not mix
    one_by_one = task(text, aggregation_strategy="none")
    assert [a["entity"] for a in one_by_one] == ["B-O", "I-O", "B-O"]
    some = task(text, aggregation_strategy="none", ignore_labels=["B-O"])
    assert [a["entity"] for a in some] == ["I-O", "O", "O"]
    assert found(task(text, ignore_labels=[])) == [
        ("O", "oak tree"), ("O", "grows"), ("O", "here"), ("O", "grows"),
    ]  # fmt: skip


@pytest.mark.parametrize("labels", [["o", "per"], ["OUT", "per"], ["0", "per"], ["Outside", "per"]])
def test_the_outside_label_is_a_capital_o_and_no_other(tmp_path, labels):
    task = labelled(tmp_path, labels, {"grows": 0, "ada": 1})
    assert found(task("Ada grows")) == [("per", "Ada"), (labels[0], "grows")]
    assert found(task("Ada grows", ignore_labels=labels[:1])) == [("per", "Ada")]


@pytest.mark.parametrize("labels", [["O", "b-per", "i-per"], ["O", "B_PER", "I_PER"]])
def test_a_prefix_is_a_capital_and_a_hyphen_and_no_other(tmp_path, labels):
    """As in transformers; what is a scheme to people is three kinds to it."""
    task = labelled(tmp_path, labels, {"ada": 1, "lovelace": 2, "grows": 0})
    assert found(task("Ada Lovelace grows Ada Ada")) == [
        (labels[1], "Ada"), (labels[2], "Lovelace"), (labels[1], "Ada Ada"),
    ]  # fmt: skip
    assert found(task("Ada Lovelace", ignore_labels=[labels[1]])) == [(labels[2], "Lovelace")]
    with pytest.raises(npbert.InputError, match=r"^ignore_labels has 'PER', but with"):
        task("Ada", ignore_labels=["PER"])


def test_labels_that_are_no_text_are_told_as_json(tmp_path):
    labels = [None, 3, 1.5, True, ["a"]]
    words = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    task = labelled(tmp_path, labels, words)
    assert found(task("a b c d e")) == [
        ("null", "a"), ("3", "b"), ("1.5", "c"), ("true", "d"), ('["a"]', "e"),
    ]  # fmt: skip
    assert found(task("a b", ignore_labels=["null"])) == [("3", "b")]
    task.model.save(tmp_path / "saved")
    kept = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert list(kept["id2label"].values()) == labels
    assert kept["label2id"] == {"null": 0, "3": 1, "1.5": 2, "true": 3, '["a"]': 4}


def test_two_classes_of_one_name_are_one_kind(tmp_path):
    task = labelled(
        tmp_path, ["O", "PER", "PER", "B-LOC", "B-LOC"], {"a": 1, "b": 2, "c": 3, "d": 4}
    )
    assert found(task("a b c d")) == [("PER", "a b"), ("LOC", "c"), ("LOC", "d")]
    assert found(task("a b c d", ignore_labels=["LOC"])) == [("PER", "a b")]


@pytest.mark.filterwarnings("ignore:.* an empty text")
def test_classes_of_a_text_may_have_any_name(tmp_path):
    folder = rigged(tmp_path, "for_sequence_classification", {"a": 1}, labels=["x", "y", "z"])
    config = json.loads((folder / "config.json").read_text())
    for names, told in (
        ([0, 1, 2], ["0", "1", "2"]),
        ([None, False, "O"], ["null", "false", "O"]),
        (["good", "good", "bad"], ["good", "good", "bad"]),
        (["", "\u00e9", "B_PER"], ["", "\u00e9", "B_PER"]),
    ):
        said = config | {"id2label": dict(enumerate(names))}
        (folder / "config.json").write_text(json.dumps(said))
        answers = npbert.pipeline("text-classification", folder)(["a", ""], top_k=None)
        assert [sorted(a["label"] for a in each) for each in answers] == [sorted(told)] * 2
