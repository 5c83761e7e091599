"""Those whom npbert.bench times: npbert, bare matrix products, and other systems.

Each runs in a process of its own, `python -m npbert.bench.peers`, which reads from stdin what to
do and tells on stdout how long it took, a JSON object a line.  The peers are imported here, when
they are asked for, and nowhere else.
"""

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.encoder import Ids
from npbert.engine.threads import count_cores
from npbert.families import ARCHITECTURES, ENCODER_ARCHITECTURE, FAMILIES, class_name
from npbert.heads import HEADS, predict_words
from npbert.loading import load
from npbert.textbook import Array, no_tap

COLUMNS: Final = 4096  # tokens in one matrix product of the floor; more gain nothing
EXCERPT: Final = 8  # numbers by which answers are compared
TURN: Final = 0.2  # seconds; one run of a few ms would time cold caches and threads that wake up

WorkData = Mapping[str, Any]  # npbert.bench.Work, as JSON
Turn = Callable[[], Array]  # does a piece of work, returns the first numbers of the first sequence
Prepare = Callable[[WorkData], Turn]
PeerSettings = Mapping[str, str]  # family, architecture, folder, onnx, precision


class Prepared(NamedTuple):
    """A peer that is ready, and what it says of itself."""

    prepare: Prepare
    version: str
    precision: str = "float32"  # that it really computes in


def prepare_npbert(settings: PeerSettings) -> Prepared:
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

    return Prepared(prepare, __version__)


def prepare_floor(settings: PeerSettings) -> Prepared:
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

    return Prepared(prepare, np.__version__)


def prepare_onnxruntime(settings: PeerSettings) -> Prepared:
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

    return Prepared(prepare_padded(settings["architecture"], infer), ort.__version__)


def prepare_openvino(settings: PeerSettings) -> Prepared:
    """An export of the model in OpenVINO, which takes its own choice of precision if not asked."""
    ov = import_module("openvino")
    kind = {"float32": "f32", "bfloat16": "bf16"}[settings["precision"]]
    compiled = ov.Core().compile_model(
        settings["onnx"], "CPU",
        {"INFERENCE_PRECISION_HINT": kind, "PERFORMANCE_HINT": "LATENCY",
         "INFERENCE_NUM_THREADS": count_cores()},
    )  # fmt: skip
    request = compiled.create_infer_request()
    names = {name for given in compiled.inputs for name in given.names}

    def infer(ids: Ids, mask: Ids) -> Array:
        feeds = {"input_ids": ids, "attention_mask": mask}
        return request.infer({n: x for n, x in feeds.items() if n in names})[compiled.output(0)]

    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    names_of = {"f32": "float32", "bf16": "bfloat16"}
    prepare = prepare_padded(settings["architecture"], infer)
    return Prepared(prepare, ov.__version__.partition("-")[0], names_of.get(used, used))


def prepare_ctranslate2(settings: PeerSettings) -> Prepared:
    """The encoder in CTranslate2, and npbert's head upon it: it has none of its own."""
    ct2, converters = import_module("ctranslate2"), import_module("ctranslate2.converters")
    base = getattr(
        import_module("transformers"), class_name(settings["family"], ENCODER_ARCHITECTURE)
    ).from_pretrained(settings["folder"])
    model = load(settings["folder"], settings["architecture"])
    with tempfile.TemporaryDirectory(prefix="npbert-bench-") as folder:
        inner = Path(folder)
        base.save_pretrained(inner / "base")
        write_word_list(inner / "base", model.config.vocab_size)
        converters.TransformersConverter(str(inner / "base")).convert(str(inner / "made"))
        encoder = ct2.Encoder(
            str(inner / "made"), compute_type=settings["precision"], intra_threads=count_cores()
        )
    run = model.make_run(no_tap)

    def infer(ids: Ids, mask: Ids) -> Array:
        lengths = ct2.StorageView.from_array(mask.sum(axis=1).astype(np.int32))
        given = ct2.StorageView.from_array(ids.astype(np.int32))
        states = np.array(encoder.forward_batch(given, lengths).last_hidden_state)
        if model.row.is_encoder:
            return states
        batch, length, _ = states.shape
        first = np.arange(batch) * length
        made = HEADS[model.row.head](model.head, states.reshape(batch * length, -1).T, first, run)
        logits = next(iter(made.values())).T
        return logits if model.row.reads_first else logits.reshape(batch, length, -1)

    prepare = prepare_padded(settings["architecture"], infer)
    return Prepared(prepare, ct2.__version__, encoder.compute_type)


def write_word_list(folder: Path, size: int) -> None:
    """Write a vocabulary of that size: CTranslate2 converts no model without, and reads ids."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special[:size] + [f"word{i}" for i in range(len(special), size)]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")


def prepare_transformers(settings: PeerSettings) -> Prepared:
    """The model as transformers loads it, in torch's eager mode."""
    torch, library = import_module("torch"), import_module("transformers")
    torch.set_num_threads(count_cores())
    kind = getattr(library, class_name(settings["family"], settings["architecture"]))
    model = kind.from_pretrained(settings["folder"], attn_implementation="eager").eval()

    def infer(ids: Ids, mask: Ids) -> Array:
        with torch.inference_mode():
            out = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return out[0].numpy()

    version = f"{library.__version__}, torch {torch.__version__}"
    return Prepared(prepare_padded(settings["architecture"], infer), version)


PEERS_BY_NAME: Final = {
    "npbert": prepare_npbert,
    "floor": prepare_floor,
    "onnxruntime": prepare_onnxruntime,
    "openvino": prepare_openvino,
    "ctranslate2": prepare_ctranslate2,
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
                peer = PEERS_BY_NAME[request["who"]](request)
                prepare = peer.prepare
                answer = {"version": peer.version, "precision": peer.precision}
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
