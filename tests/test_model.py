"""Dense calls: every position of a batch, rows in and rows out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wild

import npbert

GOLDEN = Path(__file__).parent.parent / "golden"
FIELDS = ("logits", "start_logits", "end_logits", "hidden_state", "pooled_state")

SHAPES: dict[str, dict[str, tuple[Any, ...]]] = {
    # outputs of an architecture for B texts of L tokens, or B questions of 4 choices
    "base": {"hidden_state": ("B", "L", 24)},
    "for_masked_language_modeling": {"logits": ("B", "L", 97)},
    "for_sequence_classification": {"logits": ("B", 5)},
    "for_token_classification": {"logits": ("B", "L", 5)},
    "for_question_answering": {"start_logits": ("B", "L"), "end_logits": ("B", "L")},
    "for_multiple_choice": {"logits": ("B", 4)},
}
EACH = pytest.mark.parametrize("architecture", SHAPES)


def shape(architecture: str, batch: int, length: int) -> tuple[int, ...]:
    """The shape of input_ids."""
    choices = (4,) if architecture == "for_multiple_choice" else ()
    return (batch, *choices, length)


def computed(output: npbert.Output) -> dict[str, Any]:
    outputs = {name: getattr(output, name) for name in FIELDS}
    return {name: x for name, x in outputs.items() if x is not None}


def live(output: npbert.Output, mask: Any) -> dict[str, Any]:
    """What an output says of tokens that a mask keeps."""
    at = np.asarray(mask) != 0
    return {n: x[at] if x.shape[:-1] == at.shape or x.shape == at.shape else x
            for n, x in computed(output).items()}  # fmt: skip


def assert_equal(actual: Any, expected: Any, within: float = 0.0) -> None:
    for x, y in zip(actual.values(), expected.values(), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=within * np.abs(y).max(initial=1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch", "length"), [(3, 7), (1, 1), (2, 31), (0, 5)])
@EACH
def test_an_architecture_returns_its_outputs_and_no_others(
    architecture: str, batch: int, length: int, dtype: str
) -> None:
    ids = wild.ids(*shape(architecture, batch, length))
    output = wild.model(architecture, dtype)(ids)
    sizes = {"B": batch, "L": length}
    expected = {n: tuple(sizes.get(d, d) for d in s) for n, s in SHAPES[architecture].items()}
    assert {n: x.shape for n, x in computed(output).items()} == expected
    assert {x.dtype for x in computed(output).values()} == {np.dtype(dtype)}
    assert output.hidden_states is None
    assert output.attentions is None


@pytest.mark.parametrize("batch", [3, 0])
@EACH
def test_between_lie_the_embeddings_a_state_and_the_weights_of_each_block(
    architecture: str, batch: int
) -> None:
    ids = wild.ids(*shape(architecture, batch, 7))
    texts = ids.reshape(-1, 7).shape[0]
    output = wild.model(architecture)(ids, output_hidden_states=True, output_attentions=True)
    assert [x.shape for x in output.hidden_states or ()] == [(texts, 7, 24)] * 4
    assert [x.shape for x in output.attentions or ()] == [(texts, 3, 7, 7)] * 3


def test_one_may_ask_for_the_states_or_the_weights_alone() -> None:
    model, ids = wild.model(), wild.ids(2, 5)
    states, weights = model(ids, output_hidden_states=True), model(ids, output_attentions=True)
    assert (len(states.hidden_states or ()), states.attentions) == (4, None)
    assert (weights.hidden_states, len(weights.attentions or ())) == (None, 3)


def test_the_first_state_is_the_normed_embeddings_and_the_last_the_hidden_state() -> None:
    model, ids = wild.model(), wild.ids(2, 5)
    output = model(ids, output_hidden_states=True)
    w = model.parameters
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:5]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    x = x * w["embeddings.LayerNorm.weight"] + w["embeddings.LayerNorm.bias"]
    np.testing.assert_allclose(output.hidden_states[0], x, rtol=0, atol=1e-13)
    assert (output.hidden_states[-1] == output.hidden_state).all()


def test_the_rows_of_the_attentions_sum_to_the_factor_of_their_head() -> None:
    factors = np.array([[1, 0.5, 0], [1.7, 1, 0.25], [0, 1.3, 1]])
    mask = np.array([[1, 1, 1, 1, 0], [0, 1, 0, 1, 1]])
    output = wild.model()(wild.ids(2, 5), mask, None, factors, output_attentions=True)
    for weights, of_block in zip(output.attentions, factors, strict=True):
        expected = np.broadcast_to(of_block[None, :, None], (2, 3, 5))
        np.testing.assert_allclose(weights.sum(axis=-1), expected, atol=1e-14)
        assert (weights.transpose(0, 3, 1, 2)[mask == 0] == 0).all()  # as keys they have no weight


def test_asking_for_what_lies_between_changes_no_bit() -> None:
    model, ids = wild.model("for_token_classification", "float32"), wild.ids(2, 5)
    asked = model(ids, output_hidden_states=True, output_attentions=True)
    assert (asked.logits == model(ids).logits).all()


@EACH
def test_lists_give_what_arrays_give(architecture: str) -> None:
    model, ids = wild.model(architecture), wild.ids(*shape(architecture, 2, 5))
    ones = np.ones_like(ids)
    arrays = model(ids, ones, ones, np.full((3, 3), 0.5))
    lists = model(ids.tolist(), ones.tolist(), ones.tolist(), [[0.5] * 3] * 3)
    assert_equal(computed(lists), computed(arrays))


@EACH
def test_live_tokens_do_not_hear_what_stands_at_masked_places(architecture: str) -> None:
    model, ids = wild.model(architecture), wild.ids(*shape(architecture, 4, 9))
    rng = np.random.default_rng(3)
    mask = rng.integers(0, 2, ids.shape)
    mask[..., 0] = 1  # the heads of sequences read it
    other = np.where(mask, ids, wild.ids(*ids.shape, seed=8))
    assert (ids != other).any()
    assert_equal(live(model(ids, mask), mask), live(model(other, mask), mask), 1e-12)


@EACH
def test_padding_changes_no_live_token(architecture: str) -> None:
    model, ids = wild.model(architecture), wild.ids(*shape(architecture, 2, 6))
    padded = np.concatenate([ids, wild.ids(*shape(architecture, 2, 3), seed=1)], axis=-1)
    mask = np.zeros_like(padded)
    mask[..., :6] = 1
    expected = live(model(ids), np.ones_like(ids))
    assert_equal(live(model(padded, mask), mask), expected, 1e-12)


@pytest.mark.parametrize(
    "architecture", [name for name, outputs in SHAPES.items() if "L" in str(outputs)]
)
def test_padding_on_the_left_changes_no_live_token_if_positions_are_given(
    architecture: str,
) -> None:
    model, ids = wild.model(architecture), wild.ids(2, 6)
    padded = np.concatenate([wild.ids(2, 3, seed=1), ids], axis=1)
    mask = np.array([[0] * 3 + [1] * 6] * 2)
    positions = np.array([[0] * 3 + list(range(6))] * 2)
    expected = live(model(ids), np.ones_like(ids))
    assert_equal(live(model(padded, mask, positions), mask), expected, 1e-12)


def test_shifted_positions_read_a_shifted_table() -> None:
    model, ids = wild.model(), wild.ids(2, 5)
    shifted = dict(model.parameters)
    table = "embeddings.position_embeddings.weight"
    shifted[table] = np.roll(model.parameters[table], -7, axis=0)
    positions = np.broadcast_to(np.arange(7, 12), (2, 5))
    other = npbert.Model(model.config, "base", shifted)
    assert (model(ids, None, positions).hidden_state == other(ids).hidden_state).all()


def test_texts_longer_than_the_table_are_fine_where_positions_are_given() -> None:
    output = wild.model()(wild.ids(1, 40), position_ids=[[*range(20), *range(20)]])
    assert output.hidden_state.shape == (1, 40, 24)


def test_a_batch_is_its_texts_one_by_one() -> None:
    model, ids = wild.model("for_sequence_classification"), wild.ids(4, 9)
    mask = np.random.default_rng(1).integers(0, 2, ids.shape)
    alone = np.concatenate([model(ids[i : i + 1], mask[i : i + 1]).logits for i in range(4)])
    np.testing.assert_allclose(model(ids, mask).logits, alone, rtol=0, atol=1e-12)


def test_choices_are_texts_of_one_question_each_with_its_mask_and_positions() -> None:
    model = wild.model("for_multiple_choice")
    ids, rng = wild.ids(2, 4, 9), np.random.default_rng(1)
    mask, positions = rng.integers(0, 2, ids.shape), rng.integers(0, 31, ids.shape)
    logits = model(ids, mask, positions).logits
    for question in range(2):
        for choice in range(4):
            one = [a[question : question + 1, choice : choice + 1] for a in (ids, mask, positions)]
            np.testing.assert_allclose(
                model(*one).logits, logits[question, choice].reshape(1, 1), rtol=0, atol=1e-12
            )


def test_a_fully_masked_text_hears_all_its_tokens_alike() -> None:
    output = wild.model()(wild.ids(2, 5), [[1] * 5, [0] * 5], output_attentions=True)
    assert all((weights[1] == 0.2).all() for weights in output.attentions)


def test_a_head_mask_of_ones_is_none() -> None:
    model, ids = wild.model(), wild.ids(2, 5)
    ones = model(ids, attention_head_mask=np.ones((3, 3)))
    assert (ones.hidden_state == model(ids).hidden_state).all()


def test_a_silent_head_is_one_whose_output_weights_are_zero() -> None:
    model, ids = wild.model(), wild.ids(2, 5)
    muted = dict(model.parameters)
    name = "transformer.layer.1.attention.out_lin.weight"
    muted[name] = muted[name].copy()
    muted[name][:, 16:] = 0  # the features of head 2
    mask = np.ones((3, 3))
    mask[1, 2] = 0
    expected = npbert.Model(model.config, "base", muted)(ids).hidden_state
    actual = model(ids, attention_head_mask=mask).hidden_state
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_columns_of_the_head_mask_are_the_heads_before_pruning() -> None:
    """A pruned model is the whole one with the same heads masked."""
    whole, ids = wild.model(), wild.ids(2, 5)
    gone = {0: (1,), 2: (0, 2)}
    pruned = dict(whole.parameters)
    for block, heads in gone.items():
        rows = [r for r in range(24) if r // 8 not in heads]
        under = f"transformer.layer.{block}.attention."
        for name in ("q_lin", "k_lin", "v_lin"):
            for kind in ("weight", "bias"):
                pruned[f"{under}{name}.{kind}"] = pruned[f"{under}{name}.{kind}"][rows]
        pruned[f"{under}out_lin.weight"] = pruned[f"{under}out_lin.weight"][:, rows]
    model = npbert.Model(npbert.Config(**wild.SIZES, pruned_heads=gone), "base", pruned)

    mask = np.array([[0.5, 9, 1.5], [1, 0.25, 2], [9, 0.75, 9]])
    zeros = np.array([[0.5, 0, 1.5], [1, 0.25, 2], [0, 0.75, 0]])
    output = model(ids, attention_head_mask=mask, output_attentions=True)
    expected = whole(ids, attention_head_mask=zeros, output_attentions=True)
    np.testing.assert_allclose(output.hidden_state, expected.hidden_state, rtol=0, atol=1e-12)
    assert [x.shape[1] for x in output.attentions] == [2, 3, 1]
    np.testing.assert_allclose(output.attentions[0], expected.attentions[0][:, [0, 2]], atol=1e-12)


def test_a_pruned_checkpoint_loads_and_runs() -> None:
    model = npbert.load(GOLDEN / "pruned", dtype="float64")
    output = model(wild.ids(2, 5), output_attentions=True)
    left = [len(model.config.heads(i)) for i in range(model.config.num_blocks)]
    assert [x.shape[1] for x in output.attentions] == left
    assert min(left) < model.config.num_attention_heads


def test_a_base_model_pools_only_if_it_has_the_weights() -> None:
    ids = wild.ids(2, 5)
    model = wild.model(pooled=True)
    output, w = model(ids), model.parameters
    first = output.hidden_state[:, 0]
    expected = np.maximum(first @ w["pre_classifier.weight"].T + w["pre_classifier.bias"], 0)
    np.testing.assert_allclose(output.pooled_state, expected, rtol=0, atol=1e-12)
    assert wild.model()(ids).pooled_state is None


def test_both_precisions_are_one_model() -> None:
    ids = wild.ids(3, 9)
    exact, rounded = (wild.model(dtype=d)(ids).hidden_state for d in ("float64", "float32"))
    assert 0 < np.abs(exact - rounded).max() <= 1e-4


def test_equal_calls_give_equal_bits() -> None:
    model, ids = wild.model(dtype="float32"), wild.ids(3, 9)
    assert (model(ids).hidden_state == model(ids).hidden_state).all()


def test_what_overflows_is_an_error_that_names_the_first_place() -> None:
    model = wild.model("for_token_classification", "float32")
    model.parameters["classifier.bias"][2] = np.inf
    with pytest.raises(npbert.CheckpointError) as raised:
        model(wild.ids(2, 5))
    assert str(raised.value) == (
        "classifier is the first activation that is not finite, 10 of 50 values, inf in column 0: "
        "either weights are not finite (npbert info --check tells), or the computation overflows "
        "float32"
    )


def test_cross_attention_is_carried_with_a_warning_and_changes_no_number() -> None:
    ids = wild.ids(2, 5)
    config = npbert.Config(**wild.SIZES, use_cross_attention=True)
    message = "^use_cross_attention is true; DistilBERT has no cross-attention, and ignores it$"
    with pytest.warns(npbert.NpbertWarning, match=message):
        model = npbert.Model(config, "base", wild.model().parameters)
    assert (model(ids).hidden_state == wild.model()(ids).hidden_state).all()
