"""Each kernel equals its definition, and touches only what it was given."""

import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from ruler import distance

import npbert
from npbert import textbook
from npbert.engine import attention, kernels, packs, products
from npbert.engine.activations import ACTIVATIONS
from npbert.engine.kernels import Consumed
from npbert.textbook import Affine, Attention, FeedForward, Norm, Span, no_tap

RNG = np.random.default_rng(5)


def columns(*shape: int) -> np.ndarray:
    return RNG.normal(0, 2, shape).astype(np.float32)


def affine(*shape: int) -> Affine:
    return Affine(columns(*shape), columns(shape[0], 1))


def heads() -> tuple[Any, ...]:
    """Queries, keys, values and both masks, of random sizes; sometimes nothing is masked."""
    h, k, asked, length = RNG.integers(1, [4, 9, 8, 20], endpoint=True)
    keep = RNG.random((length, 1)) < RNG.choice([0, 0.5, 1])
    mask = RNG.choice([0, 0.5, 1, 1.7], (h, 1, 1)).astype(np.float32)
    ones = np.ones_like(mask)
    return (
        columns(h, k, asked), columns(h, k, length), columns(h, k, length), keep,
        mask if RNG.random() < 0.5 else ones,
    )  # fmt: skip


def sizes() -> tuple[int, int, int]:
    """Return numbers of outputs, inputs and tokens: from one, to more than one block of rows."""
    d, f = RNG.integers(1, 70, 2)
    return int(d), int(f), int(RNG.choice([1, 2, 7, 90, 3000]))


def linear() -> tuple[Any, ...]:
    d, f, t = sizes()
    return affine(d, f), columns(f, t)


def norm() -> tuple[Any, ...]:
    d, _, t = sizes()
    return Norm(*affine(d + 1, 1), 1e-12), columns(d + 1, t)


def activation() -> tuple[Any, ...]:
    d, _, t = sizes()
    return ACTIVATIONS[str(RNG.choice(sorted(ACTIVATIONS)))], 3 * columns(d, t)


def self_attention() -> tuple[Any, ...]:
    """Sequences of random lengths that all ask, or of which some tokens ask; often hardly any."""
    h, k, d = RNG.integers(1, [4, 9, 30], endpoint=True)
    lengths = RNG.integers(1, RNG.choice([2, 20]), RNG.integers(1, 6), endpoint=True)
    all_ask = RNG.random() < 0.4
    asking = lengths if all_ask else RNG.integers(0, np.minimum(lengths, 2), endpoint=True)
    keeps = [RNG.random((n, 1)) < RNG.choice([0.5, 1]) for n in lengths]
    spans = list(map(Span, packs.column_slices(asking), packs.column_slices(lengths), keeps))
    keys = columns(d, sum(lengths))
    x = keys if all_ask else columns(d, sum(asking))
    mask = RNG.choice([0, 0.5, 1, 1.7], (h, 1, 1)).astype(np.float32)
    q_lin = Affine(*(a / 50 for a in affine(h * k, d)))  # scores of a size that softmax bears
    w = Attention(q_lin, affine(h * k, d), affine(h * k, d), affine(d, h * k))
    return w, x, keys, spans, mask


def feed_forward() -> tuple[Any, ...]:
    d, f, t = sizes()
    w = FeedForward(affine(f, d), affine(d, f))
    return w, ACTIVATIONS[str(RNG.choice(["gelu", "relu", "silu"]))], columns(d, t)


# kernel: how far from its definition it may be, and arguments to try it on
CASES: dict[str, tuple[float, Callable[[], tuple[Any, ...]]]] = {
    "linear": (2e-6, linear),
    "activation": (2e-6, activation),
    "gelu": (6e-7, lambda: (3 * columns(*sizes()[:2]),)),
    "layer_norm": (2e-5, norm),
    "add_norm": (2e-5, lambda: (*norm(), None)),
    "attention": (5e-6, heads),
    "self_attention": (5e-6, self_attention),
    "feed_forward": (5e-6, feed_forward),
}


def public() -> list[str]:
    """Return the kernels: the functions of kernels.py that textbook.py defines."""
    return sorted(
        name
        for name, value in vars(kernels).items()
        if inspect.isfunction(value) and value.__module__ == kernels.__name__
        and hasattr(textbook, name)
    )  # fmt: skip


def arguments(name: str) -> list[Any]:
    given = list(CASES[name][1]())
    if name == "add_norm":
        given[2] = columns(*given[1].shape)
    return given


def wide(argument: Any) -> Any:
    """Return the same argument in float64."""
    if isinstance(argument, Affine | Norm | Attention | FeedForward):
        return type(argument)(*map(wide, argument))
    is_float = isinstance(argument, np.ndarray) and argument.dtype == np.float32
    return argument.astype(np.float64) if is_float else argument


def arrays(argument: Any) -> list[np.ndarray]:
    """Return the arrays in an argument."""
    if isinstance(argument, tuple | list):
        return [array for each in argument for array in arrays(each)]
    return [argument] if isinstance(argument, np.ndarray) else []


def lend(kernel: Callable[..., Any], given: list[Any]) -> list[Any]:
    """Make read-only every array that the kernel has not declared Consumed."""
    hints = get_type_hints(kernel, include_extras=True)
    for parameter, argument in zip(inspect.signature(kernel).parameters, given, strict=False):
        for array in arrays(argument):
            array.flags.writeable = hints[parameter] == Consumed
    return given


