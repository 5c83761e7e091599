"""Mistakes with the heads: what is pooled, by what function, and what becomes of the logits."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from npbert.checkpoint.config import Config
from npbert.engine.activations import ACTIVATIONS, sigmoid
from npbert.families import FAMILIES, POOLER_LAYERS, list_architectures
from npbert.oracle.mistakes.scene import Mistake, Scene, hidden_state_name
from npbert.oracle.replay import round_to_type
from npbert.textbook import Affine, Array, linear, softmax

NEXT_SENTENCE: Final = "seq_relationship"
SQUARE_LAYERS: Final = (*POOLER_LAYERS, "vocab_transform")


def head_mistakes(config: Config) -> Iterator[Mistake]:
    """What is pooled, by what function, and what becomes of the logits."""
    for text, offset in {"the second token": 1, "the last token": 10**9}.items():
        yield Mistake(
            f"{text} is pooled, not the first",
            {"pre_classifier": partial(pool_from, partial(pick_column, offset))},
        )
    yield Mistake(
        "the last real token is pooled, not the first",
        {"pre_classifier": partial(pool_from, last_token)},
    )
    yield Mistake(
        "the mean of all tokens is pooled, not the first",
        {"pre_classifier": partial(pool_from, partial(average_tokens, False))},
    )
    yield Mistake(
        "the mean of all real tokens is pooled, not the first",
        {"pre_classifier": partial(pool_from, partial(average_tokens, True))},
    )
    right = FAMILIES[config.family].pooler
    for name in ("tanh", "relu", "linear", "gelu", "sigmoid", "silu"):
        text = "no function at all" if name == "linear" else name
        if name != right:
            yield Mistake(
                f"the pooler's function is {text}, not {right}",
                {"pooled": partial(pool_with, name)},
            )
    for name in ("relu", "tanh"):
        yield Mistake(
            f"the pooler's function is {name}, and then {'tanh' if name == 'relu' else 'relu'}",
            {"pooled": partial(pool_with_two, name)},
        )
    if config.num_blocks > 1:
        layers = (name for name in list_head_layers(config) if name != "vocab_projector")
        yield Mistake(
            "the head reads the output of the last block but one",
            dict.fromkeys(layers, read_earlier_block),
        )
    yield Mistake(
        "the classifier reads the first token without pre_classifier",
        {"pooled": lambda s: s.head_input[:, s.first_columns()]},
    )
    for name in list_head_layers(config):
        yield Mistake(f"{name}: bias missing", {name: lambda s: s.x - head_layer(s).bias})
        yield Mistake(f"{name}: bias added twice", {name: lambda s: s.x + head_layer(s).bias})
        for kind in ("float16", "bfloat16"):
            yield Mistake(
                f"{name}: weights rounded to {kind}",
                {name: partial(change_head, partial(round_weights, kind))},
            )
        if name in SQUARE_LAYERS:
            yield Mistake(
                f"{name}: weights transposed", {name: partial(change_head, lambda w: w.T)}
            )
    yield Mistake(
        "vocab_projector has the word embeddings for its weights, though they are not tied",
        {"vocab_projector": project_by_words},
    )
    yield Mistake(
        "start and end have changed places",
        {
            "start_logits": lambda s: s.value("qa_outputs")[1:],
            "end_logits": lambda s: s.value("qa_outputs")[:1],
        },
    )
    if NEXT_SENTENCE in list_head_layers(config):
        yield Mistake(
            "the logits of the next sentence have changed places: the first says that it follows",
            {NEXT_SENTENCE: swap_rows, "logits": swap_logits},
        )
    yield Mistake(
        "the logits are probabilities: a softmax too many", {"logits": lambda s: softmax(s.x)}
    )
    yield Mistake(
        "the logits are probabilities: a sigmoid too many", {"logits": lambda s: sigmoid(s.x)}
    )
    yield Mistake(
        "the logits are logarithms of probabilities", {"logits": lambda s: np.log(softmax(s.x))}
    )
    yield Mistake(
        "the logits of choices are gathered as if sequences were sorted by choice",
        {"logits": logits_by_choice},
    )


def list_head_layers(config: Config) -> list[str]:
    """Return the linear layers of all heads that models of this family may have."""
    rows = list_architectures(config.family).values()
    shapes = {name: shape for row in rows for name, shape in row.layers.items()}
    return [name for name, shape in shapes.items() if len(shape.split()) == 2]


def swap_rows(scene: Scene) -> Array:
    """Two logits in the other order, unless the candidate's stand as they should."""
    theirs = scene.call.candidate.get(scene.name)
    if theirs is None:
        return scene.x  # swap_logits will do it
    columns = scene.call.layout.columns(scene.name, theirs)
    return min((scene.x, scene.x[::-1]), key=lambda x: float(np.abs(x - columns).max()))


