"""Times sentences on their way to embeddings: npbert, sentence-transformers, ONNX Runtime.

    python golden/measure/sentences.py FOLDER LINES.txt [--onnx FILE] [--runs N] [--json]

FOLDER is what sentence-transformers saved, with the mean of all tokens as its pooling; every line
of the file is a text, or a row whose last two tab-separated columns are.  FILE is its encoder, as
export_onnx.py makes it.  From texts to numbers, tokenization and all; each entrant runs in a
process of its own, on all cores, and they take turns.  The peers sort texts by length and pad 32 at
a time, as sentence-transformers does.  Ratios are of the same turn, and below 1 npbert is faster.
"""

import argparse
import json
import multiprocessing as mp
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.floating]
Embed = Callable[[list[str]], Embeddings]

BATCH = 32
PAUSE = 0.05  # seconds between turns; threads that spin after their work have gone to sleep
SAME = 1e-4  # embeddings further apart come from other weights
NPBERT, PEER, ONNX = "npbert", "sentence-transformers", "onnxruntime"


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_npbert(folder: Path, onnx: Path | None) -> Embed:
    import npbert

    return npbert.pipeline("sentence-embedding", folder)


def make_peer(folder: Path, onnx: Path | None) -> Embed:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(count_cores())
    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(texts, batch_size=BATCH)


def make_onnxruntime(folder: Path, onnx: Path | None) -> Embed:
    """Tokens by the tokenizers package, the mean of those that are no padding, of length 1."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = json.loads((folder / "sentence_bert_config.json").read_text())
    tokenizer.enable_truncation(said["max_seq_length"])
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_cores()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])

    def embed(texts: list[str]) -> Embeddings:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        rows: list[Embeddings] = [np.zeros(0)] * len(texts)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            read = tokenizer.encode_batch([texts[i] for i in batch])
            mask = np.array([each.attention_mask for each in read], np.int64)
            feeds = {"input_ids": np.array([each.ids for each in read], np.int64)}
            (x,) = session.run(None, {**feeds, "attention_mask": mask})
            x = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            for i, row in zip(batch, x, strict=True):
                rows[i] = row.astype(np.float32)
        return np.stack(rows)

    return embed


MAKERS = {NPBERT: make_npbert, PEER: make_peer, ONNX: make_onnxruntime}


def serve_turns(
    who: str, folder: Path, onnx: Path | None, texts: list[str], to: Connection
) -> None:
    """Embed whenever told to, and tell how long it took."""
    embed = MAKERS[who](folder, onnx)
    to.send(np.asarray(embed(texts)))  # this one fills caches, and shows what is computed
    while to.recv():
        started = time.perf_counter()
        embed(texts)
        to.send(time.perf_counter() - started)


def time_turns(
    entrants: list[str], folder: Path, onnx: Path | None, texts: list[str], runs: int
) -> dict[str, list[float]]:
    """Return seconds by entrant, one for every turn."""
    context = mp.get_context("spawn")
    ends: dict[str, Connection] = {}
    processes = []
    for who in entrants:
        ends[who], theirs = context.Pipe()
        process = context.Process(
            target=serve_turns, args=(who, folder, onnx, texts, theirs), daemon=True
        )
        process.start()
        theirs.close()
        processes.append(process)
    answers = {who: end.recv() for who, end in ends.items()}
    for who, answer in answers.items():
        far = np.abs(answer - answers[NPBERT]).max()
        if not far <= SAME:
            raise SystemExit(f"{who}: is {far:.1e} from npbert, so that it runs other weights")
    seconds: dict[str, list[float]] = {who: [] for who in entrants}
    for turn in range(runs):
        for who, end in ends.items():
            time.sleep(PAUSE)
            end.send(True)
            seconds[who].append(end.recv())
        said = {who: round(taken[-1], 2) for who, taken in seconds.items()}
        print(f"turn {turn + 1}: {said}", file=sys.stderr, flush=True)
    for end in ends.values():
        end.send(False)
    for process in processes:
        process.join()
    return seconds


def spread_of(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Print a row of a table for everyone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("lines", type=Path)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [line.split("\t") for line in args.lines.read_text("utf-8").split("\n") if line]
    texts = [text for row in rows for text in row[-2:]]
    entrants = [NPBERT]
    entrants += [PEER] if find_spec("sentence_transformers") else []
    entrants += [ONNX] if args.onnx and find_spec("onnxruntime") else []
    seconds = time_turns(entrants, args.folder, args.onnx, texts, args.runs)
    if args.json:
        print(json.dumps({"texts": len(texts), "seconds": seconds}))
        return
    print(f"{len(texts):,} texts, {count_cores()} cores, {args.runs} turns, load", end=" ")
    print(f"{os.getloadavg()[0]:.1f}; seconds, and npbert's time over theirs")
    for who, taken in seconds.items():
        ratios = [a / b for a, b in zip(seconds[NPBERT], taken, strict=True)]
        named = f"{who} {import_module(who.replace('-', '_')).__version__}"
        print(f"{named:32} {spread_of(taken):24} {'' if who == NPBERT else spread_of(ratios)}")


if __name__ == "__main__":
    sys.exit(main())
