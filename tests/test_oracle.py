"""The oracle's files and tables: traces keep every number, and comparing finds where two part."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import port
import pytest
from golden_cases import GOLDEN
from safetensors import safe_open
from safetensors.numpy import save_file

import npbert
from npbert.cli import main
from npbert.families import FAMILIES, list_architectures
from npbert.oracle.dialects import canonical_names
from npbert.oracle.layouts import fit_layout
from npbert.oracle.maps import read_map
from npbert.oracle.port_names import MAPS
from npbert.oracle.replay import narrowest_type, round_to_type
from npbert.oracle.traces import Trace
from npbert.oracle.verify import BOUNDS, CASES_FOLDER, case_folders, repository_name, verify
from npbert.tasks import built_in_folder

CLASSES = GOLDEN / "DistilBertForSequenceClassification"
LANGUAGE = GOLDEN / "DistilBertForMaskedLM"
IDS = [[5, 17, 3, 80, 2, 9], [7, 96, 3, 0, 0, 0]]
MASK = [[1] * 6, [1] * 3 + [0] * 3]


@pytest.fixture(scope="module")
def model():
    return npbert.load(CLASSES, dtype="float64")


@pytest.fixture(scope="module")
def traced(model):
    return npbert.trace(model, IDS, MASK, noise=True)


def candidate(traced, **changes):
    """Return a trace as a port in float32 would have it."""
    return Trace({**{n: narrow(x) for n, x in traced.arrays.items()}, **changes})


def narrow(x):
    """Return an array in float32, where the smallest number becomes -inf."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32) if x.dtype == float else x


# ---- traces -------------------------------------------------------------------------------------


def test_a_trace_holds_every_step_in_the_order_of_the_pass(traced, model):
    names = list(traced.activations)
    block = [n.removeprefix("transformer.layer.0.") for n in names if ".layer.0." in n]
    assert block == [
        "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.scores",
        "attention.masked_scores", "attention.weights", "attention.context", "attention.out_lin",
        "attention_residual", "sa_layer_norm", "ffn.lin1", "ffn.activation", "ffn.lin2",
        "ffn_residual", "output_layer_norm",
    ]  # fmt: skip
    assert names[:4] == [
        f"embeddings.{n}" for n in ("word_embeddings", "position_embeddings", "sum", "LayerNorm")
    ]
    assert names[-4:] == ["pre_classifier", "pooled", "classifier", "logits"]
    assert traced.about["order"] == names
    assert list(traced) == [*traced.given, *names]  # it is a mapping
    assert traced["logits"] is traced.arrays["logits"]
    assert traced.about["padding"] == [[], [3, 4, 5]]
    assert traced.about["dtype"] == "float64"
    assert traced.given.keys() == {
        "input_ids", "attention_mask", "position_ids", "attention_head_mask",
    }  # fmt: skip
    np.testing.assert_array_equal(traced.arrays["logits"], model(IDS, MASK).logits)
    assert traced.arrays["transformer.layer.1.attention.weights"].shape == (2, 3, 6, 6)


def test_a_trace_may_be_of_some_names_or_with_its_heads_split(model):
    some = npbert.trace(model, IDS, only="*.output_layer_norm")
    assert list(some.activations) == [f"transformer.layer.{i}.output_layer_norm" for i in range(3)]
    split = npbert.trace(model, IDS, split_heads=True).arrays["transformer.layer.0.attention.q_lin"]
    whole = npbert.trace(model, IDS).arrays["transformer.layer.0.attention.q_lin"]
    assert split.shape == (2, 3, 6, 8)
    np.testing.assert_array_equal(split.transpose(0, 2, 1, 3).reshape(2, 6, 24), whole)


