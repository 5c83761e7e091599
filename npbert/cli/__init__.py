# PYTHON_ARGCOMPLETE_OK: what register-python-argcomplete looks for
"""The command line: npbert TASK, info, convert, bench, and the oracle: trace, compare, diagnose ...

Results go to stdout, all else to stderr.  Exit status: 0 fine, 1 different, 2 usage or unreadable
input, 3 the model cannot be loaded, 4 some inputs failed and were recorded, 130 interrupted.
"""

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Final

from npbert import __version__
from npbert.cli import bench, models, oracle, search, serve, tasks
from npbert.cli.shared import Commands, spell_as_flags
from npbert.engine.spellings import explain_name, explain_task
from npbert.errors import ExitStatus, InputError, NpbertError, discard_output, quote, tell
from npbert.tasks.rows import TASKS, flag_of

STATUSES: Final = (
    "exit status: 0 fine or equal; 1 different (compare, diagnose, verify); 2 usage or unreadable\n"
    "input; 3 the model cannot be loaded; 4 some inputs failed and were recorded; 130 interrupted"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        args = parse_arguments(list(sys.argv[1:] if argv is None else argv))
    except InputError as error:
        tell(str(error))
        return ExitStatus.UNUSABLE
    explain_bus_errors()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: tell(
            spell_as_flags(str(message), args.flags, args.fields)
        )
        return run_command(args)


def parse_arguments(given: list[str]) -> argparse.Namespace:
    """Return what the command line says.  Raises InputError for a command or a flag there is not.

    What else argparse finds wrong it tells itself, and ends the process.
    """
    commands = build_commands()
    parser, there = commands.parser, commands.parsers.choices
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow
        from argcomplete import autocomplete  # of the extra, which whoever asks has

        autocomplete(parser)
    if given and not given[0].startswith("-") and given[0] not in there:
        known = {name: TASKS[name].aliases if name in TASKS else () for name in there}
        hint = explain_task(given[0], known) or "; npbert --help lists them"
        raise InputError(f"there is no command {quote(given[0])}{hint}")
    args, more = parser.parse_known_args(given)
    flags = [each.partition("=")[0] for each in more if each.startswith("-")]
    if flags:
        hint = explain_name(flags[0], args.flags, flag_of)
        hint = hint or f"; npbert {given[0]} --help lists those it has"
        raise InputError(spell_as_flags(f"{given[0]} has no flag {flags[0]}{hint}", args.flags))
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    return args


BUS_ERROR: Final = (
    b"npbert: stopped by the system (SIGBUS): a file that was in use was cut short, probably the "
    b"model's; start again, and replace a model's files by renaming new ones over them (mv), never "
    b"by writing into them (cp), or say --copy\n"
)


@cache
def explain_bus_errors() -> object:
    """Say why before the system ends this process, as it does for a mapped file that is cut.

    Returns what must be kept as long as it may be called, as the cache does.
    """
    if not hasattr(signal, "SIGBUS"):  # Windows lets nobody cut a mapped file
        return None
    import ctypes  # not for a --help

    # Python's own handlers wait for the interpreter, which is stuck where the signal came from.
    address = ctypes.CFUNCTYPE(None, ctypes.c_int)
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, address), ctypes.c_void_p

    def explain(number: int) -> None:
        os.write(2, BUS_ERROR)
        set_handler(number, address())  # the default, for when it comes again, which is at once

    handler = address(explain)
    set_handler(signal.SIGBUS, handler)
    return handler


def run_command(args: argparse.Namespace) -> ExitStatus:
    """Run the command that was parsed; what goes wrong becomes a line on stderr and a status."""
    try:
        status: ExitStatus = args.run(args)
    except NpbertError as error:
        tell(spell_as_flags(str(error), args.flags, args.fields))
        return ExitStatus.UNUSABLE if isinstance(error, InputError) else ExitStatus.NO_MODEL
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough; nothing is wrong
        discard_output()
        return ExitStatus.FINE
    except MemoryError as error:
        tell(f"there is not enough memory for this: {error or 'none is left'}")
        return ExitStatus.UNUSABLE
    except OSError as error:  # a full disk, a closed terminal
        tell(f"stopped by the system: {error.strerror or error}")
        discard_output()
        return ExitStatus.UNUSABLE
    return status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    return build_commands().parser


def build_commands() -> Commands:
    """Return all commands, with their parsers."""
    parser = argparse.ArgumentParser(
        prog="npbert", usage="npbert [-h] [--version] COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"npbert {__version__}")
    commands = Commands(parser)
    tasks.add_task_parsers(commands)
    models.add_model_parsers(commands)
    bench.add_bench(commands)
    oracle.add_oracle_parsers(commands)
    search.add_search_parsers(commands)
    serve.add_serve_parser(commands)
    for name, made in commands.parsers.choices.items():
        flags = {action.dest for action in made._actions if action.option_strings} - {"help"}
        fields = TASKS[name].names if name in TASKS else ()
        made.set_defaults(flags=sorted(flags), fields=fields)
    parser.description = (
        "Encoders of the BERT family in plain NumPy.\n\n"
        f"{commands.listing()}\nnpbert COMMAND --help says more."
    )
    parser.epilog = STATUSES
    return commands
