"""The command line: npbert TASK, info, convert, bench, and the oracle: trace, compare, diagnose ...

Results go to stdout, all else to stderr.  Exit status: 0 fine, 1 different, 2 usage or unreadable
input, 3 the model cannot be loaded, 4 some inputs failed and were recorded, 130 interrupted.
"""

import argparse
import io
import sys
import warnings
from collections.abc import Sequence

from npbert import __version__
from npbert.cli import models, oracle, tasks
from npbert.errors import ExitStatus, InputError, NpbertError, discard_output, tell


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    args = build_parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: tell(str(message))
        return run_command(args)


def run_command(args: argparse.Namespace) -> int:
    """Run the command that was parsed; what goes wrong becomes a line on stderr and a status."""
    try:
        status: int = args.run(args)
    except InputError as error:
        tell(str(error))
        return ExitStatus.UNUSABLE
    except NpbertError as error:
        tell(str(error))
        return ExitStatus.NO_MODEL
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough; nothing is wrong
        discard_output()
        return ExitStatus.FINE
    except OSError as error:  # a full disk, a closed terminal
        tell(f"stopped by the system: {error.strerror}")
        discard_output()
        return ExitStatus.UNUSABLE
    return status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser(
        prog="npbert",
        description="DistilBERT inference in plain NumPy.",
        epilog="exit status: 0 fine or equal; 1 different (compare, diagnose, verify); 2 usage or "
        "unreadable input; 3 the model cannot be loaded; 4 some inputs failed and were recorded; "
        "130 interrupted",
    )
    made.add_argument("--version", action="version", version=f"npbert {__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    tasks.add_parsers(commands)
    models.add_parsers(commands)
    oracle.add_parsers(commands)
    return made
