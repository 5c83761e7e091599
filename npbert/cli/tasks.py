"""npbert fill-mask and npbert text-classification: texts in, a JSON object a line out."""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from npbert.cli.shared import FINE, print_json
from npbert.errors import InputError

EXAMPLES: Final = {
    "fill-mask": 'npbert fill-mask "The ship sank in the [MASK]."',
    "text-classification": 'npbert text-classification "A gorgeous, witty, seductive movie."',
}
BLAS_THREADS: Final = (
    "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
LONG: Final = "a text that the model cannot hold is cut, and that is told (default), or refused"
HELP: Final = {
    "fill-mask": "which words may stand where a text says [MASK]?",
    "text-classification": "which class has a text, or a pair of texts?",
}


def add_parsers(commands: Any) -> None:
    """Add a command for each task."""
    for name, summary in HELP.items():
        parser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]} Prints a JSON object for every text.",
            epilog=f"example: {EXAMPLES[name]}",
        )
        parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
        parser.add_argument(
            "-m", "--model", metavar="FOLDER", help="default: a small built-in model"
        )
        parser.add_argument("--long", choices=["truncate", "error"], help=LONG)
        parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
        parser.add_argument("--top-k", type=int, metavar="N", help="how many answers for each text")
        if name == "text-classification":
            parser.add_argument("--pair", metavar="TEXT", help="a second text, to go with the one")
            parser.add_argument(
                "--function-to-apply",
                choices=["softmax", "sigmoid", "none"],
                help="what makes scores of logits; default: what the model's config implies",
            )
        parser.set_defaults(run=run, task=name)


def run(args: argparse.Namespace) -> int:
    """Answer for every text, in order."""
    # Any BLAS reads one of these when NumPy loads; npbert's own threads want one of its each.
    os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
    from npbert.tasks import pipeline

    names = ("long", "top_k", "function_to_apply")
    given = {name: getattr(args, name, None) for name in names}
    options = {name: value for name, value in given.items() if value is not None}
    task = pipeline(args.task, args.model, threads=args.threads, **options)
    # Someone who types wants an answer after every line; a pipe is read a little ahead.
    if not args.texts and sys.stdin is None:
        raise InputError("there is no TEXT, and stdin is closed")
    typed = not args.texts and sys.stdin.isatty()
    for result in map(task, inputs(args)) if typed else task(inputs(args)):
        print_json(result if isinstance(result, dict) else {"results": result})
    return FINE


def inputs(args: argparse.Namespace) -> Iterator[Any]:
    """Yield the texts of the command line, or else those that stand on stdin, a line each."""
    pair = getattr(args, "pair", None)
    for text in args.texts or lines():
        yield text if pair is None else (text, pair)


def lines() -> Iterator[str]:
    """Yield the lines of stdin without their ends; an empty one too, so that answers line up."""
    for line in sys.stdin:
        yield line.rstrip("\r\n")
