"""npbert info, download, convert: what a model is, and where it comes from."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from npbert.cli.shared import (
    SOURCE,
    Commands,
    add_architecture_flags,
    add_hub_flags,
    hub_keywords,
    print_table,
)
from npbert.errors import ExitStatus, InputError, NpbertError, listing, tell
from npbert.tasks.rows import TEXT_CLASSIFICATION


def add_model_parsers(commands: Commands) -> None:
    """Add the commands."""
    add_info(commands)
    add_download(commands)
    add_convert(commands)


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
