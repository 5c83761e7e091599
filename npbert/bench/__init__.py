"""Side-by-side timing: npbert, the matrix products it cannot do without, and its peers.

Everyone runs in a process of its own, with its own threads and its own memory, and is told over a
pipe to run one piece of work at a time, so that runs interleave: A B C A B C.  What is timed is
the model, from ids to numbers; texts become ids, and are padded for those who pad, beforehand.
"""

import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.engine.threads import blas_environment, count_cores
from npbert.errors import InputError, quote, require_count, suggest, warn
from npbert.model import Model

FLOAT32: Final = "float32"


class Peer(NamedTuple):
    """What a peer needs, and in which precisions it can be asked to compute."""

    modules: tuple[str, ...]
    precisions: tuple[str, ...] = (FLOAT32,)
    runs_export: bool = False  # of the model to ONNX


PEERS: Final = {
    "onnxruntime": Peer(("onnxruntime",), runs_export=True),
    "openvino": Peer(("openvino",), (FLOAT32, "bfloat16"), runs_export=True),
    "ctranslate2": Peer(("ctranslate2", "transformers", "torch"), (FLOAT32, "bfloat16", "int8")),
    "transformers": Peer(("transformers", "torch")),
}
BATCH: Final = 32  # texts that a peer pads to the longest of them
PAUSE: Final = 0.02  # seconds between runs; threads that spin after their work have gone to sleep
SAME: Final = 1e-2  # of the greatest number; answers further apart come from other weights
SIMILAR: Final = 0.5  # the same, in a lower precision


@dataclass(frozen=True)
class Work:
    """Sequences to compute, in one call; peers pad them, `batches` says which ones together."""

    name: str
    sequences: list[list[int]]
    packed: bool  # without padding, and only what the head reads
    batches: list[list[int]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))

    @property
    def is_mixed(self) -> bool:
        return len(set(map(len, self.sequences))) > 1

    def sort_by_length(self) -> "Work":
        """Return the work in batches of like lengths."""
        order = sorted(range(len(self.sequences)), key=lambda i: len(self.sequences[i]))
        return Work(self.name, self.sequences, self.packed, batches_of(order))


def batches_of(order: Sequence[int]) -> list[list[int]]:
    """Return neighbours together, 32 at a time."""
    return [list(order[i : i + BATCH]) for i in range(0, len(order), BATCH)]


def shape_work(batch: int, length: int, vocab_size: int, *, packed: bool) -> Work:
    """Return a batch of random ids, which all can compute without padding."""
    ids = np.random.default_rng(0).integers(vocab_size, size=(batch, length))
    return Work(f"{batch} x {length}", ids.tolist(), packed, [list(range(batch))])


def text_work(name: str, texts: Sequence[str], model: Model) -> Work:
    """Return texts as the model's tokenizer reads them.  Raises InputError if it has none."""
    if model.tokenizer is None:
        raise InputError(
            "texts need a tokenizer, and the model has none; name a folder with tokenizer.json "
            "or vocab.txt in it"
        )
    if not texts:
        raise InputError(f"{name}: has no line, expected a text on every line")
    encodings = [model.tokenizer.encode(text) for text in texts]
    if cut := sum(encoding.cut > 0 for encoding in encodings):
        warn(f"{name}: {cut} of the texts do not fit the model, and were cut")
    ids = [list(encoding.ids) for encoding in encodings]
    return Work(name, ids, True, batches_of(range(len(ids))))