def test_texts_become_a_padded_batch():
    model = npbert.load(built_in_folder("sentiment"), dtype="float64")
    traced = npbert.trace(model, text=["A fine film.", "Dull."])
    one, two = (model.tokenizer.encode(text).ids for text in ("A fine film.", "Dull."))
    assert traced.arrays["input_ids"].tolist() == [one, two + [0] * (len(one) - len(two))]
    assert traced.arrays["attention_mask"].sum(1).tolist() == [len(one), len(two)]
    with pytest.raises(npbert.InputError, match="input_ids or text, not both"):
        npbert.trace(model, [[1]], text="a")
    with pytest.raises(npbert.InputError, match="trace needs input_ids, or text"):
        npbert.trace(model)


def test_a_trace_goes_on_through_the_modules_of_a_sentence():
    model = npbert.load(GOLDEN / "tasks" / "st_dense", "base", dtype="float64")
    traced = npbert.trace(model, text=["the cat", "a dog and a cat"])
    assert list(traced.arrays)[-4:] == ["pooling", "2_Dense", "3_Normalize", "sentence_embedding"]
    embed = npbert.pipeline("sentence-embedding", GOLDEN / "tasks" / "st_dense")
    np.testing.assert_allclose(
        traced.arrays["sentence_embedding"], embed(["the cat", "a dog and a cat"]), atol=1e-5
    )


@pytest.mark.parametrize("name", ["t.safetensors", "t.npz", "t"])
def test_a_trace_is_the_same_when_it_was_written_and_read(tmp_path, traced, name):
    traced.save(tmp_path / name)
    again = npbert.Trace.load(tmp_path / name)
    assert again.arrays.keys() == traced.arrays.keys()
    assert all(np.array_equal(again.arrays[n], x) for n, x in traced.arrays.items())
    assert again.about == json.loads(json.dumps(traced.about))


# ---- comparing ----------------------------------------------------------------------------------


def test_a_float32_port_by_pytorch_is_the_same(model):
    found = npbert.compare(model, npbert.Trace.load(GOLDEN / "ports" / "pytorch.safetensors"))
    assert found.same
    assert len(found.steps) > 30
    assert (
        npbert.diagnose(model, npbert.Trace.load(GOLDEN / "ports" / "pytorch.safetensors")).findings
        == []
    )


def test_npberts_own_kernels_are_the_same(model):
    fast = npbert.trace(npbert.load(CLASSES), IDS, MASK)
    assert npbert.compare(model, Trace(fast.arrays)).same
    assert npbert.compare(npbert.trace(model, IDS, MASK, noise=True), Trace(fast.arrays)).same


def test_an_error_is_new_in_one_step_and_inherited_by_all_after_it(model, traced):
    name = "transformer.layer.1.ffn.activation"
    wrong = candidate(traced).arrays[name] * np.float32(1.01)
    later = npbert.trace(model, IDS, MASK).arrays  # as it should have been
    found = npbert.compare(model, candidate(traced, **{name: wrong}))
    assert found.first.name == name
    assert found.first.this_step == pytest.approx(0.01, rel=1e-3)
    # What follows was right for the right activation, and is wrong for this one.
    assert [step.name for step in found.steps if step.off] == [name, "transformer.layer.1.ffn.lin2"]
    at = found.first.place
    assert at.ours == pytest.approx(later[name][at.where], rel=1e-6)
    assert at.theirs == pytest.approx(1.01 * at.ours, rel=1e-6)


def test_halves_are_recognised_and_measured_by_their_own_rounding(model, traced):
    for kind, unit in (("float16", 2.0**-11), ("bfloat16", 2.0**-8)):
        arrays = {
            n: round_to_type(narrow(x), kind) if x.dtype == float else x
            for n, x in traced.arrays.items()
        }
        found = npbert.compare(model, Trace(arrays))
        assert found.precision == kind
        assert found.same
        assert max(step.this_step for step in found.steps) > unit / 4


def test_the_bits_that_values_use_are_counted():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert narrowest_type(x) == "float32"
    assert narrowest_type(round_to_type(x, "float16")) == "float16"
    assert narrowest_type(round_to_type(x, "bfloat16")) == "bfloat16"
    assert narrowest_type(x.astype(float) / 3) == "float32"


