"""The page of a BERT: words, places and types, by the names of its own modules."""

import re

import numpy as np
import pytest
from pages import DEMO, Page

import npbert
from npbert.explaining import passes, variants
from npbert.explaining.markup import round_to_digits
from npbert.families import list_architectures

TEXT, PAIR = "A fine film.", "It is good."
POOLED = ("for_sequence_classification", "for_multiple_choice", "for_next_sentence_prediction")


def bert(architecture: str, family: str = "bert") -> npbert.Model:
    more = {"type_vocab_size": 2} if family == "bert" else {}
    config = npbert.Config(
        family=family, vocab_size=8000, hidden_size=24, num_attention_heads=3, num_blocks=2,
        intermediate_size=40, max_positions=64, num_labels=3, **more,
    )  # fmt: skip
    model = npbert.init(config, architecture)
    model.tokenizer = npbert.load(DEMO / "sentiment").tokenizer
    return model


def pair_for(model: npbert.Model) -> str | list[str]:
    return [PAIR, "No."] if model.row.has_choices else PAIR


@pytest.fixture(scope="module", params=list_architectures("bert"))
def made(request: pytest.FixtureRequest) -> tuple[npbert.Model, Page]:
    model = bert(request.param)
    return model, Page(npbert.explain(model, TEXT, pair_for(model)).html)


def test_every_architecture_has_a_page_with_the_numbers_of_its_trace(
    made: tuple[npbert.Model, Page],
) -> None:
    model, page = made
    run = passes.trace_pass(model, TEXT, pair_for(model))
    wanted = {x for x in run.trace.activations if not x.endswith(("masked_scores", "logits"))}
    assert page.faults == []
    assert wanted - set(page.data["arrays"]) <= {"cls.predictions.decoder", "classifier"}
    for name in page.data["arrays"]:
        told, real = page.array(name), run.rows(name)
        if name.endswith((".query", ".key", ".value", ".context")):
            real = run.split_heads(name, int(name.split(".")[2]))
        seen = ~np.isnan(told) & (np.abs(real) > np.abs(real).max() * 1e-7)
        assert np.allclose(round_to_digits(told[seen]), round_to_digits(real[seen]), rtol=1e-9)


def test_maps_and_arrays_have_berts_names_and_no_other(made: tuple[npbert.Model, Page]) -> None:
    model, page = made
    names = set(re.findall(r'data-array="([^"]*)"', page.html))
    assert names <= set(page.data["arrays"])
    assert "encoder.layer.1.attention.output.LayerNorm" in names
    assert page.data["weights"] == [f"encoder.layer.{i}.attention.self.weights" for i in range(2)]
    assert "transformer.layer" not in page.html
    assert ("pooler.dense" in names) == (model.architecture in POOLED)


def test_words_places_and_types_are_shown_and_summed(made: tuple[npbert.Model, Page]) -> None:
    _, page = made
    words, places, types, total = (
        page.array(f"embeddings.{name}")
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "sum")
    )
    assert np.allclose(words + places + types, total, atol=5e-3 * np.abs(total).max())
    assert len(np.unique(types, axis=0)) == 2  # of the text, and of its pair
    step = page.html.split('id="embeddings"')[1].split("</section>")[0]
    assert "word + position + type" in step
    assert "T[type]" in step


def test_each_token_says_its_type() -> None:
    html = npbert.explain(bert("for_sequence_classification"), TEXT, PAIR).html
    said = re.findall(r"<small>[^<]*, type (\d)", html)
    run = passes.trace_pass(bert("for_sequence_classification"), TEXT, PAIR)
    ends = [i for i, token in enumerate(run.tokens) if token == "[SEP]"]
    assert len(ends) == 2
    expected = [0] * (ends[0] + 1) + [1] * (ends[1] - ends[0])
    assert [int(each) for each in said] == run.types == expected
    assert run.trace["token_type_ids"].tolist() == [expected]
    alone = npbert.explain(bert("for_sequence_classification"), TEXT).html
    assert set(re.findall(r"<small>[^<]*, type (\d)", alone)) == {"0"}


def test_the_pooler_is_told_with_its_own_function() -> None:
    for family, function, other in (("bert", "tanh", "relu"), ("distilbert", "relu", "tanh")):
        html = npbert.explain(bert("for_sequence_classification", family), TEXT).html
        head = html.split('id="head"')[1].split("</section>")[0]
        told = re.sub("<details.*?</details>", "", head, flags=re.DOTALL)
        assert f"one layer, {function}, and one number for every class" in told
        assert f"h = {function}(h)" in told
        assert other not in told


def test_without_one_head_the_answer_is_that_of_the_same_types() -> None:
    """The run without any change is the run shown: types go into all of them."""
    model = bert("for_sequence_classification")
    run = passes.trace_pass(model, TEXT, PAIR)
    types = np.array(run.types)[None]
    mask = np.ones((2, 3))
    mask[1, 2] = 0
    expected = model(np.array(run.encoding.ids)[None], None, None, mask, token_type_ids=types)
    asked = passes.question_of(run)
    effects = {(e.block, e.head): e for e in variants.head_effects(run, asked)}
    assert np.allclose(effects[1, 2].answer.values, asked.read(expected.logits).values, atol=1e-6)


def test_the_next_sentence_follows_or_does_not() -> None:
    model = bert("for_next_sentence_prediction")
    model.parameters["seq_relationship.bias"][:] = -5, 5
    html = npbert.explain(model, TEXT, PAIR).html
    assert "The answer: <strong data-winner><bdi>it does not</bdi></strong>" in html
    assert "does the second text follow the first, or not?" in html


def test_a_family_without_types_says_none() -> None:
    html = npbert.explain(bert("for_sequence_classification", "distilbert"), TEXT, PAIR).html
    assert ", type 0" not in html
    assert "T[type]" not in html
    assert 'data-array="transformer.layer.1.sa_layer_norm"' in html


def test_texts_become_types_in_a_trace_too() -> None:
    traced = npbert.trace(bert("base"), text=[TEXT, "A"], pair=[PAIR, "Fine film."])
    types, mask = traced["token_type_ids"], traced["attention_mask"]
    assert types.shape == mask.shape
    assert not (types * (mask == 0)).any()
    assert [row.tolist().count(1) > 2 for row in types] == [True, True]
    assert "token_type_ids" not in npbert.trace(bert("base", "distilbert"), text=TEXT, pair=PAIR)
