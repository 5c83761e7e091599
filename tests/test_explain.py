"""npbert explain: the page holds the numbers of the trace and the source that runs."""

import base64
import hashlib
import html
import importlib
import inspect
import re
import struct
import subprocess
import sys
import zlib
from textwrap import dedent

import numpy as np
import pytest
from pages import CASES, DEMO, HOSTILE, ROOT, SENTENCE, TASKS, WICKED, Page, wicked_model

import npbert
from npbert.errors import InputError
from npbert.explaining import markup, passes
from npbert.explaining.markup import digits, pack_array, round_to_digits

PRUNED = ROOT / "golden" / "pruned"


def model_of(folder):
    """Load a model, or make one that has lost heads and reads text."""
    if folder is not None:
        return npbert.load(folder)
    made = npbert.init(
        npbert.Config(vocab_size=8000, hidden_size=24, num_attention_heads=3, num_blocks=3,
                      intermediate_size=40, activation="silu", pruned_heads={1: (0, 2)}),
        "base",
    )  # fmt: skip
    made.tokenizer = npbert.load(DEMO / "sentiment").tokenizer
    return made


@pytest.fixture(scope="module")
def pages():
    """Make every page once."""
    made = {}

    def page(name):
        if name not in made:
            folder, text, pair = CASES[name]
            model = model_of(folder)
            made[name] = model, Page(npbert.explain(model, text, pair).html)
        return made[name]

    return page


def traced(model, name):
    """Return the sequence that a page shows, by npbert.trace in the engine of the page."""
    _, text, pair = CASES[name]
    return passes.trace_pass(model, text, pair)


@pytest.mark.parametrize("name", CASES)
def test_every_architecture_has_a_page_whose_elements_are_closed(pages, name):
    model, page = pages(name)
    assert page.faults == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    blocks = [f"block-{i}" for i in range(model.config.num_blocks)]
    views = ["picture", "attention", "words", "importance", "thinking", "byhand"]
    steps = ["start", "tokens", "embeddings", *blocks, "end", "head", "answer", "glossary"]
    parts = [*views, *steps]
    if model.architecture == "base":  # vectors are no answer in words
        parts.remove("answer")
    assert [each for each in ids if each in parts] == parts
    links = [a["href"] for tag, a in page.elements if tag == "a" and "href" in a]
    assert all(link[0] == "#" and link[1:] in ids for link in links)


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_in_the_page_are_those_of_the_trace_to_three_digits(pages, name):
    model, page = pages(name)
    run = traced(model, name)
    arrays = page.data["arrays"]
    wanted = {x for x in run.trace.activations if not x.endswith(("masked_scores", "logits"))}
    assert wanted - set(arrays) <= {"vocab_projector", "logits", "classifier"}
    for array in arrays:
        block = int(array.split(".")[2]) if array.startswith("transformer") else 0
        by_heads = array.endswith((".q_lin", ".k_lin", ".v_lin", ".context"))
        real = run.split_heads(array, block) if by_heads else run.rows(array)
        told = page.array(array)
        assert told.shape == real.shape
        hidden = np.isnan(told)
        assert not hidden.any() or array.endswith("masked_scores")
        tiny = np.abs(real) < np.abs(real[~hidden]).max(initial=0) * 1e-7
        real, told = real[~hidden & ~tiny], told[~hidden & ~tiny]
        # Both are rounded to the same digits.
        assert np.allclose(round_to_digits(told), round_to_digits(real), rtol=1e-9, atol=0)
        for i in range(0, len(real), 500):
            assert digits(float(told[i])) == digits(float(real[i]))


def test_the_trace_is_the_public_one():
    model = npbert.load(DEMO / "sentiment", engine="textbook")
    run = passes.trace_pass(npbert.load(DEMO / "sentiment"), "A film.", None)
    for name, x in npbert.trace(model, text="A film.").items():
        assert np.array_equal(run.trace[name], x)


@pytest.mark.parametrize("name", CASES)
def test_the_source_in_the_page_is_the_source_that_runs(pages, name):
    _, page = pages(name)
    found = list(page.sources())
    assert len(found) > 10
    for where, code in found:
        text = html.unescape(re.sub(r"<[^>]*>", "", code))
        if "<lambda>" in where or "&lt;" in where:
            assert text in (ROOT / "npbert" / "engine" / "activations.py").read_text("utf-8")
            continue
        parts = html.unescape(where).split(".")
        size = 2 if (ROOT / "npbert" / f"{parts[1]}.py").exists() else 3
        function = importlib.import_module(".".join(parts[:size]))
        for part in parts[size:]:
            function = getattr(function, part)
        assert text == dedent(inspect.getsource(function))  # of a method, moved to the margin


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("block-0-qkv", ["q = tap(", "k = tap(", "v = tap("]),
        ("block-0-attention", ["scores = tap(", "scores = tap(", "weights = tap("]),
        ("block-0-heads", ["return v @ weights", "context = tap(", "return tap("]),
        ("block-0-ffn", ["h = tap(", "h = tap(", "return tap("]),
    ],
)
def test_the_lines_that_compute_a_step_are_marked(pages, name, marked):
    _, page = pages("masked")
    section = page.html.split(f'id="{name}"')[1].split("</section>")[0]
    lines = re.findall(r"<mark>(.*?)</mark>", section)
    plain = [html.unescape(re.sub(r"<[^>]*>", "", line)).strip() for line in lines]
    assert [line[: len(start)] for line, start in zip(plain, marked, strict=True)] == marked


def decode_png(uri):
    """Return the colour numbers of a picture, and its colours."""
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(raw):
        (size,) = struct.unpack(">I", raw[at : at + 4])
        name, body = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        assert struct.unpack(">I", raw[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            name + body
        )
        chunks[name] = body
        at += 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    return rows[:, 1:], np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)


def test_a_picture_shows_the_numbers_of_the_trace(pages):
    model, page = pages("masked")
    figures = re.findall(
        r'<figure class="map[^>]*data-array="([^"]*)" data-kind="(\w+)" data-view="whole" '
        r'data-most="([^"]*)".*?<div class="down".*?<img src="([^"]*)"', page.html
    )  # fmt: skip
    assert len(figures) > 22
    run = traced(model, "masked")
    for name, kind, most, uri in figures:
        found, colours = decode_png(uri)
        assert np.array_equal(found, markup.colour_numbers(run.rows(name), kind, float(most)))
        assert np.array_equal(colours, markup.PALETTES[kind])


@pytest.mark.parametrize("kind", ["positive", "signed"])
def test_lightness_orders_the_colours_and_signs_have_hues_that_everyone_tells_apart(kind):
    table = markup.PALETTES[kind][:-1].astype(float)
    light = table @ [0.2126, 0.7152, 0.0722]
    half = len(light) // 2
    falling = light if kind == "positive" else light[half:]
    assert (np.diff(falling) < 1.5).all()
    assert falling[0] > 240 > 120 > falling[-1]
    if kind == "signed":
        assert (np.diff(light[: half + 1]) > -1.5).all()
        # The blue cones are those that hardly anyone lacks.
        assert (table[:half, 2] >= table[:half, 0]).all()
        assert (table[half + 1 :, 0] >= table[half + 1 :, 2]).all()


@pytest.mark.parametrize("name", ["masked", "sequence", "token", "answer", "choice", "base"])
def test_the_effect_of_a_head_is_that_of_the_head_mask(pages, name):
    model, page = pages(name)
    run = traced(model, name)
    asked = passes.question_of(run)
    config, told = model.config, page.data["answer"]
    ids, keep = run.trace["input_ids"], run.trace["attention_mask"]
    assert len(told["effects"]) == sum(len(config.heads(i)) for i in range(config.num_blocks))
    for effect in told["effects"]:
        mask = np.ones((config.num_blocks, config.num_attention_heads))
        mask[effect["block"], effect["head"]] = 0
        out = model(ids, keep, attention_head_mask=mask)
        if name == "answer":
            rows = np.stack([out.start_logits[0], out.end_logits[0]], -1)
        elif name == "choice":
            rows = out.logits.reshape(-1, 1)
        else:
            rows = out.hidden_state[0] if name == "base" else out.logits[0]
            rows = rows[None] if rows.ndim == 1 else rows
        real = asked.read(rows)
        assert effect["best"] == real.best
        assert effect["shares"] == pytest.approx([float(x) for x in real.values], abs=2e-4)


