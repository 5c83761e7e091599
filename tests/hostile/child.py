"""A process that runs one command after another and says, line by line, how each ended."""

import contextlib
import gc
import io
import json
import os
import resource
import signal
import sys
import time
import traceback

from corruption.child import PATIENCE, peak_mb

# Bytes: NumPy, its libraries and the interpreter reserve some 600 MB of these and use 60.
ADDRESS_SPACE = 2 * 2**30


def attempt(command: list[str]) -> dict[str, object]:
    """Run a command: "loaded" where it answered, "refused" with a message, or "escaped"."""
    from npbert.cli import main

    error, message, status = "", io.StringIO(), None
    signal.alarm(PATIENCE)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(message):
        try:
            status = main(command)
        except BaseException:  # an abort of argparse, too
            error = traceback.format_exc()[-1500:]
    seconds = time.process_time() - start
    signal.alarm(0)
    said = message.getvalue()
    outcome = "loaded" if status in (0, 1, 4) else "refused"
    if error or "Traceback" in said or (outcome == "refused" and "npbert: " not in said):
        outcome = "escaped"
    return {"outcome": outcome, "error": error, "message": said[:30_000], "seconds": seconds}


def main() -> None:
    """Read [[name, command], ...] from stdin; write one JSON object a line, flushed."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    results = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    import npbert

    _ = npbert.load, npbert.trace, npbert.pipeline  # so that no command is charged with imports
    gc.freeze()
    for name, command in json.load(sys.stdin):
        result = attempt(command)
        gc.collect()
        print(json.dumps({"name": name, **result, "peak_mb": peak_mb()}), file=results, flush=True)


if __name__ == "__main__":
    main()
