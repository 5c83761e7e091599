"""npbert info, download, convert, bench: what a model is, where it comes from, how fast it is."""

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from npbert.cli.shared import (
    SOURCE,
    Commands,
    add_architecture_flags,
    add_copy_flag,
    add_hub_flags,
    hub_keywords,
    load_keywords,
    print_table,
)
from npbert.errors import ExitStatus, InputError, NpbertError, listing, quote, tell
from npbert.tasks.rows import TEXT_CLASSIFICATION

if TYPE_CHECKING:
    from npbert.bench import Work
    from npbert.model import Model

BENCH_SIZES: Final[Mapping[str, Mapping[str, int]]] = {
    "base": {},
    "small": {"hidden_size": 384, "intermediate_size": 1536},  # as all-MiniLM-L6-v2
}
BENCH_SHAPES: Final = "1x16,1x128,8x128"
BENCH_ARCHITECTURE: Final = TEXT_CLASSIFICATION.architecture  # where there is no model to have one
BUSY_LOAD: Final = 0.5  # load average from which on others are in the way
BENCH_ROW: Final = "{:16}  {:19}  {:>26}  {:>9}  {:>8}  {:>9}  {:>20}"
TIME_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))  # in seconds


def add_model_parsers(commands: Commands) -> None:
    """Add the commands."""
    add_info(commands)
    add_download(commands)
    add_convert(commands)
    add_bench(commands)


def add_info(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "models",
        "info",
        "Show what a model is: architecture, config, weights, tokenizer, files.",
        epilog="example: npbert info path/to/folder --json",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"{SOURCE}; default: the built-in sentiment one"
    )
    parser.add_argument(
        "--check", action="store_true", help="also check that every weight is finite"
    )
    add_architecture_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_hub_flags(parser)
    parser.set_defaults(run=run_info)


def run_info(args: argparse.Namespace) -> ExitStatus:
    """Load the model and print what it is."""
    from npbert.hub import locate
    from npbert.tasks import built_in_folder
    from npbert.tasks.rows import TEXT_CLASSIFICATION

    folder = locate(
        args.model or built_in_folder(str(TEXT_CLASSIFICATION.built_in)), **hub_keywords(args)
    )
    facts = describe(folder, args.architecture, strict=args.strict, check=args.check)
    if args.json:
        from npbert.jobs.lines import print_json

        print_json(facts)
    else:
        print_table(flatten(facts))
        tell(
            "its files are mapped while they are in use: replace a model by renaming new files "
            "over them (mv), never by writing into them (cp)"
        )
    return ExitStatus.FINE


def describe(
    folder: Path, architecture: str | None = None, *, strict: bool, check: bool
) -> dict[str, Any]:
    """Return what there is to know about a model, as JSON."""
    from dataclasses import asdict

    from npbert.checkpoint.folders import read_modules
    from npbert.checkpoint.summary import count_parameters
    from npbert.families import ENCODER_ARCHITECTURE
    from npbert.loading import load
    from npbert.tasks.sentence_transformers import describe_recipe, read_embedder
    from npbert.text.added_tokens import SPECIALS

    modules = read_modules(folder)
    encoder = modules[0][1] if modules else folder
    # Modules that are not finite make no recipe, and --check is to name them all.
    unfit = count_not_finite(module_arrays(folder)) if check else {}
    recipe = None if unfit else read_embedder(folder)
    try:
        model = load(encoder, architecture, strict=strict)
    except NpbertError:
        if architecture or not (recipe or unfit):
            raise
        # An embedder needs no head, whatever its config.json names.
        model = load(encoder, ENCODER_ARCHITECTURE, strict=strict)
    facts: dict[str, Any] = {
        "folder": str(folder),
        "family": model.family,
        "architecture": model.architecture,
        "parameters": count_parameters(model.parameters),
        "computes in": model.dtype.name,
        "bytes held twice, for few tokens": model.operations.second_copy,
        "files": {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()},
        "config": model.config.to_dict(),
        "weights": asdict(model.load_report) if model.load_report else None,
    }
    if recipe:
        facts["sentence-transformers"] = {
            "modules": [kind.rpartition(".")[2] for kind, _ in modules],
            **describe_recipe(recipe, model.config.hidden_size),
        }
    if tokenizer := model.tokenizer:
        facts["tokenizer"] = {
            "pieces": len(tokenizer.known_ids),
            "max_length": tokenizer.max_length,
            "special_tokens": {role: tokenizer.token_text(role) for role in SPECIALS},
        }
    if check:
        facts["not finite"] = {**count_not_finite(model.parameters.items()), **unfit} or "none"
    return facts


