"""npbert download: a model from the hub to the cache, for whoever has no network later."""

import argparse
from typing import Any

from npbert.cli.shared import FINE
from npbert.cli.source import add_flags, given


def add_parsers(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "download",
        help="fetch a model from the hub, or what is new of it",
        description="Fetches a model's files from the hub, as far as they are not in the cache "
        "yet, and prints the folder where they are.",
        epilog='example: npbert fill-mask -m "$(npbert download NAME)" "The ship [MASK]."',
    )
    parser.add_argument("model", metavar="NAME", help="of a repository, as in org/name")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask the hub, fetch what is missing, and print the folder."""
    from npbert.hub import locate

    print(locate(args.model, **given(args), fresh=True))
    return FINE
