"""The tables of the READMEs, made from the rows; `python tests/helpers/readme_tables.py` fills in.

A table stands between two lines, <!-- name --> and <!-- /name -->; test_docs.py holds both equal.
"""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from npbert.families import (
    ARCHITECTURES,
    CHOICES,
    FAMILIES,
    SEQUENCES,
    SPANS,
    Axes,
    class_name,
    list_architectures,
)
from npbert.tasks.rows import TASKS

ROOT = Path(__file__).parent.parent.parent
LETTERS = {"V": "words", "C": "classes", "2": "classes", "D": "hidden_size"}
AXES: dict[Axes, str] = {SPANS: "batch, length", CHOICES: "batch, choices"}


def table(*rows: tuple[str, ...]) -> str:
    """Return rows, the first of them the head, as a table in Markdown."""
    head, *others = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows]
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *others])


def quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def tasks() -> str:
    """Return what each task answers."""
    rows = [
        (f"`{row.name}`", f"[{row.built_in}](npbert/demo/{row.built_in}/README.md)", row.answer)
        if row.built_in else (f"`{row.name}`", "", row.answer)
        for row in TASKS.values()
    ]  # fmt: skip
    return table(("task", "built-in model", "one input, and its answer"), *rows)


def options() -> str:
    """Return what each task can be asked."""
    rows = [
        (f"`{row.name}`", quoted(tuple(f.name for f in fields(row.options))), quoted(row.aliases))
        for row in TASKS.values()
    ]
    return table(("task", "options", "called elsewhere"), *rows)


def architectures() -> str:
    """Return what each architecture returns."""
    rows = []
    for name, row in ARCHITECTURES.items():
        last = [*row.layers.values(), "D"][len(row.layers) - 1 if row.layers else 0].split()[0]
        shapes: dict[str, list[str]] = {}
        for output, axes in row.outputs.items():
            length = "" if axes == SEQUENCES else "length, "
            shape = AXES.get(axes, f"batch, {length}{LETTERS.get(last, last)}")
            shapes.setdefault(shape, []).append(output)
        returns = "; ".join(f"{quoted(tuple(o))} ({shape})" for shape, o in shapes.items())
        returns += ", if the file has weights for it" * row.is_encoder
        returns += " for inputs (batch, choices, length)" * row.has_choices
        classes = [
            class_name(family, name) if name in list_architectures(family) else ""
            for family in FAMILIES
        ]
        rows.append((f"`{name}`", *classes, returns))
    titles = [row.title for row in FAMILIES.values()]
    return table(("architecture", *titles, "returns"), *rows)


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "tasks": (ROOT / "README.md", tasks),
    "architectures": (ROOT / "README.md", architectures),
    "options": (ROOT / "npbert" / "tasks" / "README.md", options),
}


def between(name: str) -> re.Pattern[str]:
    """Return what finds a table where it stands."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- /{name} -->)", re.DOTALL)


if __name__ == "__main__":
    for name, (path, make) in TABLES.items():
        before, after = between(name).split(path.read_text("utf-8"))
        path.write_text(before + make() + after, "utf-8")