def test_the_answer_is_the_one_that_the_tasks_give():
    classify = npbert.pipeline("text-classification")
    page = Page(npbert.explain(None, "A gorgeous movie.").html)
    best = classify("A gorgeous movie.")
    assert page.data["answer"]["best"] == best["label"] == "POSITIVE"
    assert page.data["answer"]["shares"][0] == pytest.approx(best["score"], abs=1e-4)
    fill = npbert.pipeline("fill-mask", top_k=8)
    page = Page(npbert.explain(None, SENTENCE).html)
    found = fill(SENTENCE)
    assert page.data["answer"]["best"] == found[0]["token_str"] == "door"
    assert page.data["answer"]["shares"] == pytest.approx([x["score"] for x in found], abs=1e-4)
    folder, question, context = CASES["answer"]
    answer = npbert.pipeline("question-answering", folder)(question=question, context=context)
    page = Page(npbert.explain(folder, question, context).html)
    assert page.data["answer"]["best"] == answer["answer"]
    assert page.data["answer"]["shares"][0] == pytest.approx(answer["score"], abs=1e-4)


def test_padding_is_hidden_in_the_choice_that_has_some():
    folder, text, choices = CASES["choice"]
    page = Page(npbert.explain(folder, text, choices).html)
    assert page.data["answer"]["best"] == "blue"
    scores = page.array("transformer.layer.0.attention.masked_scores")
    padding = page.data["tokens"].count("[PAD]")
    assert padding > 1
    assert np.isnan(scores[:, :, -padding:]).all()
    assert not np.isnan(scores[:, :, :-padding]).any()
    assert "Padding is hidden" in page.text


def test_a_page_asks_for_nothing_and_runs_its_own_script_only(pages):
    for name in ("masked", "choice"):
        _, page = pages(name)
        policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
        digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
        assert policy == (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'"
        )
        assert page.count("link") == page.count("iframe") == page.count("form") == 0
        for _, attributes in page.elements:
            assert not [key for key in attributes if key.startswith("on")]
            assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png")
        assert not re.findall(r"https?://|url\(|@import|fetch\(|XMLHttp", page.html.replace(
            "http://www.w3.org/2000/svg", ""))  # fmt: skip


@pytest.mark.parametrize("name", ["sequence", "answer", "choice", "token", "masked", "base"])
def test_text_in_the_page_stays_text(name):
    folder, _, pair = CASES[name]
    model = npbert.load(folder)
    other = [HOSTILE, "x"] if name == "choice" else HOSTILE if pair else None
    inert(Page(npbert.explain(model, f"{HOSTILE} [MASK]", other).html))


def test_tokens_and_labels_stay_text():
    model, text = wicked_model()
    page = Page(npbert.explain(model, text).html)
    assert page.faults == []
    assert page.count("script") == 2
    assert "b" not in [a.get("id") for _, a in page.elements]
    assert set(map(markup.escape_controls, WICKED)) < set(page.data["tokens"])


def test_texts_that_are_compared_stay_text():
    inert(Page(npbert.explain(None, [HOSTILE, "A dog."]).html))


def inert(page):
    """Assert that a hostile text is in a page, and nothing of it but its characters."""
    assert page.faults == []
    assert page.count("script") == 2
    assert page.count("style") == 1
    assert not [a for _, a in page.elements if a.get("src") == "x"]
    assert " ".join(markup.escape_controls(HOSTILE).split()) in page.text
    assert not [c for c in "\u202e\u2066\u2028\x00\x07\x1b" if c in page.html]


def test_the_script_has_at_most_900_lines_in_files_of_a_thought_each(pages):
    _, page = pages("masked")
    files = [p.read_text("utf-8") for p in (ROOT / "npbert" / "explaining").glob("*.js")]
    assert all(text in page.scripts[1] and len(text.splitlines()) < 300 for text in files)
    assert len(page.scripts[1].splitlines()) <= 900


