"""npbert trace, compare, diagnose, verify, kit, explain: for whoever ports or reads a model."""

import argparse
import sys
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
)
from npbert.errors import ExitStatus, InputError, quote, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from npbert.model import Model
    from npbert.oracle import Trace

STATUS: Final = "exit status: 0 the same; 1 different; 2 unreadable input; 3 no model"


def add_oracle_parsers(commands: Commands) -> None:
    """Add the commands."""
    parser = commands.add(
        "oracle",
        "trace",
        "Write every intermediate value of a forward pass. Names are those of the "
        "model's modules in PyTorch, rows are outside.",
        epilog='example: npbert trace FOLDER --text "Hello." -o reference.safetensors',
    )
    parser.add_argument("model", metavar="MODEL", help=SOURCE)
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--text", action="append", help="a text; several make a padded batch")
    texts.add_argument(
        "--ids", action="append", metavar="'101 7592 102'", help="token ids of a row"
    )
    texts.add_argument("--inputs", metavar="FILE", help="input_ids and the like, in a file")
    texts.add_argument(
        "--names",
        action="store_true",
        help="print what every value is called, as a file for --map of compare and diagnose",
    )
    parser.add_argument("--pair", metavar="TEXT", help="a second text, to go with each")
    parser.add_argument(
        "-o",
        "--output",
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
    add_architecture_flags(parser)
    add_copy_flag(parser)
    add_hub_flags(parser)
    parser.set_defaults(run=run_trace)

    for name, meaning, example in (
        (
            "compare",
            "Show where two traces first differ.",
            "npbert compare FOLDER port.safetensors",
        ),
        (
            "diagnose",
            "Find the first wrong step of a port, and name the mistake.",
            "npbert diagnose FOLDER port/ --map bumblebee",
        ),
    ):
        parser = commands.add(
            "oracle",
            name,
            meaning,
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
            metavar="NAMES",
            help="whose names they are: pytorch, onnx, dynamo, keras, bumblebee, ctranslate2, "
            "ggml, mlx, candle, or a .json or .toml file of names, theirs to npbert's, {n} for a "
            "block; default: guessed",
        )
        parser.add_argument(
            "--partial",
            action="store_true",
            help="judge by what was understood, though most arrays were not",
        )
        add_architecture_flags(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        add_copy_flag(parser)
        add_hub_flags(parser)
        parser.set_defaults(run=run_compare if name == "compare" else run_diagnose)

    parser = commands.add(
        "oracle",
        "verify",
        "Check that this installation computes what it should. Computes recorded cases of all "
        "architectures and families with this NumPy and this BLAS; or, for a checkpoint of which "
        "numbers were published, those.",
        epilog="example: npbert verify; exit status: 0 it does; 1 something is off",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"{SOURCE}; called as its repository"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_hub_flags(parser)
    parser.set_defaults(run=run_verify)
    parser = commands.add(
        "oracle",
        "kit",
        "Write small checkpoints, inputs and traces to check a port with. There is one of each for "
        "every architecture of each family.",
        epilog="example: npbert kit FOLDER",
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.set_defaults(run=run_kit)
    add_explain(commands)


def run_trace(args: argparse.Namespace) -> ExitStatus:
    """Write a trace."""
    from npbert.loading import load
    from npbert.oracle import trace

    if not args.names and args.output is None:
        raise InputError("trace needs -o FILE, or --names")
    engine = args.engine or "textbook"
    model = load(args.model, dtype=args.dtype, engine=engine, **load_keywords(args))
    if args.names:
        from npbert.oracle.maps import template_map

        print(template_map(model), end="")
        return ExitStatus.FINE
    how = {"only": args.only, "split_heads": args.split_heads, "noise": True}
    if args.text:
        traced = trace(model, text=args.text, pair=args.pair, **how)
    elif args.ids:
        traced = trace(model, id_rows(args.ids), **how)
    else:
        traced = trace(model, **dump_inputs(args.inputs), **how)
    traced.save(args.output)
    return ExitStatus.FINE


def id_rows(given: list[str]) -> list[list[int]]:
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


def dump_inputs(path: str) -> dict[str, Any]:
    """Return the inputs of a call that a file or folder holds.  Raises InputError."""
    from npbert.oracle import Trace

    given = Trace.load(path).given
    if "input_ids" not in given:
        raise InputError(f"{path}: has no input_ids; a call needs them, and it has {list(given)}")
    return given


def reference_of(args: argparse.Namespace) -> "Model | Trace":
    """Return the model, or the trace, to compare with."""
    from npbert.loading import load
    from npbert.oracle import Trace

    path = Path(args.reference)
    if (path / "config.json").exists() or not path.exists():
        return load(args.reference, dtype="float64", **load_keywords(args))
    return Trace.load(path)


def select_map(args: argparse.Namespace) -> "Mapping[str, str] | None":
    """Return the map of names that was asked for; None for one that is guessed."""
    from npbert.oracle.maps import read_map

    return None if args.map is None else read_map(args.map)


def run_compare(args: argparse.Namespace) -> ExitStatus:
    """Print a table of two traces; status 1 where they differ."""
    from npbert.oracle import Trace, compare
    from npbert.oracle.tables import comparison_json, comparison_table

    names, candidate = select_map(args), Trace.load(args.candidate)  # before any download
    found = compare(reference_of(args), candidate, names=names, partial=args.partial)
    if args.json:
        from npbert.jobs.lines import print_json

        print_json(comparison_json(found))
    else:
        print("\n".join(comparison_table(found)))
    return ExitStatus.FINE if found.same else ExitStatus.DIFFERENT


def run_diagnose(args: argparse.Namespace) -> ExitStatus:
    """Print what is wrong with a port; status 1 where something is."""
    from npbert.loading import load
    from npbert.oracle import Trace, diagnose
    from npbert.oracle.diagnosis import findings_json, report_lines

    names, candidate = select_map(args), Trace.load(args.candidate)  # before any download
    model = load(args.reference, dtype="float64", **load_keywords(args))
    found = diagnose(model, candidate, names=names, partial=args.partial)
    if args.json:
        from npbert.jobs.lines import print_json

        print_json(findings_json(found))
    else:
        print("\n".join([*found.notes, *report_lines(found)]))
    return ExitStatus.DIFFERENT if found.findings else ExitStatus.FINE


def run_verify(args: argparse.Namespace) -> ExitStatus:
    """Check this installation; status 1 where a bound is passed."""
    from npbert.hub import locate
    from npbert.oracle.verify import checks_json, verify, verify_model

    checks = list(
        verify() if args.model is None else verify_model(locate(args.model, **hub_keywords(args)))
    )
    if args.json:
        from npbert.jobs.lines import print_json

        print_json({"checks": checks_json(checks), "passed": all(c.passed for c in checks)})
    else:
        for check in checks:
            mark = "ok" if check.passed else "OFF"
            print(
                f"{mark:4}{check.architecture:28} {check.family:10} {check.way:17} worst "
                f"{check.worst:.1e} of {check.bound:.0e}  {check.activation}"
            )
    return ExitStatus.FINE if all(check.passed for check in checks) else ExitStatus.DIFFERENT


def run_kit(args: argparse.Namespace) -> ExitStatus:
    """Write the porter's kit."""
    from npbert.oracle.kit import kit

    for folder in kit(Path(args.folder)):
        print(folder)
    return ExitStatus.FINE


def add_explain(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "more",
        "explain",
        "Write a page that shows every step of a forward pass. It holds the code that runs, the "
        "formulas and the numbers, and needs no network and no other file.",
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
        "for multiple choice a choice, given once for each",
    )  # fmt: skip
    parser.add_argument("--blocks", metavar="0,3", help="whose steps are shown; default: all")
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="TEXT",
        help="compare the embeddings of these texts, in place of TEXT",
    )
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="default: stdout")
    parser.add_argument(
        "--open", action="store_true",
        help="open the page in a browser, in place of writing it, and let other texts be typed in "
        "it; it is served to this machine alone, until Ctrl-C",
    )  # fmt: skip
    add_architecture_flags(parser)
    add_hub_flags(parser)
    parser.set_defaults(run=run_explain)


def run_explain(args: argparse.Namespace) -> ExitStatus:
    """Write the page."""
    from npbert.explaining import explain
    from npbert.hub import locate

    if (args.text is None) == (args.compare is None):
        raise InputError("explain needs a TEXT, or --compare and several of them")
    if args.open:
        return open_page(args)
    if args.output == "-" and sys.stdout is None:
        raise InputError("stdout is closed; say where the page goes: -o page.html")
    if args.output == "-" and sys.stdout.isatty():
        raise InputError("a page would fill the terminal; say where it goes: -o page.html")
    folder = locate(args.model, **hub_keywords(args)) if args.model else None
    pair = args.pair[0] if args.pair and len(args.pair) == 1 else args.pair
    page = explain(
        folder, args.compare or args.text, pair, blocks=block_numbers(args.blocks),
        architecture=args.architecture, strict=args.strict,
    )  # fmt: skip
    if args.output == "-":
        print(page.html, end="")
    else:
        page.save(args.output)
        tell(f"{args.output} is written, {len(page.html.encode()):,} bytes; open it in a browser")
    return ExitStatus.FINE


def open_page(args: argparse.Namespace) -> ExitStatus:
    """Serve the page until Ctrl-C, and open it in a browser."""
    import threading
    import webbrowser

    from npbert.explaining import live_page
    from npbert.hub import locate

    if args.output != "-":
        raise InputError("--open serves the page, and -o writes it: pass one of them")
    folder = locate(args.model, **hub_keywords(args)) if args.model else None
    page = live_page(
        folder, args.compare or args.text, args.pair or (), blocks=block_numbers(args.blocks),
        architecture=args.architecture, strict=args.strict,
    )  # fmt: skip
    tell(f"the page is at {page.url} until Ctrl-C")
    serving = threading.Thread(target=page.serve, daemon=True)
    serving.start()  # first: a browser in the terminal does not come back until it is left
    try:
        webbrowser.open(page.url)
        serving.join()
    except KeyboardInterrupt:
        page.close()
    return ExitStatus.FINE


def block_numbers(blocks: str | None) -> list[int] | None:
    """Return the blocks that are asked for.  Raises InputError for what is no number."""
    if blocks is None:
        return None
    try:
        return [int(each) for each in blocks.split(",")]
    except ValueError:
        raise InputError(
            f"--blocks is {quote(blocks)}, expected numbers between commas, as in 0,3"
        ) from None
