"""The page served on loopback, so that another sentence can be typed: the standard library alone.

Only this machine is answered, by a path that nobody can guess, under a name that is this server's:
a page of elsewhere in the same browser can neither ask nor be made to.
"""

import re
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from npbert.errors import NpbertError

LOOPBACK: Final = "127.0.0.1"
TEXT_LIMIT: Final = 20_000  # bytes of what is asked
LINE_END: Final = re.compile(r"\r\n?|\n")
LIMITED: Final = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass
class LivePage:
    """A server of pages, each made when it is asked for: of a text and of what goes with it."""

    make: Callable[[str, tuple[str, ...]], str]  # a text and its pairs to a page
    text: str
    pairs: tuple[str, ...]
    path: str = field(default_factory=lambda: f"/{secrets.token_urlsafe(16)}/")

    def __post_init__(self) -> None:
        page, lock = self, threading.Lock()  # one page at a time: each takes all cores

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                host = self.headers.get("Host", "")
                if host not in page.hosts:
                    return self.write_page(HTTPStatus.FORBIDDEN, "this is no name of this server")
                at = urlsplit(self.path)
                if not secrets.compare_digest(at.path.encode(), page.path.encode()):
                    return self.write_page(HTTPStatus.NOT_FOUND, "there is nothing here")
                if len(self.path) > TEXT_LIMIT:
                    return self.write_page(HTTPStatus.REQUEST_URI_TOO_LONG, "the text is too long")
                given = parse_qs(at.query, keep_blank_values=True)
                text = given.get("text", [page.text])[0]
                typed = tuple(each for each in given.get("pair", []) if each)
                pairs = typed if given else page.pairs
                try:
                    with lock:
                        made = page.make(text, pairs)
                except NpbertError as error:
                    return self.write_page(HTTPStatus.BAD_REQUEST, str(error))
                return self.write_whole(HTTPStatus.OK, made, None)

            def write_page(self, status: HTTPStatus, told: str) -> None:
                back = f'<p><a href="{page.path}">back to the page</a></p>' * (status == 400)
                body = f"<!doctype html><title>npbert explain</title><p>{escape(told)}</p>{back}"
                self.write_whole(status, body, LIMITED)

            def write_whole(self, status: HTTPStatus, html: str, policy: str | None) -> None:
                body = html.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("X-Frame-Options", "DENY")
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                with suppress(ConnectionError):  # who asked may have gone
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing: the path is a secret."""

        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.server.daemon_threads = True

    @property
    def port(self) -> int:
        """The port, which the system chose."""
        return int(self.server.server_address[1])

    @property
    def hosts(self) -> tuple[str, str]:
        """The names under which it answers: any other may be a name of elsewhere."""
        return f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.port}{self.path}"

    def serve(self) -> None:
        """Answer until close is called, or Ctrl-C."""
        try:
            self.server.serve_forever()
        finally:
            self.server.server_close()

    def close(self) -> None:
        """End serving."""
        self.server.shutdown()


def pass_form(text: str, pairs: Sequence[str], *, takes_pair: bool) -> str:
    """Return the form in which another text is typed, and what goes with it."""
    return form_html(
        [("another text", "text", text)]
        + [("with", "pair", each) for each in (pairs or [""] * takes_pair)],
        "show it",
    )


def comparison_form(texts: Sequence[str]) -> str:
    """Return the form in which other texts are typed, and one more: a field left empty is none."""
    return form_html(
        [(f"text {i + 1}", "pair" if i else "text", each) for i, each in enumerate(texts)]
        + [("one more", "pair", "")],
        "compare them",
    )


def form_html(fields: Sequence[tuple[str, str, str]], does: str) -> str:
    """Return a form of fields, (label, name, value), and of a button; of these the text is needed.

    A field has one line: the ends of lines are spaces in it, where a browser would drop them.
    """
    inside = "".join(
        f'<label>{label} <input name="{name}"{" required" * (name == "text")} '
        f'value="{escape(LINE_END.sub(" ", value))}" dir="auto"></label>'
        for label, name, value in fields
    )
    return (
        f'<form class="another" method="get">{inside}<button type="submit">{does}</button></form>'
    )
