"""npbert.explain: one page that shows every step of a real forward pass."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from npbert.checkpoint.drafts import is_stream, replace_file
from npbert.engine.spellings import explain_arguments
from npbert.errors import CheckpointError, InputError, quote
from npbert.explaining.comparison import comparison_page
from npbert.explaining.live import LivePage, comparison_form, pass_form
from npbert.explaining.page import pass_page
from npbert.explaining.passes import trace_pass
from npbert.loading import load
from npbert.model import Model
from npbert.tasks import built_in_folder, pipeline
from npbert.tasks.rows import FILL_MASK, SENTENCE_EMBEDDING, TEXT_CLASSIFICATION

__all__ = ["Explanation", "LivePage", "explain", "live_page"]

HEIGHT = 800  # pixels of a notebook that the page gets
PAGES_KEPT = 4  # of those that are served: who goes back finds them made


@dataclass(frozen=True)
class Explanation:
    """A page; in a notebook it shows itself."""

    html: str  # a whole document, which needs nothing else

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, whole or not at all.  Raises InputError."""
        try:
            into, page = Path(path), self.html.encode()
            if is_stream(into):
                into.write_bytes(page)
            else:
                with replace_file(into) as file:
                    file.write(page)
        except CheckpointError as error:
            raise InputError(str(error)) from None
        except (OSError, ValueError) as error:  # a name that is none
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be written: {why}") from None

    def __repr__(self) -> str:
        size = len(self.html.encode("utf-8", "replace")) / 1000
        return f"<npbert.Explanation: a page of {size:,.0f} kB; save(path) writes it>"

    def _repr_html_(self) -> str:
        """Return the page in a frame, so that it and the notebook leave each other be."""
        return (
            f'<iframe title="npbert explain" sandbox="allow-scripts allow-downloads" width="100%" '
            f'height="{HEIGHT}" style="border:0" srcdoc="{escape(self.html)}"></iframe>'
        )


@explain_arguments
def explain(
    source_or_model: str | os.PathLike[str] | Model | None,
    text: str | Sequence[str],
    pair: str | Sequence[str] | None = None,
    *,
    blocks: Sequence[int] | None = None,
    architecture: str | None = None,
    strict: bool = True,
) -> Explanation:
    """Make one page that shows every step of a forward pass, or several texts side by side.

    Parameters
    ----------
    source_or_model : path, name, Model or None
        None: a small built-in model, fill-mask for a text with [MASK] and sentiment otherwise.
    text : str, or list of str
        A list: how alike are the embeddings of these texts?
    pair : str, or list of str, optional
        What goes with the text: a second text, for question answering the one that answers, for
        multiple choice the list of choices.
    blocks : list of int, optional
        The blocks whose steps are shown; default: all.
    architecture, strict
        Of a path or a name, as npbert.load has them.

    Returns
    -------
    Explanation
        Its `html` is the page, `save(path)` writes it, and a notebook shows it.  Its numbers are
        those of npbert.trace by the textbook engine, in the model's precision; what a head matters
        is computed by the model's own engine.

    Raises
    ------
    InputError, ConfigError, CheckpointError, HubError

    Examples
    --------
    >>> page = npbert.explain(None, "She opened the [MASK] and went out.")
    >>> page.save("page.html")
    """
    if isinstance(text, list | tuple):
        task = comparison_task(source_or_model, architecture, strict, pair, blocks)
        return Explanation(comparison_page(task, text))
    one = require_one_text(text)
    model = choose_model(source_or_model, one, architecture, strict)
    return Explanation(pass_page(trace_pass(model, one, pair), blocks))


def require_one_text(text: object) -> str:
    """Return a text that is one.  Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"text is {quote(text)}, expected a str, or a list of them to compare")
    return text


def comparison_task(
    source_or_model: str | os.PathLike[str] | Model | None, architecture: str | None, strict: bool,
    *alone: object,
) -> Any:  # fmt: skip
    """Return the task whose embeddings are compared.

    alone : what goes with one text only, and is refused.  Raises InputError.
    """
    if any(each is not None for each in alone):
        raise InputError("several texts are compared by themselves: without pair and blocks")
    return pipeline(
        SENTENCE_EMBEDDING.name, source_or_model, architecture=architecture, strict=strict
    )


def choose_model(
    source_or_model: str | os.PathLike[str] | Model | None, text: str, architecture: str | None,
    strict: bool,
) -> Model:  # fmt: skip
    """Return a model that is given, or load one: for None the built-in one that suits a text."""
    source = source_or_model
    if source is None:
        row = FILL_MASK if "[MASK]" in text else TEXT_CLASSIFICATION
        source = built_in_folder(str(row.built_in))
    if isinstance(source, Model):
        if architecture is not None or not strict:
            raise InputError(
                "architecture, strict: given with a Model, which is loaded already; pass them to "
                "npbert.load"
            )
        return source
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"source_or_model is {quote(source)}, expected a folder, a name on the hub, or a Model"
        )
    return load(source, architecture, strict=strict)


def live_page(
    source_or_model: str | os.PathLike[str] | Model | None,
    text: str | Sequence[str],
    pairs: Sequence[str] = (),
    *,
    blocks: Sequence[int] | None = None,
    architecture: str | None = None,
    strict: bool = True,
) -> LivePage:
    """Return a server, not yet serving, of the page of a text and of those that are typed in it.

    Its arguments are those of explain.  Raises what explain raises, for the text that is given.
    """
    if isinstance(text, list | tuple):
        return live_comparison(
            comparison_task(source_or_model, architecture, strict, pairs or None, blocks), text
        )
    given, one = source_or_model, require_one_text(text)
    if given is not None:
        given, architecture, strict = choose_model(given, one, architecture, strict), None, True

    @lru_cache(maxsize=PAGES_KEPT)
    def make(text: str, pairs: tuple[str, ...]) -> str:
        model = choose_model(given, text, architecture, strict)
        pair = [*pairs] if model.row.has_choices else pairs[0] if pairs else None
        form = pass_form(text, pairs, takes_pair=not model.row.has_choices)
        return pass_page(trace_pass(model, text, pair or None), blocks, form)

    make(one, tuple(pairs))  # what is wrong with it is said before anything is served
    return LivePage(make, one, tuple(pairs))


def live_comparison(task: Any, texts: Sequence[str]) -> LivePage:
    """Return a server of the page of several texts, in which each of them can be changed."""

    @lru_cache(maxsize=PAGES_KEPT)
    def make(first: str, others: tuple[str, ...]) -> str:
        return comparison_page(task, [first, *others], comparison_form([first, *others]))

    comparison_page(task, texts)  # what is wrong with them is said before anything is served
    first, *others = texts
    return LivePage(make, first, tuple(others))