def test_without_a_script_there_are_texts_and_pictures(pages):
    _, page = pages("masked")
    for words in ("door", "0.426", "Who listens to whom", "[MASK]", "def attention(", "softmax"):
        assert words in page.text
    assert page.count("img") > 80
    assert page.count("polyline") == 3
    alts = [a["alt"] for t, a in page.elements if t == "img" and a["alt"]]
    weights = (
        r"heat map of weights, 13 by 13, from \d\.\d+e\u2212\d+ to 0\.\d+; the strongest is 0\."
    )
    assert any(re.match(weights, alt) for alt in alts)


def test_32_tokens_of_the_built_in_model_take_less_than_3_mb():
    text = "She opened the [MASK] and went out into the garden, " + "and the old man went too " * 3
    page = Page(npbert.explain(None, f"{text}.").html)
    assert len(page.data["tokens"]) >= 32
    assert len(page.html.encode()) < 3_000_000
    assert "To keep this file small" not in page.text
    assert page.array("transformer.layer.0.ffn.lin1").shape[1] == 768


def test_a_long_text_is_shown_in_part_and_the_page_says_so():
    page = Page(npbert.explain(DEMO / "sentiment", "A dull, lifeless mess. " * 80).html)
    assert len(page.html.encode()) < 3_200_000
    assert len(page.data["tokens"]) < 100
    assert re.search(r"maps show the first \d+ of 256 tokens", page.text)
    assert re.search(r"\d+ tokens did not fit into the model, and were not read", page.text)
    model = npbert.load(DEMO / "sentiment", engine="textbook")
    ids = model.tokenizer.encode("A dull, lifeless mess. " * 80).ids
    real = npbert.trace(model, [ids])["transformer.layer.1.ffn.lin1"][0]
    told = page.array("transformer.layer.1.ffn.lin1")
    assert told == pytest.approx(real[: told.shape[0], : told.shape[1]], rel=1e-2, abs=1e-6)


def test_blocks_can_be_chosen(pages):
    model, whole = pages("pruned")
    _, text, _ = CASES["pruned"]
    page = Page(npbert.explain(model, text, blocks=[2, 0]).html)
    assert "Of 3 blocks, the steps of blocks 0 and 2 are shown." in page.text
    ids = [a.get("id") for _, a in page.elements]
    assert "block-0" in ids
    assert "block-1" not in ids
    assert set(page.data["arrays"]) < set(whole.data["arrays"])
    assert "transformer.layer.1.attention.weights" in page.data["arrays"]


