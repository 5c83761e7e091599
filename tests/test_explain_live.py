"""npbert explain --open: the page on loopback, where another text can be typed."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from urllib.parse import urlencode, urlsplit

import pytest
from pages import CASES, ROOT, TASKS, Page

import npbert
from npbert.errors import InputError
from npbert.explaining import LivePage, live_page


@pytest.fixture
def serve():
    """Serve pages, each until the test ends."""
    started = []

    def start(*given):
        page = live_page(*given)
        thread = threading.Thread(target=page.serve)
        thread.start()
        started.append((page, thread))
        return page

    yield start
    for page, thread in started:
        page.close()
        thread.join()


@pytest.fixture(scope="module")
def served():
    """Serve one page for all tests that ask little of it."""
    page = live_page(None, "A film.", blocks=[0])
    thread = threading.Thread(target=page.serve)
    thread.start()
    yield page
    page.close()
    thread.join()


def ask(page, path=None, host=None, **given):
    """Return the status, the headers and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    query = f"?{urlencode(given, doseq=True)}" if given else ""
    headers = {} if host is None else {"Host": host}
    connection.request("GET", (path or page.path) + query, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def test_another_text_is_shown_as_the_page_of_it(serve):
    page = serve(None, "A film.")
    status, headers, body = ask(page)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert "<h1" in body
    assert 'name="text" required value="A film."' in body
    assert "form-action 'self'" in body
    for text in ("A gorgeous, witty movie.", "She opened the [MASK]."):
        _, _, body = ask(page, text=text)
        live, written = Page(body), Page(npbert.explain(None, text).html)
        assert live.faults == []
        assert live.data["answer"] == written.data["answer"]
        assert live.data["arrays"] == written.data["arrays"]
        assert (live.count("form"), written.count("form")) == (1, 0)
        assert "npbert explain --open" in written.text
        assert "npbert explain --open" not in live.text


def test_pairs_and_choices_are_typed_too(serve):
    folder, text, choices = CASES["choice"]
    page = serve(folder, text, choices)
    _, _, body = ask(page)
    assert body.count('name="pair"') == 2
    _, _, body = ask(page, text="The grass is", pair=["green", "made of cheese", "loud"])
    assert Page(body).data["answer"] == Page(
        npbert.explain(folder, "The grass is", ["green", "made of cheese", "loud"]).html
    ).data["answer"]  # fmt: skip


def test_texts_that_are_compared_are_typed_too(serve):
    page = serve(None, ["A cat sat.", "Shares\nfell."])
    _, _, body = ask(page)
    assert re.findall(r'<label>([^<]*) <input name="(\w+)"[^>]* value="([^"]*)"', body) == [
        ("text 1", "text", "A cat sat."), ("text 2", "pair", "Shares fell."),
        ("one more", "pair", ""),
    ]  # fmt: skip
    typed = ["A cat slept.", "Shares rose.", '"><script>alert(1)</script>']
    status, _, body = ask(page, text=typed[0], pair=[*typed[1:], ""])
    live, written = Page(body), Page(npbert.explain(None, typed).html)
    assert (status, live.faults) == (200, [])
    assert live.data["arrays"] == written.data["arrays"]
    assert live.text.count("How alike are 3 texts?") == 2  # the title, and the headline
    assert (live.count("script"), live.count("form"), written.count("form")) == (2, 1, 0)
    status, headers, body = ask(page, text="A cat sat.", pair="")
    assert status == 400
    assert "there are 1 texts to compare, expected 2 to 64" in body
    assert f'href="{page.path}"' in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert ask(page, host="evil.example")[0] == 403
    assert ask(page, "/")[0] == 404


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((["a"],), "there are 1 texts to compare"),
        ((["a", "b"], ["c"]), "several texts are compared by themselves"),
        ((["a", 7],), "text 1: a text is a str, not int: 7"),
    ],
)
def test_texts_that_cannot_be_compared_are_not_served(given, message):
    with pytest.raises(InputError, match=message):
        live_page(None, *given)


def test_what_is_typed_stays_text_and_what_is_wrong_is_said(serve):
    page = serve(TASKS / "qa", "When?", ["The ship left in 1843."])
    status, _, body = ask(page, text='"><script>alert(1)</script>', pair="In 1843.")
    assert status == 200
    assert Page(body).count("script") == 2
    status, headers, body = ask(page, text="<b>When?")
    assert status == 400
    assert "for_question_answering reads a question" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1:1", ""])
def test_a_name_of_elsewhere_is_refused(served, host):
    assert ask(served, host=host)[0] == 403
    assert ask(served, host=f"localhost:{served.port}")[0] == 200


def test_only_who_knows_the_path_is_answered_and_only_this_machine(served):
    assert served.server.server_address[0] == "127.0.0.1"
    assert len(served.path) > 20
    other = LivePage(served.make, served.text, ())
    other.server.server_close()
    assert other.path != served.path
    for path in ("/", "/favicon.ico", other.path, served.path[:-2], served.path + "x"):
        status, _, body = ask(served, path)
        assert status == 404
        assert served.path.strip("/") not in body


@pytest.mark.parametrize("given", [["A film."], ["--compare", "A film.", "A movie."]])
def test_the_command_serves_until_it_is_interrupted(given):
    command = [sys.executable, "-m", "npbert", "explain", *given, "--open"]
    environment = {**os.environ, "BROWSER": "true"}

    def hear_interrupts():  # which a shell keeps from what runs in its background
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=hear_interrupts,
    ) as started:  # fmt: skip
        line = started.stderr.readline()
        found = re.fullmatch(
            r"npbert: the page is at (http://127\.0\.0\.1:\d+/\S+/) until Ctrl-C\n", line
        )
        assert found, line
        at = urlsplit(found[1])
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)
        connection.request("GET", at.path)
        answer = connection.getresponse()
        assert answer.status == 200
        assert f'value="{given[-1]}"' in answer.read().decode()
        connection.close()
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=60) == 0
        assert started.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "-o", "page.html"), "--open serves the page, and -o writes it: pass one of them"),
        (("--compare", "a", "b", "-o", "p"), "--open serves the page, and -o writes it: pass one of"
         " them"),
        (("--compare", "a", "b", "--blocks", "0"), "several texts are compared by themselves: "
         "without pair and blocks"),
        (("--compare", "a"), "there are 1 texts to compare, expected 2 to 64"),
    ],
)  # fmt: skip
def test_a_page_is_served_or_written(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "npbert", "explain", "--open", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, f"npbert: {message}\n")
