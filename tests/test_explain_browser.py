"""The page of npbert explain in a real browser, which is offline.

Needs Debian's chromium, playwright to drive it, and axe (pip install -e ".[test,browser]").
"""

import re
import shutil
import threading
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from pages import CASES, DEMO, HOSTILE, SENTENCE, WICKED, Page, deep_model, wicked_model

import npbert
from npbert.explaining import live_page, passes, variants
from npbert.explaining.markup import digits
from npbert.textbook import softmax

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
GRAVE = ("serious", "critical")
SHORT = ", one block"  # axe takes its time for every element
OPEN = ("masked", "token", "answer", "choice", "base", "several")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start chromium once."""
    drive = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with drive.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write every page once, when it is first asked for."""
    folder = tmp_path_factory.mktemp("pages")

    def path(name: str) -> Path:
        file = folder / f"{name}.html"
        if not file.exists():
            given = CASES.get(name)
            if name == "several":
                given = (None, ["A cat sat.", "The dog slept.", "Shares fell in London."], None)
            if name == "several blocks":
                given = (deep_model(), "A film.", None)
            if name == "short":
                given = (None, "She opened the [MASK] and went right out.", None)
            if name == "hebrew":
                text = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd film"
                given = (DEMO / "sentiment", text, None)
            if name == "long":
                given = (DEMO / "sentiment", "A dull film. " * 18 + "Truly dull.", None)
            if name == "hostile":
                given = (DEMO / "fill-mask", f"{HOSTILE} [MASK]", None)
            if name == "wicked":
                given = (*wicked_model(), None)
            if name == "several, hostile":
                given = (None, [*WICKED, HOSTILE], None)
            short = name.endswith(SHORT)
            given = CASES[name.removesuffix(SHORT)] if short else given
            npbert.explain(*given, blocks=[0] if short or name == "long" else None).save(file)
        return file

    return path


@pytest.fixture
def visit(browser, files):
    """Open pages offline; fail for whatever one says in the console, or asks the network for."""
    contexts, said, asked = [], [], []

    def opened(name, width=1280, *, folded=False, **how):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, **how
        )  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(files(name).as_uri())
        if how.get("java_script_enabled", True):
            page.wait_for_selector("html.ready", state="attached")
        if not folded:
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_code_is_cut_at_the_right_edge(visit, width):
    page = visit("short", width)
    assert page.locator(".code").count() > 10
    cut = "[...document.querySelectorAll('.code')].filter(c => c.scrollWidth > c.clientWidth)"
    assert page.evaluate(f"{cut}.length") == 0


def test_a_page_is_short_until_more_is_wanted(visit):
    page = visit("short", 1600, folded=True)
    assert page.evaluate("document.querySelectorAll('.tokens li').length") == 11
    assert page.evaluate("document.documentElement.scrollHeight") <= 6000
    printed = page.pdf(format="A4", print_background=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page[^s]", printed)) <= 10


@pytest.mark.parametrize("name", ["choice", "pair", "several blocks"])
@pytest.mark.parametrize("width", [360, 800])
def test_the_drawing_of_the_model_fits_the_window(visit, name, width):
    drawing = visit(name, width, folded=True).locator(".drawing")
    box = drawing.bounding_box()
    assert drawing.evaluate("d => d.scrollWidth - d.clientWidth") == 0
    for part in drawing.locator(".part, .tokens-part").all()[:20]:
        own = part.bounding_box()
        assert box["x"] <= own["x"]
        assert own["x"] + own["width"] <= box["x"] + box["width"] <= width
        words = part.locator("bdi, small").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])"
        )
        assert all(own["x"] <= a and b <= own["x"] + own["width"] for a, b in words)
        assert part.evaluate("p => parseFloat(getComputedStyle(p).fontSize)") >= 12


def test_print_cuts_no_number(visit):
    page = visit("short", 720, folded=True)
    page.emulate_media(media="print")
    cells = page.locator("#hand td, #hand th, #thinking td").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])"
    )
    assert len(cells) > 4 * 32
    assert all(left >= 0 and right <= 720 for left, right in cells)
    assert not page.get_by_role("button", name="the answer without this head").is_visible()


