"""Dumps as ports write them: their names, their layouts, and arrays without any name."""

import json
import re
from typing import Any

import numpy as np
import pytest
from golden_cases import GOLDEN

import npbert
from npbert import InputError
from npbert.cli import main
from npbert.families import FAMILIES
from npbert.oracle.dialects import canonical_names
from npbert.oracle.layouts import fit_layout, fit_parts
from npbert.oracle.maps import read_map
from npbert.oracle.port_names import MAPS

IDS = np.array([[5, 17, 3, 80, 2, 9], [7, 96, 3, 0, 0, 0]])
MASK = (IDS != 0).astype(int)
BLOCK = "transformer.layer.{}."


@pytest.fixture(scope="module")
def models() -> dict[str, npbert.Model]:
    return {
        family: npbert.load(
            GOLDEN / f"{row.class_prefix}ForSequenceClassification", dtype="float64"
        )
        for family, row in FAMILIES.items()
    }


@pytest.fixture(scope="module")
def traces(models: dict[str, npbert.Model]) -> dict[str, npbert.Trace]:
    return {family: npbert.trace(model, IDS, MASK) for family, model in models.items()}


@pytest.fixture
def model(models: dict[str, npbert.Model]) -> npbert.Model:
    return models["distilbert"]


@pytest.fixture
def right(traces: dict[str, npbert.Trace]) -> dict[str, Any]:
    """What a port of DistilBERT in float32 has, without the lowest numbers."""
    return {
        n: np.maximum(x, -1e30).astype(np.float32) if x.dtype == float else x
        for n, x in traces["distilbert"].items()
    }


