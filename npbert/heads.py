"""The heads: what each architecture makes of the last hidden state, in a few lines.

A head receives x, (D, T), and `first`, the columns of x where a sequence begins ([CLS]).
It returns columns too: (C, T), or (C, sequences) where it judges a sequence as a whole.
"""

from collections.abc import Callable, Mapping
from typing import Any

from npbert.encoder import Ids, Run
from npbert.textbook import Array

Weights = Mapping[str, Any]  # an Affine, or a Norm
Head = Callable[[Weights, Array, Ids, Run], dict[str, Array]]


def pool_first(w: Weights, x: Array, first: Ids, run: Run) -> Array:
    """The first token stands for its sequence; the function is the family's, not the config's."""
    h = run.tap("pre_classifier", run.ops.linear(w["pre_classifier"], x[:, first]))
    return run.tap("pooled", run.ops.activation(run.pooler, h))


def return_states(w: Weights, x: Array, first: Ids, run: Run) -> dict[str, Array]:
    """The hidden state itself; pooled too if the checkpoint has the weights for it."""
    if "pre_classifier" not in w:
        return {"hidden_state": x}
    return {"hidden_state": x, "pooled_state": pool_first(w, x, first, run)}


def predict_words(w: Weights, x: Array, first: Ids, run: Run) -> dict[str, Array]:
    """Which word stands here?  (V, T)"""
    h = run.tap("vocab_transform", run.ops.linear(w["vocab_transform"], x))
    h = run.tap("vocab_activation", run.ops.activation(run.activation, h))
    h = run.tap("vocab_layer_norm", run.ops.layer_norm(w["vocab_layer_norm"], h))
    return logits_of("vocab_projector", w, h, run)


def classify_sequences(w: Weights, x: Array, first: Ids, run: Run) -> dict[str, Array]:
    """Which class has this sequence?  (C, sequences);  a choice has one class, its score."""
    h = run.tap("dropout", pool_first(w, x, first, run))
    return logits_of("classifier", w, h, run)


def predict_next_sentence(w: Weights, x: Array, first: Ids, run: Run) -> dict[str, Array]:
    """Does the second text follow the first?  (2, sequences), class 0: yes (Devlin et al. 2019)."""
    return logits_of("seq_relationship", w, pool_first(w, x, first, run), run)


def classify_tokens(w: Weights, x: Array, first: Ids, run: Run) -> dict[str, Array]:
    """Which class has this token?  (C, T)"""
    return logits_of("classifier", w, run.tap("dropout", x), run)


def find_spans(w: Weights, x: Array, first: Ids, run: Run) -> dict[str, Array]:
    """Does the answer start here, does it end here?  (1, T) each"""
    both = run.tap("qa_outputs", run.ops.linear(w["qa_outputs"], run.tap("dropout", x)))
    return {
        "start_logits": run.tap("start_logits", both[:1]),
        "end_logits": run.tap("end_logits", both[1:]),
    }


def logits_of(layer: str, w: Weights, x: Array, run: Run) -> dict[str, Array]:
    """The scores of one linear layer are the whole result."""
    return {"logits": run.tap("logits", run.tap(layer, run.ops.linear(w[layer], x)))}


HEADS: Mapping[str, Head] = {  # by their names, as the rows of families.py have them
    head.__name__: head
    for head in (return_states, predict_words, classify_sequences, predict_next_sentence,
                 classify_tokens, find_spans)
}  # fmt: skip
