"""Each kernel equals its definition, and touches only what it was given."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import numpy as np
import pytest
from ruler import distance

from npbert import kernels, textbook
from npbert.kernels import Consumed
from npbert.textbook import ACTIVATIONS, Affine

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
    return affine(d + 1, 1), columns(d + 1, t)


def activation() -> tuple[Any, ...]:
    d, _, t = sizes()
    return str(RNG.choice(sorted(ACTIVATIONS))), 3 * columns(d, t)


# kernel: how far from its definition it may be, and arguments to try it on
CASES: dict[str, tuple[float, Callable[[], tuple[Any, ...]]]] = {
    "linear": (2e-6, linear),
    "activation": (2e-6, activation),
    "gelu": (6e-7, lambda: (3 * columns(*sizes()[:2]),)),
    "layer_norm": (2e-5, norm),
    "add_norm": (2e-5, lambda: (*norm(), None)),
    "attention": (5e-6, heads),
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
    if isinstance(argument, Affine):
        return Affine(*map(wide, argument))
    is_float = isinstance(argument, np.ndarray) and argument.dtype == np.float32
    return argument.astype(np.float64) if is_float else argument


def lend(kernel: Callable[..., Any], given: list[Any]) -> list[Any]:
    """Make read-only every array that the kernel has not declared Consumed."""
    hints = get_type_hints(kernel, include_extras=True)
    for parameter, argument in zip(inspect.signature(kernel).parameters, given, strict=False):
        for array in argument if isinstance(argument, Affine) else [argument]:
            if isinstance(array, np.ndarray):
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
    expected = textbook.activation(name, x.astype(np.float64))
    assert distance(expected, kernels.activation(name, x.copy())) <= 1e-6


def test_gelu_is_within_6e_7_everywhere():
    x = np.linspace(-40, 40, 2_000_001, dtype=np.float32)
    error = np.abs(kernels.gelu(x.copy()) - textbook.gelu(x.astype(np.float64)))
    assert error.max() <= 6e-7 * max(1, 40 / 8)  # beyond 8 the spacing of float32 is what is left
    assert error[np.abs(x) <= 8].max() <= 6e-7


def test_an_offer_of_memory_is_taken_and_a_larger_one_too():
    layer, x = affine(5, 3), columns(3, 4)
    for size in (20, 31):
        offered = np.empty(size, np.float32)
        y = kernels.linear(layer, x, out=offered)
        assert np.shares_memory(y, offered)
        assert np.array_equal(y, kernels.linear(layer, x))


def test_an_embedding_lookup_may_lie_by_rows():
    norm, x, y = affine(6, 1), columns(4, 6).T, columns(4, 6).T
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