def test_a_link_opens_what_it_leads_to(visit):
    page = visit("short", folded=True)
    for place in ("block-1-ffn", "tokens", "answer", "block-1-ffn"):
        step = page.locator(f"#{place}")
        fold = page.locator(f".fold:has(#{place})")
        fold.evaluate("fold => { fold.open = false }")
        assert not step.is_visible()
        page.locator(f'#picture a[href="#{place}"]').click()
        assert step.is_visible()


def test_an_answer_that_is_none_of_the_bars_joins_them_and_the_headline(visit):
    page = visit("short")
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent).answer")
    runs = [*data["effects"], *data["words"]]
    index = next(i for i, each in enumerate(runs) if "winner" in each)
    names = page.locator("header .bars .name")
    before = names.all_inner_texts()
    page.locator(f'.effect[data-effect="{index}"]').click()
    best, (value, _) = runs[index]["best"], runs[index]["winner"]
    assert best not in before
    assert names.all_inner_texts() == [*before, best]
    assert page.locator("header .bars .value").last.inner_text() == value
    assert page.locator("header .headline").inner_text() == f"The answer: {best}"
    assert page.locator("#answer [data-winner]").inner_text() == best
    page.locator("header [data-best] button").click()
    assert names.all_inner_texts() == before
    assert page.locator("header .headline").inner_text() == "The answer: door"


def test_entities_are_marked_in_the_sentence_and_follow_the_answer(visit):
    page = visit("token")
    marked = page.locator("h1 .entity")
    assert marked.locator("bdi").all_inner_texts() == ["Ada Lovelace", "Charles Babbage", "London"]
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent).answer")
    runs = [*data["effects"], *data["words"]]
    index = next(i for i, each in enumerate(runs) if "marked" in each)
    page.locator(f'.effect[data-effect="{index}"]').click()
    found = [text for text, name in runs[index]["marked"][0] if name]
    assert marked.locator("bdi").all_inner_texts() == found
    assert page.locator("h1").inner_text().startswith("Ada Lovelace")


def test_the_names_of_many_tokens_are_every_nth(visit):
    page = visit("long", 360)
    count = page.evaluate("JSON.parse(document.getElementById('data').textContent).tokens.length")
    assert count >= 64
    for side, axis in (("down", "top"), ("across", "left")):
        shown = page.locator(f".chosen .map .{side} span").evaluate_all(
            "all => all.filter(e => getComputedStyle(e).visibility === 'visible').map(e => "
            f"[e.getBoundingClientRect().{axis}, parseFloat(getComputedStyle(e).fontSize)])"
        )
        assert 8 <= len(shown) < count / 2
        assert min(size for _, size in shown) >= 8
        assert min(np.diff([place for place, _ in shown])) >= 8.5


def test_the_capital_mark_and_the_range_of_colours_are_explained(visit):
    assert "\u21e7 is a piece of its own" in visit("token").locator("#tokens").inner_text()
    assert "\u21e7" not in visit("short").locator("#tokens").inner_text()
    legend = visit("several").locator("#similarity .legend").inner_text()
    assert re.search("colours begin at [-\u22120-9.]+, not at 0", legend)