def given(right: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": right["input_ids"], "attention_mask": right["attention_mask"]}


# ---- names --------------------------------------------------------------------------------------

NAMES = {
    "onnx": {  # both exporters' forms, those of runtimes which read its files, and TensorFlow
        "/bert/embeddings/word_embeddings/Gather_output_0": "embeddings.word_embeddings",
        "/bert/embeddings/token_type_embeddings/Gather_output_0":
            "embeddings.token_type_embeddings",
        "/bert/embeddings/LayerNorm/LayerNormalization_output_0": "embeddings.LayerNorm",
        "/bert/encoder/layer.1/attention/self/query/Add_output_0": BLOCK + "attention.q_lin",
        "/bert/encoder/layer.1/attention/self/query/MatMul_output_0": "",
        "/bert/encoder/layer.1/attention/self/Div_output_0": BLOCK + "attention.scores",
        "/bert/encoder/layer.1/attention/self/Softmax_output_0": BLOCK + "attention.weights",
        "/bert/encoder/layer.1/attention/output/dense/Add_output_0": BLOCK + "attention.out_lin",
        "/bert/encoder/layer.1/attention/output/Add_output_0": BLOCK + "attention_residual",
        "/bert/encoder/layer.1/attention/output/LayerNorm/Add_1_output_0":
            BLOCK + "sa_layer_norm",
        "/bert/encoder/layer.1/intermediate/intermediate_act_fn/Mul_1_output_0":
            BLOCK + "ffn.activation",
        "/bert/encoder/layer.1/output/Add_output_0": BLOCK + "ffn_residual",
        "/bert/pooler/dense/Gemm_output_0": "pre_classifier",
        "/bert/pooler/activation/Tanh_output_0": "pooled",
        "/cls/predictions/transform/LayerNorm/LayerNormalization_output_0": "vocab_layer_norm",
        "/Shape_output_0": "",
        "/distilbert/transformer/layer.1/attention/Where_output_0":
            BLOCK + "attention.masked_scores",
        "distilbert/transformer/layer.1/Add_1_output_0": BLOCK + "ffn_residual",
        "/distilbert/transformer/layer.1/ffn/lin2/Add": BLOCK + "ffn.lin2",
        "__module.distilbert.transformer.layer.1.ffn.lin1/aten::linear/Add": BLOCK + "ffn.lin1",
        "__module.distilbert.transformer.layer.1.attention/aten::softmax/Softmax":
            BLOCK + "attention.weights",
        "tf_distil_bert_model/distilbert/transformer/layer_._1/attention/k_lin/BiasAdd:0":
            BLOCK + "attention.k_lin",
        "StatefulPartitionedCall/tf_distil_bert_model/distilbert/transformer/layer_._1/ffn/lin2/"
        "BiasAdd;tf_distil_bert_model/distilbert/transformer/layer_._1/ffn/lin2/MatMul":
            BLOCK + "ffn.lin2",
        "tf_bert_model/bert/encoder/layer_._1/output/LayerNorm/batchnorm/add_1:0":
            BLOCK + "output_layer_norm",
    },
    "dynamo": {
        "linear": "transformer.layer.0.attention.q_lin", "linear_7": BLOCK + "attention.k_lin",
        "linear_18": "pre_classifier", "linear_19": "classifier", "relu": "pooled",
        "add_4": "", "scaled_dot_product_attention_1": BLOCK + "attention.context", "matmul_3":
            BLOCK + "attention.context", "softmax_1": BLOCK + "attention.weights",
        "layer_norm": "embeddings.LayerNorm", "layer_norm_3": BLOCK + "sa_layer_norm",
        "gelu_1": BLOCK + "ffn.activation", "val_17": "", "transpose_4": "", "view": "",
    },
    "keras": {
        "token_and_position_embedding": "embeddings.sum",
        "distil_bert_backbone/embeddings_layer_norm": "embeddings.LayerNorm",
        "transformer_layer_1": BLOCK + "output_layer_norm",
        "transformer_layer_1/self_attention_layer/query": BLOCK + "attention.q_lin",
        "transformer_layer_1.feedforward_intermediate_dense": BLOCK + "ffn.activation",
        "padding_mask": "attention_mask", "token_ids": "input_ids", "segment_ids":
            "token_type_ids",
    },
    "pytorch": {
        "distilbert.transformer.layer.1.ffn.lin1": BLOCK + "ffn.lin1",
        "_orig_mod.distilbert.transformer.layer.1.ffn.lin1": BLOCK + "ffn.lin1",
        "0.auto_model.encoder.layer.1.output.dense": BLOCK + "ffn.lin2",
        "distilbert.transformer.layer.1.attention.q_lin.__call__.0": BLOCK + "attention.q_lin",
        "bert/encoder/layer/1/attention/self/value/__call__": BLOCK + "attention.v_lin",
        "distilbert_transformer_layer_1_sa_layer_norm": BLOCK + "sa_layer_norm",
        "Encoder.Layers[1].Attention.Self.Query": BLOCK + "attention.q_lin",
        "hiddenStates[2]": BLOCK + "output_layer_norm", "hidden_states_0": "embeddings.LayerNorm",
        "attentions_1": BLOCK + "attention.weights", "lastHiddenState": "last_hidden_state",
        "inputIds": "input_ids", "serving_default_input_ids:0": "input_ids",
        "transformer.layer.1.attention.qkv": ", ".join(
            BLOCK + f"attention.{each}_lin" for each in "qkv"
        ),
    },
    "ctranslate2": {
        "encoder/layer_1/self_attention/linear_1": BLOCK + "attention.out_lin",
        "encoder/layer_1/ffn/layer_norm": BLOCK + "output_layer_norm",
        "encoder/layernorm_embedding": "embeddings.LayerNorm",
    },
    "ggml": {"Kcur-1": BLOCK + "attention.k_lin", "kq_soft_max-1": BLOCK + "attention.weights"},
    "mlx": {"encoder.layers.1.attention.key_proj": BLOCK + "attention.k_lin"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "name", "step"),
    [(dialect, *row) for dialect, rows in NAMES.items() for row in rows.items()],
)
def test_a_name_is_that_of_a_step(dialect: str, name: str, step: str) -> None:
    known = {"pre_classifier", "pooled", "classifier", "logits"}
    family = (
        "bert" if "encoder" in name.lower() or "cls" in name or "bert/" in name else "distilbert"
    )
    found = canonical_names([name], {}, family, dialect=MAPS[dialect], blocks=3, known=known)
    assert found == ({name: step.replace("{}", "1")} if step else {})


def their_names(dialect: str, step: str) -> str | None:
    """Return what a system calls a step, or an input, by its table."""
    for theirs, target in MAPS[dialect].items():
        for n in range(3):
            number = f"{n}"
            if target.replace("{n}", number) == step and "*" not in theirs:
                return theirs.replace("{n}", number)
    return None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dialect", ["bumblebee", "keras", "ggml", "mlx", "ctranslate2"])
def test_a_dump_is_read_in_the_names_of_the_system_that_most_are_of(
    dialect: str, family: str, models: Any, traces: Any
) -> None:
    mine = canonical_names(traces[family], {}, family)
    dump = {}
    for name, x in traces[family].items():
        theirs = their_names(dialect, mine[name]) or (name if name in ("input_ids",) else None)
        if theirs:
            dump[theirs] = x
    dump |= {"attention_mask": MASK} if dialect != "keras" else {}
    found = npbert.compare(models[family], dump)
    assert found.same
    assert len(found.steps) > 18
    assert f"the names are read as those of --map {dialect}" in found.notes


def test_a_trace_of_a_bert_is_one_under_names_with_its_prefix_too(traces: Any) -> None:
    long = {f"bert.{name}": x for name, x in traces["bert"].activations.items()}
    short = traces["bert"].activations
    for one, other in ((long, short), (short, long), (long, long)):
        found = npbert.compare(one, other)
        assert found.same
        assert len(found.steps) == len(long)
        assert found.notes == []


def test_folders_in_a_folder_are_names(tmp_path: Any, model: Any, right: Any) -> None:
    for name, x in right.items():
        path = tmp_path / "dump" / (name.replace(".", "/") + ".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, x)
    found = npbert.compare(model, tmp_path / "dump")
    assert found.same
    assert len(found.steps) == len(npbert.trace(model, IDS, MASK).activations)


# ---- layouts ------------------------------------------------------------------------------------

QKV = [f"transformer.layer.1.attention.{each}_lin" for each in "qkv"]


def split(x: Any) -> Any:
    return x.reshape(*x.shape[:-1], 3, 8)


FUSED = {
    "one after the other": lambda q: np.concatenate(q, -1),
    "head by head": lambda q: np.stack([split(x) for x in q], -2).reshape(2, 6, 72),
    "numbers side by side": lambda q: np.stack(q, -1).reshape(2, 6, 72),
    "on an axis of their own": lambda q: np.stack(q),
    "on the third axis, heads split": lambda q: np.stack([split(x) for x in q], 2),
    "heads first": lambda q: np.stack([split(x).transpose(0, 2, 1, 3) for x in q]),
    "without padding": lambda q: np.concatenate(q, -1)[MASK != 0],
    "without padding, heads split": lambda q: np.stack([split(x) for x in q], 2)[MASK != 0],
}


@pytest.mark.parametrize("join", FUSED.values(), ids=FUSED)
def test_queries_keys_and_values_may_be_one_array(join: Any, model: Any, right: Any) -> None:
    dump = {**right, "transformer.layer.1.attention.qkv": join([right.pop(n) for n in QKV])}
    for name in QKV:
        del dump[name]
    for name in ("scores", "masked_scores"):  # there are none of padding
        del dump[f"transformer.layer.1.attention.{name}"]
    found = npbert.compare(model, dump)
    assert found.same
    assert {each.name for each in found.steps} >= set(QKV)
    assert any(note.startswith(f"{QKV[2]}: one of 3 in an array of") for note in found.notes)
    assert npbert.diagnose(model, dump).findings == []


STATES = ["embeddings.LayerNorm", *(f"transformer.layer.{i}.output_layer_norm" for i in range(3))]
STACKS = {
    "first axis": (4, lambda s: np.stack(s)),
    "second axis": (4, lambda s: np.stack(s, 1)),
    "with the features": (4, lambda s: np.concatenate(s, -1)),
    "without the embeddings": (3, lambda s: np.stack(s[1:])),
    "a tuple": (4, tuple),
    "without padding": (4, lambda s: np.stack([x[MASK != 0] for x in s])),
}


@pytest.mark.parametrize(("count", "join"), STACKS.values(), ids=STACKS)
def test_hidden_states_may_be_one_array(count: int, join: Any, model: Any, right: Any) -> None:
    dump = {**given(right), "hidden_states": join([right[name] for name in STATES])}
    found = npbert.compare(model, dump)
    assert found.same
    assert [each.name for each in found.steps] == STATES[-count:]
    shifted = [*STATES[1:], STATES[-1]]
    wrong = {**given(right), "hidden_states": join([right[name] for name in shifted])}
    assert not npbert.compare(model, wrong).same


LAYOUTS = {
    "batch and heads as one axis": lambda x: split(x).transpose(0, 2, 1, 3).reshape(6, 6, 8),
    "heads and batch as one axis": lambda x: split(x).transpose(2, 0, 1, 3).reshape(6, 6, 8),
    "transposed keys": lambda x: split(x).transpose(0, 2, 3, 1).reshape(6, 8, 6),
    "length first, batch and heads as one axis": lambda x: x.transpose(1, 0, 2).reshape(6, 6, 8),
    "an image": lambda x: x.transpose(0, 2, 1)[:, :, None],
    "tokens alone": lambda x: x[MASK != 0],
    "tokens alone, a batch of one": lambda x: x[MASK != 0][None],
    "tokens alone, in columns": lambda x: x[MASK != 0].T,
    "tokens alone, heads split": lambda x: split(x[MASK != 0]),
}


@pytest.mark.parametrize("turn", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_that_does_no_harm_is_repaired(turn: Any, right: Any) -> None:
    like = right["transformer.layer.1.attention.k_lin"]
    found = fit_layout(turn(like), like, 3, MASK != 0)
    assert found is not None
    live = MASK != 0 if "padding" in found.how else np.ones(MASK.shape, bool)
    assert np.array_equal(found.array[live], like[live])
    assert not found.array[~live].any()
    assert found.how


def test_what_fits_no_step_is_no_part_of_an_array() -> None:
    like = np.zeros((2, 6, 24))
    assert fit_layout(np.zeros((5, 24)), like, 3, MASK != 0) is None
    assert fit_parts(np.zeros((4, 2, 6, 24)), [like] * 3, 3) is None


@pytest.mark.parametrize("lengths", [{"cu_seqlens": [0, 6, 9]}, {"seq_lens": [6, 3]},
                                     {"attention_mask": MASK}])  # fmt: skip
def test_inputs_may_leave_out_padding(lengths: Any, model: Any, right: Any) -> None:
    tokens = MASK != 0
    dump = {"input_ids": IDS[tokens], "logits": right["logits"],
            "transformer.layer.0.ffn.lin1": right["transformer.layer.0.ffn.lin1"][tokens],
            **{name: np.array(x) for name, x in lengths.items()}}  # fmt: skip
    found = npbert.diagnose(model, dump)
    assert found.findings == []
    assert [step.name for step in found.comparison.steps] == [
        "transformer.layer.0.ffn.lin1", "logits",
    ]  # fmt: skip
    assert found.notes[0] == "padding was left out of the inputs; the batch is (2, 6)"


def test_lengths_of_other_tokens_are_refused(model: Any, right: Any) -> None:
    dump = {
        "input_ids": np.arange(9),
        "cu_seqlens": np.array([0, 6, 10]),
        "logits": right["logits"],
    }
    with pytest.raises(InputError) as error:
        npbert.compare(model, dump)
    assert str(error.value) == "input_ids are 9 tokens, and the lengths of the sequences [6, 4]"


# ---- arrays without a name ----------------------------------------------------------------------


def test_arrays_under_other_names_are_known_by_their_values(model: Any, right: Any) -> None:
    rng = np.random.default_rng(2)
    names = [n for n in right if n not in ("input_ids", "attention_mask")]
    dump = {**given(right)}
    kept = {}
    for i, name in enumerate(n for n in names if n not in ("logits", "position_ids",
                                                           "attention_head_mask")):  # fmt: skip
        kept[f"v{'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}"] = right[name]
    order = rng.permutation(list(kept))
    found = npbert.compare(model, dump | {str(name): kept[name] for name in order})
    assert found.same
    assert len(found.steps) == len(kept)
    assert "embeddings.word_embeddings: is 'vaa', guessed by its value" in found.notes


def test_arrays_that_differ_in_a_number_are_one_step_of_every_block(model: Any) -> None:
    wrong = npbert.trace(model, IDS, MASK).arrays
    scale = np.float64(1.4)  # a port that is wrong in the first block, and all that follows
    dump = {f"out{i + 7}": wrong[name] * scale for i, name in enumerate(STATES[1:])}
    found = npbert.compare(model, {"input_ids": IDS, "attention_mask": MASK, **dump})
    assert [step.name for step in found.steps] == STATES[1:]
    assert found.notes == [
        "transformer.layer.0.output_layer_norm (blocks 0, 1, 2): is 'out7', guessed by its value"
    ]
    assert found.first is not None


def test_a_name_that_ends_as_a_steps_is_that_steps(models: Any, traces: Any) -> None:
    block = "transformer.layer.1."
    endings = {
        "distilbert": {"L1_masked_scores": "attention.masked_scores", "L1_scores":
                       "attention.scores", "L1.context": "attention.context"},
        "bert": {"L1/attention/query": "attention.q_lin", "L1_intermediate_dense": "ffn.lin1"},
    }  # fmt: skip
    for family, rows in endings.items():
        mine = {ours: name for name, ours in canonical_names(traces[family], {}, family).items()}
        steps = {theirs: mine[block + step] for theirs, step in rows.items()}
        dump = {theirs: -traces[family][step] for theirs, step in steps.items()}
        given = {"input_ids": IDS, "attention_mask": MASK}
        found = npbert.compare(models[family], {**given, **dump})
        assert {step.name for step in found.steps} == set(steps.values())
        for theirs, step in steps.items():
            assert f"{step}: is {theirs!r}, guessed by its name" in found.notes
    name = mine[block + "ffn.lin2"]  # a monkey is no key
    found = npbert.compare(models["bert"], {**given, "monkey": traces["bert"][name]})
    assert [step.name for step in found.steps] == [name]


def test_a_wrong_port_without_names_is_not_right(model: Any) -> None:
    port = dict(npbert.Trace.load(GOLDEN / "ports" / "tanh_gelu.npz"))
    dump = {name: port.pop(name) for name in ("input_ids", "attention_mask")}
    letters = ("".join(chr(97 + int(digit)) for digit in f"{i:03}") for i in range(len(port)))
    whose = dict(zip(letters, port, strict=True))
    found = npbert.diagnose(model, dump | {theirs: port[name] for theirs, name in whose.items()})
    assert [finding.causes for finding in found.findings] == [
        ("attention.out_lin: bias missing",), ("computed with the tanh approximation of GELU",),
    ]  # fmt: skip
    guesses = [re.fullmatch(r"(\S+).*: is '(\w+)', guessed by its value", n) for n in found.notes]
    assert all(each is None or whose[each[2]] == each[1] for each in guesses)


def test_an_array_of_a_shape_of_its_own_is_known_by_it(model: Any, right: Any) -> None:
    found = npbert.compare(model, {**given(right), "y": -right["logits"]})
    assert [step.name for step in found.steps if step.off] == ["classifier"]
    assert found.notes == ["classifier: is 'y', guessed by its shape"]


def test_inputs_without_a_name_are_known_by_their_values(model: Any, right: Any) -> None:
    found = npbert.compare(model, [IDS, MASK, *[right[name] for name in STATES]])
    assert [step.name for step in found.steps] == STATES
    assert found.same
    assert found.notes[:2] == [
        "input_ids: is '0', guessed by its value", "attention_mask: is '1', guessed by its value",
    ]  # fmt: skip
    for two in ([IDS, IDS // 2 + 1], [MASK]):  # of which none is known
        with pytest.raises(InputError, match=r"has no input_ids.* Write the inputs"):
            npbert.compare(model, [*two, right["logits"]])


def test_blocks_may_be_numbered_from_1(model: Any, right: Any) -> None:
    def renumber(name: str) -> str:
        return re.sub(r"(?<=layer\.)\d", lambda m: str(int(m[0]) + 1), name)

    found = npbert.compare(model, {renumber(name): x for name, x in right.items()})
    assert found.same
    assert found.notes == ["the blocks are numbered from 1"]
    assert len(found.steps) == len(npbert.trace(model, IDS, MASK).activations)


def test_layouts_are_repaired_between_two_traces_too(traces: Any) -> None:
    ours = traces["distilbert"]
    name = "transformer.layer.1.attention.q_lin"
    for turn in (LAYOUTS["tokens alone"], LAYOUTS["batch and heads as one axis"]):
        found = npbert.compare(ours, {"attention_mask": MASK, name: turn(ours[name])})
        assert [step.name for step in found.steps] == [name]
        assert found.same
        assert len(found.notes) == 1
    assert npbert.compare(ours, {name: split(ours[name])}).same


def test_a_trace_may_be_a_list_of_arrays(traces: Any) -> None:
    every = list(traces["distilbert"].activations.values())
    found = npbert.compare(traces["distilbert"], every)
    assert found.same
    assert len(found.steps) == len(every)


def test_a_nest_of_arrays_is_one_of_names(model: Any, right: Any) -> None:
    name = "transformer.layer.0.ffn.lin1"
    nest: dict[str, Any] = {"transformer": {"layer": [{"ffn": {"lin1": (right[name],)}}]}}
    found = npbert.compare(model, {**given(right), **nest, "loss": None})
    assert found.same
    assert [step.name for step in found.steps] == [name]


def test_a_nest_that_holds_itself_is_refused(model: Any) -> None:
    nest: list[Any] = []
    nest.append({"a": nest})
    for call in (npbert.compare, npbert.diagnose):
        with pytest.raises(InputError, match=r"^a trace is .*, which holds itself, or nearly so$"):
            call(model, nest)


# ---- what is not understood ---------------------------------------------------------------------


def test_a_candidate_is_not_judged_by_a_small_part_of_it(
    model: Any, right: Any, tmp_path: Any, capsys: Any
) -> None:
    noise = {f"x{c}": np.zeros((2, 6, 24), np.float32) for c in "abc"}
    dump = {**given(right), "logits": right["logits"], **noise}
    with pytest.raises(InputError) as error:
        npbert.compare(model, dump)
    assert str(error.value) == (
        "1 of 4 arrays were understood: logits; not so xa, xb, xc. Name them as npbert does, or in "
        "a file for --map (npbert trace MODEL --names prints one to fill in), or judge what was "
        "understood: partial=True"
    )
    assert npbert.compare(model, dump, partial=True).same
    assert npbert.diagnose(model, dump, partial=True).findings == []
    folder = str(GOLDEN / "DistilBertForSequenceClassification")
    npbert.Trace(dump).save(tmp_path / "dump.npz")
    for command in ("compare", "diagnose"):
        assert main([command, folder, str(tmp_path / "dump.npz")]) == 2
        assert capsys.readouterr().err.endswith("or judge what was understood: --partial\n")
        assert main([command, folder, str(tmp_path / "dump.npz"), "--partial"]) == 0


def test_a_misspelt_name_is_told_with_what_it_may_mean(model: Any, right: Any) -> None:
    noise = np.zeros((2, 6, 24), np.float32)
    found = npbert.compare(model, {**right, "transformer.layer.0.ffn.ln2": noise})
    assert found.notes == [
        "not understood, and left out: transformer.layer.0.ffn.ln2 (did you mean "
        "'transformer.layer.0.ffn.lin2'?)"
    ]


def test_a_template_of_names_is_a_map(tmp_path: Any, capsys: Any, models: Any, traces: Any) -> None:
    for family, prefix in (("distilbert", "DistilBert"), ("bert", "Bert")):
        folder = str(GOLDEN / f"{prefix}ForSequenceClassification")
        assert main(["trace", folder, "--names"]) == 0
        text = capsys.readouterr().out
        assert '"input_ids" = "input_ids"\n' in text
        assert ('"encoder.layer.{n}.attention.self.query"' in text) == (family == "bert")
        assert "# (batch, heads, query, key)\n" in text
        path = tmp_path / f"{family}.toml"
        path.write_text(text)
        table = read_map(str(path))
        assert all(theirs == ours for theirs, ours in table.items())
        assert npbert.compare(models[family], traces[family], names=table).notes == []
        path.write_text(text.replace('"embeddings.sum" =', '"start" ='))
        dump = {("start" if n == "embeddings.sum" else n): x for n, x in traces[family].items()}
        found = npbert.compare(models[family], dump, names=read_map(str(path)))
        assert (found.same, found.notes) == (True, [])
    assert main(["trace", folder, "--ids", "1"]) == 2
    assert capsys.readouterr().err == "npbert: trace needs -o FILE, or --names\n"


def test_a_map_that_leads_nowhere_is_refused(model: Any, right: Any) -> None:
    with pytest.raises(InputError) as error:
        npbert.compare(model, right, names={"a.{n}": "transformer.layer.{n}.ffn.lin3"})
    assert str(error.value) == (
        "the map says that 'a.{n}' is 'transformer.layer.{n}.ffn.lin3', which is no value that "
        "npbert knows; did you mean 'transformer.layer.{n}.ffn.lin2'?"
    )
    found = npbert.compare(model, right, names={"a.{n}": "transformer.layer.{n}.ffn.lin2"})
    assert found.notes == ["nothing is called so, as the map says: a.{n}"]


@pytest.mark.parametrize("template", ["{n}.{n+1}", "a*b*", "a\x01{n}", "\x02*"])
def test_a_template_has_one_number_and_one_star(template: str, model: Any, right: Any) -> None:
    with pytest.raises(InputError, match="at most once, and \\* at most once"):
        npbert.compare(model, right, names={template: "logits"})
    assert npbert.compare(model, right, names={"{0n}": "logits"}).same  # no number at all


def test_a_map_comes_first_and_the_rest_is_guessed(model: Any, right: Any) -> None:
    dump = {name.replace("ffn.lin2", "up") if "lin2" in name else name: x
            for name, x in right.items()}  # fmt: skip
    dump["debug"] = np.zeros((2, 6, 24), np.float32)
    names = {"transformer.layer.{n}.up": "transformer.layer.{n}.ffn.lin2", "debug": ""}
    found = npbert.compare(model, dump, names=names)
    assert (found.same, found.notes) == (True, [])
    assert len(found.steps) == len(npbert.trace(model, IDS, MASK).activations)


def test_a_file_that_is_cut_short_says_so(tmp_path: Any, right: Any) -> None:
    path = tmp_path / "cut.safetensors"
    npbert.Trace(right).save(path)
    whole = path.read_bytes()
    for size in (len(whole) - 9, len(whole) // 2, 500, 20, 5):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.safetensors: .*cut short"):
            npbert.Trace.load(path)


def test_the_json_of_a_comparison_tells_what_was_guessed(
    model: Any, right: Any, tmp_path: Any, capsys: Any
) -> None:
    npbert.Trace({**given(right), "y": right["logits"]}).save(tmp_path / "y.npz")
    folder = str(GOLDEN / "DistilBertForSequenceClassification")
    assert main(["compare", folder, str(tmp_path / "y.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [
        "classifier: is 'y', guessed by its value"
    ]
