"""Measures for what share of the time Python's lock is held, and what that bounds on many cores.

    pip install py-spy
    python golden/measure/lock_share.py [--seconds 10]

Token lists of a length are computed without an end by one thread, and by two, while py-spy looks
200 times a second whether a thread holds the lock.  If a pass takes T seconds on one thread, and
holds the lock for L of them, then n threads of one process do at most min(n / T, 1 / L) passes a
second: that is the bound which is printed for 4, 16 and 64 cores, as a multiple of one thread.
With two threads, what is missing to twice the work is what they wait for each other.  At last come
the lines on which the lock is held most, which is the profile of Python's share.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

RATE = 200  # looks a second
SIZES = {"built-in": (192, 3, 6), "minilm": (384, 6, 12), "base": (768, 6, 12)}
WORK = """
import os, sys, time
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
import npbert
width, blocks, heads, tokens, threads, seconds = map(int, sys.argv[1:])
config = npbert.Config(vocab_size=8000, hidden_size=width, num_blocks=blocks,
                       num_attention_heads=heads, intermediate_size=4 * width)
model = npbert.init(config, "for_sequence_classification")
rng = np.random.default_rng(0)
lists = [rng.integers(5, 8000, tokens).tolist() for _ in range(64)]
model.packed(lists, threads=threads)
print("ready", flush=True)
count, began = 0, time.perf_counter()
while time.perf_counter() < began + seconds:
    model.packed(lists, threads=threads)
    count += 64
print(count / (time.perf_counter() - began), flush=True)
"""


def measure(size: str, tokens: int, threads: int, seconds: int) -> tuple[float, Counter[str]]:
    """Return lists a second, and at which lines the lock was held, in looks."""
    arguments = [*map(str, (*SIZES[size], tokens, threads, seconds + 2))]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(
            [sys.executable, "-c", WORK, *arguments], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = Path(name) / "found"
        subprocess.run(
            ["py-spy", "record", "--gil", "--nonblocking", "-r", str(RATE), "-d", str(seconds),
             "-f", "raw", "-o", str(found), "-p", str(process.pid)],
            check=True, capture_output=True,
        )  # fmt: skip
        held: Counter[str] = Counter()
        for line in found.read_text("utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            held[stack.rpartition(";")[2]] += int(count)
        return float(process.stdout.readline()), held


def main() -> None:
    """Print a row for each kind of work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=10)
    seconds = parser.parse_args().seconds
    lines: Counter[str] = Counter()
    print("model, tokens | lists/s: 1, 2 threads | lock held: 1, 2 threads | bound at 4, 16, 64")
    for size in SIZES:
        for tokens in (8, 24, 128):
            rates, shares = [], []
            for threads in (1, 2):
                rate, held = measure(size, tokens, threads, seconds)
                rates.append(rate)
                shares.append(held.total() / (RATE * seconds))
                lines += held if threads == 2 else Counter()
            bounds = ", ".join(f"{min(n, 1 / max(shares[0], 1e-3)):.1f}" for n in (4, 16, 64))
            print(
                f"{size}, {tokens} | {rates[0]:.0f}, {rates[1]:.0f} ({rates[1] / rates[0]:.2f}) | "
                f"{shares[0]:.2f}, {shares[1]:.2f} | {bounds}", flush=True,
            )  # fmt: skip
    print("where it is held, of all looks at two threads that found it held:")
    for line, count in lines.most_common(15):
        print(f"{count / lines.total():6.1%}  {line}")


if __name__ == "__main__":
    main()