def test_the_links_say_what_they_lead_to(visit):
    links = visit("short").locator("nav a")
    found = dict(zip(links.all_inner_texts(), links.evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"), strict=True))  # fmt: skip
    assert found["output layer"] == "#head"
    assert found["heads"] == "#importance"


def test_a_weight_is_followed_by_hand_with_the_digits_of_the_run(visit, trace):
    page = visit("masked")
    hand = page.locator("#hand")
    hand.get_by_label("head").select_option("1 1")
    hand.get_by_label("who listens").select_option("4")
    hand.get_by_label("to whom").select_option("3")
    prefix = "transformer.layer.1.attention."
    q, k = (trace[f"{prefix}{name}"][0, 1, place] for name, place in (("q_lin", 4), ("k_lin", 3)))
    rows = hand.locator(".elements tbody tr").all()
    for row, values in zip(rows, (q, k, None), strict=True):
        cells = row.locator("td").all_inner_texts()
        assert len(cells) == len(q)
        if values is not None:
            assert cells == [digits(float(each)) for each in values]
    scores, weights = (trace[f"{prefix}{name}"][0, 1, 4] for name in ("scores", "weights"))
    told = hand.inner_text()
    assert f"The score of the run, from all digits, is {digits(float(scores[3]))}." in told
    assert f"listens to the with weight {digits(float(weights[3]))}." in told
    assert f"Divide by \u221a{len(q)}" in told
    last = hand.locator(".softmax tbody tr").last.locator("td").all_inner_texts()
    assert last == [digits(float(each)) for each in weights]
    said = [float(x.replace("\u2212", "-")) for x in hand.locator("strong").all_inner_texts()]
    assert said[0] == pytest.approx(float(q @ k), rel=1e-2, abs=0.05)
    assert said[1] == pytest.approx(float(scores[3]), rel=1e-2, abs=0.02)


def test_a_student_finds_the_answers_within_two_clicks(visit, trace):
    """Five questions, what is pressed, and where the page answers."""
    model = npbert.load(DEMO / "fill-mask")
    door = model.tokenizer.pieces.token_to_id("door")
    page = visit("masked", folded=True)

    # Which word does [MASK] listen to most in block 1?
    page.locator('.small[data-block="1"][data-number="-1"]').click()
    page.locator(".web button").nth(4).click()
    weights = trace["transformer.layer.1.attention.weights"][0].mean(0)[4]
    told = page.locator(".heard").inner_text()
    tokens = model.tokenizer.encode(SENTENCE).tokens
    assert told.startswith(f"[MASK] listens to {tokens[int(weights.argmax())]} ")

    # What would the answer be without head 3 of block 1?
    page.locator('.small[data-block="1"][data-number="3"]').click()
    page.locator("#lines .switch").click()
    mask = np.ones((2, 6))
    mask[1, 3] = 0
    encoding = model.tokenizer.encode(SENTENCE)
    logits = model([encoding.ids], attention_head_mask=mask).logits[0, 4]
    best = model.tokenizer.decode([int(logits.argmax())])
    assert page.locator("header .headline").inner_text() == f"The answer: {best}"

    # Why is the score divided?
    page.locator('#picture a[href="#block-0-attention"]').click()
    why = page.locator("#block-0-attention .why")
    assert why.is_visible()
    assert "divided by the root of that number" in why.inner_text()

    # Which word decided the most, replaced by [MASK]?  Nothing is pressed.
    own, ids = encoding.word_ids, encoding.ids
    words = sorted(set(own) - {None, own[4]})
    masked = [[4 if of == word else i for of, i in zip(own, ids, strict=True)] for word in words]
    chances = [softmax(model([each]).logits[0, 4, :, None])[door] for each in [ids, *masked]]
    most = own.index(words[int(np.abs(np.subtract(chances[1:], chances[0])).argmax())])
    start, end = encoding.offsets[most]
    word, before = SENTENCE[start:end], SENTENCE[:start].split()
    several = SENTENCE.split().count(word)
    which = f" ({before.count(word) + 1} of {several})" if several > 1 else ""
    first = page.locator("#words .ways > div").first.locator(".name").first.inner_text()
    assert first == f"{word}{which}"

    # What would the model have answered after block 0?  Nothing is pressed.
    run = passes.trace_pass(model, SENTENCE, None)
    (early,) = variants.block_answers(run, passes.question_of(run))[1:2]
    row = page.locator("#thinking tr", has_text="block 0")
    assert early.best in row.inner_text()


def numbers(figure):
    """Press Numbers, and return what the table of a figure says."""
    figure.get_by_role("button", name="Numbers").click()
    return table(figure)


def table(figure):
    """Return what the table of a figure says."""
    return figure.evaluate(
        "f => [...f.querySelectorAll('tbody tr')].map(r => [...r.querySelectorAll('td')]"
        ".map(d => d.textContent))"
    )


def told(x):
    return [[digits(float(value)) for value in row] for row in x]


@pytest.fixture(scope="module")
def trace():
    model = npbert.load(DEMO / "fill-mask", engine="textbook")
    return npbert.trace(model, text=SENTENCE, split_heads=True)


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("width", [360, 1600])
def test_a_page_opens_in_silence_and_fits_the_window(visit, name, width):
    page = visit(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".map img").count() > 1


def test_choosing_a_head_changes_the_maps_to_its_numbers(visit, trace):
    page = visit("masked")
    chosen = page.locator(".chosen .map")
    for block, head in ((0, 4), (1, 0)):
        before = chosen.locator(".plot img").get_attribute("src")
        page.locator(f'.small[data-block="{block}"][data-number="{head}"]').click()
        assert chosen.locator(".plot img").get_attribute("src") != before
        weights = trace[f"transformer.layer.{block}.attention.weights"][0]
        found = numbers(chosen) if not chosen.locator(".numbers").count() else table(chosen)
        assert found == told(weights[head])
        pressed = page.locator('.small[aria-pressed="true"]')
        assert pressed.count() == 1
        assert page.locator("#lines h3").inner_text() == f"block {block}, head {head}"
    # The steps of every block show that head now.
    for name, of in (("q_lin", "query"), ("context", "context"), ("scores", "scores")):
        section = page.locator("#block-1")
        figure = section.locator(
            f'.map[data-view="head"][data-array="transformer.layer.1.attention.{name}"]'
        )
        assert figure.locator("figcaption b").inner_text() == of
        assert numbers(figure) == told(trace[f"transformer.layer.1.attention.{name}"][0, 0])


def test_the_mean_over_heads_is_shown(visit, trace):
    page = visit("masked")
    page.locator('.small[data-block="1"][data-number="-1"]').click()
    weights = trace["transformer.layer.1.attention.weights"][0].mean(0)
    found = numbers(page.locator(".chosen .map"))
    # Of three digits each; their mean may be off by one in the third.
    real = np.array([[float(value.replace("\u2212", "-")) for value in row] for row in found])
    assert np.allclose(real, weights, rtol=6e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "block"),
    [
        ("embeddings.LayerNorm", "embeddings"),
        ("transformer.layer.1.ffn.lin2", "block-1"),
        ("transformer.layer.1.output_layer_norm", "block-1"),
        ("vocab_layer_norm", "end"),
    ],
)
def test_the_numbers_on_demand_are_those_of_the_trace(visit, trace, array, block):
    figure = visit("masked").locator(f'#{block} .map[data-array="{array}"]')
    assert numbers(figure) == told(trace[array][0])


def test_the_joined_heads_are_the_context(visit):
    page = visit("masked")
    model = npbert.load(DEMO / "fill-mask", engine="textbook")
    context = npbert.trace(model, text=SENTENCE)["transformer.layer.0.attention.context"][0]
    assert numbers(page.locator('#block-0 .map[data-view="joined"]')) == told(context)


def test_pointing_at_a_map_tells_the_number(visit, trace):
    page = visit("masked")
    page.locator('.small[data-block="1"][data-number="1"]').click()
    image = page.locator(".chosen .plot img")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 3.5 / 13, box["y"] + box["height"] * 4.5 / 13)
    weight = trace["transformer.layer.1.attention.weights"][0, 1, 4, 3]
    assert page.locator("#tip").inner_text() == f"[MASK] \u2192 the {digits(float(weight))}"
    plot = page.locator(".chosen .plot")
    plot.focus()
    page.keyboard.press("ArrowRight")
    weight = trace["transformer.layer.1.attention.weights"][0, 1, 4, 4]
    assert page.locator("#tip").inner_text() == f"[MASK] \u2192 [MASK] {digits(float(weight))}"


