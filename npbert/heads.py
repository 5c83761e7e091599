"""The six architectures: what each makes of the last hidden state, in a few lines.

A head receives x, (D, T), and `first`, the columns of x where a sequence begins ([CLS]).
It returns columns too: (C, T), or (C, sequences) where it judges a sequence as a whole.
"""

from collections.abc import Callable, Mapping

from npbert.encoder import Ids, Operations
from npbert.textbook import Affine, Array, Tap

Weights = Mapping[str, Affine]
Head = Callable[[Weights, str, Array, Ids, Operations, Tap], dict[str, Array]]


def pooled(w: Weights, x: Array, first: Ids, ops: Operations, tap: Tap) -> Array:
    """The first token stands for its sequence; the function is relu whatever the config says."""
    h = tap("pre_classifier", ops.linear(w["pre_classifier"], x[:, first]))
    return tap("pooled", ops.activation("relu", h))


def base(
    w: Weights, activation: str, x: Array, first: Ids, ops: Operations, tap: Tap
) -> dict[str, Array]:
    """The hidden state itself; pooled too if the checkpoint has the weights for it."""
    if "pre_classifier" not in w:
        return {"hidden_state": x}
    return {"hidden_state": x, "pooled_state": pooled(w, x, first, ops, tap)}


def masked_lm(
    w: Weights, activation: str, x: Array, first: Ids, ops: Operations, tap: Tap
) -> dict[str, Array]:
    """Which word stands here?  (V, T)"""
    h = tap("vocab_transform", ops.linear(w["vocab_transform"], x))
    h = tap("vocab_activation", ops.activation(activation, h))
    h = tap("vocab_layer_norm", ops.layer_norm(w["vocab_layer_norm"], h))
    return {"logits": tap("logits", tap("vocab_projector", ops.linear(w["vocab_projector"], h)))}


def per_sequence(
    w: Weights, activation: str, x: Array, first: Ids, ops: Operations, tap: Tap
) -> dict[str, Array]:
    """Which class has this sequence?  (C, sequences);  a choice has one class, its score."""
    h = tap("dropout", pooled(w, x, first, ops, tap))
    return {"logits": tap("logits", tap("classifier", ops.linear(w["classifier"], h)))}


def per_token(
    w: Weights, activation: str, x: Array, first: Ids, ops: Operations, tap: Tap
) -> dict[str, Array]:
    """Which class has this token?  (C, T)"""
    x = tap("dropout", x)
    return {"logits": tap("logits", tap("classifier", ops.linear(w["classifier"], x)))}


def question_answering(
    w: Weights, activation: str, x: Array, first: Ids, ops: Operations, tap: Tap
) -> dict[str, Array]:
    """Does the answer start here, does it end here?  (1, T) each"""
    both = tap("qa_outputs", ops.linear(w["qa_outputs"], tap("dropout", x)))
    return {
        "start_logits": tap("start_logits", both[:1]),
        "end_logits": tap("end_logits", both[1:]),
    }


HEADS: Mapping[str, Head] = {
    "base": base,
    "for_masked_language_modeling": masked_lm,
    "for_sequence_classification": per_sequence,
    "for_token_classification": per_token,
    "for_question_answering": question_answering,
    "for_multiple_choice": per_sequence,
}
