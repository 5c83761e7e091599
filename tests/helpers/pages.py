"""What the tests of npbert explain share: models to explain, and how a page is read."""

import base64
import json
import re
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from tokenizers import AddedToken

import npbert

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "npbert" / "demo"
TASKS = ROOT / "golden" / "tasks"
SENTENCE = "She opened the [MASK] and went out into the garden."

# Every architecture: what is explained.
CASES = {
    "masked": (DEMO / "fill-mask", SENTENCE, None),
    "unmasked": (DEMO / "fill-mask", "The river burst its banks.", None),
    "sequence": (DEMO / "sentiment", "A gorgeous, witty, seductive movie.", None),
    "pair": (TASKS / "nli", "A man sleeps.", "Someone is awake."),
    "labels by themselves": (TASKS / "multilabel", "The match is on.", None),
    "regression": (TASKS / "regression", "The match is on.", None),
    "token": (DEMO / "ner", "Ada Lovelace met Charles Babbage in London.", None),
    "answer": (TASKS / "qa", "When?", "The ship left Bristol in 1843."),
    "choice": (TASKS / "choice", "The sky is", ["blue", "made of cheese"]),
    "base": (TASKS / "st_dense", "The match is on.", None),
    "pruned": (None, "The match is on.", None),
}
HOSTILE = (
    "<script>alert(1)</script> </style><img src=x onerror=alert(2)> </script> \" ' & &amp; --> "
    "\u202e\u2066 ltr \u05e9\u05dc\u05d5\u05dd \U0001f642 \u2028 \x00\x07\x1b[31m ]]> {{x}} <!--"
)
WICKED = (
    "<img src=x onerror=alert(3)>", "</script><script>alert(4)</script>", "</style><b id=b>",
    "\u202e\u2067", "\"'&amp;",
)  # fmt: skip


def deep_model():
    """Make a model of twelve small blocks, as many as a base model has."""
    config = npbert.Config(
        vocab_size=8000, hidden_size=24, num_attention_heads=3, num_blocks=12, intermediate_size=40
    )
    made = npbert.init(config, "for_sequence_classification")
    made.tokenizer = npbert.load(DEMO / "sentiment").tokenizer
    return made


def wicked_model():
    """Make a model whose vocabulary and whose labels would like to be more than text."""
    made = npbert.init(
        npbert.Config(vocab_size=8000 + len(WICKED), hidden_size=24, num_attention_heads=3,
                      num_blocks=2, intermediate_size=40, num_labels=len(WICKED),
                      id_to_label=dict(enumerate(WICKED))),
        "for_token_classification",
    )  # fmt: skip
    made.tokenizer = npbert.load(DEMO / "ner").tokenizer
    made.tokenizer.pieces.add_tokens([AddedToken(each, normalized=False) for each in WICKED])
    return made, " a ".join(WICKED)


class Page(HTMLParser):
    """The elements of a page and its texts; what is not closed, or closed twice, is noted."""

    VOID = ("meta", "img", "input", "circle", "path", "polyline")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"/{tag}")

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @cached_property
    def data(self):
        return json.loads(self.scripts[0])

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    def array(self, name: str):
        """Decode an array as page.js does."""
        found = self.data["arrays"][name]
        raw = np.frombuffer(base64.b64decode(found["data"]), "<f2").astype(np.float64)
        return raw.reshape(found["shape"]) * 10.0 ** -found["power"]

    def sources(self):
        """Yield the name and the text of every function that is shown."""
        pattern = r'data-function="([\w.&;<>]+)".*?<code>(.*?)</code>'
        yield from re.findall(pattern, self.html, re.DOTALL)
