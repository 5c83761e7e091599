"""Why this answer: words and heads left out in packs, and the answer after each block."""

import re

import numpy as np
import pytest
from pages import CASES, DEMO, SENTENCE, Page, deep_model

import npbert
from npbert.explaining import comparison, passes, variants
from npbert.explaining.glossary import GLOSSARY, REASONS
from npbert.explaining.markup import digits


def asked_of(name):
    folder, text, pair = CASES[name]
    run = passes.trace_pass(npbert.load(folder), text, pair)
    return run, passes.question_of(run)


def read_rows(run, asked, out):
    """Return the answer of a dense call of one sequence, or of a group of choices."""
    if run.model.row.has_choices:
        return asked.read(out.logits.reshape(-1, 1))
    if out.start_logits is not None:
        return asked.read(np.stack([out.start_logits[0], out.end_logits[0]], -1))
    x = (out.hidden_state if out.logits is None else out.logits)[0]
    return asked.read(x[None] if x.ndim == 1 else x)


@pytest.mark.parametrize("name", ["masked", "sequence", "token", "answer", "choice", "base"])
def test_a_word_left_out_is_the_mask_or_a_token_that_nobody_hears(name):
    run, asked = asked_of(name)
    words, total = variants.choose_words(run)
    assert len(words) == total > 0
    ids, keep = run.trace["input_ids"], run.trace["attention_mask"]
    mask = run.tokenizer.id_of("mask_token")
    found = variants.word_effects(run, asked, words)
    assert list(found) == ["[MASK]", "hidden"]
    for i in (0, len(words) - 1):
        shape = ids.shape
        changed, hidden = ids.reshape(-1, shape[-1]).copy(), keep.reshape(-1, shape[-1]).copy()
        for row, places in enumerate(words[i].places):
            changed[row, places], hidden[row, places] = mask, 0
        for way, given in (
            ("[MASK]", (changed.reshape(shape), keep)), ("hidden", (ids, hidden.reshape(shape)))
        ):  # fmt: skip
            real = read_rows(run, asked, run.model(*given))
            effect = found[way][i]
            assert effect.answer.values == pytest.approx(list(real.values), abs=2e-5)
            assert effect.answer.best == real.best
            assert words[i].text in effect.without


def test_a_head_of_a_pruned_block_is_left_out_by_its_own_number():
    model = npbert.init(
        npbert.Config(vocab_size=8000, hidden_size=24, num_attention_heads=3, num_blocks=3,
                      intermediate_size=40, pruned_heads={1: (0,)}),
        "for_token_classification",
    )  # fmt: skip
    model.tokenizer = npbert.load(DEMO / "sentiment").tokenizer
    run = passes.trace_pass(model, "A fine film.", None)
    asked = passes.question_of(run)
    found = variants.head_effects(run, asked)
    assert [(e.block, e.head) for e in found] == [
        *((0, h) for h in range(3)), (1, 1), (1, 2), *((2, h) for h in range(3))
    ]  # fmt: skip
    for effect in found:
        mask = np.ones((3, 3))
        mask[effect.block, effect.head] = 0
        out = model(run.trace["input_ids"], attention_head_mask=mask)
        real = read_rows(run, asked, out)
        assert effect.answer.values == pytest.approx(list(real.values), abs=1e-5)


@pytest.mark.parametrize("name", ["masked", "sequence", "token", "answer", "choice", "base"])
def test_the_answer_after_a_block_is_that_of_the_model_cut_there(name):
    run, asked = asked_of(name)
    found = variants.block_answers(run, asked)
    assert len(found) == run.model.config.num_blocks + 1
    model = run.model
    whole = model.encoder
    for i, answer in enumerate(found):
        model.encoder = whole._replace(blocks=whole.blocks[:i])
        real = read_rows(run, asked, model(run.trace["input_ids"], run.trace["attention_mask"]))
        assert answer.values == pytest.approx(list(real.values), abs=2e-5)
    model.encoder = whole
    last = asked.read(passes.head_rows(run))
    assert found[-1].best == last.best


def test_of_many_words_those_that_get_the_most_attention_are_left_out():
    model = npbert.load(DEMO / "sentiment")
    text = " ".join(f"The film {i} was dull and long." for i in range(16))
    run = passes.trace_pass(model, text, None)
    words, total = variants.choose_words(run)
    assert total > 100
    assert len(words) == variants.TOKENS_LEFT_OUT // len(run.encoding) <= 64
    assert [each.start for each in words] == sorted(each.start for each in words)
    heard = sum(
        run.rows(f"transformer.layer.{i}.attention.weights").mean(0).sum(0) for i in range(2)
    )
    chosen = [heard[each.places[0]].sum() for each in words]
    others = [
        heard[each.places[0]].sum()
        for each in variants.list_words(run)
        if each.start not in {word.start for word in words}
    ]
    assert min(chosen) >= max(others)
    page = Page(npbert.explain(model, text, blocks=[0]).html)
    assert f"Of {total} words, {len(words)} were left out" in page.text


def test_words_that_are_masked_already_are_not_left_out():
    run, _ = asked_of("masked")
    assert "[MASK]" not in [each.text for each in variants.list_words(run)]
    assert [each.text for each in variants.list_words(run)][:3] == ["She", "opened", "the"]


