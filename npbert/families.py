"""What an architecture and a family are: one row each, from which everything else follows.

Loading, saving, fresh weights, checked inputs, the shapes of results, tasks, the oracle and the
page read these rows; nothing else compares an architecture's or a family's name with a string.
Shapes are in the letters of textbook.py; Y are the token types that BERT adds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Shapes = Mapping[str, str]  # of weights: a linear layer is "out in", a norm "D", a table "V D"
Axes = tuple[str, ...]  # of what leaves, rows outside

TOKENS: Final[Axes] = ("batch", "length", "features")  # something of every token
SPANS: Final[Axes] = ("batch", "length")  # one number of every token
SEQUENCES: Final[Axes] = ("batch", "features")  # something of every sequence
CHOICES: Final[Axes] = ("batch", "choices")  # one number of every choice

# Inside, DistilBERT's module paths are canonical for every family.
BLOCK_PREFIX: Final = "transformer.layer.{n}."
BLOCK_LAYERS: Final[Shapes] = {
    "attention.q_lin": "A D",
    "attention.k_lin": "A D",
    "attention.v_lin": "A D",
    "attention.out_lin": "D A",
    "sa_layer_norm": "D",
    "ffn.lin1": "F D",
    "ffn.lin2": "D F",
    "output_layer_norm": "D",
}
EMBEDDING_NORM: Final = "embeddings.LayerNorm"
POOLER_LAYERS: Final[Shapes] = {"pre_classifier": "D D"}
POOLER_STEPS: Final = ("pre_classifier", "pooled")  # each of a sequence, whatever the head reads


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a model makes of the last hidden state."""

    class_suffix: str  # of its class in transformers, behind the family's prefix
    head: str  # the function of heads.py that computes it
    layers: Shapes  # of its head, in the order of the pass
    outputs: Mapping[str, Axes]  # what it returns, and how that leaves
    is_encoder: bool = False  # no head: the pooler, if the file has it; no prefix in the file
    reads_first: bool = False  # the first token of each sequence; otherwise every token
    has_choices: bool = False  # sequences stand in groups, (batch, choices, length)
    dropout: str = "classifier_dropout"  # the rate in front of the head's last layer, by Config
    num_labels: int | None = None  # where the head has so many, whatever the config says

    def axes(self, activation: str) -> Axes:
        """Return how an activation leaves: by the name of an output, or of any other step."""
        if activation in self.outputs:
            return self.outputs[activation]
        judged = activation in POOLER_STEPS or (self.reads_first and activation in self.layers)
        return SEQUENCES if judged else TOKENS


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one kind: how they are called, what they consist of, what can be configured."""

    title: str
    class_prefix: str  # of its classes in transformers
    prefix: str  # of the encoder's tensors in a file that has a head too
    tables: Shapes  # of the embeddings, which have no bias
    pooler: str  # the activation function behind its layer, whatever the config says
    config_names: Mapping[str, tuple[str, ...]]  # our name: those in config.json, the first written
    defaults: Mapping[str, Any]
    modules: Mapping[str, str] = field(default_factory=dict)  # canonical path: its own, {n} a block


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "base": Architecture(
        class_suffix="Model", head="return_states", layers={}, is_encoder=True,
        outputs={"hidden_state": TOKENS, "pooled_state": SEQUENCES},
    ),
    "for_masked_language_modeling": Architecture(
        class_suffix="ForMaskedLM", head="predict_words", outputs={"logits": TOKENS},
        layers={"vocab_transform": "D D", "vocab_layer_norm": "D", "vocab_projector": "V D"},
    ),
    "for_sequence_classification": Architecture(
        class_suffix="ForSequenceClassification", head="classify_sequences", reads_first=True,
        layers={**POOLER_LAYERS, "classifier": "C D"}, outputs={"logits": SEQUENCES},
    ),
    "for_token_classification": Architecture(
        class_suffix="ForTokenClassification", head="classify_tokens",
        layers={"classifier": "C D"}, outputs={"logits": TOKENS},
    ),
    "for_question_answering": Architecture(
        class_suffix="ForQuestionAnswering", head="find_spans", num_labels=2,
        layers={"qa_outputs": "2 D"}, outputs={"start_logits": SPANS, "end_logits": SPANS},
        dropout="qa_dropout",
    ),
    "for_multiple_choice": Architecture(
        class_suffix="ForMultipleChoice", head="classify_sequences", reads_first=True,
        has_choices=True, layers={**POOLER_LAYERS, "classifier": "1 D"},
        outputs={"logits": CHOICES},
    ),
}  # fmt: skip

FAMILIES: Final[dict[str, Family]] = {
    "distilbert": Family(
        title="DistilBERT",
        class_prefix="DistilBert",
        prefix="distilbert.",
        tables={
            "embeddings.word_embeddings": "V D",
            "embeddings.position_embeddings": "P D",
        },
        pooler="relu",
        config_names={
            "vocab_size": ("vocab_size",),
            "max_positions": ("max_position_embeddings",),
            "hidden_size": ("dim", "hidden_size"),
            "num_blocks": ("n_layers", "num_hidden_layers"),
            "num_attention_heads": ("n_heads", "num_attention_heads"),
            "intermediate_size": ("hidden_dim", "intermediate_size"),
            "activation": ("activation", "hidden_act"),
            "dropout_rate": ("dropout",),
            "attention_dropout_rate": ("attention_dropout",),
            "classifier_dropout_rate": ("seq_classif_dropout",),
            "initializer_scale": ("initializer_range",),
            "num_labels": ("num_labels",),
            "id_to_label": ("id2label",),
            "use_cross_attention": ("use_cross_attention",),
            "sinusoidal_pos_embds": ("sinusoidal_pos_embds",),
            "pad_token_id": ("pad_token_id",),
            "qa_dropout": ("qa_dropout",),
            "problem_type": ("problem_type",),
            "tie_word_embeddings": ("tie_word_embeddings",),
            "pruned_heads": ("pruned_heads",),
        },
        defaults={
            "vocab_size": 30522, "max_positions": 512, "hidden_size": 768, "num_blocks": 6,
            "num_attention_heads": 12, "intermediate_size": 3072, "activation": "gelu",
            "dropout_rate": 0.1, "attention_dropout_rate": 0.1, "classifier_dropout_rate": None,
            "initializer_scale": 0.02, "num_labels": 2, "id_to_label": {},
            "use_cross_attention": False, "sinusoidal_pos_embds": False, "pad_token_id": 0,
            "qa_dropout": 0.1, "problem_type": None, "tie_word_embeddings": True,
            "pruned_heads": {},
        },
    ),
}  # fmt: skip
DEFAULT_FAMILY: Final = next(iter(FAMILIES))
ENCODER_ARCHITECTURE: Final = next(name for name, row in ARCHITECTURES.items() if row.is_encoder)


def class_name(family: str, architecture: str) -> str:
    """Return what transformers calls an architecture of a family."""
    return FAMILIES[family].class_prefix + ARCHITECTURES[architecture].class_suffix


def own_module(family: str, module: str) -> str:
    """Return what a family calls a module that has this canonical path."""
    return translate_path(module, FAMILIES[family].modules)


def canonical_module(family: str, module: str) -> str:
    """Return the canonical path of a module, by its family's own path."""
    return translate_path(module, {own: ours for ours, own in FAMILIES[family].modules.items()})


def translate_path(module: str, table: Mapping[str, str]) -> str:
    """Return a module's path as a table has it, with the number of its block; else as it is."""
    number = re.search(r"(?<=\.)\d+(?=\.)", module)
    if number is None:
        return table.get(module, module)
    template = module[: number.start()] + "{n}" + module[number.end() :]
    return table.get(template, template).replace("{n}", number[0])


def head_layers() -> set[str]:
    """Return the layers of all heads: a checkpoint may lack them, or have those of another head."""
    return {name for row in ARCHITECTURES.values() for name in row.layers}