def bench(
    model: Model,
    works: Sequence[Work],
    *,
    folder: Path | None = None,
    runs: int = 7,
    against: Sequence[str] = (),
    onnx: Path | None = None,
    sort: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield for every work what was measured, as JSON; times are seconds, memory is bytes.

    `folder` is where the model came from; a model that came from nowhere, and the one for
    transformers, is saved to a temporary folder.  Raises InputError.
    """
    require(runs, against, onnx)
    with ExitStack() as stack:
        saved = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="npbert-bench-")))
        loads = any("transformers" in PEERS[split_peer(each)[0]].modules for each in against)
        if folder is None or loads:
            model.save(saved)
        settings = {"family": model.family, "architecture": model.architecture}
        own = {**settings, "folder": str(folder or saved)}
        theirs = {**settings, "folder": str(saved), "onnx": str(onnx)}
        entrants = {who: stack.enter_context(Entrant(who, own)) for who in ("npbert", "floor")}
        for each in against:
            who, precision = split_peer(each)
            entrants[each] = stack.enter_context(Entrant(who, {**theirs, "precision": precision}))
        for work in works:
            yield measure_work(work, entrants, runs, sort=sort)


def split_peer(asked: str) -> tuple[str, str]:
    """Return the name of a peer, and the precision it is asked for, of "PEER:PRECISION"."""
    who, _, precision = asked.partition(":")
    return who, precision or FLOAT32


def require(runs: int, peers: Sequence[str], onnx: Path | None) -> None:
    """Raise InputError for a peer that is not known, not installed, or has nothing to run."""
    require_count("runs", runs)
    asked = [split_peer(each) for each in peers]
    for peer, precision in asked:
        if peer not in PEERS:
            hint = suggest(peer, PEERS) or f"; there are {', '.join(PEERS)}"
            raise InputError(f"unknown peer {quote(peer)}{hint}")
        if precision not in PEERS[peer].precisions:
            raise InputError(
                f"{peer} is asked for {quote(precision)}; here it computes in "
                f"{' or '.join(PEERS[peer].precisions)}"
            )
    modules = list(dict.fromkeys(module for peer, _ in asked for module in PEERS[peer].modules))
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(
            f"not installed: {', '.join(missing)}; python -m pip install {' '.join(missing)}"
        )
    runs_export = next((peer for peer, _ in asked if PEERS[peer].runs_export), None)
    if runs_export and not (onnx and onnx.is_file()):
        raise InputError(
            f"{onnx}: no such file" if onnx else f"{runs_export} runs an export of the model: name "
            "it with --onnx; golden/measure/export_onnx.py makes one"
        )  # fmt: skip


class Entrant:
    """One of those who are timed: a process that does what it is told, and tells how long it took.

    All but npbert, which knows for itself, are told to use as many threads as there are cores.
    """

    def __init__(self, who: str, settings: Mapping[str, str]) -> None:
        self.who = who
        threads = {} if who == "npbert" else blas_environment(count_cores())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "npbert.bench.peers"], env={**os.environ, **threads},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        try:
            told = self.request({"who": who, **settings})
            self.version: str = told["version"]
            self.precision: str = told["precision"]
        except BaseException:
            self.__exit__()
            raise

    def prepare(self, label: str, work: Work) -> list[float]:
        """Make work ready under a label and do it once; return the first numbers of the answer."""
        return self.request({"prepare": label, "work": asdict(work)})["answer"]

    def run(self, label: str) -> tuple[float, int | None]:
        """Do it once more; return seconds, and the peak memory in bytes since it was prepared."""
        told = self.request({"run": label})
        return told["seconds"], told["memory"]

    def request(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for what is told.  Raises InputError for what went wrong."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise InputError(f"{self.who}: ended, status {self.process.wait()}, without an answer")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise InputError(f"{self.who}: {told['error']}")
        return told

    def __enter__(self) -> "Entrant":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with suppress(BrokenPipeError):  # a request that it did not live to read
            self.process.communicate()


def measure_work(
    work: Work, entrants: Mapping[str, Entrant], runs: int, *, sort: bool = False
) -> dict[str, Any]:
    """Time one work, all in turn, and compare: npbert's time over another's of the same turn."""
    turns: dict[str, tuple[Entrant, Work]] = {}
    for who, entrant in entrants.items():
        turns[who] = entrant, work
        if sort and work.is_mixed and split_peer(who)[0] in PEERS:
            turns[f"{who}, sorted"] = entrant, work.sort_by_length()
    answers = {label: entrant.prepare(label, job) for label, (entrant, job) in turns.items()}
    for label, answer in answers.items():
        same = SAME if turns[label][0].precision == FLOAT32 else SIMILAR
        require_same_answers(label, answer, answers["npbert"], same)
    seconds: dict[str, list[float]] = {label: [] for label in turns}
    memory: dict[str, int | None] = {}
    for _ in range(runs):
        for label, (entrant, _) in turns.items():
            time.sleep(PAUSE)
            taken, memory[label] = entrant.run(label)
            seconds[label].append(taken)

    def facts_of(label: str) -> dict[str, Any]:
        facts = {
            **spread_of(seconds[label]),
            "tokens_per_second": work.tokens / statistics.median(seconds[label]),
            "share_of_floor": share(label),
            "peak_memory": memory[label],
            "precision": turns[label][0].precision,
            "seconds": seconds[label],
        }
        if label in ("npbert", "floor"):
            return facts
        pairs = zip(seconds["npbert"], seconds[label], strict=True)
        return {
            **facts,
            "version": turns[label][0].version,
            "ratio": spread_of(a / b for a, b in pairs),
        }

    def share(label: str) -> float:
        return statistics.median(seconds["floor"]) / statistics.median(seconds[label])

    return {
        "work": work.name,
        "sequences": len(work.sequences),
        "tokens": work.tokens,
        "packed": work.packed,
        "npbert": facts_of("npbert"),
        "floor": facts_of("floor"),
        "against": {label: facts_of(label) for label in turns if label not in ("npbert", "floor")},
    }


def spread_of(values: Iterable[float]) -> dict[str, float]:
    """Return the middle and the ends of what was measured."""
    known = list(values)
    return {"median": statistics.median(known), "min": min(known), "max": max(known)}


def require_same_answers(
    who: str, theirs: Sequence[float], ours: Sequence[float], same: float
) -> None:
    """Raise InputError where a peer's numbers are not npbert's: it then has other weights."""
    pairs = list(zip(theirs, ours, strict=False))  # a question's start, without its end
    far = max((abs(a - b) for a, b in pairs), default=0.0)
    if not far <= same * max((abs(b) for _, b in pairs), default=0.0):
        raise InputError(
            f"{who}: answers {theirs[0]:.4g} where npbert answers {ours[0]:.4g}, so that it does "
            "not run the same weights; was this model exported?"
        )


def machine_facts() -> dict[str, Any]:
    """Return what times depend on."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError):
        names = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": count_cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