def test_several_texts_are_compared_after_every_block():
    texts = ["A cat sat.", "The dog slept.", "Shares fell in London."]
    task = npbert.pipeline("sentence-embedding")
    found = comparison.compare_by_block(task, texts)
    vectors = task(texts)
    assert len(found) == task.model.config.num_blocks
    assert found[-1] == pytest.approx(task.similarity(vectors, vectors), abs=1e-6)
    task.model = task.model.encoder_only(1)
    first = task(texts)
    assert found[0] == pytest.approx(task.similarity(first, first), abs=1e-6)
    page = Page(npbert.explain(None, texts).html)
    assert page.faults == []
    table = page.html.split('id="thinking"')[1].split("</section>")[0]
    told = re.findall("<td>([^<]*)</td>", table)
    assert len(told) == 3 * len(found)
    assert told.count(digits(float(found[0][0, 1]))) >= 1


def test_every_step_says_why_it_is_there():
    page = Page(npbert.explain(None, SENTENCE).html)
    steps = re.findall(r'<section class="step" id="([^"]*)".*?</section>', page.html, re.DOTALL)
    assert len(steps) == 2 + 2 * 6 + 2
    for step in steps:
        assert step.rpartition("-")[2] in REASONS
        section = page.html.split(f'<section class="step" id="{step}"')[1].split("</section>")[0]
        assert section.count('<p class="why">') == 1
    assert page.count("dt") == len(GLOSSARY)
    assert list(GLOSSARY) == sorted(GLOSSARY)


def test_a_token_is_never_called_a_row_or_a_column_of_a_picture():
    page = Page(npbert.explain(None, SENTENCE).html)
    outside = re.sub(r"<pre.*?</pre>", "", page.html.split("<script")[0], flags=re.DOTALL)
    text = re.sub("<[^>]*>", "", outside.split("</style>")[1])
    assert " row" not in text
    for sentence in re.findall(r"[^.]*\bcolumn\b[^.]*", text):
        assert "code" in sentence


def test_the_drawing_has_the_sizes_of_the_model():
    page = Page(npbert.explain(None, SENTENCE).html)
    drawing = page.html.split('id="picture"')[1].split("</section>")[0]
    model = npbert.load(DEMO / "fill-mask")
    total = sum(x.size for x in {id(x): x for x in model.parameters.values()}.values())
    assert f"{total:,} learned numbers" in drawing
    for told in ("13 tokens", "\u00d7 192 features", "192 → 768 → 192", "6 heads", "6,500 scores"):
        assert told in drawing
    targets = re.findall(r'href="#([^"]*)"', drawing)
    assert {"tokens", "embeddings", "block-1", "block-1-ffn", "end", "answer"} <= set(targets)
    ids = {a.get("id") for _, a in page.elements}
    assert set(targets) <= ids


def test_many_blocks_are_drawn_without_their_sizes():
    page = Page(npbert.explain(deep_model(), "A film.", blocks=[3]).html)
    drawing = page.html.split('id="picture"')[1].split("</section>")[0]
    links = re.findall('href="#block-([^"]*)"(?: aria-label="([^"]*)")?', drawing)
    assert links == [
        ("3", ""),
        ("3-attention", "block 3, attention"),
        ("3-ffn", "block 3, feed forward"),
    ]
    assert drawing.count("feed forward</bdi>") == 12
    assert "24 → 40 → 24" not in drawing


def test_what_cannot_be_read_from_a_vector_says_how_near_it_is():
    page = Page(npbert.explain(*CASES["base"]).html)
    assert "how near each token's vector is by then" in page.text
    assert "The answer:" not in page.text


def test_what_rounding_alone_changes_has_no_bar():
    page = Page(npbert.explain(DEMO / "embedding", "The match is on.").html)
    found = re.findall(
        r'data-effect=.*?--share:([\d.]*)"></span></span><span class=value>([^<]*)<', page.html
    )
    assert len(found) > 12
    assert {share for share, told in found if told == "0"} == {"0.0000"}
    assert "1.0000" in {share for share, _ in found}
    assert "0.0000" not in {share for share, told in found if told != "0"}


def test_texts_that_are_compared_have_reasons_and_a_glossary():
    page = Page(npbert.explain(None, ["A cat.", "A dog."]).html)
    step = page.html.split('id="vectors"')[1].split("</section>")[0]
    assert "Why?</b> Because the same can be said in other words" in step
    assert page.count("dl") == 1
    ids = {a.get("id") for _, a in page.elements}
    assert {a["href"][1:] for tag, a in page.elements if tag == "a"} <= ids


def test_words_that_are_written_alike_are_told_apart():
    page = Page(npbert.explain(None, "A dull film, a dull [MASK] and a dull end.").html)
    for name in ("dull (1 of 3)", "dull (3 of 3)", "a (2 of 2)", "A", "end"):
        assert f"<span class=name><bdi>{name}</bdi>" in page.html
    told = [each["without"] for each in page.data["answer"]["words"]]
    assert "with \u201cdull\u201d (2 of 3) hidden" in told
    assert "with \u201cend\u201d as [MASK]" in told
    assert len(told) == len(set(told))
