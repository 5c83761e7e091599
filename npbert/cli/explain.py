"""npbert explain: one page that shows every step of a forward pass."""

import argparse
import sys
from typing import Any

from npbert.cli.shared import FINE, tell
from npbert.cli.source import SOURCE, add_flags, given
from npbert.errors import InputError, shown


def add_parsers(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "explain",
        help="what happens in a forward pass?",
        description="Writes one HTML page that shows every step of a real forward pass: the code "
        "that runs, the formula, and the numbers. It needs no network, and no other file.",
        epilog='example: npbert explain "She opened the [MASK] and went out." -o page.html',
    )
    parser.add_argument("text", nargs="?", metavar="TEXT")
    parser.add_argument(
        "-m", "--model", metavar="MODEL",
        help=f"{SOURCE}; default: a small built-in one, fill-mask for a text with [MASK]",
    )  # fmt: skip
    parser.add_argument(
        "--pair", action="append", metavar="TEXT",
        help="what goes with the text: a second one; for question answering the one that answers; "
        "for multiple choice a choice, said once for each",
    )  # fmt: skip
    parser.add_argument("--blocks", metavar="0,3", help="whose steps are shown; default: all")
    parser.add_argument(
        "--compare", nargs="+", metavar="TEXT", help="how alike are these texts? in place of TEXT"
    )
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="default: stdout")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from npbert.explaining import explain
    from npbert.hub import locate

    if (args.text is None) == (args.compare is None):
        raise InputError("explain needs a TEXT, or --compare and several of them")
    if args.output == "-" and sys.stdout is None:
        raise InputError("stdout is closed; say where the page goes: -o page.html")
    if args.output == "-" and sys.stdout.isatty():
        raise InputError("a page would fill the terminal; say where it goes: -o page.html")
    folder = locate(args.model, **given(args)) if args.model else None
    pair = args.pair[0] if args.pair and len(args.pair) == 1 else args.pair
    page = explain(folder, args.compare or args.text, pair, blocks=numbers(args.blocks))
    if args.output == "-":
        print(page.html, end="")
    else:
        page.save(args.output)
        tell(f"{args.output} is written, {len(page.html.encode()):,} bytes; open it in a browser")
    return FINE


def numbers(blocks: str | None) -> list[int] | None:
    """Return the blocks that are asked for.  Raises InputError for what is no number."""
    if blocks is None:
        return None
    try:
        return [int(each) for each in blocks.split(",")]
    except ValueError:
        raise InputError(
            f"--blocks is {shown(blocks)}, expected numbers between commas, as in 0,3"
        ) from None
