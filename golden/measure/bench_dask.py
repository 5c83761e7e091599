"""Times Dask workers side by side: one and two of them, and the command line with two threads.

    python golden/measure/bench_dask.py [TURNS [TEXTS]]

A base-size classifier of random weights reads 2,000 texts, 20 files of them for the cluster and one
for the command line alone; every figure is of a whole command, in turns.  Needs npbert[dask], and
a machine of two cores with nothing else to do.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask.dataframe as dd
import numpy as np
from distributed import Client, LocalCluster

import npbert
from npbert.distributed import map_dataframe
from npbert.tasks import built_in_folder, task

FILES = 20
TASK = "text-classification"
NPBERT = [sys.executable, "-m", "npbert", TASK]


def main(turns: int, texts: int) -> None:
    """Print seconds, and what they come to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model")
        tokens = make_texts(folder, npbert.pipeline(TASK, model), texts)
        print(f"{texts} texts of {tokens / texts:.0f} tokens")
        plain = [*NPBERT, "-m", model, "-i", folder / "all.jsonl", "--threads", "2"]
        cluster = [*NPBERT, "-m", model, "-i", f"{folder}/files/*.jsonl", "--dask"]
        found: dict[str, list[float]] = {}
        with one_thread(1) as one, one_thread(2) as two:
            ways = {
                "1 worker": [*cluster, one.scheduler_address],
                "2 workers": [*cluster, two.scheduler_address],
                "2 workers, started for it": cluster,
                "2 threads, no Dask": plain,
            }
            for turn in range(turns + 1):
                for way, command in ways.items():
                    seconds = timed(command, folder / "out")
                    if turn:  # the first fills caches
                        found.setdefault(way, []).append(seconds)
                print(f"turn {turn}", {way: round(s[-1], 1) for way, s in found.items()})
            with Client(two) as client:
                ddf = dd.read_json(f"{folder}/files/*.jsonl", lines=True)
                map_dataframe(ddf, TASK, model, column="text").compute()
                for address, sizes in client.run(memory).items():
                    print(address, sizes)
        tell(found, texts, tokens)


def tell(found: dict[str, list[float]], texts: int, tokens: int) -> None:
    """Print medians, and the ratios of each turn."""
    for way, seconds in found.items():
        print(f"{way:26} {statistics.median(seconds):6.1f} s, at best {min(seconds):.1f}")
    for above, below in (
        ("1 worker", "2 workers"),
        ("2 workers", "2 threads, no Dask"),
        ("2 workers, started for it", "2 threads, no Dask"),
    ):
        ratios = [a / b for a, b in zip(found[above], found[below], strict=True)]
        print(
            f"{above} / {below}: {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    hours = 2 * statistics.median(found["2 workers"]) / 3600
    print(f"{texts / hours:,.0f} texts, {tokens / hours:,.0f} tokens a core-hour")


def make_model(folder: Path) -> Path:
    """Write a model of base size and random weights, with the tokenizer of a built-in one."""
    source = built_in_folder("sentiment")
    config = npbert.Config(vocab_size=npbert.load(source).config.vocab_size)
    npbert.init(config, "for_sequence_classification").save(folder)
    for path in source.glob("*token*"):
        shutil.copy(path, folder)
    return folder


def make_texts(folder: Path, task: task.Task, count: int) -> int:
    """Write the same texts as one file and as many; return how many tokens they have."""
    rng = np.random.default_rng(7)
    words = ("a", "dull", "witty", "gorgeous", "mess", "of", "plots", "that", "never", "ends")
    texts = [" ".join(rng.choice(words, rng.integers(4, 41))) for _ in range(count)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "all.jsonl").write_text("".join(lines))
    (folder / "files").mkdir()
    for i in range(FILES):
        (folder / "files" / f"{i:02}.jsonl").write_text("".join(lines[i::FILES]))
    return sum(len(task.tokenizer.encode(text, None).ids) for text in texts)


def one_thread(workers: int) -> LocalCluster:
    """Start workers as npbert --dask does."""
    how = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    return LocalCluster(n_workers=workers, threads_per_worker=1, **how)


def timed(command: list[object], out: Path) -> float:
    """Run a command; return its seconds."""
    began = time.monotonic()
    subprocess.run([*map(str, command), "-o", str(out)], check=True, capture_output=True)
    seconds = time.monotonic() - began
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    return seconds


def memory() -> dict[str, str]:
    """Return what a worker's process holds, and what of it is no other's."""
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, size, *_ = line.split()
        sizes[name.rstrip(":")] = int(size)
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"rss": f"{sizes['Rss'] / 1024:.0f} MB", "private": f"{private / 1024:.0f} MB",
            "anonymous": f"{sizes['Anonymous'] / 1024:.0f} MB"}  # fmt: skip


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    main(*asked, *(3, 2_000)[len(asked) :])
