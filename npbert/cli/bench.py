"""npbert bench: how fast a model is, beside its floor and its peers."""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from npbert.cli.shared import (
    SOURCE,
    Commands,
    add_architecture_flags,
    add_copy_flag,
    add_hub_flags,
    load_keywords,
)
from npbert.errors import ExitStatus, InputError, quote, tell
from npbert.families import DEFAULT_FAMILY, FAMILIES
from npbert.tasks.rows import TEXT_CLASSIFICATION

if TYPE_CHECKING:
    from npbert.bench import Work
    from npbert.model import Model

BENCH_SIZES: Final[Mapping[str, Mapping[str, int]]] = {
    "base": {"num_blocks": 6},  # DistilBERT's; BERT-base has 12
    "minilm": {
        "num_blocks": 6,
        "hidden_size": 384,
        "intermediate_size": 1536,
    },  # all-MiniLM-L6-v2's
}
BENCH_SHAPES: Final = "1x16,1x128,8x128"
BENCH_ARCHITECTURE: Final = TEXT_CLASSIFICATION.architecture  # where there is no model to have one
BUSY_LOAD: Final = 0.5  # load average from which on others are in the way
BENCH_ROW: Final = "{:16}  {:22}  {:13}  {:>26}  {:>9}  {:>8}  {:>9}  {:>20}"
TIME_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))  # in seconds


def add_bench(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "more",
        "bench",
        "Time a model beside plain matrix products and other systems. They take turns; the "
        "products are of the model's shapes (the floor), the others have the same weights. Texts "
        "are timed without their tokenizer.",
        epilog="example: npbert bench path/to/folder --shapes 1x128,32x128 --against transformers",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"{SOURCE}; default: random weights of a --size"
    )
    parser.add_argument(
        "--size", choices=list(BENCH_SIZES),
        help="of random weights: base is 6 blocks of 768, minilm 6 of 384 (default: base)",
    )  # fmt: skip
    parser.add_argument(
        "--family", choices=list(FAMILIES), help=f"of random weights; default: {DEFAULT_FAMILY}"
    )
    add_architecture_flags(parser, f"the model's, or {BENCH_ARCHITECTURE}")
    parser.add_argument(
        "--shapes",
        metavar="BxL,...",
        help=f"batch x length; default: {BENCH_SHAPES}, or only the texts",
    )
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="time the lines of a file, packed, in one call"
    )
    parser.add_argument(
        "--packed",
        action="store_true",
        help="compute only what the head reads, of shapes too (one token each for masked words)",
    )
    parser.add_argument(
        "--runs", type=int, default=7, metavar="N", help="turns for each; default: 7"
    )
    parser.add_argument(
        "--against", metavar="PEER[:PRECISION],...",
        help="onnxruntime, openvino, ctranslate2, transformers, if they are installed; as float32, "
        "or as :bfloat16 or :int8 where they can",
    )  # fmt: skip
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="the model's export to ONNX")
    parser.add_argument(
        "--sort",
        action="store_true",
        help="let peers, who pad texts 32 at a time, sort them by length as well",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_copy_flag(parser)
    add_hub_flags(parser)
    parser.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> ExitStatus:
    """Time everything, and print it as it comes, or as JSON at the end."""
    from npbert.bench import bench, machine_facts, require

    against = list(dict.fromkeys(args.against.split(","))) if args.against else []
    require(args.runs, against, args.onnx)
    model = bench_model(args)
    about = {
        "model": args.model or "random weights",
        "architecture": model.architecture,
        "blocks": model.config.num_blocks,
        "hidden_size": model.config.hidden_size,
        **machine_facts(),
        "runs": args.runs,
    }
    measured = bench(
        model, list(bench_works(args, model)), folder=model.folder,
        runs=args.runs, against=against, onnx=args.onnx, sort=args.sort,
    )  # fmt: skip
    if args.json:
        from npbert.jobs.lines import print_json

        print_json({**about, "work": list(measured)})
        return ExitStatus.FINE
    if (load := about["load"]) and load > BUSY_LOAD:
        tell(f"the load average is {load}: what else runs here will be in these times")
    print(
        "{model}, {architecture}, {blocks} blocks of {hidden_size}\n{processor}, {cores} cores, "
        "NumPy {numpy}; medians of {runs} turns (fastest to slowest)\n".format(**about)
    )
    heads = (
        "work",
        "who",
        "precision",
        "time",
        "tokens/s",
        "of floor",
        "memory",
        "npbert's time / its",
    )
    print(BENCH_ROW.format(*heads).rstrip(), flush=True)
    for facts in measured:
        for line in table_rows(facts):
            print(line, flush=True)
    return ExitStatus.FINE


def bench_model(args: argparse.Namespace) -> "Model":
    """Load the model, or draw one of some size, the same weights every time."""
    from npbert.checkpoint.config import Config
    from npbert.loading import init, load

    if args.model and (args.size or args.family):
        flag = "--size" if args.size else "--family"
        raise InputError(f"{flag} is of random weights, and a MODEL has its own")
    if args.model:
        return load(args.model, **load_keywords(args))
    if args.texts:
        raise InputError("--texts needs a MODEL with a tokenizer; random weights come without one")
    sizes: Mapping[str, Any] = BENCH_SIZES[args.size or "base"]
    config = Config(family=args.family or DEFAULT_FAMILY, **sizes)
    return init(config, args.architecture or BENCH_ARCHITECTURE)


def bench_works(args: argparse.Namespace, model: "Model") -> Iterator["Work"]:
    """Yield what is to be timed."""
    from npbert.bench import shape_work, text_work

    shapes = args.shapes or ("" if args.texts else BENCH_SHAPES)
    for shape in filter(None, shapes.split(",")):
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", shape.strip(), re.ASCII)
        if not match:
            raise InputError(f"--shapes has {quote(shape)}, expected batch x length, as in 8x128")
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


def table_rows(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the rows of a table for one work: who did it, and how fast."""
    rows = {"npbert": facts["npbert"], "matrix products": facts["floor"], **facts["against"]}
    first = facts["work"]
    for who, row in rows.items():
        ratio, memory = row.get("ratio"), row["peak_memory"]
        yield BENCH_ROW.format(
            first,
            who,
            row["precision"],
            time_text(row),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share_of_floor']:.0%}",
            f"{memory / 1e6:,.0f} MB" if memory else "",
            "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio) if ratio else "",
        ).rstrip()
        first = ""


def time_text(row: dict[str, float]) -> str:
    """Return a median and its spread in a unit that suits it."""
    unit, name = next((pair for pair in TIME_UNITS if row["median"] >= pair[0]), TIME_UNITS[-1])
    median, fastest, slowest = (row[key] / unit for key in ("median", "min", "max"))
    return f"{median:.3g} {name} ({fastest:.3g} to {slowest:.3g})"
