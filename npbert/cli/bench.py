"""npbert bench: how fast is this, here, and beside others?"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from npbert.cli.shared import FINE, print_json, tell
from npbert.cli.source import SOURCE, add_flags, given
from npbert.errors import InputError, shown

if TYPE_CHECKING:
    from npbert.bench import Work
    from npbert.model import Model

SHAPES: Final = "1x16,1x128,8x128"
RANDOM: Final = "for_sequence_classification"  # the head where there is no model to have one
BUSY: Final = 0.5  # load average from which on others are in the way
ROW: Final = "{:16}  {:19}  {:>26}  {:>9}  {:>8}  {:>9}  {:>20}"
UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))  # in seconds


def add_parsers(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="how fast is this, here, and beside others?",
        description="Times a model, in turns with plain matrix products of its shapes (the floor) "
        "and with other systems on the same weights. Texts are timed without their tokenizer.",
        epilog="example: npbert bench path/to/folder --shapes 1x128,32x128 --against transformers",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"{SOURCE}; default: base size, random weights"
    )
    parser.add_argument("--architecture", metavar="NAME", help=f"default: the model's, or {RANDOM}")
    parser.add_argument(
        "--shapes", metavar="BxL,...", help=f"batch x length; default: {SHAPES}, or only the texts"
    )
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="time its lines, packed, in one call"
    )
    parser.add_argument(
        "--packed",
        action="store_true",
        help="compute of shapes too only what the head reads (one token each for masked words)",
    )
    parser.add_argument(
        "--runs", type=int, default=7, metavar="N", help="turns for each; default: 7"
    )
    parser.add_argument(
        "--against", metavar="PEER,...", help="onnxruntime, transformers, if they are installed"
    )
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="the model's export to ONNX")
    parser.add_argument(
        "--sort",
        action="store_true",
        help="let peers, who pad texts 32 at a time, sort them by length as well",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time everything, and print it as it comes, or as JSON at the end."""
    from npbert.bench import bench, machine, require

    against = list(dict.fromkeys(args.against.split(","))) if args.against else []
    require(args.runs, against, args.onnx)
    model = made(args)
    about = {
        "model": args.model or "random weights",
        "architecture": model.architecture,
        "blocks": model.config.num_blocks,
        "hidden_size": model.config.hidden_size,
        **machine(),
        "runs": args.runs,
    }
    measured = bench(
        model, list(works(args, model)), folder=model.folder,
        runs=args.runs, against=against, onnx=args.onnx, sort=args.sort,
    )  # fmt: skip
    if args.json:
        print_json({**about, "work": list(measured)})
        return FINE
    if (load := about["load"]) and load > BUSY:
        tell(f"the load average is {load}: what else runs here will be in these times")
    print(
        "{model}, {architecture}, {blocks} blocks of {hidden_size}\n{processor}, {cores} cores, "
        "NumPy {numpy}; medians of {runs} turns (fastest to slowest)\n".format(**about)
    )
    heads = ("work", "who", "time", "tokens/s", "of floor", "memory", "npbert's time / its")
    print(ROW.format(*heads).rstrip(), flush=True)
    for facts in measured:
        for line in lines(facts):
            print(line, flush=True)
    return FINE


def made(args: argparse.Namespace) -> "Model":
    """Load the model, or draw one of base size."""
    from npbert.config import Config
    from npbert.loading import init, load

    if args.model:
        return load(args.model, args.architecture, **given(args))
    if args.texts:
        raise InputError("--texts needs a MODEL with a tokenizer; random weights come without one")
    return init(Config(), args.architecture or RANDOM)


def works(args: argparse.Namespace, model: "Model") -> Iterator["Work"]:
    """Yield what is to be timed."""
    from npbert.bench import shape_work, text_work

    shapes = args.shapes or ("" if args.texts else SHAPES)
    for shape in filter(None, shapes.split(",")):
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", shape.strip(), re.ASCII)
        if not match:
            raise InputError(f"--shapes has {shown(shape)}, expected batch x length, as in 8x128")
        batch, length = map(int, match.groups())
        if length > model.config.max_positions:
            raise InputError(
                f"--shapes has {shape}, but the model reads {model.config.max_positions} tokens"
            )
        yield shape_work(batch, length, model.config.vocab_size, packed=args.packed)
    if args.texts:
        try:
            with args.texts.open(encoding="utf-8") as file:
                texts = [line.rstrip("\n") for line in file]
        except OSError as error:
            raise InputError(f"{args.texts}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{args.texts}: is not UTF-8: {error}") from None
        yield text_work(args.texts.name, texts, model)


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the rows of a table for one work: who did it, and how fast."""
    rows = {"npbert": facts["npbert"], "matrix products": facts["floor"], **facts["against"]}
    first = facts["work"]
    for who, row in rows.items():
        ratio, memory = row.get("ratio"), row["peak_memory"]
        yield ROW.format(
            first,
            who,
            seconds(row),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share_of_floor']:.0%}",
            f"{memory / 1e6:,.0f} MB" if memory else "",
            "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio) if ratio else "",
        ).rstrip()
        first = ""


def seconds(row: dict[str, float]) -> str:
    """Return a median and its spread in a unit that suits it."""
    unit, name = next((pair for pair in UNITS if row["median"] >= pair[0]), UNITS[-1])
    median, fastest, slowest = (row[key] / unit for key in ("median", "min", "max"))
    return f"{median:.3g} {name} ({fastest:.3g} to {slowest:.3g})"