def count_not_finite(arrays: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """Return how many values of each array are no numbers, of those where any is."""
    import numpy as np

    counts = {name: int(np.count_nonzero(~np.isfinite(array))) for name, array in arrays}
    return {name: n for name, n in counts.items() if n}


def module_arrays(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of the modules behind the encoder, by folder and name."""
    import numpy as np

    from npbert.checkpoint.files import FLOATS
    from npbert.checkpoint.folders import read_modules, read_tensors

    for kind, place in read_modules(folder)[1:]:
        if kind.rpartition(".")[2] in ("Dense", "LayerNorm"):
            for name, tensor in read_tensors(place).items():
                if tensor.dtype in FLOATS:
                    yield f"{place.name}.{name}", tensor.array(np.float32)


def flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the lines of a table: nested names joined by dots, without what is empty."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, tuple | list):
            if value:
                yield f"{prefix}{name}", listing(value)
        elif value is not None:
            yield f"{prefix}{name}", f"{value:,}" if type(value) is int else value


def add_download(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "models",
        "download",
        "Download a model from the hub, or what is new of it. Prints the folder in the cache.",
        epilog='example: npbert fill-mask -m "$(npbert download NAME)" "The ship [MASK]."',
    )
    parser.add_argument("model", metavar="NAME", help="of a repository, as in org/name")
    add_hub_flags(parser)
    parser.set_defaults(run=run_download)


def run_download(args: argparse.Namespace) -> ExitStatus:
    """Ask the hub, fetch what is missing, and print the folder."""
    from npbert.hub import locate

    print(locate(args.model, **hub_keywords(args), fresh=True))
    return ExitStatus.FINE


def add_convert(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "models",
        "convert",
        "Convert pytorch_model.bin to safetensors. Nothing in the file is executed; the whole "
        "checkpoint is checked, and model.safetensors holds the same tensors, names and dtypes. "
        "Prints the files written and their sizes in bytes. Nothing is replaced.",
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
    add_architecture_flags(parser)
    add_hub_flags(parser)
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> ExitStatus:
    """Convert, and say what was written."""
    from npbert.checkpoint.folders import convert
    from npbert.hub import is_name, locate
    from npbert.loading import load
    from npbert.tasks.sentence_transformers import is_sparse, read_recipe
    from npbert.tasks.sparse_embedding import read_sparse_recipe

    source = locate(args.source, **hub_keywords(args))
    if args.folder is None and is_name(args.source):
        raise InputError(
            f"{args.source}: is a name on the hub, and its cache is not written to; expected a "
            "FOLDER too"
        )
    recipe = read_sparse_recipe(source) if is_sparse(source) else read_recipe(source)
    how = {"architecture": args.architecture, "strict": args.strict}
    load(recipe[0] if recipe else source, **how)  # its tokenizer and modules are checked too
    written = convert(source, args.folder, **how)
    print_table((str(path), f"{path.stat().st_size:,}") for path in written)
    return ExitStatus.FINE


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
        help="of random weights: base is 6 blocks of 768, small 6 of 384 (default: base)",
    )  # fmt: skip
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
        "--against", metavar="PEER,...", help="onnxruntime, transformers, if they are installed"
    )
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
    heads = ("work", "who", "time", "tokens/s", "of floor", "memory", "npbert's time / its")
    print(BENCH_ROW.format(*heads).rstrip(), flush=True)
    for facts in measured:
        for line in table_rows(facts):
            print(line, flush=True)
    return ExitStatus.FINE


def bench_model(args: argparse.Namespace) -> "Model":
    """Load the model, or draw one of some size, the same weights every time."""
    from npbert.checkpoint.config import Config
    from npbert.loading import init, load

    if args.model and args.size:
        raise InputError("--size is of random weights, and a MODEL has its own")
    if args.model:
        return load(args.model, **load_keywords(args))
    if args.texts:
        raise InputError("--texts needs a MODEL with a tokenizer; random weights come without one")
    sizes: Mapping[str, Any] = BENCH_SIZES[args.size or "base"]
    return init(Config(**sizes), args.architecture or BENCH_ARCHITECTURE)


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
