"""Timing, but for the times: what is run in which order, what is told, and what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import npbert
from npbert.bench import Entrant, Work, bench, measure_work, peers, shape_work, text_work
from npbert.cli import main
from npbert.families import list_architectures
from npbert.tasks import built_in_folder

ARCHITECTURES = list_architectures("distilbert")

TINY = npbert.Config(
    vocab_size=50, max_positions=12, hidden_size=8, num_blocks=2, num_attention_heads=2,
    intermediate_size=16, num_labels=3, initializer_scale=0.5,
)  # fmt: skip
MIXED = Work("mixed", [[5, 6, 7, 8, 9], [1, 2], [3, 4, 5, 6, 7, 8], [9]], True, [[1, 0], [2, 3]])


class Logged:
    """One who takes as many seconds as it was told, and says when it was its turn."""

    def __init__(self, who, seconds, log, answer=1.0):
        self.seconds, self.log, self.answer = iter(seconds), log, answer
        self.version, self.precision = f"{who} 1.0", "float32"

    def prepare(self, label, work):
        self.log.append(f"prepare {label} {work.batches}")
        return [self.answer, 0.5]

    def run(self, label):
        self.log.append(label)
        return next(self.seconds), 1000


def test_everyone_prepares_and_then_runs_in_turn():
    log = []
    entrants = {
        "npbert": Logged("npbert", [2, 3], log),
        "floor": Logged("floor", [1, 1], log),
        "onnxruntime": Logged("onnxruntime", [4, 2, 5, 3], log),
    }
    facts = measure_work(MIXED, entrants, 2, sort=True)
    turns = ["npbert", "floor", "onnxruntime", "onnxruntime, sorted"]
    assert log[4:] == turns * 2
    assert [line.split(" [")[0] for line in log[:4]] == [f"prepare {who}" for who in turns]
    assert log[3] == "prepare onnxruntime, sorted [[3, 1, 0, 2]]"
    assert facts["npbert"] == {
        "median": 2.5, "min": 2, "max": 3, "tokens_per_second": 14 / 2.5, "share_of_floor": 1 / 2.5,
        "peak_memory": 1000, "precision": "float32", "seconds": [2, 3],
    }  # fmt: skip
    assert facts["against"]["onnxruntime"]["ratio"] == {"median": 0.55, "min": 0.5, "max": 0.6}
    assert facts["against"]["onnxruntime, sorted"]["ratio"] == {"median": 1, "min": 1, "max": 1}
    assert facts["against"]["onnxruntime"]["version"] == "onnxruntime 1.0"


def test_one_who_answers_otherwise_runs_other_weights():
    entrants = {who: Logged(who, [], [], answer) for who, answer in (("npbert", 1), ("x", 1.05))}
    with pytest.raises(npbert.InputError, match=r"^x: answers 1\.05 where npbert answers 1, so"):
        measure_work(MIXED, entrants, 1)
    entrants["x"].answer = float("nan")
    with pytest.raises(npbert.InputError, match=r"^x: answers nan where"):
        measure_work(MIXED, entrants, 1)


def test_a_model_is_timed_in_processes_of_its_own():
    model = npbert.init(TINY, "base")
    facts, second = bench(model, [shape_work(2, 3, 50, packed=False), MIXED], runs=2)
    assert {key: facts[key] for key in ("work", "sequences", "tokens", "packed", "against")} == {
        "work": "2 x 3", "sequences": 2, "tokens": 6, "packed": False, "against": {},
    }  # fmt: skip
    assert second["tokens"] == 14
    for who in ("npbert", "floor"):
        assert facts[who]["min"] <= facts[who]["median"] <= facts[who]["max"]
        assert len(facts[who]["seconds"]) == 2
        assert facts[who]["peak_memory"] is None or facts[who]["peak_memory"] > 1e6
    assert facts["floor"]["share_of_floor"] == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dense_packed_and_padded_in_any_order_have_the_same_answer(architecture, tmp_path):
    model = npbert.init(TINY, architecture)
    model.save(tmp_path)
    settings = {"architecture": architecture, "folder": str(tmp_path)}
    prepare, *_ = peers.prepare_npbert(settings)
    even = Work("even", [[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]], False, [[0, 1]])

    def infer(ids, mask):
        return next(x for x in vars(model(ids, mask)).values() if x is not None)

    padded = peers.prepare_padded(architecture, infer)
    answers = [
        prepare(vars(even))(),
        prepare({**vars(even), "packed": True})(),
        prepare(vars(MIXED))(),
        padded(vars(MIXED))(),
        padded(vars(MIXED.sort_by_length()))(),
    ]
    some = min(map(len, answers))
    assert some >= 1
    for answer in answers[1:]:
        np.testing.assert_allclose(answer[:some], answers[0][:some], rtol=1e-4, atol=1e-6)
    floor, *_ = peers.prepare_floor(settings)
    assert floor(vars(MIXED))().size == 0


def test_the_floor_multiplies_every_linear_layer_by_what_is_read(tmp_path, monkeypatch):
    model = npbert.init(TINY, "for_sequence_classification")
    model.save(tmp_path)
    prepare, *_ = peers.prepare_floor(
        {"architecture": model.architecture, "folder": str(tmp_path)}
    )  # fmt: skip
    seen = []
    monkeypatch.setattr(np, "matmul", lambda w, x, out: seen.append((*w.shape, x.shape[1])))
    prepare(vars(MIXED))()
    block = [(8, 8, 14)] * 4 + [(16, 8, 14), (8, 16, 14)]
    last = [(8, 8, 4)] * 4 + [(16, 8, 4), (8, 16, 4)]
    assert seen == [*block, *last, (8, 8, 4), (3, 8, 4)]
    seen.clear()
    prepare({**vars(MIXED), "packed": False})()
    assert seen == [*block, *block, (8, 8, 4), (3, 8, 4)]


def test_short_work_is_repeated_until_a_turn_is_long_enough(monkeypatch):
    monkeypatch.setattr(peers, "TURN", 0.02)
    calls = []
    assert 0 <= peers.time_turn(lambda: calls.append(0)) < 0.01
    assert len(calls) > 2


def test_texts_become_what_the_tokenizer_makes_of_them():
    model = npbert.pipeline("text-classification").model
    work = text_work("some", ["Fun.", ""] * 20, model)
    assert work.sequences[0] == model.tokenizer.encode("Fun.").ids
    assert [len(batch) for batch in work.batches] == [32, 8]
    with pytest.warns(npbert.NpbertWarning, match=r"^some: 1 of the texts do not fit the model"):
        text_work("some", ["good " * 300], model)


def test_what_went_wrong_over_there_is_told_here(tmp_path):
    with pytest.raises(npbert.InputError, match=r"^npbert: CheckpointError: .*no such folder"):
        Entrant("npbert", {"folder": str(tmp_path / "none"), "architecture": "base"})
    npbert.init(TINY, "base").save(tmp_path)
    with Entrant("npbert", {"folder": str(tmp_path), "architecture": "base"}) as entrant:
        assert entrant.version == npbert.__version__
        with pytest.raises(npbert.InputError, match=r"^npbert: InputError: .*99"):
            entrant.prepare("npbert", Work("wrong", [[99]], True, [[0]]))
        entrant.process.kill()
        with pytest.raises(npbert.InputError, match=r"^npbert: ended, status -?\d+, without an"):
            entrant.run("npbert")


def test_the_command_prints_a_table(tmp_path, capsys, monkeypatch):
    npbert.init(TINY, "for_sequence_classification").save(tmp_path)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.234, 0, 0), raising=False)
    assert main(["bench", str(tmp_path), "--shapes", "1x4,2x3", "--runs", "1", "--packed"]) == 0
    out, err = capsys.readouterr()
    head, machine, _, columns, *rows = out.splitlines()
    assert head == f"{tmp_path}, for_sequence_classification, 2 blocks of 8"
    assert machine.endswith("medians of 1 turns (fastest to slowest)")
    assert " ".join(columns.split()) == (
        "work who precision time tokens/s of floor memory npbert's time / its"
    )
    assert [row[:34].split("  ")[0] for row in rows] == ["1 x 4", "", "2 x 3", ""]
    assert [row[18:40].strip() for row in rows] == ["npbert", "matrix products"] * 2
    assert err == ("npbert: the load average is 1.23: what else runs here will be in these times\n")


def test_a_precision_is_told_and_a_lower_one_may_be_further_away():
    entrants = {
        "npbert": Logged("npbert", [1], []),
        "floor": Logged("floor", [1], []),
        "openvino:bfloat16": Logged("openvino", [1], [], answer=1.2),
    }
    entrants["openvino:bfloat16"].precision = "bfloat16"
    facts = measure_work(MIXED, entrants, 1)
    assert facts["against"]["openvino:bfloat16"]["precision"] == "bfloat16"
    entrants["openvino:bfloat16"].seconds = iter([1])
    entrants["npbert"].seconds = entrants["floor"].seconds = iter([1, 1])
    entrants["openvino:bfloat16"].precision = "float32"  # what it was asked for, it did not do
    with pytest.raises(npbert.InputError, match="does not run the same weights"):
        measure_work(MIXED, entrants, 1)


def test_random_weights_are_of_a_family_and_a_size(capsys):
    args = ["bench", "--family", "bert", "--size", "minilm", "--shapes", "1x2", "--runs", "1"]
    assert main(args) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert head == "random weights, for_sequence_classification, 6 blocks of 384"


def test_the_command_prints_json_of_texts(tmp_path, capsys):
    (tmp_path / "texts").write_text("A film to treasure.\nBad.\n")
    folder = built_in_folder("sentiment")
    args = ["bench", str(folder), "--texts", str(tmp_path / "texts"), "--runs", "1", "--json"]
    assert main(args) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"] == str(folder)
    assert facts["architecture"] == "for_sequence_classification"
    assert facts["cores"] >= 1
    (work,) = facts["work"]
    assert (work["work"], work["sequences"], work["packed"]) == ("texts", 2, True)


# Stands in for ONNX Runtime, and a file with the name of a model's folder for an export.
EXPORT = """
import types, npbert
__version__ = "0.0"
ExecutionMode = types.SimpleNamespace(ORT_SEQUENTIAL=0)
class SessionOptions: pass
class InferenceSession:
    def __init__(self, path, options, providers):
        print("chatter on stdout")
        self.model = npbert.load(open(path).read())
        self.threads = options.intra_op_num_threads
    def get_inputs(self):
        return [types.SimpleNamespace(name=name) for name in ("input_ids", "attention_mask")]
    def run(self, outputs, feeds):
        assert outputs is None and self.threads >= 1
        return [self.model(**feeds).logits]
