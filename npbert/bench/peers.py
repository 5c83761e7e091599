"""Those whom npbert.bench times: npbert, bare matrix products, ONNX Runtime, transformers.

Each runs in a process of its own, `python -m npbert.bench.peers`, which reads from stdin what to
do and tells on stdout how long it took, a JSON object a line.  The peers are imported here, when
they are asked for, and nowhere else.
"""

import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import numpy as np

from npbert.encoder import Ids
from npbert.engine.threads import count_cores
from npbert.families import ARCHITECTURES, FAMILIES, class_name
from npbert.heads import HEADS, predict_words
from npbert.loading import load
from npbert.textbook import Array

COLUMNS: Final = 4096  # tokens in one matrix product of the floor; more gain nothing
EXCERPT: Final = 8  # numbers by which answers are compared
TURN: Final = 0.2  # seconds; one run of a few ms would time cold caches and threads that wake up

WorkData = Mapping[str, Any]  # npbert.bench.Work, as JSON
Turn = Callable[[], Array]  # does a piece of work, returns the first numbers of the first sequence
Prepare = Callable[[WorkData], Turn]
PeerSettings = Mapping[str, str]  # family, architecture, folder, onnx


def prepare_npbert(settings: PeerSettings) -> tuple[Prepare, str]:
    """npbert itself, dense or packed."""
    from npbert import __version__

    model = load(settings["folder"], settings["architecture"])

    def prepare(work: WorkData) -> Turn:
        given: Any = [np.array(ids) for ids in work["sequences"]]
        places = [comparison_token(model.architecture, ids) for ids in given]
        rows = [[place] for place in places] if reads_one_row(model.architecture) else None
        if not work["packed"]:
            given = np.array(given)
        if model.row.has_choices:
            given = given[None] if isinstance(given, np.ndarray) else [given]

        def run_packed() -> Array:
            answers = model.packed(given, rows=rows)
            return answer_excerpt(
                model.architecture, answers, len(places), 0, 0 if rows else places[0]
            )

        def run_dense() -> Array:
            out = model(given)
            first = next(x for x in vars(out).values() if x is not None)
            return answer_excerpt(model.architecture, first, len(places), 0, places[0])

        return run_packed if work["packed"] else run_dense

    return prepare, __version__


def prepare_floor(settings: PeerSettings) -> tuple[Prepare, str]:
    """Matrix products of the shapes, and with the weights, of every linear layer; nothing else.

    Where npbert computes only what the head reads, so does the floor.  It is no law of nature:
    many small products may be faster than these plain ones, for few tokens above all.
    """
    model = load(settings["folder"], settings["architecture"])
    rng = np.random.default_rng(0)

    def prepare(work: WorkData) -> Turn:
        tokens, sequences = sum(map(len, work["sequences"])), len(work["sequences"])
        products = []
        for name, weight in model.parameters.items():
            if (
                weight.ndim == 2
                and name.removesuffix(".weight") not in FAMILIES[model.family].tables
            ):
                n = columns(name, tokens, sequences, packed=work["packed"])
                products += [(weight, min(COLUMNS, n - i)) for i in range(0, n, COLUMNS)]
        inputs = {(w.shape[1], n): 0 for w, n in products}
        x = {key: rng.standard_normal(key, np.float32) for key in inputs}
        y = {(len(w), n): np.empty((len(w), n), np.float32) for w, n in products}

        def run() -> Array:
            for w, n in products:
                np.matmul(w, x[w.shape[1], n], out=y[len(w), n])
            return np.zeros(0)

        return run

    def columns(name: str, tokens: int, sequences: int, *, packed: bool) -> int:
        """Return by how many columns a weight must be multiplied."""
        per_sequence = model.row.reads_first
        read = (
            sequences if packed and (per_sequence or reads_one_row(model.architecture)) else tokens
        )
        if name.startswith(f"transformer.layer.{model.config.num_blocks - 1}."):
            return read  # keys and values too: see attention.attend_through_weights
        if name.startswith("transformer."):
            return tokens
        return sequences if per_sequence or name.startswith("pre_classifier") else read

    return prepare, np.__version__


def prepare_onnxruntime(settings: PeerSettings) -> tuple[Prepare, str]:
    """An export of the model in ONNX Runtime, on as many threads as there are cores."""
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = count_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    session = ort.InferenceSession(
        settings["onnx"], options, providers=["CPUExecutionProvider"]
    )  # fmt: skip
    names = {given.name for given in session.get_inputs()}

    def infer(ids: Ids, mask: Ids) -> Array:
        feeds = {"input_ids": ids, "attention_mask": mask}
        return session.run(None, {n: x for n, x in feeds.items() if n in names})[0]

    return prepare_padded(settings["architecture"], infer), ort.__version__


