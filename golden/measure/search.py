"""Measures npbert.semantic_search over a mapped file, beside the products it cannot do without.

    python golden/measure/search.py [--rows 1000000] [--dim 384] [--folder FOLDER] [--turns 5]

Writes a .npy file of random rows (1.5 GB by default, deleted at the end), and reads it once, so
that the page cache is warm.  Then for 1 and for 64 queries the search for the best 10 and
`queries @ corpus.T`, in the same steps of the same mapped file, take turns in this one process; the
products run on as many threads as NumPy's BLAS starts by itself, and in large blocks as well.
Prints medians, their ratio, and how much private memory a process takes that does nothing but
search: pages of the mapped file are not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import npbert
from npbert.tasks.search import STEP_FLOATS

ALONE = """
import re, sys, threading
import numpy as np
import npbert
path, count, search = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "search"
corpus = np.load(path, mmap_mode="r")
queries = np.random.default_rng(1).standard_normal((count, corpus.shape[1]), np.float32)
npbert.semantic_search(queries, corpus[:1], 1)
seen, over = [], threading.Event()
def look():
    while not over.wait(0.002):
        seen.append(int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]))
watch = threading.Thread(target=look)
watch.start()
if search:
    npbert.semantic_search(queries, corpus, 10)
over.wait(0.05)
over.set()
watch.join()
print(max(seen) * 1024)
"""


def write_corpus(path: Path, rows: int, dim: int) -> None:
    """Write random rows, some at a time."""
    rng = np.random.default_rng(0)
    made = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dim))
    for start in range(0, rows, 50_000):
        some = made[start : start + 50_000]
        some[:] = rng.standard_normal(some.shape, np.float32)
    made.flush()


def multiply(queries: np.ndarray, corpus: np.ndarray, rows: int) -> None:
    for start in range(0, len(corpus), rows):
        queries @ corpus[start : start + rows].T


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def private_memory(path: Path, queries: int, what: str) -> int:
    """Return the most anonymous memory that a process has while it searches, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(path), str(queries), what],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


def measure(path: Path, turns: int) -> None:
    corpus = np.asarray(np.load(path, mmap_mode="r"))
    step = STEP_FLOATS // corpus.shape[1]
    corpus.max()  # from now on its pages are in the cache
    for count in (1, 64):
        queries = np.random.default_rng(1).standard_normal((count, corpus.shape[1]), np.float32)
        contestants = {
            "search": lambda q=queries: npbert.semantic_search(q, corpus, 10),
            "search, dot": lambda q=queries: npbert.semantic_search(
                q, corpus, 10, score_function="dot"
            ),
            f"products of {step} rows": lambda q=queries: multiply(q, corpus, step),
            "products of 16384 rows": lambda q=queries: multiply(q, corpus, 16_384),
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(turns):
            for name, run in contestants.items():
                times[name].append(seconds(run))
        medians = {name: statistics.median(some) for name, some in times.items()}
        same = medians[f"products of {step} rows"]
        facts = {
            "queries": count,
            "rows": len(corpus),
            "dim": corpus.shape[1],
            "seconds": {name: round(median, 3) for name, median in medians.items()},
            "fastest": {name: round(min(some), 3) for name, some in times.items()},
            "search / products": round(medians["search"] / same, 2),
            "ratio of fastest": round(
                min(times["search"]) / min(times[f"products of {step} rows"]), 2
            ),
            "private MB": round(private_memory(path, count, "search") / 1e6),
            "private MB without a search": round(private_memory(path, count, "none") / 1e6),
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(facts, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the file is written; default: /tmp")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "corpus.npy"
        write_corpus(path, args.rows, args.dim)
        measure(path, args.turns)


if __name__ == "__main__":
    main()
