"""What golden/record/make.py records: the cases of each folder, and sentences for the demo models.

Every draw is seeded by names, so that a case added or removed changes no other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SEED = 20
VOCAB, POSITIONS, BLOCKS, HEADS, CHOICES, TYPES = 97, 31, 3, 3, 4, 3
PAD = 0

# Different in each block, unequal to its transpose, with values that a boolean mask would lose.
HEAD_MASK = np.array([[1.0, 0.5, 0.0], [1.7, 1.0, 0.25], [0.0, 1.3, 1.0]])

# In a group the functions are equal up to rounding, or (gelu_fast) up to 1e-11 of a constant.
ACTIVATIONS = [
    ["gelu", "gelu_python"],
    ["gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast"],
    ["silu", "swish"],
    *([name] for name in ("quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "gelu_10")),
    *([name] for name in ("mish", "tanh", "sigmoid", "linear", "laplace")),
]

Mask = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call of one model: its arguments, and the fields of config.json that it changes."""

    name: str
    description: str
    inputs: dict[str, np.ndarray]
    config: dict[str, object] = field(default_factory=dict)


def generator(*names: str) -> np.random.Generator:
    return np.random.default_rng([SEED, *"/".join(names).encode()])


def right_padding(rows: int, length: int) -> np.ndarray:
    """Row i ends in 2i (mod length) padding tokens."""
    live = length - 2 * np.arange(rows)[:, None] % length
    return (np.arange(length) < live).astype(np.int64)


def left_padding(rows: int, length: int) -> np.ndarray:
    """Row i begins with 2i + 1 (mod length) padding tokens."""
    pads = (2 * np.arange(rows)[:, None] + 1) % length
    return (np.arange(length) >= pads).astype(np.int64)


def holes(rows: int, length: int) -> np.ndarray:
    """Every third key is hidden, other ones in the next row."""
    return ((np.arange(rows)[:, None] + np.arange(length)) % 3 != 1).astype(np.int64)


def fully_masked_row(rows: int, length: int) -> np.ndarray:
    """The last row sees nothing, the others see all."""
    return np.repeat((np.arange(rows) < rows - 1).astype(np.int64)[:, None], length, axis=1)


def odd_masks(rows: int, length: int) -> np.ndarray:
    """Floats which are neither 0 nor 1: whatever is not 0 takes part."""
    return np.stack([np.roll(np.resize([2.0, 0.5, 0.0, 1.0, 0.5], length), i) for i in range(rows)])


