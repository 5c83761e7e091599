"""npbert serve: tasks over HTTP, for many callers at a time."""

import argparse
import logging
import os
import sys
from contextlib import ExitStack
from dataclasses import fields
from typing import Any, Final

from npbert.cli.shared import SOURCE, Commands, add_copy_flag, add_hub_flags, hub_keywords
from npbert.engine.threads import blas_environment
from npbert.errors import ExitStatus, InputError, require_count
from npbert.serving.limits import ServerLimits
from npbert.tasks.rows import flag_of

PORT: Final = 8080
GRACE: Final = 30  # seconds


def add_serve_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "more",
        "serve",
        "Answer over HTTP. Requests of many callers are computed together, and a page in the "
        "browser tries each task. Needs the extra serve: pip install 'npbert[serve]'.",
        epilog="example: npbert serve text-classification sentence-embedding=FOLDER --port 8080. "
        "NPBERT_API_KEY in the environment is the key that requests must have.",
    )
    parser.add_argument(
        "tasks", nargs="+", metavar="TASK[=MODEL]",
        help=f"what is served; MODEL is {SOURCE}; default: the built-in one. Of several models of "
        "a task the first answers where a request names none",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that share the port and the mapped weights; default: 1, which computes "
        "on all cores",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, metavar="N", help="to compute with, of each process; default: all "
        "cores",
    )  # fmt: skip
    parser.add_argument(
        "--grace", type=int, default=GRACE, metavar="SECONDS",
        help=f"to answer what was taken when SIGTERM comes; default: {GRACE}",
    )  # fmt: skip
    parser.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN",
        help="let pages of an origin ask from a browser, * those of all; may be given several "
        "times",
    )  # fmt: skip
    parser.add_argument(
        "--verbose", action="store_true",
        help="log every request, and of a failure all that is known, which may quote texts",
    )  # fmt: skip
    add_batch_flags(parser.add_argument_group("batches"))
    group = parser.add_argument_group("limits")
    for each in fields(ServerLimits):
        meaning = f"{each.metadata['meaning']}; default: {each.default}"
        group.add_argument(flag_of(each.name), type=int, metavar="N", help=meaning)
    add_copy_flag(parser)
    add_hub_flags(parser)
    parser.set_defaults(run=run_serve)


def add_batch_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags that say what is computed together."""
    group.add_argument(
        "--max-wait", type=float, default=2.0, metavar="MS",
        help="milliseconds that a request waits for others, where the model is busy when it comes; "
        "default: 2",
    )  # fmt: skip
    group.add_argument(
        "--max-batch-tokens", type=int, metavar="N",
        help="tokens that are computed together; default: 1024 for each thread, at most 4096",
    )  # fmt: skip
    group.add_argument(
        "--batch-invariant", action="store_true",
        help="compute every text alone, so that no bit of its answer depends on others",
    )  # fmt: skip


def read_tasks(given: list[str]) -> dict[str, dict[str, Any]]:
    """Return the models of each task by their names, in order.  Raises InputError."""
    from npbert.serving import name_model
    from npbert.tasks import find_row

    tasks: dict[str, dict[str, Any]] = {}
    for each in given:
        task, _, model = each.partition("=")
        row = find_row(task)
        if not model and row.built_in is None:
            raise InputError(f"{task} has no built-in model; say which: {task}=MODEL")
        name = name_model(model or None, row.built_in)
        models = tasks.setdefault(task, {})
        if name in models:
            raise InputError(f"{each} is given twice")
        models[name] = model or None
    return tasks


def run_serve(args: argparse.Namespace) -> ExitStatus:
    """Answer until a signal comes."""
    os.environ.update(blas_environment())  # npbert's own threads want one of its each
    for name in ("workers", "grace"):
        require_count(name, getattr(args, name))
    from npbert.serving import app, require_server_packages

    require_server_packages()
    from npbert.serving.process import (
        open_port,
        run_servers,
        share_metrics,
    )

    chosen = {each.name: getattr(args, each.name) for each in fields(ServerLimits)}
    limits = ServerLimits(**{name: each for name, each in chosen.items() if each is not None})
    logging.basicConfig(stream=sys.stderr, format="npbert: %(message)s", level=logging.WARNING)
    logging.getLogger("npbert.serving").setLevel(logging.DEBUG if args.verbose else logging.ERROR)
    with ExitStack() as stack:
        if args.workers > 1:
            stack.enter_context(share_metrics())
        listener = stack.enter_context(open_port(args.host, args.port))
        made = app(
            read_tasks(args.tasks), max_wait=args.max_wait, origins=args.cors, limits=limits,
            max_batch_tokens=args.max_batch_tokens, batch_invariant=args.batch_invariant,
            threads=args.threads, copy=args.copy, **hub_keywords(args),
        )  # fmt: skip
        interrupted = run_servers(made, listener, limits, args.grace, args.workers)
    return ExitStatus.INTERRUPTED if interrupted else ExitStatus.FINE
