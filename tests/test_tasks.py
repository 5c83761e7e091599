"""The tasks answer as transformers' pipelines do, and better where those go wrong."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.engine.packs import LISTS_AHEAD
from npbert.tasks import built_in_folder
from npbert.tasks.rows import TASKS
from npbert.tasks.text_classification import default_score_function

RECORDED = Path(__file__).parent.parent / "golden" / "demo"


@pytest.fixture(scope="module")
def classify():
    return npbert.pipeline("text-classification")


@pytest.fixture(scope="module")
def fill():
    return npbert.pipeline("fill-mask")


def recorded(name: str) -> list[dict]:
    return json.loads((RECORDED / f"{name}.json").read_text("utf-8"))["rows"]


def question(row: dict) -> object:
    return (row["text"], row["text_pair"]) if "text_pair" in row else row["text"]


# ---- parity with what was recorded ------------------------------------------------------------


@pytest.mark.parametrize("name", ["sentiment", "fill-mask"])
def test_the_trained_models_read_the_same_tokens_as_in_transformers(name):
    tokenizer = npbert.load(built_in_folder(name)).tokenizer
    for row in recorded(name):
        assert tokenizer.encode(row["text"], row.get("text_pair")).ids == row["input_ids"]


def test_the_sentiment_models_logits_are_pytorchs():
    model = npbert.load(built_in_folder("sentiment"), dtype="float64")
    for row in recorded("sentiment"):
        logits = model([row["input_ids"]]).logits
        np.testing.assert_allclose(logits.ravel(), np.ravel(row["logits"]), rtol=0, atol=1e-12)


def test_the_fill_mask_models_logits_are_pytorchs():
    model = npbert.load(built_in_folder("fill-mask"), dtype="float64")
    for row in recorded("fill-mask"):
        logits = model([row["input_ids"]]).logits[0]
        for mask in row["masks"]:
            here = logits[mask["position"]]
            sums = np.log(np.exp(here - here.max()).sum()) + here.max()
            np.testing.assert_allclose(here[mask["top_ids"]], mask["top_logits"], atol=1e-11)
            np.testing.assert_allclose(sums, mask["logsumexp"], atol=1e-11)


def test_text_classification_answers_as_transformers_does(classify):
    rows = recorded("sentiment")
    for row, answer in zip(rows, classify([question(r) for r in rows], top_k=None), strict=True):
        assert [a["label"] for a in answer] == [a["label"] for a in row["answer"]]
        scores = [a["score"] for a in row["answer"]]
        np.testing.assert_allclose([a["score"] for a in answer], scores, rtol=0, atol=1e-5)


def test_fill_mask_answers_as_transformers_does(fill):
    rows = recorded("fill-mask")
    for row, answer in zip(rows, fill([r["text"] for r in rows]), strict=True):
        alike(answer, row["answer"])


def alike(ours: list, theirs: list) -> None:
    for our, their in zip(ours, theirs, strict=True):
        if isinstance(our, list):  # several masks
            alike(our, their)
        else:
            assert our | {"score": 0} == their | {"score": 0}
            assert abs(our["score"] - their["score"]) <= 1e-5


# ---- shapes of results ------------------------------------------------------------------------


def test_one_text_gives_one_result_a_list_a_list_and_a_generator_an_iterator(classify):
    one = classify("A fine film.")
    assert set(one) == {"label", "score"}
    assert classify(["A fine film."]) == [one]
    assert classify([]) == []
    lazy = classify(text for text in ["A fine film."])
    assert isinstance(lazy, Iterator)
    assert list(lazy) == [one]


def test_a_generator_is_read_only_a_little_ahead(classify):
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "A fine film."

    answers = classify(texts())
    for _ in range(3):
        next(answers)
    assert read == LISTS_AHEAD


def test_results_are_plain_python_that_json_accepts(classify, fill):
    texts = ["Good.", ("Good.", "Bad.")]
    answers = [*classify(texts), *classify(texts, top_k=2), fill("[MASK] is a [MASK].")]
    assert json.loads(json.dumps(answers)) == answers


def test_a_pair_may_be_a_tuple_or_a_dict(classify):
    pair = classify(("A good cast.", "A bad script."))
    assert classify({"text": "A good cast.", "text_pair": "A bad script."}) == pair
    assert classify({"text": "A good cast."}) == classify("A good cast.")
    assert pair != classify("A good cast.")


def test_top_k_gives_a_list_best_first_and_never_more_than_there_are(classify):
    assert [len(classify("Good.", top_k=k)) for k in (1, 2, 99, None)] == [1, 2, 2, 2]
    both = classify("Good.", top_k=None)
    assert both[0] == classify("Good.")
    assert both[0]["score"] >= both[1]["score"]
    assert sum(a["score"] for a in both) == pytest.approx(1)


def test_the_function_applied_can_be_chosen(classify):
    raw = {a["label"]: a["score"] for a in classify("Good.", top_k=None, function_to_apply="none")}
    each = classify("Good.", top_k=None, function_to_apply="sigmoid")
    for answer in each:
        assert answer["score"] == pytest.approx(1 / (1 + np.exp(-raw[answer["label"]])))


@pytest.mark.parametrize(
    ("fields", "function"),
    [
        ({}, "softmax"),
        ({"num_labels": 1}, "sigmoid"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "sigmoid"),
        ({"num_labels": 1, "problem_type": "regression"}, "none"),
        ({"problem_type": "single_label_classification"}, "softmax"),
    ],
)
def test_the_function_applied_is_what_the_config_implies(fields, function):
    assert default_score_function(npbert.Config(**fields)) == function


def test_every_mask_of_a_text_gets_its_own_candidates(fill):
    both = fill("The [MASK] sat on the [MASK].", top_k=3)
    assert [len(each) for each in both] == [3, 3]
    assert "[MASK]" in both[0][0]["sequence"]  # the other mask is left as it is


def test_top_k_beyond_the_vocabulary_gives_the_whole_vocabulary(fill):
    everything = fill("The [MASK] sat.", top_k=10**9)
    assert len(everything) == fill.model.config.vocab_size
    assert sum(a["score"] for a in everything) == pytest.approx(1)


def test_numpys_whole_numbers_are_whole_numbers(fill):
    assert len(fill("A [MASK].", top_k=np.int64(2))) == 2


def test_an_option_of_the_pipeline_holds_until_a_call_changes_it():
    task = npbert.pipeline("fill-mask", top_k=2)
    assert len(task("A [MASK].")) == 2
    assert len(task("A [MASK].", top_k=3)) == 3
    assert len(task("A [MASK].")) == 2


def test_alone_or_in_company_a_text_gets_the_same_bits_when_that_is_asked():
    task = npbert.pipeline("text-classification", batch_invariant=True)
    texts = ["A fine film.", "Dull, long and loud; I left.", "Hm."] * 5
    assert task(texts) == [task(text) for text in texts]


# ---- targets of fill-mask ---------------------------------------------------------------------


def test_targets_keep_their_order_and_are_told_once(fill):
    """Defect of transformers: targets go through a set, and come back in any order."""
    text, words = "The [MASK] sank.", ["boat", "ship", "sun", "Ship", "door", "boat"]
    answers = fill(text, targets=words)
    assert [a["token_str"] for a in answers] == ["boat", "ship", "sun", "door"]
    everything = {a["token_str"]: a["score"] for a in fill(text, top_k=10**6)}
    assert [a["score"] for a in answers] == [everything[a["token_str"]] for a in answers]
    best = fill(text, targets=words, top_k=2)
    assert best == sorted(answers, key=lambda a: -a["score"])[:2]
    assert fill(text, targets="ship") == [answers[1]]
    assert [len(each) for each in fill("A [MASK] and a [MASK].", targets=words)] == [4, 4]


def test_a_target_of_several_pieces_is_refused_and_the_pieces_are_shown(fill):
    """Defect of transformers (#12099, #19379): the first piece is scored in place of the word."""
    with pytest.raises(npbert.InputError) as error:
        fill("The [MASK] sank.", targets=["ship", "steamboat"])
    assert str(error.value) == (
        "the target 'steamboat' is made of 3 pieces, ['steam', '##bo', '##at'], and a mask "
        "stands for one (multi_piece='joint' scores them one after the other)"
    )


def test_a_target_without_a_word_in_the_vocabulary_is_refused(fill):
    for target, pieces in (("猫", ["[UNK]"]), ("", []), (" ", [])):
        with pytest.raises(npbert.InputError) as error:
            fill("The [MASK] sank.", targets=[target], multi_piece="joint")
        assert str(error.value) == (
            f"the target {target!r} is made of {pieces}, which the vocabulary has no word for"
        )


def test_pieces_are_scored_jointly_by_the_chain_rule(fill):
    text = "The [MASK] sank near the [MASK]."
    first, second = fill(text, targets=["steamboat", "ship"], multi_piece="joint")
    (alone, ship), (_, other) = first, second
    assert alone["token_str"] == "steamboat"
    assert alone["sequence"] == "[CLS] the steamboat sank near the [MASK]. [SEP]"
    single = fill(text, targets=["ship"])
    assert [ship["score"], other["score"]] == pytest.approx(
        [a[0]["score"] for a in single], rel=1e-4
    )
    model, tokenizer = fill.model, fill.tokenizer
    pieces = alone["token"]
    ids = tokenizer.encode(text).ids
    place, chance = ids.index(tokenizer.id_of("mask_token")), 1.0
    for known, piece in enumerate(pieces):
        hidden = [tokenizer.id_of("mask_token")] * (len(pieces) - known)
        row = [*ids[:place], *pieces[:known], *hidden, *ids[place + 1 :]]
        logits = model([row]).logits[0, place + known].astype(float)
        chance *= np.exp(logits[piece] - logits.max()) / np.exp(logits - logits.max()).sum()
    assert alone["score"] == pytest.approx(chance, rel=1e-4)


def test_no_targets_are_nothing_to_score(fill):
    with pytest.raises(npbert.InputError, match=r"^targets is empty, expected at least one word$"):
        fill("The [MASK] sank.", targets=[])


def test_pieces_that_targets_share_are_computed_once(fill):
    blanks = fill.read(
        "The [MASK] sank.",
        replace(fill.options, targets=("steamboat", "steamer", "steamboats"), multi_piece="joint"),
    )
    asked = [tuple(ids) for ids, *_ in blanks.lists]
    assert len(set(asked)) == len(asked)


def test_masks_for_all_pieces_must_fit(fill):
    text = "[MASK] " + "the " * 253
    assert fill(text, targets=["ship"])
    with pytest.raises(npbert.InputError) as error:
        fill(text, targets=["steamboat"], multi_piece="joint")
    assert str(error.value) == (
        "text 0: has 258 tokens with a mask for each piece of a target, but the model reads 256"
    )


# ---- long texts and bad input -----------------------------------------------------------------


def test_long_texts_are_cut_and_counted(classify):
    long = "good " * 300
    with pytest.warns(npbert.NpbertWarning) as told:
        classify([long, "short", long])
    assert [str(w.message) for w in told] == [
        "2 of the texts were truncated to 256 tokens, 92 tokens were not read "
        "(long='error' refuses such texts)"
    ]


def test_a_warning_points_at_the_line_that_called(classify):
    for call in (
        lambda: classify("good " * 300),
        lambda: classify(["good " * 300]),
        lambda: list(classify(iter(["good " * 300]))),
    ):
        with pytest.warns(npbert.NpbertWarning) as told:
            call()
        assert told[0].filename == __file__


def test_one_long_text_alone_is_told_of_too(classify):
    with pytest.warns(
        npbert.NpbertWarning, match=r"^1 of the texts was truncated to 256 tokens, 46 "
    ):
        assert classify("good " * 300)["label"] == "POSITIVE"


def test_texts_before_a_bad_one_still_get_their_answers(classify):
    answers = classify(text for text in ["Good.", "Bad.", 5, "Never reached."])
    assert [next(answers)["label"], next(answers)["label"]] == ["POSITIVE", "NEGATIVE"]
    with pytest.raises(npbert.InputError, match=r"^text 2: a text is a str, not int: 5$"):
        next(answers)


def test_ids_that_no_token_has_are_never_answered(tmp_path):
    config = npbert.Config(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=20, num_blocks=1
    )
    npbert.init(config, "for_masked_language_modeling").save(tmp_path)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["twice"] * 5, "a", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    answers = npbert.pipeline("fill-mask", tmp_path)("[MASK] a", top_k=99)
    assert sorted(answer["token"] for answer in answers) == [0, 1, 2, 3, 4, 9, 10, 11]


def test_a_tokenizer_without_a_mask_cannot_fill_one(tmp_path):
    config = npbert.Config(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=20, num_blocks=1
    )
    npbert.init(config, "for_masked_language_modeling").save(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("fill-mask", tmp_path)
    assert str(error.value) == (
        "fill-mask needs a mask, but [MASK] is not in the model's vocabulary"
    )


def test_long_texts_are_refused_when_that_is_asked(classify):
    with pytest.raises(npbert.InputError) as error:
        classify(["short", "good " * 300], long="error")
    assert str(error.value) == (
        "text 1: has 302 tokens, but the model reads 256; shorten it, or say long='truncate'"
    )


def test_a_mask_that_would_be_cut_off_is_an_error(fill):
    with pytest.raises(npbert.InputError) as error:
        fill("a [MASK] " + "word " * 300 + "[MASK]")
    assert str(error.value) == (
        "text 0: 1 of its 2 [MASK] would be cut off: the model reads 256 tokens, and 49 more follow"
    )


BAD = {
    "a number": (5, "text-classification reads a str, or many, not int"),
    "None": (None, "text-classification reads a str, or many, not NoneType"),
    "bytes": (b"x", "text-classification reads a str, or many, not bytes"),
    "a number in a list": (["ok", 5], "text 1: a text is a str, not int: 5"),
    "three texts": (
        ("a", "b", "c"),
        "text 0: is a tuple of 3, expected text and perhaps text_pair; many inputs are a list",
    ),
    "another key": ({"txt": "a"}, "text 0: has 'txt', expected text and perhaps text_pair"),
    "no text": ({"text_pair": "a"}, "text 0: has no text"),
    "half a character": (
        "a\ud83d",
        "text 0: the text has half a character, '\\ud83d', at position 1; it was decoded from "
        "broken UTF-16 or with surrogateescape",
    ),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD)
def test_what_is_no_text_is_refused(classify, given, message):
    with pytest.raises(npbert.InputError) as error:
        classify(given)
    assert str(error.value) == message


ODD = [
    "",
    " ",
    "\n\t",
    "\0",
    "\x01\x1b[31m",
    "שלום עולם",
    "👩‍👩‍👧‍👦 🎬",
    "é",
    "ﬁlm",
    "a" * 5000,
    "\u202eabc",
]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_odd_texts_get_an_answer(classify, fill, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npbert.NpbertWarning)
        assert 0 < classify(text)["score"] <= 1
        assert len(fill("[MASK] " + text)) == 5


def test_a_megabyte_of_text_gets_an_answer(classify):
    with pytest.warns(npbert.NpbertWarning, match="1 of the texts was truncated to 256 tokens"):
        assert classify("a dull film " * 90_000)["label"] == "NEGATIVE"


def test_a_text_without_a_mask_has_nothing_to_fill(fill):
    with pytest.raises(npbert.InputError) as error:
        fill(["A [MASK].", "No mask."])
    assert str(error.value) == "text 1: has no [MASK], so that there is nothing to fill in"


WRONG_OPTIONS = {
    "misspelt": (
        {"topk": 1},
        "text-classification has no option 'topk'; it is called 'top_k' here",
    ),
    "zero": ({"top_k": 0}, "top_k is 0, expected a whole number from 1"),
    "a word": ({"top_k": "many"}, "top_k is 'many', expected a whole number from 1"),
    "another function": (
        {"function_to_apply": "tanh"},
        "function_to_apply is 'tanh', expected one of None, 'softmax', 'sigmoid', 'none'",
    ),
    "another way": ({"long": "window"}, "long is 'window', expected one of 'truncate', 'error'"),
    "another name": (
        {"return_all_scores": True},
        "text-classification has no option 'return_all_scores'; it is called 'top_k' here",
    ),
    "true": ({"top_k": True}, "top_k is True, expected a whole number from 1"),
    "no way": ({"long": None}, "long is None, expected one of 'truncate', 'error'"),
}


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_an_option_that_makes_no_sense_is_refused(classify, options, message):
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("text-classification", **options)
    assert str(error.value) == message
    with pytest.raises(npbert.InputError, match=r"expected|did you mean|is called"):
        classify("x", **options)


def test_an_unknown_task_is_named_and_corrected():
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("fill-masks")
    assert str(error.value) == "unknown task 'fill-masks'; did you mean 'fill-mask'?"
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("ner")
    assert str(error.value) == "unknown task 'ner'; it is called 'token-classification' here"


def test_a_model_of_another_architecture_is_refused():
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("fill-mask", npbert.load(built_in_folder("sentiment")))
    assert str(error.value) == (
        "fill-mask needs a model for_masked_language_modeling, but this one is "
        "for_sequence_classification"
    )


def test_a_model_without_a_tokenizer_is_refused():
    config = npbert.Config(hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    model = npbert.init(config, "for_sequence_classification")
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("text-classification", model)
    assert str(error.value) == (
        "text-classification reads text, but the model came without a tokenizer: its folder has "
        "neither tokenizer.json nor vocab.txt"
    )


@pytest.mark.parametrize("name", [name for name, kind in TASKS.items() if kind.built_in])
def test_a_built_in_model_fits_its_task(name):
    assert npbert.pipeline(name).row.name == name
