"""The page of npbert serve in a real browser: a form for each task, and nothing from elsewhere.

Needs Debian's chromium, playwright to drive it, axe, and the extra serve.
"""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
from serving_process import Server

import npbert
from npbert.tasks.rows import TASKS

pytestmark = [
    pytest.mark.browser, pytest.mark.filterwarnings("ignore::npbert.NpbertWarning"),
]  # fmt: skip
MODELS = Path(__file__).parent.parent / "golden" / "tasks"
CHROMIUM = shutil.which("chromium")
WICKED = "<img src=x onerror=alert(1)></script><script>alert(2)</script> & \" '"
FOLDERS = {"question-answering": "qa", "multiple-choice": "choice", "text-ranking": "cross1",
           "zero-shot-classification": "nli", "sparse-embedding": "splade_max"}  # fmt: skip
FILLED = {  # fields and options, and what is asked with them
    "text-classification": ({"field.text": WICKED, "option.top_k": "2"}, WICKED, {"top_k": 2}),
    "token-classification": ({"field.text": "Ada met Tom."}, "Ada met Tom.", {}),
    "fill-mask": (
        {"field.text": "A [MASK].", "option.targets": "cat, dog"}, "A [MASK].",
        {"targets": ["cat", "dog"]},
    ),
    "question-answering": (
        {"field.question": "Who sat?", "field.context": "The cat sat."},
        ("Who sat?", "The cat sat."), {},
    ),
    "multiple-choice": (
        {"field.prompt": "The mat is", "field.choices": "red\nold"}, ("The mat is", ["red", "old"]),
        {},
    ),
    "zero-shot-classification": (
        {"field.text": "A mat.", "option.candidate_labels": "red, old",
         "option.multi_label": "true"},
        "A mat.", {"candidate_labels": ["red", "old"], "multi_label": True},
    ),
    "sentence-embedding": ({"field.text": "A cat.", "option.truncate_dim": "3"}, "A cat.",
                           {"truncate_dim": 3}),
    "sparse-embedding": ({"field.text": "A cat.", "option.top_k": "3"}, "A cat.", {"top_k": 3}),
    "text-ranking": (
        {"field.query": "a cat", "field.documents": "A cat.\nA dog."},
        ("a cat", ["A cat.", "A dog."]), {},
    ),
    "feature-extraction": ({"field.text": "A cat.", "option.layer": "0"}, "A cat.", {"layer": 0}),
}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    drive = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with drive.sync_playwright() as playwright:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


def spelled(task):
    return f"{task}={MODELS / FOLDERS[task]}" if task in FOLDERS else task


@pytest.fixture(scope="module")
def server():
    with Server(*map(spelled, TASKS), f"text-classification={MODELS / 'nli'}",
                "--batch-invariant") as made:  # fmt: skip
        yield made


@pytest.fixture
def visit(browser):
    """Open the page of a server; fail for what it says in the console, or asks of others."""
    contexts, said, asked = [], [], []

    def opened(server, **how):
        context = browser.new_context(**how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("html.ready", state="attached")
        return page

    opened.said = said
    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("http://127.0.0.1:")] == []


def answer_of(page, task):
    form = page.locator(f"#{task} form")
    form.get_by_role("button", name="Ask").click()
    form.locator(".answer").wait_for(state="visible")
    return json.loads(form.locator(".answer").text_content())


@pytest.mark.parametrize("task", TASKS)
def test_the_form_of_a_task_shows_the_librarys_answer(visit, server, task):
    page = visit(server)
    controls, inputs, options = FILLED[task]
    page.locator(f"#{task} summary").click()
    for name, value in controls.items():
        control = page.locator(f'#{task} [name="{name}"]')
        if control.evaluate("each => each.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)
    folder = FOLDERS.get(task)
    made = npbert.pipeline(task, folder and MODELS / folder, batch_invariant=True)
    expected = made(inputs, **options)
    assert answer_of(page, task) == getattr(expected, "tolist", lambda: expected)()


def test_a_model_is_chosen_and_an_error_is_shown_as_text(visit, server):
    page = visit(server)
    form = page.locator("#text-classification form")
    names = form.locator('[name="model"] option').all_text_contents()
    assert names == ["builtin:sentiment", str(MODELS / "nli")]
    assert not page.locator("#fill-mask .models").is_visible()
    form.locator('[name="field.text"]').fill("A cat.")
    form.locator('[name="model"]').select_option(names[1])
    expected = npbert.pipeline("text-classification", MODELS / "nli", batch_invariant=True)
    assert answer_of(page, "text-classification") == expected("A cat.")
    page.locator('#fill-mask [name="field.text"]').fill(WICKED)
    page.locator("#fill-mask").get_by_role("button", name="Ask").click()
    state = page.locator("#fill-mask .state")
    state.filter(has_text="text 0: ").wait_for()
    assert state.text_content().startswith("text 0: ")
    assert state.locator("*").count() == 0
    visit.said[:] = [each for each in visit.said if "status of 422" not in each]


def test_a_key_is_asked_for_where_there_is_one(visit):
    with Server("text-classification", NPBERT_API_KEY="s3cret") as made:
        page = visit(made)
        page.locator("#key").fill("s3cret")
        page.locator("#key").blur()
        page.locator('[name="field.text"]').fill("A film to treasure.")
        assert answer_of(page, "text-classification")["label"] == "POSITIVE"
        visit.said[:] = [each for each in visit.said if "status of 401" not in each]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_forms(visit, server, scheme):
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page = visit(server, color_scheme=scheme, bypass_csp=True)
    page.locator('#text-classification [name="field.text"]').fill("A cat.")
    page.locator("#text-classification summary").click()
    answer_of(page, "text-classification")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
