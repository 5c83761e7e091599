"""Tensors become parameters: names, ties, shapes, and a report on every one."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
    IDS,
    LABELS,
    drawn,
    load,
    message,
    prefixed,
    report,
    same,
    settings,
    without,
    write,
)
from corruption.checkpoint import SIZES, Tensors

import npbert
from npbert import NpbertWarning
from npbert.checkpoint.parameters import LoadReport, canonical_name, sinusoids
from npbert.families import list_architectures

ARCHITECTURES = list_architectures("distilbert")

BASE, MASKED, CLASSES = "base", "for_masked_language_modeling", "for_sequence_classification"
TOKENS, ANSWERS, CHOICES = (
    "for_token_classification",
    "for_question_answering",
    "for_multiple_choice",
)
WORDS, PROJECTOR = "embeddings.word_embeddings.weight", "vocab_projector.weight"
PLACES = "embeddings.position_embeddings.weight"
QUERY = "transformer.layer.1.attention.q_lin.weight"
BLOCKS = "blocks are neither dropped nor invented"
CHANGES = "a tensor that npbert does not know may change what the model computes"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("rename", "told"),
    [
        (lambda tensors: tensors, False),
        (prefixed, False),
        (lambda tensors: prefixed(tensors, "model."), True),
        (lambda tensors: {f"module.{n}": x for n, x in prefixed(tensors).items()}, True),
        (lambda tensors: {f"model.{n}": x for n, x in prefixed(tensors).items()}, True),
        (lambda tensors: {f"module.model.{n}": x for n, x in prefixed(tensors).items()}, True),
        (lambda tensors: {f"distilbert.{n}": x for n, x in tensors.items()}, False),
    ],
)
def test_prefixes_of_wrappers_do_not_matter(
    tmp_path: Path, architecture: str, rename: Callable[[Tensors], Tensors], told: bool
) -> None:
    tensors = drawn(architecture)
    model = load(tmp_path, rename(tensors), architecture)
    assert same(model.parameters, tensors)
    assert bool(report(model).renamed) == told
    assert all(
        canonical_name(theirs, "distilbert") == ours
        for theirs, ours in report(model).renamed.items()
    )


def test_gamma_and_beta_are_read_in_every_norm(tmp_path: Path) -> None:
    tensors = drawn(MASKED)
    old = {}
    for name, array in prefixed(tensors).items():
        if "norm" in name.lower():
            name = name.replace("weight", "gamma").replace("bias", "beta")
        old[name] = array
    model = load(tmp_path, old, MASKED)
    assert same(model.parameters, tensors)
    assert len(report(model).renamed) == 2 * (1 + 2 * SIZES["n_layers"] + 1)
    assert report(model).renamed["vocab_layer_norm.gamma"] == "vocab_layer_norm.weight"
    beta = "distilbert.transformer.layer.1.sa_layer_norm.beta"
    assert report(model).renamed[beta] == "transformer.layer.1.sa_layer_norm.bias"


def test_two_names_of_one_tensor_are_named(tmp_path: Path) -> None:
    tensors = drawn(BASE)
    found = message(tmp_path, tensors | {f"distilbert.{WORDS}": tensors[WORDS]}, BASE)
    pair = [WORDS, f"distilbert.{WORDS}"]
    assert found in [f"{x} and {y} are two names of one tensor" for x, y in (pair, pair[::-1])]


def test_the_report_tells_dtypes_and_buffers(tmp_path: Path) -> None:
    tensors = drawn(BASE)
    buffer = {"embeddings.position_ids": np.arange(16)[None]}
    half = {name: x.astype(np.float16) for name, x in tensors.items() if x.ndim == 1}
    model = load(tmp_path, tensors | half | buffer, BASE)
    assert report(model) == LoadReport(
        stored={"F16": len(half), "F32": len(tensors) - len(half), "I64": 1},
        renamed={},
        ignored=("embeddings.position_ids",),
    )
    assert {x.dtype for x in model.parameters.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(model.parameters[name], x) for name, x in half.items())


@pytest.mark.parametrize("absent", [(PROJECTOR,), ()])
def test_a_projector_that_is_absent_or_equal_is_the_words(
    tmp_path: Path, absent: tuple[str, ...]
) -> None:
    tensors = drawn(MASKED)
    model = load(tmp_path, without(tensors, *absent), MASKED)
    assert same(model.parameters, tensors)
    assert model.parameters[PROJECTOR] is model.parameters[WORDS]
    assert report(model).tied == absent


@pytest.mark.parametrize("architecture", [MASKED, BASE])
def test_words_that_are_not_there_are_the_projector(tmp_path: Path, architecture: str) -> None:
    tensors = drawn(MASKED)
    model = load(tmp_path, without(tensors, WORDS), architecture)
    words = model.parameters[WORDS]
    assert np.array_equal(words, tensors[PROJECTOR])
    assert model.parameters.get(PROJECTOR, words) is words
    assert report(model).tied == (WORDS,)
    assert PROJECTOR not in report(model).unused


def test_of_two_tied_tensors_that_differ_the_words_win_with_a_warning(tmp_path: Path) -> None:
    tensors = drawn(MASKED, tie_word_embeddings=False)
    with pytest.warns(NpbertWarning) as caught:
        model = npbert.load(write(tmp_path, tensors, settings(MASKED)))
    expected = f"{WORDS} and {PROJECTOR} differ although tie_word_embeddings is true; {WORDS} "
    expected += "serves as both (tie_word_embeddings=False keeps them apart)"
    assert [(str(w.message), w.filename) for w in caught] == [(expected, __file__)]
    assert model.parameters[PROJECTOR] is model.parameters[WORDS]
    assert np.array_equal(model.parameters[WORDS], tensors[WORDS])


def test_untied_words_and_projector_are_kept_apart(tmp_path: Path) -> None:
    tensors = drawn(MASKED, tie_word_embeddings=False)
    model = load(tmp_path, tensors, MASKED, tie_word_embeddings=False)
    assert same(model.parameters, tensors)
    for name in (WORDS, PROJECTOR):
        found = message(tmp_path, without(tensors, name), MASKED, tie_word_embeddings=False)
        assert found.startswith(f"missing: {name}")
        assert "another task" not in found


def test_a_task_file_serves_as_base_and_pools_only_with_its_own_weights(tmp_path: Path) -> None:
    classifier = load(tmp_path / "a", prefixed(drawn(CLASSES)), BASE)
    assert classifier(IDS).pooled_state is not None
    assert report(classifier).unused == ("classifier.bias", "classifier.weight")
    tagger = load(tmp_path / "b", prefixed(drawn(TOKENS)), BASE)
    assert tagger(IDS).pooled_state is None
    assert "pre_classifier.weight" not in tagger.parameters
    half = without(drawn(CLASSES), "pre_classifier.bias")
    assert message(tmp_path / "c", half, BASE).startswith("missing: pre_classifier.bias")


MISSING_HEADS = {
    MASKED: "vocab_transform.weight, vocab_transform.bias, vocab_layer_norm.weight, "
    "vocab_layer_norm.bias, vocab_projector.bias",
    CLASSES: "pre_classifier.weight, pre_classifier.bias, classifier.weight, classifier.bias",
    TOKENS: "classifier.weight, classifier.bias",
    ANSWERS: "qa_outputs.weight, qa_outputs.bias",
    CHOICES: "pre_classifier.weight, pre_classifier.bias, classifier.weight, classifier.bias",
}


@pytest.mark.parametrize("architecture", MISSING_HEADS)
def test_a_base_file_has_no_head_and_the_error_names_it(tmp_path: Path, architecture: str) -> None:
    missing = MISSING_HEADS[architecture]
    assert message(tmp_path, drawn(BASE), architecture) == (
        f"missing: {missing}; the checkpoint was made for another task than {architecture} "
        "(strict=False draws these at random, for training)"
    )


@pytest.mark.parametrize("architecture", MISSING_HEADS)
def test_a_head_is_drawn_where_that_was_asked_for(tmp_path: Path, architecture: str) -> None:
    tensors = drawn(BASE)
    with pytest.warns(NpbertWarning) as caught:
        model = load(tmp_path, tensors, architecture, strict=False)
    missing = MISSING_HEADS[architecture]
    assert [str(w.message) for w in caught] == [
        f"{tmp_path}: drawn at random, because the checkpoint does not have them: {missing}; "
        "train them before you trust an answer"
    ]
    assert report(model).initialised == tuple(missing.split(", "))
    with warnings.catch_warnings(action="ignore"):
        again = npbert.load(tmp_path, strict=False)
    assert same(again.parameters, model.parameters)
    assert tensors.keys() <= model.parameters.keys()
    assert (model.parameters.get("vocab_layer_norm.weight", np.ones(1)) == 1).all()
    matrices = [model.parameters[n] for n in missing.split(", ") if n.endswith("er.weight")]
    assert all(0 < np.abs(x).max() < 0.1 for x in matrices)


def test_the_trunk_is_never_drawn(tmp_path: Path) -> None:
    lacking = without(drawn(CLASSES), QUERY, "classifier.bias")
    assert message(tmp_path, lacking, CLASSES, strict=False) == f"missing: {QUERY}"
    assert message(tmp_path, lacking, CLASSES) == f"missing: {QUERY}, classifier.bias"


def test_unknown_tensors_are_named_and_ignored_only_on_demand(tmp_path: Path) -> None:
    tensors = drawn(BASE) | {"model.adapter.weight": np.ones(3, np.float32)}
    assert message(tmp_path, tensors, BASE) == (
        f"unknown: model.adapter.weight; {CHANGES} (strict=False ignores it)"
    )
    with pytest.warns(NpbertWarning, match="ignored, because npbert does not know them") as caught:
        model = load(tmp_path, tensors, BASE, strict=False)
    assert len(caught) == 1
    assert report(model).ignored == ("model.adapter.weight",)


def test_blocks_are_counted(tmp_path: Path) -> None:
    three = drawn(BASE, n_layers=3)
    assert message(tmp_path, three, BASE) == (
        f"the file has 3 blocks (0, 1, 2), but num_blocks (n_layers in config.json) is 2; {BLOCKS}"
    )
    gone = {name: x for name, x in three.items() if ".layer.1." not in name}
    assert message(tmp_path, gone, BASE, n_layers=3) == (
        f"the file has 2 blocks (0, 2), but num_blocks (n_layers in config.json) is 3; {BLOCKS}"
    )


def test_a_file_with_the_right_number_of_wrong_blocks_is_refused(tmp_path: Path) -> None:
    gap = {name.replace(".layer.1.", ".layer.7."): x for name, x in drawn(BASE).items()}
    found = message(tmp_path, gap, BASE)
    assert found.startswith("missing: transformer.layer.1.attention.q_lin.weight, ")
    assert "\n  unknown: transformer.layer.7." in found


D, F = SIZES["dim"], SIZES["hidden_dim"]
SHAPES: list[tuple[str, str, tuple[int, ...], str]] = [
    (BASE, "transformer.layer.1.ffn.lin1.weight", (D, F), f"expected (F, D) = ({F}, {D}); it "
     "looks transposed (PyTorch keeps linear weights as (out, in))"),
    (BASE, "embeddings.LayerNorm.bias", (D + 1,), f"expected D = {D}"),
    (BASE, WORDS, (59, D), f"expected (V, D) = (60, {D})"),
    (BASE, PLACES, (16, D, 1), f"expected (P, D) = (16, {D})"),
    (BASE, QUERY, (16, D), f"expected (A, D) = ({D}, {D}); heads were pruned, and pruned_heads "
     "in config.json must say which"),
    (CLASSES, "classifier.weight", (3, D), f"expected (C, D) = ({LABELS}, {D}); id2label or "
     "num_labels in config.json does not fit this head"),
    (TOKENS, "classifier.bias", (3,), f"expected C = {LABELS}; id2label or num_labels in "
     "config.json does not fit this head"),
    (ANSWERS, "qa_outputs.bias", (3,), "expected 2 = 2"),
    (CHOICES, "classifier.weight", (3, D), f"expected (1, D) = (1, {D})"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "name", "shape", "expected"), SHAPES)
def test_a_wrong_shape_is_named_and_explained(
    tmp_path: Path, architecture: str, name: str, shape: tuple[int, ...], expected: str
) -> None:
    tensors = prefixed(drawn(architecture) | {name: np.ones(shape, np.float32)})
    theirs = next(iter(prefixed({name: tensors[next(iter(tensors))]})))
    assert message(tmp_path, tensors, architecture) == f"{theirs} has shape {shape}, {expected}"


def test_a_pruned_checkpoint_loads_when_the_configuration_says_so(tmp_path: Path) -> None:
    pruned = {"pruned_heads": {"1": [0]}}
    tensors = drawn(BASE, **pruned)
    assert tensors[QUERY].shape == (16, 24)
    model = load(tmp_path, tensors, BASE, **pruned)
    assert model(IDS, output_attentions=True).attentions[1].shape == (2, 2, 5, 5)


def test_a_wrong_dtype_is_named(tmp_path: Path) -> None:
    tensors = drawn(BASE) | {QUERY: np.ones((D, D), np.int8)}
    assert message(tmp_path, tensors, BASE) == (
        f"{QUERY} has dtype I8, expected one of F64, F32, F16, BF16"
    )


def test_all_faults_are_listed_a_line_each(tmp_path: Path) -> None:
    tensors = without(drawn(BASE), "embeddings.LayerNorm.bias") | {
        "extra": np.ones(1, np.float32),
        PLACES: np.ones((7, D), np.float32),
        QUERY: np.ones((D, D), np.int32),
    }
    assert message(tmp_path, tensors, BASE) == (
        f"missing: embeddings.LayerNorm.bias\n  unknown: extra; {CHANGES} (strict=False ignores "
        f"it)\n  {PLACES} has shape (7, {D}), expected (P, D) = (16, {D})\n  {QUERY} has dtype "
        "I32, expected one of F64, F32, F16, BF16"
    )


def test_waves_are_computed_only_where_the_file_has_no_positions(tmp_path: Path) -> None:
    tensors = drawn(BASE)
    rest = without(tensors, PLACES)
    model = load(tmp_path, tensors, BASE, sinusoidal_pos_embds=True)
    assert np.array_equal(model.parameters[PLACES], tensors[PLACES])
    assert report(model).generated == ()
    model = load(tmp_path, rest, BASE, sinusoidal_pos_embds=True)
    assert np.array_equal(model.parameters[PLACES], sinusoids(16, D))
    assert report(model).generated == (PLACES,)
    assert message(tmp_path, rest, BASE) == f"missing: {PLACES}"


def test_waves_are_sine_and_cosine_in_turn() -> None:
    waves = sinusoids(512, D)
    for p, i in ((0, 0), (0, 1), (3, 0), (3, 1), (511, 10), (511, 23)):
        angle = p / 10000 ** (2 * (i // 2) / D)
        assert waves[p, i] == np.float32(np.cos(angle) if i % 2 else np.sin(angle))
