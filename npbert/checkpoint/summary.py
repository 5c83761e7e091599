"""What a model is at a glance: a line for a prompt, a table for a notebook."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from npbert.checkpoint.config import Config
from npbert.checkpoint.parameters import WORDS, Parameters


def model_facts(
    config: Config, architecture: str, parameters: Parameters, folder: Path | None
) -> dict[str, str]:
    """Return what there is to know first, by name, in words."""
    facts = {
        "family": config.family,
        "architecture": architecture,
        "size": f"{config.num_blocks} blocks of {config.hidden_size}",
        "parameters": f"{count_parameters(parameters):,}",
        "dtype": parameters[WORDS].dtype.name,
        "reads": f"up to {config.max_positions} tokens",
    }
    if config.id_to_label:
        labels = [config.label(i) for i in range(min(config.num_labels, 8))]
        more = config.num_labels - len(labels)
        facts["labels"] = ", ".join(labels) + (f" and {more} more" if more else "")
    if folder is not None:
        facts["folder"] = str(folder)
    return facts


def count_parameters(parameters: Mapping[str, Any]) -> int:
    """Return how many numbers a model has; tied tensors count once."""
    return sum(array.size for array in {id(a): a for a in parameters.values()}.values())


def facts_line(title: str, facts: Mapping[str, str]) -> str:
    """Return facts in one line, as repr does."""
    line = f"<npbert.{title}: {', '.join(f'{name} {value}' for name, value in facts.items())}>"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def facts_table(title: str, facts: Mapping[str, str]) -> str:
    """Return facts as a table in HTML, as a notebook shows it."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><caption>npbert.{escape(title)}</caption>{rows}</table>"
