"""The page of a server: a form for each of its tasks, in one file that asks for nothing else."""

import base64
import hashlib
import html
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_type_hints

from npbert import __version__
from npbert.serving.service import Service
from npbert.tasks.options import Names, option_types
from npbert.tasks.rows import TASKS, TaskRow

PAGE_FILES: Final = Path(__file__).parent
STYLE: Final = (PAGE_FILES / "page.css").read_text("utf-8")
SCRIPT: Final = (PAGE_FILES / "page.js").read_text("utf-8")


def source_hash(source: str) -> str:
    """Return the source that a policy lets run, by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


PAGE_POLICY: Final = (
    f"default-src 'none'; connect-src 'self'; img-src data:; script-src {source_hash(SCRIPT)}; "
    f"style-src {source_hash(STYLE)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def html_control(name: str, label: str, control: str, help_text: str = "") -> str:
    """Return a control with its label; `control` is the element, without its name."""
    tag, _, rest = control.partition(" ")
    about = f"<small>{html.escape(help_text)}</small>" if help_text else ""
    end = {"<textarea": "</textarea>", "<select": ""}.get(tag, "")
    return (
        f'<label><span>{html.escape(label)}</span>{tag} name="{html.escape(name)}" {rest}{end}'
        f"{about}</label>"
    )


def option_control(name: str, hint: Any, default: Any, meaning: str) -> str:
    """Return the control of an option, empty where the default holds."""
    kinds = option_types(hint)
    words = [kind for kind in kinds if isinstance(kind, str)]
    if bool in kinds:
        words, kind = ["true", "false"], "flag"
    elif words and int not in kinds:
        kind = "word"
    else:
        words, kind = [], "names" if Names in kinds else "count" if int in kinds else "word"
    if words:
        choices = "".join(f"<option>{html.escape(word)}</option>" for word in ["", *words])
        control = f'<select data-kind="{kind}">{choices}</select>'
    else:
        shape = 'type="number"' if kind == "count" else 'type="text"'
        control = f'<input {shape} data-kind="{kind}">'
    return html_control(f"option.{name}", name, control, meaning)


def task_form(row: TaskRow) -> str:
    """Return the form of a task."""
    hints = get_type_hints(row.options)
    inputs = "".join(
        html_control(
            f"field.{name}", name,
            f'<textarea rows="{3 if name == row.names[0] else 2}" '
            f'data-kind="{"lines" if name in row.listed or name in hints else "text"}"'
            f"{' required' * (i < row.required)}>",
            "one a line" if name in row.listed or name in hints else "",
        )
        for i, name in enumerate(row.fields)
    )  # fmt: skip
    options = "".join(
        option_control(each.name, hints[each.name], each.default, each.metadata["meaning"])
        for each in fields(row.options)
        if Any not in option_types(hints[each.name])
    )
    return (
        f'<section id="{row.name}"><h2>{row.name}</h2><p>{html.escape(row.summary)}</p>'
        f'<form data-path="v1/{row.name}" data-task="{row.name}">{inputs}'
        '<label class="models" hidden><span>model</span><select name="model"></select></label>'
        f"<details><summary>Options</summary>{options}</details>"
        '<button>Ask</button><p class="state" role="status"></p>'
        '<pre class="answer" tabindex="0" aria-label="answer" hidden></pre></form></section>'
    )


def page_html(service: Service) -> str:
    """Return the page: a form for each task that is served."""
    rows = [row for name, row in TASKS.items() if name in service.served]
    links = "".join(f'<a href="#{row.name}">{row.name}</a>' for row in rows)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>npbert</title>'
        '<link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><header><h1>npbert</h1>"
        f'<nav aria-label="tasks">{links}</nav></header><main>'
        "<form hidden><label><span>key of this server</span>"
        '<input type="text" id="key" autocomplete="off" spellcheck="false"></label></form>'
        f"{''.join(map(task_form, rows))}</main>"
        f'<footer>npbert {__version__}; <a href="openapi.json">openapi.json</a>, '
        '<a href="info">info</a>, <a href="metrics">metrics</a></footer>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )
