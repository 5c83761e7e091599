"""The mathematics, held to formulas written once more with Python's own math."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npbert import textbook
from npbert.engine.activations import ACTIVATIONS
from npbert.textbook import Affine, Attention, FeedForward, Norm, Span

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
EVERY_ACTIVATION = pytest.mark.parametrize("name", sorted(ACTIVATIONS))
D, F, H, K, L, LQ = 6, 9, 3, 4, 7, 5


def normal(*shape: int, seed: int = 0, dtype: type = np.float64) -> Any:
    array = np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)
    array.flags.writeable = False
    return array


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def gelu(x: float) -> float:
    return x * math.erfc(-x / math.sqrt(2)) / 2


def gelu_new(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS: dict[str, Callable[[float], float]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_10": lambda x: max(-10, min(10, gelu(x))),
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_python_tanh": gelu_new,
    "gelu_accurate": gelu_new,
    "gelu_fast": lambda x: 0.5 * x * (1 + math.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x))),
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "mish": lambda x: x * math.tanh(softplus(x)),
    "relu": lambda x: x if x > 0 else 0,
    "relu2": lambda x: x * x if x > 0 else 0,
    "relu6": lambda x: min(max(x, 0), 6),
    "leaky_relu": lambda x: x if x > 0 else x / 100,
    "hardswish": lambda x: 0 if x < -3 else x if x > 3 else x * (x + 3) / 6,
    "sqrtsoftplus": lambda x: math.sqrt(softplus(x)),
    "sigmoid": sigmoid,
    "tanh": math.tanh,
    "laplace": lambda x: math.erfc(-(x - 0.707107) / (0.282095 * math.sqrt(2))) / 2,
    "linear": lambda x: x,
}


def test_erf_is_that_of_the_c_library() -> None:
    x = np.linspace(-7, 7, 40001)
    assert np.abs(textbook.erf(x) - [math.erf(v) for v in x]).max() <= 3e-16


def test_erf_of_a_tiny_number_has_all_its_digits() -> None:
    x = 10.0 ** np.arange(-300, 0)
    exact = np.array([math.erf(v) for v in x])
    assert np.abs(textbook.erf(x) / exact - 1).max() <= 5e-16


def test_erf_is_correctly_rounded_in_float32() -> None:
    x = np.concatenate([np.linspace(-5, 5, 40001), 10.0 ** np.arange(-37, 1)]).astype(np.float32)
    assert (textbook.erf(x) == np.array([math.erf(v) for v in x], np.float32)).all()


@BOTH
def test_erf_is_odd_and_ends_at_one_and_lets_nan_pass(dtype: type) -> None:
    x = np.linspace(0, 8, 1001).astype(dtype)
    assert (textbook.erf(-x) == -textbook.erf(x)).all()

    limits = textbook.erf(np.array([-np.inf, np.inf, 1e30, np.nan, -0.0, 0.0], dtype))
    np.testing.assert_array_equal(limits, [-1, 1, 1, np.nan, 0, 0])
    assert np.signbit(limits).tolist()[-2:] == [True, False]


def test_every_activation_has_its_formula_here() -> None:
    assert sorted(FORMULAS) == sorted(ACTIVATIONS)


@pytest.mark.parametrize(("dtype", "within"), [(np.float64, 1e-14), (np.float32, 5e-6)])
@EVERY_ACTIVATION
def test_an_activation_is_its_formula(name: str, dtype: type, within: float) -> None:
    x = np.linspace(-30, 30, 6001).astype(dtype)
    expected = np.array([FORMULAS[name](float(v)) for v in x])
    actual = textbook.activation(ACTIVATIONS[name], x)
    assert (np.abs(actual - expected) <= within * np.maximum(1, np.abs(expected))).all()


@BOTH
@EVERY_ACTIVATION
def test_an_activation_overflows_nowhere(name: str, dtype: type) -> None:
    x = np.array([-1e4, -745, -89, -10, -1e-4, -1e-30, -0.0, 0, 1e-30, 10, 89, 710, 1e4], dtype)
    y = textbook.activation(ACTIVATIONS[name], x)  # a warning is an error here
    assert np.isfinite(y).all()


VERBS: dict[str, Callable[[type], tuple[Any, ...]]] = {
    "linear": lambda t: (affine(F, D, t), normal(D, L, dtype=t)),
    "softmax": lambda t: (normal(D, L, dtype=t),),
    "layer_norm": lambda t: (norm_of(t), normal(D, L, dtype=t)),
    "add_norm": lambda t: (norm_of(t), normal(D, L, dtype=t), normal(D, L, seed=1, dtype=t)),
    "attention": lambda t: heads(t),
    "self_attention": lambda t: asking(t),
    "feed_forward": lambda t: (grown(t), textbook.gelu, normal(D, L, dtype=t)),
    **{name: lambda t: (normal(D, L, dtype=t),) for name in ("erf", "gelu")},
}


def norm_of(dtype: type = np.float64) -> Norm:
    return Norm(*affine(D, 1, dtype), 1e-12)


def affine(out: int, inside: int, dtype: type = np.float64) -> Affine:
    return Affine(normal(out, inside, dtype=dtype), normal(out, 1, seed=1, dtype=dtype))


def heads(dtype: type = np.float64) -> tuple[Any, ...]:
    """q, k, v, a mask that hides two keys, and a head mask with one half."""
    keep = np.array([1, 1, 0, 1, 0, 1, 1], dtype)[:, None]
    head_mask = np.array([1, 0.5, 1.7], dtype)[:, None, None]
    keep.flags.writeable = head_mask.flags.writeable = False
    q = normal(H, K, LQ, dtype=dtype)
    k, v = (normal(H, K, L, seed=seed, dtype=dtype) for seed in (1, 2))
    return q, k, v, keep, head_mask


def asking(dtype: type = np.float64) -> tuple[Any, ...]:
    """Two sequences, of 4 and 3 tokens, of which 2 and 1 ask; a token of the second is hidden."""
    w = Attention(*(affine(H * K, D, dtype) for _ in "qkv"), affine(D, H * K, dtype))
    spans = [
        Span(slice(0, 2), slice(0, 4), np.ones((1, 1), bool)),
        Span(slice(2, 3), slice(4, 7), np.array([[True], [False], [True]])),
    ]
    head_mask = np.array([1, 0.5, 1.7], dtype)[:, None, None]
    return w, normal(D, 3, seed=5, dtype=dtype), normal(D, 7, seed=6, dtype=dtype), spans, head_mask


def grown(dtype: type = np.float64) -> FeedForward:
    return FeedForward(affine(F, D, dtype), affine(D, F, dtype))


@BOTH
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_keeps_the_precision_and_leaves_its_arguments_alone(name: str, dtype: type) -> None:
    assert getattr(textbook, name)(*VERBS[name](dtype)).dtype == dtype  # they are read-only


@BOTH
@EVERY_ACTIVATION
def test_an_activation_keeps_the_precision_and_its_argument(name: str, dtype: type) -> None:
    assert textbook.activation(ACTIVATIONS[name], normal(D, L, dtype=dtype)).dtype == dtype


def test_linear_is_a_product_and_a_bias_for_every_token() -> None:
    layer, x = affine(F, D), normal(D, L)
    expected = [
        [sum(layer.weight[f, d] * x[d, t] for d in range(D)) + layer.bias[f, 0] for t in range(L)]
        for f in range(F)
    ]
    np.testing.assert_allclose(textbook.linear(layer, x), expected, rtol=1e-13)


@BOTH
def test_the_columns_of_a_softmax_sum_to_one(dtype: type) -> None:
    x = normal(H, L, LQ, dtype=dtype) * dtype(10)
    y = textbook.softmax(x)
    assert y.min() > 0
    np.testing.assert_allclose(y.sum(axis=-2), 1, rtol=1e-6)


@BOTH
def test_a_softmax_survives_huge_values(dtype: type) -> None:
    x = np.array([[1e30, -1e30, 1e4], [1e30, 0, 1e4], [0, np.finfo(dtype).min, -1e4]], dtype)
    assert textbook.softmax(x).tolist() == [[0.5, 0, 0.5], [0.5, 1, 0.5], [0, 0, 0]]


def test_layer_norm_gives_every_column_mean_0_and_variance_1() -> None:
    unit = Norm(np.ones((D, 1)), np.zeros((D, 1)), 1e-12)
    y = textbook.layer_norm(unit, 3 * normal(D, L) + 50)
    assert np.abs(y.mean(axis=0)).max() <= 1e-14
    assert np.abs(y.var(axis=0) - 1).max() <= 1e-11


def test_layer_norm_scales_and_shifts_after_norming() -> None:
    norm, x = norm_of(), normal(D, L, seed=3)
    unit = textbook.layer_norm(Norm(np.ones((D, 1)), np.zeros((D, 1)), 1e-12), x)
    np.testing.assert_allclose(
        textbook.layer_norm(norm, x), norm.weight * unit + norm.bias, rtol=1e-14
    )


def test_layer_norm_of_a_constant_column_is_the_bias() -> None:
    norm = norm_of()
    assert (textbook.layer_norm(norm, np.full((D, 2), 0.25)) == norm.bias).all()


def test_the_epsilon_of_a_norm_is_1e_12_and_under_the_root() -> None:
    unit = Norm(np.ones((2, 1)), np.zeros((2, 1)), 1e-12)
    y = textbook.layer_norm(unit, np.array([[1e-6], [-1e-6]]))
    np.testing.assert_allclose(y, [[math.sqrt(0.5)], [-math.sqrt(0.5)]], rtol=1e-14)


def test_attention_is_the_formula_for_every_head_query_and_feature() -> None:
    q, k, v, keep, head_mask = heads()
    expected = np.empty((H, K, LQ))
    for h in range(H):
        for query in range(LQ):
            e = [
                math.exp(sum(k[h, :, key] * q[h, :, query]) / math.sqrt(K)) * keep[key, 0]
                for key in range(L)
            ]
            for i in range(K):
                mean = sum(e[key] * v[h, i, key] for key in range(L)) / sum(e)
                expected[h, i, query] = head_mask[h, 0, 0] * mean
    np.testing.assert_allclose(textbook.attention(*heads()), expected, rtol=1e-12)


def test_self_attention_asks_within_a_sequence_and_joins_the_heads() -> None:
    w, x, keys, spans, head_mask = asking()
    columns = []
    for s in spans:
        q, k, v = (
            textbook.linear(layer, a).reshape(H, K, -1)
            for layer, a in zip(w[:3], [x[:, s.queries], *[keys[:, s.keys]] * 2], strict=True)
        )
        heard = textbook.attention(q, k, v, s.key_mask, head_mask)
        columns.append(textbook.linear(w.out_lin, heard.reshape(H * K, -1)))
    actual = textbook.self_attention(*asking())
    np.testing.assert_allclose(actual, np.concatenate(columns, axis=1), rtol=1e-13)


def test_feed_forward_is_two_linear_maps_with_a_function_between() -> None:
    w, x = grown(), normal(D, L)
    h = w.lin1.weight @ x + w.lin1.bias
    expected = w.lin2.weight @ (h * (h > 0)) + w.lin2.bias
    np.testing.assert_allclose(
        textbook.feed_forward(w, ACTIVATIONS["relu"], x), expected, rtol=1e-13
    )


def weights_of(*arguments: Any) -> Any:
    """The weights of attention, (H, L, Lq)."""
    heard = {}
    textbook.attention(*arguments, tap=lambda name, x: heard.setdefault(name, x))
    return heard["weights"]


@BOTH
def test_a_hidden_key_has_no_weight_at_all(dtype: type) -> None:
    q, k, v, keep, head_mask = heads(dtype)
    weights = weights_of(q * dtype(100), k, v, keep, np.ones_like(head_mask))
    assert (weights[:, keep[:, 0] == 0] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_whatever_is_not_0_lets_a_key_be_heard() -> None:
    q, k, v, keep, head_mask = heads()
    odd = np.where(keep != 0, np.array([[0.5], [-1], [0], [2], [0], [1e-300], [1]]), 0)
    actual = textbook.attention(q, k, v, odd, head_mask)
    assert (actual == textbook.attention(q, k, v, keep, head_mask)).all()


@BOTH
def test_where_all_keys_are_hidden_all_are_heard_alike(dtype: type) -> None:
    q, k, v, keep, head_mask = heads(dtype)
    weights = weights_of(q, k, v, np.zeros_like(keep), np.ones_like(head_mask))
    assert (weights == dtype(1) / dtype(L)).all()


def test_a_head_mask_of_0_silences_a_head_and_no_other() -> None:
    q, k, v, keep, _ = heads()
    ones = np.ones((H, 1, 1))
    mask = np.array([1.0, 0, 1])[:, None, None]
    actual = textbook.attention(q, k, v, keep, mask)
    assert (actual[1] == 0).all()
    assert (actual[[0, 2]] == textbook.attention(q, k, v, keep, ones)[[0, 2]]).all()


def test_taps_are_called_in_the_order_of_the_computation() -> None:
    names: list[str] = []

    def tap(name: str, x: Any) -> Any:
        names.append(name)
        return x

    textbook.attention(*heads(), tap)
    textbook.add_norm(norm_of(), normal(D, L), normal(D, L), tap)
    textbook.add_norm(norm_of(), normal(D, L), normal(D, L), tap, "ffn_residual")
    assert names == ["scores", "masked_scores", "dropout", "weights", "sum", "ffn_residual"]

    names.clear()
    textbook.self_attention(*asking(), tap)
    within = ["scores", "masked_scores", "dropout", "weights"]
    assert names == ["q_lin", "k_lin", "v_lin", *within, *within, "context", "out_lin"]

    names.clear()
    textbook.feed_forward(grown(), textbook.gelu, normal(D, L), tap)
    assert names == ["lin1", "activation", "lin2"]


REPLACED = {
    # a tap's name: what it returns, and the weights that follow from it
    "scores": (np.zeros((H, L, LQ)), [1 / 5, 1 / 5, 0, 1 / 5, 0, 1 / 5, 1 / 5]),
    "masked_scores": (np.zeros((H, L, LQ)), [1 / 7] * 7),
    "dropout": (np.full((H, L, LQ), 3.0), [3] * 7),
    "weights": (np.full((H, L, LQ), 2.0), [2] * 7),
}


@pytest.mark.parametrize("name", REPLACED)
def test_what_a_tap_of_attention_returns_is_what_goes_on(name: str) -> None:
    _, _, v, _, head_mask = heads()
    returned, weights = REPLACED[name]
    actual = textbook.attention(*heads(), lambda at, x: returned if at == name else x)
    factor = 1 if name == "weights" else head_mask  # the last word is the tap's
    expected = factor * np.broadcast_to((v @ np.array(weights))[..., None], (H, K, LQ))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_what_a_tap_of_add_norm_returns_is_what_is_normed() -> None:
    norm, x = norm_of(), normal(D, L)
    actual = textbook.add_norm(norm, x, x, lambda name, _: normal(D, L, seed=9))
    assert (actual == textbook.layer_norm(norm, normal(D, L, seed=9))).all()
