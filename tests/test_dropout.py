"""Dropout is off unless asked for, and then drawn in the order that taps.Dropout describes."""

from typing import Any

import numpy as np
import pytest
import wild

import npbert

RATES = {
    "dropout_rate": 0.2, "attention_dropout_rate": 0.4, "classifier_dropout_rate": 0.3,
    "qa_dropout": 0.35,
}  # fmt: skip
NONE = dict.fromkeys(RATES, 0.0)
BATCH, LENGTH, WIDTH, HEADS, BLOCKS = 3, 7, 24, 3, 3


def seeded(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def thinned(rng: np.random.Generator, x: Any, rate: float) -> Any:
    """Columns, a draw each: below the rate becomes 0, the rest is scaled up."""
    return np.where(rng.random(x.shape) < rate, 0, x / (1 - rate))


def answers(output: npbert.Output) -> Any:
    if output.logits is not None:
        return output.logits
    if output.start_logits is not None:
        return np.stack([output.start_logits, output.end_logits], axis=-1)
    return output.hidden_state


def inputs(architecture: str) -> Any:
    choices = (1,) if architecture == "for_multiple_choice" else ()
    return wild.ids(BATCH, *choices, LENGTH)


@pytest.mark.parametrize("architecture", wild.ARCHITECTURES)
def test_a_seed_gives_the_same_answers_again_and_another_gives_others(architecture: str) -> None:
    model, ids = wild.model(architecture, **RATES), inputs(architecture)
    first, again, other = (answers(model(ids, dropout=seeded(seed))) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != answers(model(ids))).any()


@pytest.mark.parametrize("architecture", wild.ARCHITECTURES)
def test_rates_of_0_change_no_bit(architecture: str) -> None:
    model, ids = wild.model(architecture, "float32", **NONE), inputs(architecture)
    dropped = answers(model(ids, dropout=seeded()))
    assert dropped.dtype == np.float32
    assert (dropped == answers(model(ids))).all()


def test_the_first_draw_thins_out_the_embeddings() -> None:
    model, ids = wild.model(**RATES), wild.ids(BATCH, LENGTH)
    plain = model(ids, output_hidden_states=True).hidden_states[0]
    dropped = model(ids, output_hidden_states=True, dropout=seeded()).hidden_states[0]
    expected = thinned(seeded(), plain.reshape(-1, WIDTH).T, 0.2)
    np.testing.assert_allclose(dropped.reshape(-1, WIDTH).T, expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_then_every_block_draws_for_the_weights_text_by_text_and_for_the_ffn(dtype: str) -> None:
    output = wild.model(dtype=dtype, **RATES)(
        wild.ids(BATCH, LENGTH), output_attentions=True, dropout=seeded()
    )
    rng = seeded()
    rng.random((WIDTH, BATCH * LENGTH))  # the embeddings
    for weights in output.attentions:
        for text in weights:  # (heads, query, key); drawn as (heads, key, query)
            dropped = rng.random((HEADS, LENGTH, LENGTH)) < 0.4
            assert ((text.mT == 0) == dropped).all()
        rng.random((WIDTH, BATCH * LENGTH))  # the ffn


def drawn_by_the_encoder(batch: int) -> np.random.Generator:
    """A generator that stands where the draw for the head comes."""
    rng = seeded()
    columns = WIDTH * batch * LENGTH
    rng.random(columns + BLOCKS * (batch * HEADS * LENGTH**2 + columns))
    return rng


def test_the_ffn_draws_before_the_residual_connection() -> None:
    """Attention and ffn add only a bias here, so that the draw can be seen."""
    fields = {**NONE, "num_blocks": 1, "dropout_rate": 0.5}
    model, ids = wild.model(**fields), wild.ids(BATCH, LENGTH)
    w = {k.removeprefix("transformer.layer.0."): v for k, v in model.parameters.items()}
    silent = {**model.parameters}  # this one's attention and ffn add a constant bias only
    for name in ("attention.out_lin.weight", "ffn.lin2.weight"):
        silent[f"transformer.layer.0.{name}"] = np.zeros_like(w[name])
    model = npbert.Model(model.config, "base", silent)
    output = model(ids, output_hidden_states=True, dropout=seeded())

    rng = seeded()
    rng.random((WIDTH, BATCH * LENGTH))
    rng.random((BATCH, HEADS, LENGTH, LENGTH))
    x = output.hidden_states[0].reshape(-1, WIDTH).T
    x = norm(w, "sa_layer_norm", x + w["attention.out_lin.bias"][:, None])
    y = np.broadcast_to(w["ffn.lin2.bias"][:, None], x.shape)
    x = norm(w, "output_layer_norm", x + thinned(rng, y, 0.5))
    np.testing.assert_allclose(output.hidden_state.reshape(-1, WIDTH).T, x, rtol=0, atol=1e-12)


def norm(w: Any, name: str, x: Any) -> Any:
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-12)
    return w[f"{name}.weight"][:, None] * x + w[f"{name}.bias"][:, None]


@pytest.mark.parametrize(
    ("architecture", "layer", "rate"),
    [
        ("for_token_classification", "classifier", 0.3),
        ("for_question_answering", "qa_outputs", 0.35),
        ("for_sequence_classification", "classifier", 0.3),
        ("for_multiple_choice", "classifier", 0.3),
    ],
)
def test_the_last_draw_thins_out_what_the_classifier_reads_at_the_rate_of_its_architecture(
    architecture: str, layer: str, rate: float
) -> None:
    model = wild.model(architecture, **RATES)
    output = model(inputs(architecture), output_hidden_states=True, dropout=seeded())
    w = model.parameters
    read = output.hidden_states[-1]
    if architecture in ("for_sequence_classification", "for_multiple_choice"):
        pooler, bias = w["pre_classifier.weight"], w["pre_classifier.bias"]
        read = np.maximum(read[:, 0] @ pooler.T + bias, 0)
    x = thinned(drawn_by_the_encoder(BATCH), read.reshape(-1, WIDTH).T, rate)
    expected = (w[f"{layer}.weight"] @ x).T + w[f"{layer}.bias"]
    actual = answers(output).reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", ["base", "for_masked_language_modeling"])
def test_heads_without_dropout_draw_nothing(architecture: str) -> None:
    rng = seeded()
    wild.model(architecture, **RATES)(wild.ids(BATCH, LENGTH), dropout=rng)
    assert rng.random() == drawn_by_the_encoder(BATCH).random()


def test_the_rate_of_the_classifier_is_that_of_the_rest_unless_the_config_says_otherwise() -> None:
    ids = inputs("for_token_classification")
    silent, said = (
        wild.model("for_token_classification", **{**RATES, "classifier_dropout_rate": rate})
        for rate in (None, 0.2)
    )
    dropped = [model(ids, dropout=seeded()).logits for model in (silent, said)]
    assert (dropped[0] == dropped[1]).all()


def test_a_rate_of_1_leaves_the_bias() -> None:
    model = wild.model("for_sequence_classification", **{**NONE, "classifier_dropout_rate": 1.0})
    logits = model(wild.ids(BATCH, LENGTH), dropout=seeded()).logits
    assert (logits == model.parameters["classifier.bias"]).all()


def test_in_the_mean_dropout_before_a_linear_head_changes_nothing() -> None:
    fields = {**NONE, "classifier_dropout_rate": 0.3, "num_blocks": 1}
    model = wild.model("for_sequence_classification", **fields)
    ids = np.broadcast_to(wild.ids(1, 2), (1000, 2))
    draws = model(ids, dropout=seeded()).logits
    deviation = draws.std(axis=0)
    assert deviation.min() > 0.1
    off = np.abs(draws.mean(axis=0) - model(ids[:1]).logits[0])
    assert (off <= 4 * deviation / np.sqrt(1000)).all()


def test_a_masked_key_stays_unheard_and_a_silent_head_silent() -> None:
    mask, heads = [[1, 0, 1, 1, 0, 1, 1]], [[1, 0, 1]] * 3
    output = wild.model(**RATES)(
        wild.ids(1, LENGTH), mask, None, heads, output_attentions=True, dropout=seeded()
    )
    for weights in output.attentions:
        assert (weights[..., [1, 4]] == 0).all()
        assert (weights[:, 1] == 0).all()


def test_a_generator_goes_on_from_call_to_call() -> None:
    model, ids, rng = wild.model(**RATES), wild.ids(1, LENGTH), seeded()
    assert (model(ids, dropout=rng).hidden_state != model(ids, dropout=rng).hidden_state).any()
