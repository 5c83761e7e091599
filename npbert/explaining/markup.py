"""What the page is written with: text that stays text, code as it stands in its file."""

import html
import inspect
import io
import json
import keyword
import re
import tokenize
from collections.abc import Collection
from textwrap import dedent
from typing import Any, Final

TAPPED: Final = re.compile(r'tap\(\s*"([\w.]+)"|tap, "(\w+)"')
KINDS: Final = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}


def visible(text: str) -> str:
    """Return a text with every character that a page would obey or hide written as its escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def escape(text: object) -> str:
    """Return text for any place in the page, inside quotes too."""
    return html.escape(visible(str(text)))


def cut(text: str, most: int) -> str:
    """Return a text, or its beginning where it is too long."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def token(text: str) -> str:
    """Return a token or a word, whose direction of writing ends where it ends."""
    return f"<bdi>{escape(text)}</bdi>"


def embedded(value: Any) -> str:
    """Return JSON that can stand in a script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def source(function: Any, steps: Collection[str] = ()) -> str:
    """Return the source of a function as it runs, the lines that compute these steps marked."""
    text = dedent(inspect.getsource(function))
    where = f"{function.__module__}.{function.__qualname__}"
    lines = [
        f"<mark>{line}</mark>" if computes(plain, steps) else line
        for plain, line in zip(text.splitlines(), coloured(text).split("\n"), strict=False)
    ]
    return (
        f'<pre class="code" data-function="{escape(where)}" tabindex="0" role="group" '
        f'aria-label="source of {escape(where)}"><code>' + "\n".join(lines) + "\n</code></pre>"
    )


def computes(line: str, steps: Collection[str]) -> bool:
    """Tell whether a line of the source offers one of these steps to the tap, or returns."""
    if "return" in steps and line.lstrip().startswith("return "):
        return True
    return any(name in steps for found in TAPPED.findall(line) for name in found if name)


def coloured(text: str) -> str:
    """Return Python's source as HTML, its kinds of tokens told apart; the text is unchanged."""
    made: list[str] = []
    lines = text.splitlines(keepends=True)
    at = (1, 0)
    for kind, string, start, end, _ in tokenize.generate_tokens(io.StringIO(text).readline):
        if kind in (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.NL):
            continue
        made.append(escaped(between(lines, at, start)))
        named = "k" if kind == tokenize.NAME and keyword.iskeyword(string) else KINDS.get(kind)
        made.append(spanned(named, string) if named else escaped(string))
        at = end
    return "".join(made) + escaped(between(lines, at, (len(lines) + 1, 0)))


def spanned(kind: str, string: str) -> str:
    """Return a token of a kind, each of its lines by itself."""
    return "\n".join(f'<i class="{kind}">{escaped(each)}</i>' for each in string.split("\n"))


def escaped(code: str) -> str:
    """Return code as HTML, its line ends kept."""
    return html.escape(code, quote=False)


def between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the text from one (line, column), counted from (1, 0), to another."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]] if start[0] <= len(lines) else ""
    middle = lines[start[0] : end[0] - 1]
    last = lines[end[0] - 1][: end[1]] if end[0] <= len(lines) else ""
    return "".join([lines[start[0] - 1][start[1] :], *middle, last])
