"""npbert trace, compare, diagnose, verify, kit: for whoever ports DistilBERT."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from npbert.cli.shared import FINE, print_json
from npbert.cli.source import SOURCE, add_flags, given
from npbert.errors import InputError

if TYPE_CHECKING:
    from npbert.model import Model
    from npbert.oracle import Trace

DIFFERENT: Final = 1  # as diff and cmp say it
STATUS: Final = "exit status: 0 the same; 1 different; 2 unreadable input; 3 no model"


def add_parsers(commands: Any) -> None:
    """Add the commands."""
    parser = commands.add_parser(
        "trace",
        help="what is every intermediate number?",
        description="Writes every activation of a call, by PyTorch's names, rows outside.",
        epilog='example: npbert trace FOLDER --text "Hello." -o reference.safetensors',
    )
    parser.add_argument("model", metavar="MODEL", help=SOURCE)
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--text", action="append", help="a text; several make a padded batch")
    texts.add_argument(
        "--ids", action="append", metavar="'101 7592 102'", help="token ids of a row"
    )
    texts.add_argument("--inputs", metavar="FILE", help="input_ids and the like, in a file")
    parser.add_argument("--pair", metavar="TEXT", help="a second text, to go with each")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="name.safetensors, name.npz, or a folder of .npy files",
    )
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    parser.add_argument("--engine", choices=["textbook", "kernels"], help="default: textbook")
    parser.add_argument(
        "--only", default="*", metavar="GLOB", help="names to keep, e.g. '*.scores'"
    )
    parser.add_argument(
        "--split-heads",
        action="store_true",
        help="q, k, v and context as (batch, heads, length, K)",
    )
    parser.add_argument("--architecture", help="default: what config.json says")
    add_flags(parser)
    parser.set_defaults(run=trace)

    for name, meaning, example in (
        ("compare", "where do two traces part?", "npbert compare FOLDER port.safetensors"),
        (
            "diagnose",
            "which step of a port is wrong, and what is wrong with it?",
            "npbert diagnose FOLDER port/ --map bumblebee",
        ),
    ):
        parser = commands.add_parser(
            name,
            help=meaning,
            description=f"{meaning[0].upper()}{meaning[1:]}",
            epilog=f"example: {example}; {STATUS}",
        )
        what = f"a model, {SOURCE}{', or a trace' * (name == 'compare')}"
        parser.add_argument("reference", metavar="REFERENCE", help=what)
        parser.add_argument(
            "candidate",
            metavar="CANDIDATE",
            help="what the port computed: .safetensors, .npz, a folder of .npy",
        )
        parser.add_argument(
            "--map",
            default="pytorch",
            metavar="NAMES",
            help="pytorch (default), bumblebee, onnx, candle, or a .json or .toml "
            "file of names, theirs to ours, {n} for a block",
        )
        parser.add_argument("--architecture", help="default: what config.json says")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        add_flags(parser)
        parser.set_defaults(run=compare if name == "compare" else diagnose)

    parser = commands.add_parser(
        "verify",
        help="does this installation compute what it should?",
        description="Computes recorded cases of all architectures with this NumPy and this BLAS; "
        "or, of a checkpoint of which numbers were published, these.",
        epilog="example: npbert verify; exit status: 0 it does; 1 something is off",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"{SOURCE}; called as its repository"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flags(parser)
    parser.set_defaults(run=verify)
    parser = commands.add_parser(
        "kit",
        help="small checkpoints, inputs and traces to check a port with",
        description="Writes a small checkpoint, inputs and a full trace for every architecture.",
        epilog="example: npbert kit FOLDER",
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.set_defaults(run=kit)


def trace(args: argparse.Namespace) -> int:
    """Write a trace."""
    from npbert.loading import load
    from npbert.oracle import trace
    from npbert.oracle.dumps import inputs_of, save

    engine = args.engine or "textbook"
    model = load(args.model, args.architecture, dtype=args.dtype, engine=engine, **given(args))
    how = {"only": args.only, "split_heads": args.split_heads, "noise": True}
    if args.text:
        traced = trace(model, text=args.text, pair=args.pair, **how)
    elif args.ids:
        traced = trace(model, rows(args.ids), **how)
    else:
        traced = trace(model, **inputs_of(Path(args.inputs)), **how)  # type: ignore[arg-type]
    save(traced, Path(args.output))
    return FINE


def rows(given: list[str]) -> list[list[int]]:
    """Return rows of token ids, which must be of one length."""
    try:
        made = [[int(part) for part in row.replace(",", " ").split()] for row in given]
    except ValueError:
        raise InputError(f"--ids {given[0]!r}: expected whole numbers") from None
    if len({len(row) for row in made}) > 1:
        raise InputError(
            "--ids: rows have different lengths; pad them, and pass --inputs with a mask"
        )
    return made


def reference_of(args: argparse.Namespace) -> "Model | Trace":
    """Return the model, or the trace, to compare with."""
    from npbert.loading import load
    from npbert.oracle.dumps import load as load_dump

    path = Path(args.reference)
    if (path / "config.json").exists() or not path.exists():
        return load(args.reference, args.architecture, dtype="float64", **given(args))
    return load_dump(path)


def compare(args: argparse.Namespace) -> int:
    """Print a table of two traces; status 1 where they differ."""
    from npbert.oracle import compare
    from npbert.oracle.dumps import load as load_dump
    from npbert.oracle.names import read_map
    from npbert.oracle.reporting import as_json, table

    candidate = load_dump(Path(args.candidate))
    found = compare(reference_of(args), candidate, names=read_map(args.map))
    if args.json:
        print_json(as_json(found))
    else:
        print("\n".join(table(found)))
    return FINE if found.same else DIFFERENT


def diagnose(args: argparse.Namespace) -> int:
    """Print what is wrong with a port; status 1 where something is."""
    from npbert.loading import load
    from npbert.oracle import diagnose
    from npbert.oracle.dumps import load as load_dump
    from npbert.oracle.names import read_map
    from npbert.oracle.reporting import findings, report

    candidate = load_dump(Path(args.candidate))
    model = load(args.reference, args.architecture, dtype="float64", **given(args))
    found = diagnose(model, candidate, names=read_map(args.map))
    if args.json:
        print_json(findings(found))
    else:
        print("\n".join([*found.notes, *report(found)]))
    return DIFFERENT if found.findings else FINE


def verify(args: argparse.Namespace) -> int:
    """Check this installation; status 1 where a bound is passed."""
    from npbert.hub import locate
    from npbert.oracle.cases import described, verify
    from npbert.oracle.published import verify_model

    checks = list(
        verify() if args.model is None else verify_model(locate(args.model, **given(args)))
    )
    if args.json:
        print_json({"checks": described(checks), "passed": all(c.passed for c in checks)})
    else:
        for check in checks:
            mark = "ok" if check.passed else "OFF"
            print(
                f"{mark:4}{check.architecture:30} {check.way:18} worst {check.worst:.1e} of "
                f"{check.bound:.0e}  {check.activation}"
            )
    return FINE if all(check.passed for check in checks) else DIFFERENT


def kit(args: argparse.Namespace) -> int:
    """Write the porter's kit."""
    from npbert.oracle.cases import kit

    for folder in kit(Path(args.folder)):
        print(folder)
    return FINE
