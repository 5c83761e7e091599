"""The mathematics of BERT and DistilBERT, written to be read.

A token is a column.  An activation is a matrix with one column per token, so a layer is the
formula in the book, y = W x + b, with PyTorch's (out, in) weights just as they lie in the file.

    D  features of the model            T  tokens, all sequences side by side
    F  features inside the ffn          L  tokens of one sequence
    H  heads                            V  words in the vocabulary
    K  features of one head, D = H K    C  classes
    P  positions                        A  features of all the heads that a block still has

Sums run down a column, axis -2: over features in a norm, over keys in a softmax.

Nothing here changes its arguments, and everything here works in the precision it is given.
kernels.py has the same functions made fast; tests/test_kernels.py holds the two together.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Mask = NDArray[np.bool]
Tap = Callable[[str, Array], Array]
Function = Callable[[Array], Array]


class Affine(NamedTuple):
    """The weight and the bias of a linear layer, (out, in) and (out, 1)."""

    weight: Array
    bias: Array


class Norm(NamedTuple):
    """The scale and the shift of a norm, both (D, 1), and what is added to a variance."""

    weight: Array
    bias: Array
    epsilon: float


class Attention(NamedTuple):
    """The linear layers of self-attention: three from D to A features, one back."""

    q_lin: Affine
    k_lin: Affine
    v_lin: Affine
    out_lin: Affine


class FeedForward(NamedTuple):
    """The linear layers of the ffn: from D to F features, and back."""

    lin1: Affine
    lin2: Affine


class Span(NamedTuple):
    """One sequence: the columns of its queries and of its keys, and which keys are heard."""

    queries: slice
    keys: slice
    key_mask: Mask  # (L, 1), or (1, 1) for all alike: False hides a token


def no_tap(name: str, x: Array) -> Array:
    """The default tap: nobody listens.

    Every intermediate value is offered to a tap under its PyTorch name, and the pass goes on with
    what the tap returns: it can exchange values, thin them out (dropout), or keep a copy of them.
    """
    return x


def linear(layer: Affine, x: Array) -> Array:
    """y = W x + b, for every token."""
    return layer.weight @ x + layer.bias


def softmax(x: Array) -> Array:
    """Every column becomes positive, with sum 1."""
    e = np.exp(x - x.max(axis=-2, keepdims=True))
    return e / e.sum(axis=-2, keepdims=True)


def layer_norm(norm: Norm, x: Array) -> Array:
    """Every column gets mean 0 and variance 1, then a learned scale and shift.

    Source: Ba, Kiros and Hinton 2016, "Layer Normalization".
    """
    x = x - x.mean(axis=-2, keepdims=True)
    variance = (x * x).mean(axis=-2, keepdims=True)
    return norm.weight * (x / np.sqrt(variance + norm.epsilon)) + norm.bias


def add_norm(norm: Norm, x: Array, y: Array, tap: Tap = no_tap, name: str = "sum") -> Array:
    """The residual connection x + y, normed."""
    return layer_norm(norm, tap(name, x + y))


def attention(
    q: Array, k: Array, v: Array, key_mask: Mask, head_mask: Array, tap: Tap = no_tap
) -> Array:
    """Every query takes the mean of the values, weighted by how well their keys match it.

    q : (H, K, Lq);  k, v : (H, K, L);  key_mask : (L, 1), False hides a key from all queries;
    head_mask : (H, 1, 1), 0 silences a head  ->  (H, K, Lq)

    Scores and weights are (H, L, Lq): a row for every key, a column for every query.
    A hidden key gets the smallest finite score, not -inf: where all keys are hidden, the query
    listens to all alike.  Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1.
    """
    scores = tap("scores", k.mT @ q / math.sqrt(k.shape[-2]))
    scores = tap("masked_scores", np.where(key_mask, scores, np.finfo(scores.dtype).min))
    weights = tap("weights", tap("dropout", softmax(scores)) * head_mask)
    return v @ weights


def self_attention(
    w: Attention, x: Array, keys: Array, spans: Sequence[Span], head_mask: Array,
    tap: Tap = no_tap,
) -> Array:  # fmt: skip
    """Tokens ask the tokens of their own sequence, in H ways at once.

    x : (D, T), who asks;  keys : (D, T'), who is asked, often x itself;
    head_mask : (H, 1, 1)  ->  (D, T)
    """
    q = tap("q_lin", linear(w.q_lin, x))  # (A, T)
    k = tap("k_lin", linear(w.k_lin, keys))  # (A, T')
    v = tap("v_lin", linear(w.v_lin, keys))

    # Head h is rows hK to (h + 1)K: to split and to join heads is a reshape, and moves nothing.
    heads, width = len(head_mask), len(q)
    q, k, v = (a.reshape(heads, width // heads, a.shape[-1]) for a in (q, k, v))  # (H, K, T)
    context = np.empty_like(q)
    for s in spans:
        context[..., s.queries] = attention(
            q[..., s.queries], k[..., s.keys], v[..., s.keys], s.key_mask, head_mask, tap
        )
    context = tap("context", context.reshape(width, x.shape[-1]))  # (A, T)
    return tap("out_lin", linear(w.out_lin, context))


def feed_forward(w: FeedForward, function: Function, x: Array, tap: Tap = no_tap) -> Array:
    """Every token by itself: to more features, through an activation function, and back."""
    h = tap("lin1", linear(w.lin1, x))  # (F, T)
    h = tap("activation", activation(function, h))
    return tap("lin2", linear(w.lin2, h))  # (D, T)


def activation(function: Function, x: Array) -> Array:
    """A function that bends, for every number by itself: gelu, or whichever the config names."""
    return function(x)


def erf(x: Array) -> Array:
    """The error function, to 3e-16 in float64 and correctly rounded in float32.

    Source: W. J. Cody 1969, "Rational Chebyshev approximations for the error function", for
    |x| < 0.46875 and for 0.46875 < |x| < 4; the latter up to 6, where erf is 1 in float64.
    """
    if x.size > 8192:  # a part at a time, whose powers stay in the cache, takes half as long
        parts = np.array_split(x.reshape(-1), x.size // 4096)
        return np.concatenate([erf(part) for part in parts]).reshape(x.shape)
    y = np.minimum(np.abs(x.astype(np.float64)), 6)
    near = y * np.polyval(ERF_NEAR[0], y * y) / np.polyval(ERF_NEAR[1], y * y)
    far = 1 - np.exp(-y * y) * np.polyval(ERFC_FAR[0], y) / np.polyval(ERFC_FAR[1], y)
    return np.copysign(np.where(y < 0.46875, near, far), x).astype(x.dtype)


def gelu(x: Array) -> Array:
    """x times the chance that a standard normal variable falls below x (Hendrycks 2016)."""
    return x * (1 + erf(x / math.sqrt(2))) / 2


ERF_NEAR: Final = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
     3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2,
     1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
ERFC_FAR: Final = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
     6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
     1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2,
     5.37181101862009858e2, 1.62138957456669019e3, 3.29079923573345963e3,
     4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