LAYOUTS = {
    "no batch axis": (lambda x: x[0], "an axis of length 1 was left out"),
    "an axis too many": (lambda x: x[None], "an axis of length 1 was too many"),
    "heads split": (lambda x: x.reshape(1, 6, 3, 8).transpose(0, 2, 1, 3), "its heads were split"),
    "heads split, length first": (lambda x: x.reshape(1, 6, 3, 8), "its heads were split"),
    "transposed": (lambda x: x.transpose(0, 2, 1), "length and features had changed places"),
    "a token a column": (lambda x: x.reshape(6, 24).T, "a token was a column"),
    "as it is": (lambda x: x, ""),
}


@pytest.mark.parametrize(("turn", "told"), LAYOUTS.values(), ids=LAYOUTS)
def test_harmless_layouts_are_repaired_and_told(turn, told):
    like = np.random.default_rng(1).normal(size=(1, 6, 24))
    found = fit_layout(turn(like.astype(np.float32)), like, 3)
    np.testing.assert_allclose(found.array, like, rtol=1e-6)
    assert found.how.startswith(told)
    assert bool(told) == bool(found.how)


def test_repairs_are_reported_with_the_comparison(model):
    one = npbert.trace(model, IDS[:1])
    name = "transformer.layer.0.attention.q_lin"
    split = one.arrays[name].reshape(1, 6, 3, 8).transpose(0, 2, 1, 3)
    found = npbert.compare(model, candidate(one, **{name: split, "input_ids": np.array(IDS[0])}))
    assert found.same
    assert found.notes == [
        "input_ids: its batch axis was left out",
        f"{name}: its heads were split, (1, 3, 6, 8), and are joined",
    ]


def test_names_of_other_systems_are_understood():
    block = "transformer.layer.2."
    theirs = {
        "pytorch": ["distilbert.transformer.layer.2.ffn.lin1", "model.distilbert.embeddings",
                    "hidden_states.3", "attentions.2", "distilbert.embeddings.dropout"],
        "bumblebee": ["encoder.blocks.2.ffn.intermediate", "embedder.norm",
                      "encoder.blocks.2.output_norm"],
        "onnx": ["/distilbert/transformer/layer.2/ffn/lin1/Add_output_0",
                 "/distilbert/embeddings/LayerNorm/Add_1_output_0",
                 "/distilbert/transformer/layer.2/output_layer_norm/LayerNormalization_output_0",
                 "/distilbert/transformer/layer.2/ffn/lin1/MatMul_output_0"],
        "candle": ["transformer.layer.2.ffn.lin1", "embeddings.LayerNorm",
                   "transformer.layer.2.output_layer_norm"],
    }  # fmt: skip
    for system, names in theirs.items():
        mine = canonical_names(names, MAPS[system])
        assert set(mine.values()) >= {block + "ffn.lin1", "embeddings.LayerNorm",
                                      block + "output_layer_norm"}, system  # fmt: skip
        assert len(mine) == len(names) - (system in ("pytorch", "onnx"))


def test_a_step_heard_twice_counts_under_its_own_name():
    names = ["transformer.layer.0.ffn.lin2", "transformer.layer.0.ffn"]
    assert canonical_names(names, MAPS["pytorch"]) == {names[0]: names[0]}
    with pytest.raises(npbert.InputError, match=r"are both embeddings\.sum"):
        canonical_names(["a", "b"], {"a": "embeddings.sum", "b": "embeddings.sum"})


def test_a_map_may_be_a_file(tmp_path):
    (tmp_path / "m.json").write_text('{"enc.{n}.out": "transformer.layer.{n}.output_layer_norm"}')
    (tmp_path / "m.toml").write_text('"enc.{n}.out" = "transformer.layer.{n}.output_layer_norm"\n')
    for name in ("m.json", "m.toml"):
        table = read_map(str(tmp_path / name))
        assert canonical_names(["enc.1.out"], table) == {
            "enc.1.out": "transformer.layer.1.output_layer_norm"
        }
    (tmp_path / "bad.json").write_text("[1]")
    for name in ("none.json", "bad.json"):
        with pytest.raises(npbert.InputError, match=name.replace(".", r"\.")):
            read_map(str(tmp_path / name))


