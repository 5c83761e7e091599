"""Every activation function that a config may name, in any float precision.

Gelu, which nearly every checkpoint names, is defined in textbook.py.
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from npbert.textbook import Array, Function, erf, gelu


def softplus(x: Array) -> Array:
    """log(1 + e^x), in the form that cannot overflow."""
    return np.logaddexp(0, x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), in the form that neither overflows nor loses its small values."""
    return np.exp(-softplus(-x))


def tanh_gelu(x: Array) -> Array:
    """The approximation of gelu in the same paper; up to 4.7e-4 away from it."""
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


ACTIVATIONS: Final[Mapping[str, Function]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_10": lambda x: np.clip(gelu(x), -10, 10),
    "gelu_new": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "gelu_python_tanh": tanh_gelu,
    "gelu_accurate": tanh_gelu,
    "gelu_fast": lambda x: x * (1 + np.tanh(0.7978845608 * x * (1 + 0.044715 * x * x))) / 2,
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "sqrtsoftplus": lambda x: np.sqrt(softplus(x)),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "laplace": lambda x: (1 + erf((x - 0.707107) / (0.282095 * math.sqrt(2)))) / 2,
    "linear": lambda x: x,
}
