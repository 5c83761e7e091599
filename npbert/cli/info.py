"""npbert info: what is in a model's folder."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from npbert.cli.shared import FINE, print_json, print_table
from npbert.cli.source import SOURCE, add_flags, given
from npbert.errors import listed


def add_parsers(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "info",
        help="what is in a model's folder?",
        description="Prints what a model is: architecture, config, weights, tokenizer, files.",
        epilog="example: npbert info path/to/folder --json",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"{SOURCE}; default: the built-in sentiment one"
    )
    parser.add_argument("--check", action="store_true", help="read every weight: is it finite?")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load the model and print what it is."""
    from npbert.hub import locate
    from npbert.tasks import demo

    folder = locate(args.model or demo("sentiment"), **given(args))
    facts = describe(folder, check=args.check)
    if args.json:
        print_json(facts)
    else:
        print_table(flat(facts))
    return FINE


def describe(folder: Path, *, check: bool) -> dict[str, Any]:
    """Return what there is to know about a model, as JSON."""
    from dataclasses import asdict

    import numpy as np

    from npbert.loading import load
    from npbert.vocabulary import SPECIALS

    model = load(folder)
    facts: dict[str, Any] = {
        "folder": str(folder),
        "architecture": model.architecture,
        "parameters": count(model.parameters),
        "computes in": model.dtype.name,
        "files": {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()},
        "config": model.config.to_dict(),
        "weights": asdict(model.load_report) if model.load_report else None,
    }
    if tokenizer := model.tokenizer:
        facts["tokenizer"] = {
            "pieces": len(tokenizer.known),
            "max_length": tokenizer.max_length,
            "special_tokens": {role: tokenizer.text_of(role) for role in SPECIALS},
        }
    if check:
        facts["not finite"] = {
            name: int(n)
            for name, array in model.parameters.items()
            if (n := np.count_nonzero(~np.isfinite(array)))
        } or "none"
    return facts


def count(parameters: Mapping[str, Any]) -> int:
    """Return how many numbers a model has; tied tensors count once."""
    return sum(array.size for array in {id(a): a for a in parameters.values()}.values())


def flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the lines of a table: nested names joined by dots, without what is empty."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, tuple | list):
            if value:
                yield f"{prefix}{name}", listed(value)
        elif value is not None:
            yield f"{prefix}{name}", f"{value:,}" if type(value) is int else value
