"""npbert convert: pytorch_model.bin to safetensors."""

import argparse
from pathlib import Path
from typing import Any

from npbert.cli.shared import FINE, print_table
from npbert.cli.source import SOURCE, add_flags, given
from npbert.errors import InputError


def add_parsers(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "convert",
        help="pytorch_model.bin to safetensors, in the same dtypes.",
        description="Reads pytorch_model.bin without running anything in it, checks all of the "
        "model, and writes model.safetensors: the same tensors, names and dtypes. Prints the files "
        "written and their sizes in bytes. Nothing is replaced.",
        epilog="example: npbert convert path/to/folder path/to/new-folder",
    )
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER",
        type=Path,
        help="a new folder, with settings and tokenizer too; default: SOURCE, if it is a folder, "
        "gets the one file",
    )
    add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    from npbert.converting import convert
    from npbert.hub import is_name, locate

    source = locate(args.source, **given(args))
    if args.folder is None and is_name(args.source):
        raise InputError(
            f"{args.source}: is a name on the hub, and its cache is not written to; expected a "
            "FOLDER too"
        )
    print_table((str(path), f"{path.stat().st_size:,}") for path in convert(source, args.folder))
    return FINE