def test_several_faults_are_named_one_after_the_other():
    case = npbert.load(LANGUAGE, dtype="float64")
    with safe_open(LANGUAGE / "model.safetensors", "numpy") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads((LANGUAGE / "config.json").read_text())
    given = {"input_ids": np.array(IDS), "attention_mask": np.array(MASK)}

    class Twice(port.Port):
        """Two mistakes: tanh for gelu, and the bias of out_lin forgotten."""

        def weight(self, name):
            w = super().weight(name)
            return w * 0 if name.endswith("out_lin.bias") else w

    kept = Twice(weights, config, "gelu by tanh")("DistilBertForMaskedLM", given)
    dump = {n: narrow(x) for n, x in kept.items()}
    findings = npbert.diagnose(case, Trace({**given, **dump})).findings
    assert [finding.causes for finding in findings] == [
        ("attention.out_lin: bias missing",), ("computed with the tanh approximation of GELU",),
    ]  # fmt: skip
    assert [finding.blocks for finding in findings] == [(0, 1, 2), (0, 1, 2)]


PARTS = {
    "only logits": (lambda name: name == "logits", "gelu by sigmoid", (0, 1, 2)),
    "only the last hidden state": (
        lambda name: ".2.output_layer" in name,
        "q and k swapped",
        (0, 1, 2),
    ),
    "only some layers": (lambda name: ".1." in name, "scale missing", (1,)),
}


@pytest.mark.parametrize(("kept", "fault", "blocks"), PARTS.values(), ids=PARTS)
def test_a_part_of_the_activations_is_enough_to_name_a_mistake(kept, fault, blocks):
    with safe_open(LANGUAGE / "model.safetensors", "numpy") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads((LANGUAGE / "config.json").read_text())
    given = {"input_ids": np.array(IDS), "attention_mask": np.array(MASK)}
    made = port.run(weights, config, "DistilBertForMaskedLM", given, fault)
    dump = {n: narrow(x) for n, x in made.items() if kept(n)}
    model = npbert.load(LANGUAGE, dtype="float64")
    (finding, *more) = npbert.diagnose(model, Trace({**given, **dump})).findings
    causes = {
        "gelu by sigmoid": "computed with x sigmoid(1.702 x) for GELU",
        "q and k swapped": "the weights of q_lin and k_lin have changed places",
        "scale missing": "the scores are not divided by the root of the head's width",
    }
    assert causes[fault] in finding.causes
    assert set(blocks) <= set(finding.blocks)
    assert len(more) <= 1


def test_other_ids_than_were_told_are_named(model, traced):
    other = npbert.trace(model, [[5, 17, 4, 80, 2, 9], IDS[1]], MASK)
    findings = npbert.diagnose(model, Trace({**candidate(other).arrays, **traced.given})).findings
    assert (
        findings[0].evidence == "other ids than input_ids: (0, 2) has the embedding of 4, not of 3"
    )


def test_what_nothing_explains_is_located_and_described(model, traced):
    name = "transformer.layer.1.attention.out_lin"
    wrong = candidate(traced).arrays[name] * np.float32(1.25)
    finding, *more = npbert.diagnose(model, candidate(traced, **{name: wrong})).findings
    assert (finding.step, finding.causes) == (name, ())
    # The next step goes on from this array, and the port's did not: so much is told too.
    assert [other.step for other in more] == ["transformer.layer.1.attention_residual"]
    assert finding.evidence == "every value is 1.25 times what it should be"


# ---- broken candidates --------------------------------------------------------------------------