def test_a_token_tells_what_it_listens_to_and_who_listens_to_it(visit, trace):
    page = visit("masked")
    page.locator('.small[data-block="1"][data-number="1"]').click()
    weights = trace["transformer.layer.1.attention.weights"][0, 1].astype(float)
    page.locator(".web button").nth(4).focus()
    listens, heard = page.locator(".heard p").all_inner_texts()
    first, second = (digits(x) for x in np.sort(weights[4])[::-1][:2])
    assert listens.startswith(f"[MASK] listens to the {first}, ")
    assert second in listens
    assert heard.startswith("To [MASK] listen")
    assert digits(weights[:, 4].max()) in heard


def test_heads_are_chosen_with_the_keyboard(visit):
    page = visit("masked")
    page.locator('.small[data-block="0"][data-number="2"]').click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.locator("#lines h3").inner_text() == "block 1, head 3"
    assert page.evaluate("document.activeElement.dataset.number") == "3"


def test_a_silenced_head_shows_the_answer_of_the_engine_without_it(visit):
    page = visit("masked")
    model = npbert.load(DEMO / "fill-mask")
    encoding = model.tokenizer.encode(SENTENCE)
    button = page.locator("#importance .effect").first
    before = page.locator("header .bars .value").all_inner_texts()
    button.click()
    name = button.locator(".name").inner_text()
    block, head = (int(word) for word in name.replace("block ", "").split(", head "))
    mask = np.ones((2, 6))
    mask[block, head] = 0
    logits = model([encoding.ids], attention_head_mask=mask).logits[0, encoding.ids.index(4)]
    chances = np.exp(logits.astype(float) - logits.max())
    chances /= chances.sum()
    words = page.locator("header .bars .name").all_inner_texts()
    found = page.locator("header .bars .value").all_inner_texts()
    ids = [model.tokenizer.pieces.token_to_id(word) for word in words]
    real = [float(value.replace("\u2212", "-")) for value in found]
    assert real == pytest.approx(chances[ids].tolist(), rel=1e-2, abs=1e-6)
    best = model.tokenizer.decode([int(logits.argmax())])
    assert f"\u201c{best}\u201d" in page.locator("header [data-best]").inner_text()
    page.locator("header [data-best] button").click()
    assert page.locator("header .bars .value").all_inner_texts() == before


