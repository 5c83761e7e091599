"""What the commands share: tables for people, and the flags that say where a model comes from."""

import argparse
from collections.abc import Iterable
from typing import Any, Final

SOURCE: Final = "a folder, or a name on the hub"


def add_hub_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a model on the hub."""
    group = parser.add_argument_group(
        "models on the hub",
        "A name such as distilbert/distilbert-base-uncased is downloaded once, and read from the "
        "cache ever after. For private ones, set HF_TOKEN.",
    )
    group.add_argument("--revision", metavar="NAME", help="a branch, tag or commit; default: main")
    group.add_argument("--subfolder", metavar="PATH", help="the folder below where the model is")
    group.add_argument(
        "--cache-dir", metavar="FOLDER", help="default: as HF_HUB_CACHE or HF_HOME say"
    )
    group.add_argument(
        "--offline",
        action="store_true",
        default=None,
        help="take what is in the cache, and ask nobody; default: as HF_HUB_OFFLINE says",
    )


def hub_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags say, as npbert.load and npbert.pipeline want it."""
    return {name: vars(args)[name] for name in ("revision", "subfolder", "cache_dir", "offline")}


def print_table(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns."""
    pairs = [(name, str(value)) for name, value in rows]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}")