def broken(folder: Path, traced) -> dict[str, tuple[Path, str]]:
    """Make files that are no candidates, and what is said of them."""
    good = candidate(traced).arrays
    made = {}

    def add(name: str, arrays: dict, message: str) -> None:
        save_file(arrays, folder / f"{name}.safetensors")
        made[name] = (folder / f"{name}.safetensors", message)

    add("no inputs", {"logits": good["logits"]}, "the candidate has no input_ids")
    add("inputs only", {"input_ids": good["input_ids"]}, "has no activation of the reference's")
    add("other names", {"input_ids": good["input_ids"], "h0": good["logits"][:, :2].copy()},
        "not understood, and left out: h0")  # fmt: skip
    add("another shape", {**good, "logits": good["logits"][:, :3].copy()},
        "logits has shape (2, 3), expected (2, 5); no arrangement of its axes fits")  # fmt: skip
    add("ids beyond", {**good, "input_ids": good["input_ids"] + 90}, "expected 0 to 96")
    (folder / "cut.safetensors").write_bytes(made["another shape"][0].read_bytes()[:-9])
    made["cut short"] = (folder / "cut.safetensors", "cut.safetensors: ")
    (folder / "empty.npz").write_bytes(b"")
    made["empty"] = (folder / "empty.npz", "empty.npz: is empty")
    (folder / "nothing").mkdir()
    made["an empty folder"] = (folder / "nothing", "holds no .npy file, but nothing")
    np.savez(folder / "pickled.npz", x=np.array([{}], object))
    made["a pickle"] = (folder / "pickled.npz", "'x': has dtype 'object', expected numbers")
    made["none"] = (folder / "none.npz", "no such file or folder")
    return made


def test_a_broken_candidate_is_said_to_be_what_it_is(tmp_path, traced, capsys):
    for name, (path, message) in broken(tmp_path, traced).items():
        for command in ("compare", "diagnose"):
            assert main([command, str(CLASSES), str(path)]) == 2, name
            err = capsys.readouterr().err
            assert err.startswith("npbert: "), name
            assert message in err, name


def test_numbers_that_are_none_are_counted_and_never_the_same(model, traced):
    name = "transformer.layer.2.ffn.lin1"
    wrong = candidate(traced).arrays[name].copy()
    wrong[0, 0, :3] = np.nan, np.inf, -np.inf
    found = npbert.compare(model, candidate(traced, **{name: wrong}))
    assert (found.first.name, found.first.not_finite) == (name, 3)
    assert [step.name for step in found.steps if step.off] == [name]
    (finding,) = npbert.diagnose(model, candidate(traced, **{name: wrong})).findings
    assert finding.evidence == "3 of 360 values are not finite"


# ---- the command line ---------------------------------------------------------------------------