def test_every_map_is_saved_as_svg(visit):
    page = visit("token")
    figures = page.locator(".map")
    assert figures.get_by_role("button", name="Save SVG").count() == figures.count()
    for figure in (figures.first, page.locator(".chosen .map"), page.locator("#head .map").first):
        with page.expect_download() as download:
            figure.get_by_role("button", name="Save SVG").click()
        text = Path(download.value.path()).read_text("utf-8")
        assert download.value.suggested_filename.endswith(".svg")
        assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
        assert "london</text>" in text
        assert text.count("<rect") > 100


@pytest.mark.parametrize("name", ["hostile", "wicked", "several, hostile"])
def test_hostile_tokens_do_nothing(visit, name):
    page = visit(name)
    for button in page.locator(".tools button").all()[:12]:  # tables of numbers, and files
        button.click()
    for button in page.locator(".web button").all():  # what listens to what
        button.focus()
    for button in page.locator(".small").all()[:3]:
        button.click()
    for button in page.locator(".effect").all()[:3]:
        button.click()
    page.locator(".map .plot").first.focus()
    for _ in range(5):  # the number pointed at, row by row
        page.keyboard.press("ArrowDown")
    assert page.evaluate("document.scripts.length") == 2
    assert page.locator('img[src="x"], #b, bdi *').count() == 0
    if name != "several, hostile":
        assert "<script>alert(" in page.locator("h1").inner_text()


@pytest.fixture
def visit_live(browser):
    """Serve pages and open them; fail for whatever one says in the console."""
    opened, said = [], []

    def visit(*given, **how):
        live = live_page(*given, **how)
        thread = threading.Thread(target=live.serve)
        thread.start()
        context = browser.new_context()
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.goto(live.url)
        opened.append((context, live, thread))
        return page

    yield visit
    for context, live, thread in opened:
        context.close()
        live.close()
        thread.join()
    assert [each for each in said if "favicon" not in each and "400" not in each] == []


