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
TYPES: Final = "embeddings.token_type_embeddings"  # a table that not every family has
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
    only_of: str | None = None  # the one family that has it

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
    pooler_in_encoder: bool = False  # then its tensors have the encoder's prefix
    config_names: Mapping[str, tuple[str, ...]]  # our name: those in config.json, the first written
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]  # fields of other families, and what they are in this one
    refused: Mapping[str, Any] = field(default_factory=dict)  # keys, and their one value that runs
    null_classifier_dropout: bool = False  # config.json may say null for that of the other states
    dropouts: tuple[str, ...] = ()  # places where every block drops more values than DistilBERT's
    modules: Mapping[str, str] = field(default_factory=dict)  # canonical path: its own, {n} a block
    results: Mapping[str, str] = field(default_factory=dict)  # of modules around steps: whose it is
    tensors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # with names of their own
    double_classes: Mapping[str, str] = field(default_factory=dict)  # of two heads: ours of one


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
    "for_next_sentence_prediction": Architecture(
        class_suffix="ForNextSentencePrediction", head="predict_next_sentence", reads_first=True,
        layers={**POOLER_LAYERS, "seq_relationship": "2 D"}, outputs={"logits": SEQUENCES},
        num_labels=2, only_of="bert",
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
        fixed={"layer_norm_epsilon": 1e-12, "type_vocab_size": 0},
    ),
    "bert": Family(
        title="BERT",
        class_prefix="Bert",
        prefix="bert.",
        tables={
            "embeddings.word_embeddings": "V D",
            "embeddings.position_embeddings": "P D",
            TYPES: "Y D",
        },
        pooler="tanh",
        pooler_in_encoder=True,
        config_names={
            "vocab_size": ("vocab_size",),
            "max_positions": ("max_position_embeddings",),
            "type_vocab_size": ("type_vocab_size",),
            "hidden_size": ("hidden_size",),
            "num_blocks": ("num_hidden_layers",),
            "num_attention_heads": ("num_attention_heads",),
            "intermediate_size": ("intermediate_size",),
            "activation": ("hidden_act",),
            "layer_norm_epsilon": ("layer_norm_eps",),
            "dropout_rate": ("hidden_dropout_prob",),
            "attention_dropout_rate": ("attention_probs_dropout_prob",),
            "classifier_dropout_rate": ("classifier_dropout",),
            "initializer_scale": ("initializer_range",),
            "num_labels": ("num_labels",),
            "id_to_label": ("id2label",),
            "pad_token_id": ("pad_token_id",),
            "problem_type": ("problem_type",),
            "tie_word_embeddings": ("tie_word_embeddings",),
            "pruned_heads": ("pruned_heads",),
        },
        defaults={
            "vocab_size": 30522, "max_positions": 512, "type_vocab_size": 2, "hidden_size": 768,
            "num_blocks": 12, "num_attention_heads": 12, "intermediate_size": 3072,
            "activation": "gelu", "layer_norm_epsilon": 1e-12, "dropout_rate": 0.1,
            "attention_dropout_rate": 0.1, "classifier_dropout_rate": None,
            "initializer_scale": 0.02, "num_labels": 2, "id_to_label": {}, "pad_token_id": 0,
            "problem_type": None, "tie_word_embeddings": True, "pruned_heads": {},
        },
        fixed={"use_cross_attention": False, "sinusoidal_pos_embds": False, "qa_dropout": 0.0},
        refused={
            "is_decoder": False, "add_cross_attention": False,
            "position_embedding_type": "absolute",
        },
        null_classifier_dropout=True,
        dropouts=("attention_dropout",),
        modules={
            "transformer.layer.{n}.attention.q_lin": "encoder.layer.{n}.attention.self.query",
            "transformer.layer.{n}.attention.k_lin": "encoder.layer.{n}.attention.self.key",
            "transformer.layer.{n}.attention.v_lin": "encoder.layer.{n}.attention.self.value",
            "transformer.layer.{n}.attention.scores": "encoder.layer.{n}.attention.self.scores",
            "transformer.layer.{n}.attention.masked_scores":
                "encoder.layer.{n}.attention.self.masked_scores",
            "transformer.layer.{n}.attention.weights": "encoder.layer.{n}.attention.self.weights",
            "transformer.layer.{n}.attention.context": "encoder.layer.{n}.attention.self.context",
            "transformer.layer.{n}.attention.out_lin": "encoder.layer.{n}.attention.output.dense",
            "transformer.layer.{n}.attention_residual":
                "encoder.layer.{n}.attention.output.residual",
            "transformer.layer.{n}.sa_layer_norm":
                "encoder.layer.{n}.attention.output.LayerNorm",
            "transformer.layer.{n}.ffn.lin1": "encoder.layer.{n}.intermediate.dense",
            "transformer.layer.{n}.ffn.activation":
                "encoder.layer.{n}.intermediate.intermediate_act_fn",
            "transformer.layer.{n}.ffn.lin2": "encoder.layer.{n}.output.dense",
            "transformer.layer.{n}.ffn_residual": "encoder.layer.{n}.output.residual",
            "transformer.layer.{n}.output_layer_norm": "encoder.layer.{n}.output.LayerNorm",
            "pre_classifier": "pooler.dense",
            "pooled": "pooler.activation",
            "vocab_transform": "cls.predictions.transform.dense",
            "vocab_activation": "cls.predictions.transform.transform_act_fn",
            "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
            "vocab_projector": "cls.predictions.decoder",
            "seq_relationship": "cls.seq_relationship",
        },
        results={
            "encoder.layer.{n}.attention.self": "transformer.layer.{n}.attention.context",
            "encoder.layer.{n}.attention.output": "transformer.layer.{n}.sa_layer_norm",
            "encoder.layer.{n}.attention": "transformer.layer.{n}.sa_layer_norm",
            "encoder.layer.{n}.intermediate": "transformer.layer.{n}.ffn.activation",
            "encoder.layer.{n}.output": "transformer.layer.{n}.output_layer_norm",
            "encoder.layer.{n}": "transformer.layer.{n}.output_layer_norm",
            "encoder": "last_hidden_state",
            "pooler": "pooled",
            "cls.predictions.transform": "vocab_layer_norm",
            "cls.predictions": "vocab_projector",
            "cls": "logits",
        },
        tensors={"vocab_projector.bias": ("cls.predictions.bias", "cls.predictions.decoder.bias")},
        double_classes={"BertForPreTraining": "for_masked_language_modeling"},
    ),
}  # fmt: skip
# Families that npbert does not run, by what the names of their tensors begin with.
OTHER_FAMILIES: Final = {
    "roberta.": "RoBERTa", "albert.": "ALBERT", "electra.": "ELECTRA", "mpnet.": "MPNet",
    "deberta.": "DeBERTa", "camembert.": "CamemBERT", "longformer.": "Longformer",
    "mobilebert.": "MobileBERT", "squeezebert.": "SqueezeBERT", "nomic_bert.": "NomicBERT",
    "new.": "GTE-new", "transformer.h.": "GPT-2", "model.layers.": "ModernBERT or a decoder",
    "shared.": "T5", "encoder.block.": "T5",
}  # fmt: skip
DEFAULT_FAMILY: Final = next(iter(FAMILIES))
ENCODER_ARCHITECTURE: Final = next(name for name, row in ARCHITECTURES.items() if row.is_encoder)


def list_architectures(family: str) -> dict[str, Architecture]:
    """Return the architectures that a family has."""
    return {name: row for name, row in ARCHITECTURES.items() if row.only_of in (None, family)}


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