def test_trace_compare_and_diagnose_speak_in_statuses(tmp_path, capsys, traced):
    good, bad = tmp_path / "good.npz", tmp_path / "bad"
    ids = " ".join(map(str, IDS[0]))
    assert main(["trace", str(CLASSES), "--ids", ids, "--dtype", "float32", "-o", str(good)]) == 0
    candidate(traced, logits=candidate(traced).arrays["logits"] + 1).save(bad)
    assert main(["compare", str(CLASSES), str(good)]) == 0
    assert "the same, within the rounding of float32" in capsys.readouterr().out
    assert main(["compare", str(CLASSES), str(bad)]) == 1
    assert "first wrong step: logits" in capsys.readouterr().out
    assert main(["compare", "--json", str(CLASSES), str(bad)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["same"], told["first"]) == (False, "logits")
    assert main(["diagnose", str(CLASSES), str(good)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert main(["diagnose", "--json", str(CLASSES), str(bad)]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["step"], finding["evidence"]) == ("logits", "every value has 1 added")
    again = tmp_path / "again.safetensors"
    assert main(["trace", str(CLASSES), "--inputs", str(good), "-o", str(again)]) == 0
    assert np.array_equal(npbert.Trace.load(again).arrays["input_ids"], [IDS[0]])
    assert main(["compare", str(again), str(good)]) == 0


def test_verify_holds_this_installation_to_its_bounds(capsys):
    checks = list(verify())
    assert len(checks) == 13 * len(BOUNDS)
    assert {(check.family, check.architecture) for check in checks} == {
        (family, name) for family in FAMILIES for name in list_architectures(family)
    }
    assert all(check.passed for check in checks)
    assert not replace(checks[0], worst=float("nan")).passed
    assert main(["verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_a_checkpoint_is_held_to_what_was_published_of_its_name(tmp_path, capsys):
    name = "tiny-random-DistilBertForSequenceClassification"
    folder = tmp_path / "models--hf-internal-testing--" / name
    config = npbert.Config(
        vocab_size=99, hidden_size=8, num_attention_heads=2, intermediate_size=8, num_blocks=1
    )
    model = npbert.init(config, "for_sequence_classification")
    model.parameters["classifier.weight"][:] = 0
    model.parameters["classifier.bias"][:] = -0.0047, -0.0103  # what was published, and no more
    model.save(folder)
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("ok  for_sequence_classification")
    model.parameters["classifier.bias"][0] = 1
    model.save(folder)
    assert main(["verify", str(folder)]) == 1
    assert capsys.readouterr().out.startswith("OFF for_sequence_classification")
    assert main(["verify", str(CLASSES)]) == 2
    assert "nothing was published of a checkpoint of this name" in capsys.readouterr().err
    hub = Path("cache/models--distilbert--distilbert-base-uncased/snapshots/1234")
    assert repository_name(hub) == "distilbert-base-uncased"


def test_what_ships_is_what_was_recorded_and_small():
    files = [path for path in CASES_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 2_200_000
    recorded = {path.read_bytes() for path in GOLDEN.glob("*Bert*/*")}
    assert all(path.read_bytes() in recorded for path in files)
    assert len(case_folders()) == 13


def test_a_candidate_is_a_trace_a_mapping_of_arrays_or_a_path(tmp_path):
    model = npbert.load(GOLDEN / "DistilBertForSequenceClassification", dtype="float64")
    path = GOLDEN / "ports" / "tanh_gelu.npz"
    trace = npbert.Trace.load(path)
    for given in (trace, dict(trace), path, str(path)):
        found = npbert.diagnose(model, given)
        assert [finding.step for finding in found.findings] == [
            "transformer.layer.0.attention.out_lin", "transformer.layer.0.ffn.activation",
        ]  # fmt: skip
        assert npbert.compare(model, given).first.name == found.comparison.first.name
    trace.save(tmp_path / "again")
    assert npbert.compare(tmp_path / "again", path).same
    assert npbert.compare(trace, {name: x.tolist() for name, x in trace.items()}).same


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "a trace is 7, expected a Trace, a mapping of names to arrays, or the path of a file "
            "or folder that holds one"),
        ({}, "a trace is empty, expected a mapping of names to arrays"),
        ({"input_ids": "a"}, "input_ids has dtype <U1, expected numbers"),
        ("nothing.npz", "nothing.npz: no such file or folder"),
    ],
)  # fmt: skip
def test_what_is_no_trace_is_refused_in_a_sentence(given, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = npbert.load(GOLDEN / "DistilBertForSequenceClassification", dtype="float64")
    for call in (npbert.compare, npbert.diagnose):
        with pytest.raises(npbert.InputError) as raised:
            call(model, given)
        assert str(raised.value) == message
    with pytest.raises(npbert.InputError, match=r"^model is .*, expected a Model: npbert.load"):
        npbert.diagnose(tmp_path, {})


@pytest.mark.parametrize("path", [5, b"x", None, "", "a\0b"])
def test_a_path_of_a_trace_that_is_none_is_named(path):
    why = (
        r"the path of a trace is .*, expected that of a \.safetensors or \.npz file, or of a folder"
    )
    trace = npbert.Trace({"logits": np.zeros(1)})
    for use in (npbert.Trace.load, trace.save):
        with pytest.raises(npbert.InputError, match=why):
            use(path)


@pytest.mark.parametrize("names", ["pytorch", 5])
def test_names_that_map_nothing_are_named(names):
    trace = npbert.Trace({"logits": np.zeros(1)})
    with pytest.raises(npbert.InputError, match=r"^names is .*, expected a mapping of their names"):
        npbert.compare(trace, trace, names=names)