def test_another_sentence_is_typed_into_a_page_that_is_served(visit_live):
    page = visit_live(None, "A film.", blocks=[0])
    page.get_by_label("another text").fill("She opened the [MASK] & <b>left</b>.")
    page.get_by_label("another text").press("Enter")
    page.wait_for_url("**text=She**")
    page.wait_for_selector("html.ready", state="attached")
    assert page.locator("h1").inner_text() == "She opened the [MASK] & <b>left</b>."
    written = npbert.explain(None, "She opened the [MASK] & <b>left</b>.", blocks=[0])
    best = Page(written.html).data["answer"]["best"]
    assert page.locator("header .headline").inner_text() == f"The answer: {best}"
    assert page.locator("footer").inner_text().endswith("in this file.")


def test_texts_that_are_compared_are_changed_in_the_page_that_is_served(visit_live):
    page = visit_live(None, ["A cat sat.", "Shares fell in London."])
    before = page.locator("#similarity .numbers").inner_text()
    typed = ["A cat sat.", "The <b>dog</b> slept & woke.", "One more."]
    page.get_by_label("text 2").fill(typed[1])
    page.get_by_label("one more").fill(typed[2])
    page.get_by_role("button", name="compare them").click()
    page.wait_for_url("**pair=The**")
    page.wait_for_selector("html.ready", state="attached")
    assert page.locator(".texts li").all_inner_texts() == typed
    assert page.get_by_label("text 3").input_value() == typed[2]
    found = page.locator("#similarity .numbers").inner_text()
    assert found != before
    made = npbert.pipeline("sentence-embedding")
    vectors = made(typed)
    assert digits(float(made.similarity(vectors, vectors)[0, 1])) in found
    for field in ("text 2", "text 3"):  # one alone is no comparison
        page.get_by_label(field).fill("")
    page.get_by_label("text 1").press("Enter")
    page.wait_for_url("**pair=&**")
    assert page.locator("p").first.inner_text() == "there are 1 texts to compare, expected 2 to 64"
    page.get_by_role("link", name="back to the page").click()
    assert page.locator(".texts li").all_inner_texts() == ["A cat sat.", "Shares fell in London."]


def test_a_text_from_right_to_left_stays_so(visit):
    page = visit("hebrew", 800)
    direction = "e => getComputedStyle(e).direction"
    assert page.locator("h1").evaluate(direction) == "rtl"
    assert page.locator(".shaded").first.evaluate(direction) == "rtl"
    page.locator(".effect").first.click()
    assert page.locator("h1").evaluate(direction) == "rtl"
    assert page.evaluate("document.documentElement.scrollWidth") == 800


def test_without_javascript_there_are_texts_and_pictures(visit):
    page = visit("masked", java_script_enabled=False)
    assert "door" in page.locator("#answer").inner_text()
    assert "def attention(" in page.locator("#block-0-attention").text_content()
    assert "With JavaScript" in page.locator("#lines").inner_text()
    sizes = [image.bounding_box() for image in page.locator(".map .plot img").all()]
    assert len(sizes) > 37
    assert all(size["width"] > 100 and size["height"] > 10 for size in sizes)


def test_the_frame_of_a_notebook_works(browser, tmp_path):
    explanation = npbert.explain(DEMO / "sentiment", "A film to treasure.")
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><h1>mine</h1>{explanation._repr_html_()}", "utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("html.ready").wait_for(state="attached")
    frame.locator('.small[data-block="1"][data-number="1"]').click()
    assert frame.locator("#lines h3").inner_text() == "block 1, head 1"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).fontWeight") == "700"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", OPEN)
def test_axe_finds_nothing_serious(visit, name, scheme):
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js")
    short = name if name == "several" else f"{name}{SHORT}"
    page = visit(short, color_scheme=scheme, bypass_csp=True)
    if name != "several":
        page.locator(".effect").first.click()
        page.locator(".web button").nth(1).focus()
    page.locator(".map").last.get_by_role("button", name="Numbers").click()
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    grave = [
        (each["id"], each["impact"], [node["html"][:120] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in GRAVE
    ]
    assert grave == []
