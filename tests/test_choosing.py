"""Tasks that judge pairs of texts: zero-shot-classification, multiple-choice, text-ranking."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from rigged import WIDTH, rigged

import npbert
from npbert.cli import main
from npbert.tasks.feature_extraction import blocks_below

# ---- zero-shot classification -------------------------------------------------------------------

NLI = ["entailment", "neutral", "contradiction"]
SEQUENCE = "for_sequence_classification"


def by_first_token(folder, labels, classes):
    """Write a model whose [CLS] says the same of every text: logits that a test can choose."""
    head = np.zeros((len(labels), WIDTH))
    head[:, 0] = classes
    return rigged(folder, SEQUENCE, {"[CLS]": 0}, labels=labels, head=head)


def test_labels_come_best_first_and_their_scores_sum_to_1(tmp_path):
    model = npbert.init(
        npbert.Config(vocab_size=9, hidden_size=8, num_attention_heads=2, intermediate_size=8,
                      num_blocks=1, id_to_label=dict(enumerate(NLI)), initializer_scale=2.0),
        SEQUENCE,
    )  # fmt: skip
    model.save(tmp_path)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sport", "politics", "food", "goal", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    task = npbert.pipeline("zero-shot-classification", tmp_path)
    labels = ["sport", "politics", "food"]
    answer = task("goal.", candidate_labels=labels)
    assert answer["sequence"] == "goal."
    assert sorted(answer["labels"]) == sorted(labels)
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert sum(answer["scores"]) == pytest.approx(1)
    assert task("goal.", candidate_labels="sport, politics,food,") == answer
    assert task({"text": "goal.", "candidate_labels": labels}) == answer
    assert task(("goal.", labels)) == answer
    assert json.loads(json.dumps(answer)) == answer
    each = task("goal.", candidate_labels=labels, multi_label=True)
    alone = [task("goal.", candidate_labels=[label])["scores"][0] for label in each["labels"]]
    np.testing.assert_allclose(each["scores"], alone, rtol=1e-5)
    assert task("goal.", candidate_labels=["sport", "sport"])["labels"] == ["sport"]


@pytest.mark.parametrize(
    "labels",
    [NLI, ["neutral", "contradiction", "entailment"], ["contradiction", "entailment", "neutral"]],
)
def test_contradiction_is_found_by_its_name(tmp_path, labels):
    """Defect of transformers: it is class 0, or the last, which may be called neutral."""
    logits = {"entailment": 0.5, "neutral": 3.0, "contradiction": 0.1}
    folder = by_first_token(tmp_path, labels, [logits[label] for label in labels])
    task = npbert.pipeline("zero-shot-classification", folder, multi_label=True)
    peak = np.sqrt(WIDTH - 1)  # what the norm makes of a vector with one 1
    expected = 1 / (1 + np.exp(-(0.5 - 0.1) * peak))
    assert task("x", candidate_labels="a,b")["scores"] == pytest.approx([expected] * 2, rel=1e-4)


def test_great_logits_do_not_overflow(tmp_path):
    """Defect of transformers: exp without subtracting the greatest overflows beyond 88."""
    folder = by_first_token(tmp_path, NLI, [3e5, 0.0, -3e5])
    task = npbert.pipeline("zero-shot-classification", folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task("x", candidate_labels="a,b")["scores"] == [0.5, 0.5]
        assert task("x", candidate_labels="a,b", multi_label=True)["scores"] == [1.0, 1.0]


def test_names_of_classes_are_read_in_any_case(tmp_path):
    labels = ["CONTRADICTION", "Neutral", "Entailment"]
    task = npbert.pipeline("zero-shot-classification", by_first_token(tmp_path, labels, [0, 0, 0]))
    assert task.find_classes(task.options) == (2, 0)


def test_not_entailed_serves_as_contradiction(tmp_path):
    labels = ["entailment", "not_entailment"]
    task = npbert.pipeline("zero-shot-classification", by_first_token(tmp_path, labels, [0, 0]))
    assert task.find_classes(task.options) == (0, 1)


def test_a_model_without_these_classes_is_refused(tmp_path):
    folder = by_first_token(tmp_path / "a", ["good", "bad"], [0, 0])
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("zero-shot-classification", folder)
    assert str(error.value) == (
        "zero-shot-classification needs a model of natural language inference, with a class called "
        "entailment; this one has good, bad; entailment= says which of them means that"
    )
    folder = by_first_token(tmp_path / "b", ["entailment", "neutral"], [0, 0])
    task = npbert.pipeline("zero-shot-classification", folder)
    assert len(task("x", candidate_labels="a,b")["labels"]) == 2
    with pytest.raises(npbert.InputError) as error:
        task("x", candidate_labels="a,b", multi_label=True)
    assert str(error.value) == (
        "text 0: to judge a label by itself the model needs a class called contradiction (or "
        "not_entailment); it has entailment, neutral; contradiction= says which of them means that"
    )


def test_classes_without_names_can_be_said_to_mean_entailment_and_contradiction(tmp_path):
    folder = by_first_token(tmp_path, ["LABEL_0", "LABEL_1", "LABEL_2"], [0.1, 3.0, 0.5])
    task = npbert.pipeline("zero-shot-classification", folder, entailment="LABEL_2")
    assert task("x", candidate_labels="a,b")["scores"] == [0.5, 0.5]
    with pytest.raises(npbert.InputError, match=r"; contradiction= says which of them means that$"):
        task("x", candidate_labels="a")
    peak = np.sqrt(WIDTH - 1)
    expected = 1 / (1 + np.exp(-(0.5 - 0.1) * peak))
    both = {"entailment": "LABEL_2", "contradiction": "LABEL_0"}
    assert task("x", candidate_labels="a", **both)["scores"] == pytest.approx([expected], rel=1e-4)
    turned = {"entailment": "LABEL_0", "contradiction": "LABEL_2", "candidate_labels": "a"}
    assert task("x", **turned)["scores"] == pytest.approx([1 - expected], rel=1e-4)
    for options, why in (
        (
            {"entailment": "LABEL_3"},
            "entailment is 'LABEL_3', which is no class of the model; did ",
        ),
        ({"contradiction": "no"}, "contradiction is 'no', which is no class of the model; it has "),
        (
            {"contradiction": "LABEL_2"},
            "entailment and contradiction are both 'LABEL_2', expected ",
        ),
        ({"entailment": 2}, "entailment is 2, expected a str"),
    ):
        with pytest.raises(npbert.InputError) as raised:
            task("x", candidate_labels="a", **options)
        assert str(raised.value).startswith(why)


def test_what_is_said_of_classes_goes_before_their_names(tmp_path):
    folder = by_first_token(tmp_path, NLI, [0.5, 3.0, 0.1])
    task = npbert.pipeline("zero-shot-classification", folder, candidate_labels="a")
    assert task.find_classes(task.with_changes({"entailment": "neutral"})) == (1, 2)
    assert task.find_classes(task.with_changes({"contradiction": "neutral"})) == (0, 1)


def test_of_two_classes_the_other_one_means_contradiction(tmp_path):
    folder = by_first_token(tmp_path, ["LABEL_0", "LABEL_1"], [0.5, 0.1])
    task = npbert.pipeline("zero-shot-classification", folder, entailment="LABEL_1")
    assert task.find_classes(task.options) == (1, 0)


def test_the_command_says_the_classes_in_flags(tmp_path, capsys):
    folder = by_first_token(tmp_path, ["LABEL_0", "LABEL_1", "LABEL_2"], [0.1, 3.0, 0.5])
    command = ["zero-shot-classification", "-m", str(folder), "--candidate-labels", "a", "x"]
    assert main(command) == 2
    assert capsys.readouterr().err.endswith("; --entailment says which of them means that\n")
    assert main([*command, "--entailment", "LABEL_2", "--contradiction", "LABEL_0"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["a"]


def test_a_long_text_is_cut_and_the_hypothesis_is_not(tmp_path):
    task = npbert.pipeline("zero-shot-classification", by_first_token(tmp_path, NLI, [0, 0, 0]))
    with pytest.warns(npbert.NpbertWarning, match="^1 of the texts was truncated to 64 tokens, "):
        task("word " * 100, candidate_labels="a,b")
    with pytest.raises(npbert.InputError, match="the second text has 104 tokens, which"):
        task("word", candidate_labels=["a", "word " * 100])


@pytest.mark.parametrize("template", ["about it", "{0}", "{name}", "", "}{", "{!r}"])
def test_a_template_without_a_place_for_the_label_is_refused(tmp_path, template):
    folder = by_first_token(tmp_path, NLI, [0, 0, 0])
    with pytest.raises(npbert.InputError, match=r"^hypothesis_template is .*, expected a sentence"):
        npbert.pipeline("zero-shot-classification", folder, hypothesis_template=template)


def test_braces_but_the_labels_own_stay_as_they_are(tmp_path):
    task = npbert.pipeline("zero-shot-classification", by_first_token(tmp_path, NLI, [0, 0, 0]))
    template = "{.x} {} {0} {"
    reading = task.read(
        "x", replace(task.options, candidate_labels=("a",), hypothesis_template=template)
    )
    assert reading.lists[0][0] == task.tokenizer.encode("x", "{.x} a {0} {").ids


def test_no_labels_are_nothing_to_choose_from(tmp_path):
    task = npbert.pipeline("zero-shot-classification", by_first_token(tmp_path, NLI, [0, 0, 0]))
    for labels in ((), [], "", " , "):
        with pytest.raises(
            npbert.InputError,
            match=r"^text 0: has no labels to choose from; pass candidate_labels=$",
        ):
            task("x", candidate_labels=labels)
    with pytest.raises(npbert.InputError, match=r"^candidate_labels is 5, expected a list of str$"):
        task("x", candidate_labels=5)


# ---- multiple choice ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def choose(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choice")
    config = npbert.Config(
        vocab_size=9, max_positions=16, hidden_size=8, num_attention_heads=2, intermediate_size=8,
        num_blocks=1, initializer_scale=1.0,
    )  # fmt: skip
    npbert.init(config, "for_multiple_choice").save(folder)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sky", "is", "blue", "cheese", "the"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return npbert.pipeline("multiple-choice", folder)


def test_the_best_choice_is_told_and_the_chance_of_each(choose):
    choices = ["blue", "cheese", "the sky", "blue cheese"]
    answer = choose({"prompt": "The sky is", "choices": choices})
    assert set(answer) == {"index", "choice", "score", "scores"}
    assert answer["choice"] == choices[answer["index"]]
    assert answer["score"] == max(answer["scores"]) == answer["scores"][answer["index"]]
    assert sum(answer["scores"]) == pytest.approx(1)
    ids = [[choose.tokenizer.encode("The sky is", choice).ids for choice in choices]]
    (logits,) = choose.model.packed(ids)
    np.testing.assert_allclose(answer["scores"], np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
    assert json.loads(json.dumps(answer)) == answer


def test_inputs_may_differ_in_how_many_choices_they_have(choose):
    one, two = ("The sky is", ["blue"]), ("The sky is", ["blue", "cheese", "the"])
    answers = choose([one, two])
    assert answers[0] == {"index": 0, "choice": "blue", "score": 1.0, "scores": [1.0]}
    assert len(answers[1]["scores"]) == 3


CHOICES = {
    "no choices": (("a", []), "text 0: choices is empty, expected at least one of str"),
    "one str": (("a", "blue"), "text 0: choices is 'blue', expected a list of str"),
    "a number": (("a", [5]), "text 0: a text is a str, not int: 5"),
    "no prompt": ({"choices": ["a"]}, "text 0: has no prompt"),
    "a text": ("a", "text 0: is 'a', expected a dict or tuple of prompt and choices"),
}


@pytest.mark.parametrize(("given", "message"), CHOICES.values(), ids=CHOICES)
def test_what_gives_no_choice_is_refused(choose, given, message):
    with pytest.raises(npbert.InputError) as error:
        choose(given)
    assert str(error.value) == message


# ---- text ranking -------------------------------------------------------------------------------


def ranker(folder, classes=1, **config):
    """Write a cross-encoder that likes texts with "sea" in them, and more of it."""
    made = npbert.init(
        npbert.Config(vocab_size=9, max_positions=32, hidden_size=8, num_attention_heads=2,
                      intermediate_size=8, num_blocks=1, initializer_scale=1.0,
                      id_to_label={i: str(i) for i in range(classes)}, other=config),
        SEQUENCE, seed=4,
    )  # fmt: skip
    made.save(folder)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sea", "cat", "deep", "the", "is"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


DOCUMENTS = ["the cat", "the sea is deep", "deep sea", "is"]


def test_documents_are_ranked_as_their_pairs_are_scored(tmp_path):
    task = npbert.pipeline("text-ranking", ranker(tmp_path))
    scores = task.predict([("deep", document) for document in DOCUMENTS])
    ranking = task.rank("deep", DOCUMENTS)
    order = sorted(range(4), key=lambda i: -scores[i])
    assert [each["corpus_id"] for each in ranking] == order
    np.testing.assert_allclose([each["score"] for each in ranking], sorted(scores)[::-1], rtol=1e-5)
    assert task({"query": "deep", "documents": DOCUMENTS}) == ranking
    assert task.rank("deep", DOCUMENTS, top_k=2) == ranking[:2]
    assert task.rank("deep", DOCUMENTS, top_k=99) == ranking
    told = task.rank("deep", DOCUMENTS, return_documents=True)
    assert [each["text"] for each in told] == [DOCUMENTS[i] for i in order]
    assert task(("deep", "deep sea")) == {"score": pytest.approx(scores[2], rel=1e-5)}
    assert task.predict([]) == []
    assert json.loads(json.dumps(ranking)) == ranking


IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    ("classes", "config", "function"),
    [
        (1, {}, "sigmoid"),
        (3, {}, "none"),
        (1, {"sentence_transformers": {"activation_fn": IDENTITY}}, "none"),
        (1, {"sbert_ce_default_activation_function": IDENTITY}, "none"),
        (3, {"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}}, "sigmoid"),
        (1, {"sentence_transformers": {"version": "4"}}, "sigmoid"),
        (
            1,
            {"sentence_transformers": {}, "sbert_ce_default_activation_function": IDENTITY},
            "sigmoid",
        ),
    ],
)
def test_scores_are_made_as_sentence_transformers_makes_them(tmp_path, classes, config, function):
    task = npbert.pipeline("text-ranking", ranker(tmp_path, classes, **config))
    pair = ("deep", "the sea")
    answer = task(pair)
    assert answer == task(pair, function_to_apply=function)
    assert set(answer) == {"score" if classes == 1 else "scores"}
    assert len(task.predict([pair, pair])) == 2


def test_the_function_may_stand_beside_the_model(tmp_path):
    folder = ranker(tmp_path)
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"activation_fn": IDENTITY})
    )
    assert npbert.pipeline("text-ranking", folder).usual == "none"
    assert npbert.pipeline("text-ranking", npbert.load(folder)).usual == "none"


def test_a_query_stands_behind_its_prompt(tmp_path):
    folder = ranker(tmp_path)
    said = {"prompts": {"q": "the deep "}, "default_prompt_name": "q"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    task = npbert.pipeline("text-ranking", folder)
    plain = task.predict(("the deep sea", "cat"), prompt="")
    assert task.predict(("sea", "cat")) == plain
    assert task.predict(("sea", "cat"), prompt_name="q") == plain
    assert task.predict(("sea", "cat"), prompt="") != plain
    with pytest.raises(npbert.InputError, match=r"^prompt_name is 'p', but the model has q$"):
        task.predict(("sea", "cat"), prompt_name="p")
    with pytest.warns(npbert.NpbertWarning, match="^1 of the texts was truncated to 8 tokens, "):
        task.predict(("sea", "cat " * 9))


def test_pairs_may_be_lists_and_one_pair_gives_one_score(tmp_path):
    task = npbert.pipeline("text-ranking", ranker(tmp_path))
    assert task.predict([["deep", "sea"]]) == task.predict([("deep", "sea")])
    assert task.predict(("deep", "sea")) == task.predict([("deep", "sea")])[0]


def test_softmax_of_one_class_is_refused(tmp_path):
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("text-ranking", ranker(tmp_path), function_to_apply="softmax")
    assert str(error.value) == "function_to_apply is 'softmax', which of one class is always 1"


def test_a_function_that_is_not_known_is_named(tmp_path):
    folder = ranker(tmp_path, sentence_transformers={"activation_fn": "os.system"})
    with pytest.raises(npbert.CheckpointError) as error:
        npbert.pipeline("text-ranking", folder)
    assert str(error.value) == (
        "config.json: activation_fn is 'os.system'; npbert knows Sigmoid and Identity"
    )


def test_several_classes_cannot_rank(tmp_path):
    task = npbert.pipeline("text-ranking", ranker(tmp_path, 3))
    with pytest.raises(npbert.InputError) as error:
        task.rank("deep", DOCUMENTS)
    assert str(error.value) == (
        "text 0: the model has 3 classes, and documents are ranked by one; pairs of query and "
        "document can be scored"
    )


def test_of_no_documents_there_is_no_order(tmp_path):
    task = npbert.pipeline("text-ranking", ranker(tmp_path))
    assert task.rank("deep", []) == []


# ---- feature extraction -------------------------------------------------------------------------


def test_features_are_a_hidden_state_of_every_token():
    task = npbert.pipeline("feature-extraction")
    ids = task.tokenizer.encode("A café.").ids
    out = npbert.load(npbert.tasks.built_in_folder("fill-mask"), "base")(
        [ids], output_hidden_states=True
    )
    for layer in range(3):
        for named in (layer, layer - 3):
            np.testing.assert_allclose(
                task("A café.", layer=named), out.hidden_states[layer][0], atol=2e-6
            )
    assert np.array(task("A café.")).shape == (len(ids), 192)
    lists = task(["A café.", ("A", "b")])
    assert json.loads(json.dumps(lists)) == lists


def test_features_may_come_with_tokens_and_places():
    task = npbert.pipeline("feature-extraction", offsets=True)
    text = "A café 🎬 film"
    answer = task(text)
    assert set(answer) == {"features", "tokens", "offsets"}
    assert answer["tokens"][0] == "[CLS]"
    assert answer["offsets"][0] == answer["offsets"][-1] == [0, 0]
    encoded = text.encode()
    places = task(text, offset_unit="byte")["offsets"]
    for (a, b), (start, end) in zip(answer["offsets"], places, strict=True):
        assert encoded[start:end].decode() == text[a:b]
    pair = task(("Film.", "A film."))  # places count in the text that a token is from
    assert pair["offsets"][1] == [0, 4]
    assert [3 - 1, 6] in pair["offsets"]


def test_a_layer_that_is_not_there_is_refused():
    task = npbert.pipeline("feature-extraction")
    for layer in (3, -4):
        with pytest.raises(npbert.InputError) as error:
            task("x", layer=layer)
        assert str(error.value) == (
            f"layer is {layer}, but the model has 3 hidden states, 0 to 2 (or -3 to -1, from the "
            "last)"
        )
    assert blocks_below(task.whole, -1) == 2