def test_every_kernel_has_a_case():
    assert public() == sorted(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_kernel_equals_its_definition_and_touches_only_what_it_was_given(name):
    definition, kernel = getattr(textbook, name), getattr(kernels, name)
    for _ in range(100):
        given = arguments(name)
        expected = definition(*map(wide, given))
        actual = kernel(*lend(kernel, given))
        assert actual.dtype == np.float32
        assert distance(expected, actual) <= CASES[name][0]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_has_a_kernel_that_equals_its_definition(name):
    x = np.linspace(-30, 30, 40_001, dtype=np.float32).reshape(1, -1)
    expected = textbook.activation(ACTIVATIONS[name], x.astype(np.float64))
    assert distance(expected, kernels.activation(ACTIVATIONS[name], x.copy())) <= 1e-6


def test_gelu_is_within_6e_7_everywhere():
    x = np.linspace(-40, 40, 2_000_001, dtype=np.float32)
    error = np.abs(kernels.gelu(x.copy()) - textbook.gelu(x.astype(np.float64)))
    assert error.max() <= 6e-7 * max(1, 40 / 8)  # beyond 8 the spacing of float32 is what is left
    assert error[np.abs(x) <= 8].max() <= 6e-7


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8, 100])
def test_a_product_in_stacks_of_rows_is_the_product(rows):
    for a, b in (
        (columns(7, 5), columns(5, 3)),
        (columns(2, 7, 5), columns(2, 5, 3)),
        (columns(2, 5, 7).mT, columns(2, 5, 1)),
        (columns(9, 20)[:7, 3:8], columns(5, 12)[:, 4:8]),
    ):
        out = np.full((*a.shape[:-1], b.shape[-1] + 2), np.nan, np.float32)[..., 1:-1]
        assert products.product_in_stacks(a, b, out, rows) is out
        np.testing.assert_allclose(out, a.astype(float) @ b, rtol=1e-5, atol=1e-5)


def test_few_questions_are_answered_as_many_are():
    """Each in the way that would have been taken, and in the other."""
    ways = set()
    for _ in range(200):
        w, x, keys, spans, mask = self_attention()
        ways.add(attention.is_cheaper_through_weights(w, x, keys, spans, len(mask)))
        answers = [
            way(w[:3], x, keys, spans, mask)
            for way in (attention.attend_through_weights, attention.attend)
        ]
        assert distance(*(a.astype(float) for a in answers)) <= 1e-5 or not mask.any()
    assert ways == {False, True}


def test_hidden_states_of_a_base_size_model_are_within_2e_6_of_the_textbook_in_float64():
    config = npbert.Config(vocab_size=500)
    parameters = npbert.init(config, "base").parameters
    for name, old in parameters.items():
        if old.ndim == 1:
            parameters[name] = RNG.normal(name.endswith("Norm.weight"), 0.1, old.shape).astype("f")
    fast = npbert.Model(config, "base", parameters)
    exact = npbert.Model(config, "base", {n: p.astype(float) for n, p in parameters.items()})
    ids, mask = RNG.integers(0, 500, (2, 70)), np.ones((2, 70), int)
    mask[1, 50:] = 0
    ours, theirs = (m(ids, mask, output_hidden_states=True).hidden_states for m in (fast, exact))
    for actual, expected in zip(ours, theirs, strict=True):
        assert distance(expected, actual) <= 2e-6


@pytest.mark.long
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names a processor")
@pytest.mark.skipif(not products.columns_of_small_products(), reason="it is what ran above")
def test_kernels_are_as_exact_and_repeatable_where_the_blas_is_best_at_large_products():
    some = "definition or base_size or few or same_bits or changes_no_bit"
    files = [__file__, Path(__file__).with_name("test_threads.py")]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", some, *files],
        env={**os.environ, "OPENBLAS_CORETYPE": "Haswell"}, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout


def test_an_embedding_lookup_may_lie_by_rows():
    norm, x, y = Norm(*affine(6, 1), 1e-12), columns(4, 6).T, columns(4, 6).T
    expected = textbook.add_norm(*map(wide, (norm, x, y)))
    assert distance(expected, kernels.add_norm(norm, x, y)) <= 2e-5


def test_taps_hear_the_same_of_attention_as_in_the_textbook():
    for _ in range(20):
        given = heads()
        heard: list[dict[str, np.ndarray]] = [{}, {}]
        for module, names in zip((textbook, kernels), heard, strict=True):

            def tap(name, x, names=names):
                names[name] = x.copy()
                return x

            module.attention(*given, tap)
        assert list(heard[0]) == list(heard[1])
        for name, x in heard[0].items():
            live = x > -1e30
            assert np.array_equal(live, heard[1][name] > -1e30)
            assert np.abs(x[live] - heard[1][name][live]).max(initial=0) <= 1e-4


@pytest.mark.parametrize("scale", [1, 30])  # the second has scores from which a maximum is taken
def test_sequences_of_one_length_are_attended_together_and_no_bit_is_another(scale: int) -> None:
    lengths = [5, 5, 5, 9, 7, 7, 1, 1, 40, 40, 40]
    columns = packs.column_slices(lengths)
    masks = [np.ones((1, 1), bool)] * len(lengths)
    masks[1] = np.array([[True], [False], [True], [True], [True]])
    spans = [Span(s, s, mask) for s, mask in zip(columns, masks, strict=True)]
    assert [len(run) for run in attention.split_runs(spans, 12)] == [1, 1, 1, 1, 2, 2, 3]
    assert [len(run) for run in attention.split_runs(spans[8:], 40)] == [2, 1]
    q, k, v = (scale * RNG.standard_normal((12, 8, sum(lengths)), np.float32) for _ in range(3))
    head_mask = RNG.random((12, 1, 1)).astype(np.float32)
    for mask in (np.ones_like(head_mask), head_mask):
        together = attention.attention_contexts(q, k, v, spans, mask, no_tap).copy()
        alone = attention.attention_contexts(q, k, v, spans, mask, lambda name, x: x)
        np.testing.assert_array_equal(together, alone)