"""


@pytest.mark.long
def test_a_peer_is_timed_on_the_same_weights_or_refused(tmp_path):
    (tmp_path / "onnxruntime.py").write_text(EXPORT)
    (tmp_path / "texts").write_text("A film to treasure.\nBad.\nIt is what it is, and no more.\n")
    folder = built_in_folder("sentiment")
    (tmp_path / "right.onnx").write_text(str(folder))
    model = npbert.load(folder)
    npbert.init(model.config, model.architecture).save(tmp_path / "other")
    (tmp_path / "wrong.onnx").write_text(str(tmp_path / "other"))

    def against(onnx):
        return subprocess.run(
            [sys.executable, "-m", "npbert", "bench", str(folder), "--texts", tmp_path / "texts",
             "--against", "onnxruntime", "--onnx", tmp_path / onnx, "--sort", "--runs", "2",
             "--json"],
            env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        )  # fmt: skip

    done = against("right.onnx")
    assert done.returncode == 0, done.stderr
    (work,) = json.loads(done.stdout)["work"]
    assert list(work["against"]) == ["onnxruntime", "onnxruntime, sorted"]
    peer = work["against"]["onnxruntime"]
    pairs = zip(work["npbert"]["seconds"], peer["seconds"], strict=True)
    ratios = sorted(a / b for a, b in pairs)
    assert [peer["ratio"]["min"], peer["ratio"]["max"]] == ratios
    assert peer["version"] == "0.0"
    assert done.stderr == "chatter on stdout\n"
    done = against("wrong.onnx")
    assert done.returncode == 2
    assert "does not run the same weights" in done.stderr


@pytest.fixture
def nothing_installed(monkeypatch):
    for name in ("onnxruntime", "transformers", "torch"):
        monkeypatch.setitem(sys.modules, name, None)


PIP = "python -m pip install"
REFUSED = {
    "no onnxruntime": (
        ["--against", "onnxruntime"],
        f"not installed: onnxruntime; {PIP} onnxruntime",
    ),
    "none": (
        ["--against", "transformers,onnxruntime"],
        f"not installed: transformers, torch, onnxruntime; {PIP} transformers torch onnxruntime",
    ),
    "misspelt": (
        ["--against", "onxruntime"],
        "unknown peer 'onxruntime'; did you mean 'onnxruntime'?",
    ),
    "unknown": (
        ["--against", "x"],
        "unknown peer 'x'; there are onnxruntime, openvino, ctranslate2, transformers",
    ),
    "no such precision": (
        ["--against", "openvino:int8"],
        "openvino is asked for 'int8'; here it computes in float32 or bfloat16",
    ),
    "two sizes": (
        ["TINY", "--size", "minilm"],
        "--size is of random weights, and a MODEL has its own",
    ),
    "two families": (
        ["TINY", "--family", "bert"],
        "--family is of random weights, and a MODEL has its own",
    ),
    "random texts": (
        ["--texts", "README.md"],
        "--texts needs a MODEL with a tokenizer; random weights come without one",
    ),
    "no tokenizer": (
        ["TINY", "--texts", "README.md"],
        "texts need a tokenizer, and the model has none; name a folder with tokenizer.json or "
        "vocab.txt in it",
    ),
    "no such file": (
        ["TINY", "--texts", "none.txt"],
        "none.txt: cannot be read: No such file or directory",
    ),
    "no text": (["DEMO", "--texts", "EMPTY"], "empty: has no line, expected a text on every line"),
    "no shape": (
        ["TINY", "--shapes", "1x4,x8"],
        "--shapes has 'x8', expected batch x length, as in 8x128",
    ),
    "too long": (["TINY", "--shapes", "1x13"], "--shapes has 1x13, but the model reads 12 tokens"),
    "no run": (["TINY", "--runs", "0"], "--runs is 0, expected a whole number from 1"),
}


@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("nothing_installed")
def test_what_cannot_be_timed_is_refused_before_anything_runs(args, message, tmp_path, capsys):
    npbert.init(TINY, "base").save(tmp_path)
    (tmp_path / "empty").touch()
    named = {"TINY": str(tmp_path), "DEMO": str(built_in_folder("sentiment")),
             "EMPTY": str(tmp_path / "empty")}  # fmt: skip
    given = [named.get(arg, arg) for arg in args]
    shapes = [] if {"--shapes", "--texts", "--against"} & {*args} else ["--shapes", "1x4"]
    assert main(["bench", *given, *shapes]) == 2
    assert capsys.readouterr() == ("", f"npbert: {message}\n")


def test_onnxruntime_needs_an_export(monkeypatch, tmp_path, capsys):
    (tmp_path / "onnxruntime.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["bench", "--against", "onnxruntime"]) == 2
    assert main(["bench", "--against", "onnxruntime", "--onnx", "none.onnx"]) == 2
    assert capsys.readouterr().err == (
        "npbert: onnxruntime runs an export of the model: name it with --onnx; "
        "golden/measure/export_onnx.py makes one\nnpbert: none.onnx: no such file\n"
    )