def swap_logits(scene: Scene) -> Array:
    """The logits of the next sentence in the other order; those of other heads as they are."""
    layer = scene.call.model.head.get(NEXT_SENTENCE)
    return scene.x if layer is None else linear(layer, scene.value("pooled"))[::-1]


def project_by_words(scene: Scene) -> Array:
    """The vocabulary's logits by the embeddings, where the file has a projector of its own."""
    words = scene.call.model.encoder.word_embeddings
    return words @ scene.heard["vocab_layer_norm"] + head_layer(scene).bias


def pick_column(offset: int, scene: Scene) -> Array:
    """One token of every sequence."""
    return scene.head_input[:, scene.first_columns(offset)]


def last_token(scene: Scene) -> Array:
    """The last token of every sequence that is heard."""
    key_mask = scene.call.inputs.key_mask
    ends = key_mask.shape[1] - 1 - key_mask[:, ::-1].argmax(axis=1)
    return scene.head_input[:, np.array([s.start for s in scene.call.pack.spans]) + ends]


def average_tokens(real_only: bool, scene: Scene) -> Array:
    """The mean of every sequence's tokens."""
    key_mask = scene.call.inputs.key_mask if real_only else np.ones_like(scene.call.inputs.key_mask)
    means = [
        (scene.head_input[:, s] * k).sum(axis=-1) / max(k.sum(), 1)
        for s, k in zip(scene.call.pack.spans, key_mask, strict=True)
    ]
    return np.stack(means, axis=-1)


def pool_with(name: str, scene: Scene) -> Array:
    """Another function of what is pooled."""
    return ACTIVATIONS[name](scene.value("pre_classifier"))


def pool_with_two(first: str, scene: Scene) -> Array:
    """One function, and then the other."""
    second = "tanh" if first == "relu" else "relu"
    return ACTIVATIONS[second](ACTIVATIONS[first](scene.value("pre_classifier")))


def read_earlier_block(scene: Scene) -> Array:
    """The first layer of the head, of the block before the last."""
    layers = scene.call.model.row.layers or scene.call.model.head
    if scene.name != next(iter(layers)):
        return scene.x
    x = scene.heard[hidden_state_name(scene.call.model.config.num_blocks - 2)]
    x = x[:, scene.first_columns()] if scene.name == "pre_classifier" else x
    return linear(head_layer(scene), x)


def pool_from(which: Callable[[Scene], Array], scene: Scene) -> Array:
    """pre_classifier of something else than the first token."""
    return linear(scene.call.model.head["pre_classifier"], which(scene))


def head_layer(scene: Scene) -> Affine:
    """The weights of this layer of the head."""
    layer: Affine = scene.call.model.head[scene.name]
    return layer


def head_layer_input(scene: Scene) -> tuple[Affine, Array]:
    """Return the weights of a layer of the head, and what goes into it."""
    name = scene.name
    if name == "pre_classifier":
        x = scene.head_input[:, scene.first_columns()]
    elif name == "vocab_projector":
        x = scene.heard["vocab_layer_norm"]
    else:  # of one that judges tokens, or of a classifier, which may have pooled
        x = scene.heard.get("pooled", scene.head_input)
    return head_layer(scene), x


def change_head(change: Callable[[Array], Array], scene: Scene) -> Array:
    """A layer of the head with weights of which something has become."""
    layer, x = head_layer_input(scene)
    return change(layer.weight) @ x + layer.bias


def round_weights(kind: str, weight: Array) -> Array:
    """Return weights in fewer bits."""
    return round_to_type(weight, kind)


def logits_by_choice(scene: Scene) -> Array:
    """Logits in another order, where there are choices."""
    choices = scene.call.inputs.choices
    return scene.x.reshape(choices, -1).T.reshape(1, -1) if choices else scene.x