BAD = [
    ((None, "A film.", None, [3]),
     "blocks has 3, expected numbers from 0 to 1: the model has 2 blocks"),
    ((None, "A film.", None, []),
     "blocks is empty, expected the number of at least one block"),
    ((None, "A film.", ["a", "b"], None),
     "pair has 2 texts, expected one: only for_multiple_choice reads several, and this model is "
     "for_sequence_classification"),
    ((TASKS / "qa", "When?", None, None),
     "for_question_answering reads a question and the text that answers it: pass that text as "
     "pair="),
    ((TASKS / "choice", "The sky", None, None),
     "for_multiple_choice weighs choices: pass them as pair=[...]"),
    ((None, ["a"], None, None),
     "there are 1 texts to compare, expected 2 to 64"),
    ((None, ["a", "b"], "c", None),
     "several texts are compared by themselves: without pair and blocks"),
    ((None, 7, None, None), "text is 7, expected a str, or a list of them to compare"),
    ((7, "A film.", None, None),
     "source_or_model is 7, expected a folder, a name on the hub, or a Model"),
    ((ROOT / "golden" / "DistilBertModel", "A film.", None, None),
     "explain reads text, but the model came without a tokenizer: its folder has neither "
     "tokenizer.json nor vocab.txt"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_what_cannot_be_explained_is_said(given, message):
    folder, text, pair, blocks = given
    with pytest.raises(InputError) as caught:
        npbert.explain(folder, text, pair, blocks=blocks)
    assert str(caught.value) == message


def test_texts_are_compared_by_their_embeddings():
    texts = ["A cat sat.", "The dog slept.", "Shares fell in London."]
    page = Page(npbert.explain(None, texts).html)
    embed = npbert.pipeline("sentence-embedding")
    vectors = embed(texts)
    alike = embed.similarity(vectors, vectors)
    told = page.array("similarity")
    assert [digits(x) for x in told.ravel()] == [digits(float(x)) for x in alike.ravel()]
    assert page.faults == []
    assert digits(float(alike[0, 1])) in page.text
    assert page.array("sentence_embedding").shape == vectors.shape


def test_a_notebook_gets_the_page_in_a_frame(pages):
    folder, text, _ = CASES["sequence"]
    explanation = npbert.explain(folder, text)
    frame = Page(explanation._repr_html_())
    ((tag, attributes),) = frame.elements
    assert tag == "iframe"
    assert attributes["srcdoc"] == explanation.html
    assert attributes["sandbox"] == "allow-scripts allow-downloads"


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"), (0.31825, "0.318"), (-1.0, "\u22121.00"), (12345.0, "1.23e4"), (123.4, "123"),
        (0.00012345, "0.000123"), (1.2345e-5, "1.23e\u22125"), (float("nan"), "hidden"),
        (999.6, "1.00e3"), (0.9996, "1.00"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(x, text):
    assert digits(x) == text


def test_any_number_survives_its_way_through_float16_with_three_digits():
    rng = np.random.default_rng(5)
    for scale in (1e-12, 1.0, 1e9):
        x = rng.normal(size=4000) * 10 ** rng.uniform(-3, 0, 4000) * scale
        made = pack_array(x)
        raw = np.frombuffer(base64.b64decode(made["data"]), "<f2").astype(float)
        told = raw * 10.0 ** -made["power"]
        assert [digits(a) for a in told] == [digits(a) for a in x]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "npbert", "explain", *arguments],
        cwd=ROOT, capture_output=True, timeout=60,
    )  # fmt: skip


def test_the_command_writes_the_page_of_the_function(tmp_path):
    path = tmp_path / "page.html"
    done = run(SENTENCE, "--blocks", "1", "-o", str(path))
    assert (done.returncode, done.stdout) == (0, b"")
    assert path.read_text("utf-8") == npbert.explain(None, SENTENCE, blocks=[1]).html
    assert done.stderr.decode() == (
        f"npbert: {path} is written, {path.stat().st_size:,} bytes; open it in a browser\n"
    )
    folder, text, choices = CASES["choice"]
    done = run(text, "-m", str(folder), "--pair", choices[0], "--pair", choices[1])
    assert done.stdout.decode() == npbert.explain(folder, text, choices).html
    done = run("--compare", "A cat.", "A dog.")
    assert done.stdout.decode() == npbert.explain(None, ["A cat.", "A dog."]).html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "explain needs a TEXT, or --compare and several of them"),
        (("a", "--blocks", "x"), "--blocks is 'x', expected numbers between commas, as in 0,3"),
        (("a", "-o", "no/such/folder/page.html"),
         "no/such/folder/page.html: cannot be written: No such file or directory"),
    ],
)  # fmt: skip
def test_the_command_says_what_it_cannot_do(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.decode() == f"npbert: {message}\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pair": 5}, "pair is 5, expected a str, or a list of them"),
        ({"pair": [None]}, "pair is [None], expected a str, or a list of them"),
        ({"blocks": 0}, "blocks is 0, expected a list of numbers"),
        (
            {"blocks": [True]},
            "blocks has True, expected numbers from 0 to 1: the model has 2 blocks",
        ),
    ],
)
def test_what_is_no_pair_and_no_list_of_blocks_is_refused(given, message):
    with pytest.raises(npbert.InputError) as caught:
        npbert.explain(None, "Fine.", **given)
    assert str(caught.value) == message


def test_blocks_may_come_in_any_way_that_numbers_do():
    page = npbert.explain(None, "Fine.", blocks=[1]).html
    assert npbert.explain(None, "Fine.", blocks=iter(np.array([1, 1]))).html == page