def prepare_transformers(settings: PeerSettings) -> tuple[Prepare, str]:
    """The model as transformers loads it, in torch's eager mode."""
    torch, library = import_module("torch"), import_module("transformers")
    torch.set_num_threads(count_cores())
    kind = getattr(library, class_name(settings["family"], settings["architecture"]))
    model = kind.from_pretrained(settings["folder"], attn_implementation="eager").eval()

    def infer(ids: Ids, mask: Ids) -> Array:
        with torch.inference_mode():
            out = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return out[0].numpy()

    return prepare_padded(
        settings["architecture"], infer
    ), f"{library.__version__}, torch {torch.__version__}"


PEERS_BY_NAME: Final = {
    "npbert": prepare_npbert,
    "floor": prepare_floor,
    "onnxruntime": prepare_onnxruntime,
    "transformers": prepare_transformers,
}


def prepare_padded(architecture: str, infer: Callable[[Ids, Ids], Array]) -> Prepare:
    """Return what prepares work for those who need rectangles: batches padded at their ends."""

    def prepare(work: WorkData) -> Turn:
        batches = [rectangle([work["sequences"][i] for i in batch]) for batch in work["batches"]]
        if ARCHITECTURES[architecture].has_choices:
            batches = [(ids[None], mask[None]) for ids, mask in batches]
        at, row = next((b, batch.index(0)) for b, batch in enumerate(work["batches"]) if 0 in batch)
        place, rows = comparison_token(architecture, work["sequences"][0]), len(work["batches"][at])

        def run() -> Array:
            outs = [infer(ids, mask) for ids, mask in batches]
            return answer_excerpt(architecture, outs[at], rows, row, place)

        return run

    return prepare


def rectangle(sequences: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Return ids, padded with 0 to the longest, and which of them are real.  (B, L) each"""
    ids = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    mask = np.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = sequence
        mask[i, : len(sequence)] = 1
    return ids, mask


def reads_one_row(architecture: str) -> bool:
    """Tell whether packed work asks for one token of every sequence, as for a sentence's mask."""
    return HEADS[ARCHITECTURES[architecture].head] is predict_words


def comparison_token(architecture: str, ids: Sequence[int]) -> int:
    """Return the token by which answers are compared: one in the middle stands for a mask."""
    return len(ids) // 2 if reads_one_row(architecture) else 0


def answer_excerpt(architecture: str, answers: Any, rows: int, row: int, place: int) -> Array:
    """Return the first numbers that a sequence got, or one of its tokens where these are judged."""
    if ARCHITECTURES[architecture].reads_first:
        return np.ravel(answers.reshape(rows, -1)[row])[:EXCERPT]
    return np.ravel(answers[row][place])[:EXCERPT]


def time_turn(run: Turn) -> float:
    """Run, short work again and again for a fifth of a second; return the median, in seconds."""
    times: list[float] = []
    now = began = time.perf_counter()
    while now < began + TURN:
        start = now
        run()
        now = time.perf_counter()
        times.append(now - start)
    return statistics.median(times)


def reset_peak_memory() -> None:
    """Let the peak of this process's memory begin anew, where the system can do that (Linux)."""
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
        file.write("5")


def peak_memory() -> int | None:
    """Return the most memory this process has held, mapped weights included, in bytes."""
    # Linux's getrusage also counts the process that started this one; VmHWM does not.
    with suppress(OSError), open("/proc/self/status") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        resource: Any = import_module("resource")
    except ImportError:  # Windows
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_peer() -> None:
    """Do what stdin says, until it ends: be someone, prepare work, run it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this one will end it
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    prepare: Prepare | None = None
    runs: dict[str, Turn] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if "who" in request:
                prepare, answer["version"] = PEERS_BY_NAME[request["who"]](request)
            elif "prepare" in request:
                assert prepare is not None
                reset_peak_memory()
                run = runs[request["prepare"]] = prepare(request["work"])
                answer["answer"] = np.asarray(run(), float).tolist()
            else:
                answer = {"seconds": time_turn(runs[request["run"]]), "memory": peak_memory()}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=told, flush=True)


if __name__ == "__main__":
    run_peer()
