"""A process that loads one folder after another and says, line by line, how each ended."""

import gc
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

# Far more than loading needs: it only keeps a fault from taking the machine with it.
ADDRESS_SPACE = 8 * 2**30
# Seconds on the clock after which a load counts as hanging; the signal then ends the process.
PATIENCE = 10
TEXT = "The bad, good Ada [MASK] é"


def peak_mb() -> float:
    """The most memory this process ever held at once, in megabytes."""
    try:
        # getrusage would count what the parent held when it started us (Linux, across exec).
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1000
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def attempt(folder: str) -> dict[str, object]:
    """Load, run three tokens, read a text: "loaded", "refused" or "escaped"."""
    import npbert

    outcome, error, message = "loaded", "", ""
    signal.alarm(PATIENCE)
    start = time.process_time()
    try:
        model = npbert.load(folder)
    except (npbert.ConfigError, npbert.CheckpointError) as refusal:
        outcome, error, message = "refused", type(refusal).__name__, str(refusal)
    except BaseException as escaped:  # a panic in Rust is no Exception
        outcome, error, message = "escaped", type(escaped).__name__, str(escaped)[:500]
    if outcome == "loaded":
        try:
            model([[2, 7, 3]])
            if model.tokenizer:
                model.tokenizer.decode(model.tokenizer.encode(TEXT).ids)
        except npbert.NpbertError as refusal:  # not finite, say: loading could not know
            error, message = type(refusal).__name__, str(refusal)
        except BaseException as escaped:
            outcome, error, message = "escaped", type(escaped).__name__, str(escaped)[:500]
    seconds = time.process_time() - start
    signal.alarm(0)
    return {"outcome": outcome, "error": error, "message": message, "seconds": seconds}


def main() -> None:
    """Read [[name, folder], ...] from stdin; write one JSON object a line, flushed."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    results = os.fdopen(os.dup(1), "w", encoding="ascii")  # nothing a load prints gets between
    os.dup2(2, 1)
    import npbert

    _ = npbert.load  # its first use imports NumPy, which no corruption is to be charged with
    gc.freeze()  # so that collecting looks at what a load left behind, and takes no time
    for name, folder in json.load(sys.stdin):
        os.chdir(folder)  # where a pickle that runs would leave its trace
        result = attempt(folder)
        gc.collect()
        print(json.dumps({"name": name, **result, "peak_mb": peak_mb()}), file=results, flush=True)


if __name__ == "__main__":
    main()