def build(
    folder: str,
    name: str,
    description: str,
    shape: tuple[int, ...],
    mask: Mask | None = None,
    *,
    positions: bool = False,
    heads: np.ndarray | None = None,
    types: bool = False,
    key: str | None = None,
    **config: object,
) -> Case:
    """Draw the arguments of a case; shape ends in the length; key names the draw if not name."""
    rng, length = generator(folder, key or name), shape[-1]
    ids = rng.integers(0, VOCAB, shape)
    ids.flat[0], ids.flat[-1] = VOCAB - 1, 0  # the ends of the table, in every case
    inputs = {"input_ids": ids}
    if mask is not None:
        inputs["attention_mask"] = mask(ids.size // length, length).reshape(shape)
        if mask in (right_padding, left_padding):
            ids[inputs["attention_mask"] == 0] = PAD
    if positions:
        inputs["position_ids"] = rng.integers(0, POSITIONS, shape)
        inputs["position_ids"].flat[:2] = POSITIONS - 1, 0
        inputs["position_ids"][..., -1] = inputs["position_ids"][..., 0]  # repeated
    if heads is not None:
        inputs["attention_head_mask"] = heads
    if types:
        inputs["token_type_ids"] = rng.integers(0, TYPES, shape)
        inputs["token_type_ids"].flat[0], inputs["token_type_ids"].flat[-1] = TYPES - 1, 0
    return Case(name, description, inputs, dict(config))


def masked_language_model_cases(folder: str) -> Iterator[Case]:
    """Everything that can be asked of the encoder is asked of this class."""

    def case(name: str, description: str, *args: Any, **options: Any) -> Case:
        return build(folder, name, description, *args, **options)

    yield case("plain", "token ids and nothing else", (2, 7))
    yield case("right_padding", "the second row ends in padding", (2, 4), right_padding)
    yield case("left_padding", "rows begin with padding; positions count it", (2, 4), left_padding)
    yield case("holes", "keys hidden between visible ones", (2, 4), holes)
    yield case(
        "fully_masked_row", "the last row sees no key, so attends to all", (3, 2), fully_masked_row
    )
    yield case("odd_masks", "mask values 2 and 0.5 attend like 1", (2, 4), odd_masks)
    yield case("positions", "repeated, out of order, unequal rows", (2, 4), positions=True)
    yield case("head_mask", "entries 0, 0.25, 0.5, 1, 1.3 and 1.7", (2, 4), heads=HEAD_MASK)
    yield case(
        "everything_at_once",
        "padding, positions and a head mask",
        (2, 4),
        right_padding,
        positions=True,
        heads=HEAD_MASK,
    )
    yield case("length_1", "a token that can attend only to itself", (2, 1))
    yield case("length_max", "as many tokens as positions", (1, POSITIONS))
    yield case("batch_5", "more rows than tokens in a row", (5, 2))
    for group in ACTIVATIONS:
        for name in group:
            also = ", ".join(other for other in group if other != name)
            text = f"activation {name}" + (f", a relative of {also}" if also else "")
            yield case(f"activation_{name}", text, (1, 2), key="activation", activation=name)


def task_cases(folder: str) -> Iterator[Case]:
    """The inputs that a head can get wrong, and one case of the folder's own."""
    many = folder == "DistilBertForMultipleChoice"

    def case(
        name: str, description: str, rows: int, length: int, *args: Any, **options: Any
    ) -> Case:
        shape = (rows, CHOICES, length) if many else (rows, length)
        return build(folder, name, description, shape, *args, **options)

    few = 1 if many else 2  # every row of multiple choice is four sequences
    yield case("plain", "token ids and nothing else", 2, 3 if many else 4)
    yield case("right_padding", "rows end in padding", few, 3, right_padding)
    yield case(
        "left_padding_head_mask",
        "rows begin with padding; heads are masked",
        few,
        3,
        left_padding,
        heads=HEAD_MASK,
    )
    yield case("positions", "repeated and out of order", few, 3, positions=True)
    yield case(
        "everything_at_once",
        "padding, positions and a head mask",
        2,
        3,
        right_padding,
        positions=True,
        heads=HEAD_MASK,
    )
    yield case("length_1", "one token a row", few, 1)
    if folder == "DistilBertModel":
        yield case("odd_masks", "mask values 2 and 0.5 attend like 1", 2, 4, odd_masks)
    elif folder == "DistilBertForTokenClassification":
        yield case("fully_masked_row", "the last row sees no key", 2, 3, fully_masked_row)
    elif folder == "DistilBertForQuestionAnswering":
        yield case("holes", "keys hidden between visible ones", 2, 4, holes)
    else:
        yield case(
            "activation_quick_gelu",
            "the pooler stays relu",
            1,
            1 if many else 2,
            activation="quick_gelu",
        )


def bert_cases(folder: str) -> Iterator[Case]:
    """What BERT has besides, in every class; and of the encoder everything, in one of them."""
    many = folder == "BertForMultipleChoice"

    def case(
        name: str, description: str, rows: int, length: int, *args: Any, **options: Any
    ) -> Case:
        shape = (rows, CHOICES, length) if many else (rows, length)
        return build(folder, name, description, shape, *args, **options)

    few = 1 if many else 2
    yield case("plain", "token ids and nothing else: types are 0", few, 4)
    yield case("types", "token types 0, 1 and 2, unordered", few, 4, types=True)
    yield case("right_padding", "rows end in padding", few, 3, right_padding)
    yield case(
        "everything_at_once",
        "padding, positions, token types and a head mask",
        few,
        4,
        right_padding,
        positions=True,
        types=True,
        heads=HEAD_MASK,
    )
    yield case("length_1", "one token a row", few, 1, types=True)
    if folder == "BertForMaskedLM":
        yield case("left_padding", "rows begin with padding", 2, 4, left_padding, types=True)
        yield case("holes", "keys hidden between visible ones", 2, 4, holes)
        yield case("fully_masked_row", "the last row sees no key", 3, 2, fully_masked_row)
        yield case("positions", "repeated, out of order", 2, 4, positions=True)
        yield case("head_mask", "entries 0, 0.25, 0.5, 1, 1.3 and 1.7", 2, 4, heads=HEAD_MASK)
        yield case("length_max", "as many tokens as positions", 1, POSITIONS, types=True)
        yield case("batch_5", "more rows than tokens in a row", 5, 2)
        for name in ("gelu_new", "relu", "silu"):
            yield case(f"activation_{name}", f"activation {name}", 1, 2, hidden_act=name)
    elif folder == "BertForTokenClassification":
        yield case("fully_masked_row", "the last row sees no key", 2, 3, fully_masked_row)
    elif folder in ("BertModel", "BertForSequenceClassification"):
        yield case("activation_relu", "the pooler stays tanh", 1, 2, hidden_act="relu")


def bert_pretraining_cases(folder: str) -> Iterator[Case]:
    """A file of two heads is recorded once, and read as either."""
    yield build(folder, "types", "two heads on one encoder", (2, 4), right_padding, types=True)


def pruned_cases(folder: str) -> Iterator[Case]:
    """Columns of the head mask are original heads; entries of heads that are gone say 9."""
    heads = HEAD_MASK.copy()
    heads[0, 1] = heads[2, 0] = heads[2, 2] = 9.0
    heads[2, 1] = 0.75
    yield build(folder, "plain", "block 0 lacks head 1, block 2 heads 0 and 2", (2, 4))
    yield build(
        folder,
        "everything_at_once",
        "padding, positions, and a head mask by original head numbers (9 where the head is gone)",
        (2, 4),
        right_padding,
        positions=True,
        heads=heads,
    )


def sinusoidal_cases(folder: str) -> Iterator[Case]:
    yield build(folder, "plain", "the file has no position table: sines and cosines", (2, 4))
    yield build(folder, "positions", "rows 0 to 30 of the table, unordered", (2, 4), positions=True)


def cases_of(folder: str) -> list[Case]:
    special = {
        "DistilBertForMaskedLM": masked_language_model_cases,
        "pruned": pruned_cases,
        "bert_pruned": pruned_cases,
        "sinusoidal": sinusoidal_cases,
        "BertForPreTraining": bert_pretraining_cases,
    }
    usual = bert_cases if folder.startswith("Bert") else task_cases
    return list(special.get(folder, usual)(folder))


SENTIMENT = [
    "A warm, funny and beautifully acted film; I left the cinema smiling.",
    "The plot makes no sense, the jokes fall flat, and it never seems to end.",
    "Not bad at all!",
    "I wanted to like it. I really did. But what a dull, lifeless mess.",
    "The café scene alone is worth the price of the ticket: très touchant, and naïve.",
    "Best headphones I have ever owned 😀 the sound is clear and they weigh nothing.",
    "Broke after two days. The seller never answered. Avoid!",
    "Visually stunning, but hollow: two hours of pretty pictures and not one living character.",
    "Her performance is so honest that you forget she is acting.",
    "It's neither clever nor scary, and the ending is an insult to the audience...",
    "terrific",
    {"text": "Is the battery any good?", "text_pair": "Yes, it lasts for days, and charges fast."},
]

FILL_MASK = [
    "The old man sat by the [MASK] and told us a story.",
    "She opened the [MASK] and walked into the room.",
    "[MASK] was a cold morning, and nobody wanted to get up.",
    "The film was not only long, it was also [MASK].",
    "He has lived in the [MASK] of London for twenty years.",
    '"I do not [MASK] you," she said, and turned away.',
    "After the war the king returned to his [MASK].",
    "The café on the corner was [MASK], as always on Sundays!",
    "It is a truth which every [MASK] knows.",
    "The [MASK] of the house looked at the [MASK] without a word.",
    "There were two [MASK] on the table; one of them was [MASK].",
    "What a [MASK]?",
]
