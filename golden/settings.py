"""Sixty settings in the shapes that people's models have, from 2019 to today, written anew.

A row is a kind of repository: its config.json, its tokenizer with what its settings say, and the
other files beside them.  Sizes are small, so that a test can draw weights for every row and run it;
keys, their values where these matter, and which files there are, are those of the wild.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of repository, and what it must do."""

    task: str
    config: Json
    tokenizer: str = "wordpiece"  # or vocab, unigram, bpe: what its files hold
    settings: Json | None = field(default_factory=dict)  # tokenizer_config.json, or none
    special: Json | None = None  # special_tokens_map.json
    files: Mapping[str, Any] = field(default_factory=dict)  # other files, of JSON
    encoder: str = ""  # the folder of the encoder
    labels: tuple[str, ...] = ()  # that answers may have
    dimensions: int | None = None  # of embeddings
    tokens: int = 40  # that are read of a long text
    told: str | None = None  # the warning, where there is one
    refused: str | None = None  # the error, where it is none of npbert's


BERT: Final[Json] = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 40,
    "max_position_embeddings": 40, "num_attention_heads": 3, "num_hidden_layers": 2,
    "type_vocab_size": 2,
}  # fmt: skip
NEW_BERT: Final[Json] = {
    **BERT, "model_type": "bert", "layer_norm_eps": 1e-12, "pad_token_id": 0,
    "position_embedding_type": "absolute", "use_cache": True, "transformers_version": "4.30.2",
}  # fmt: skip
POOLER: Final[Json] = {  # as the first multilingual and Chinese files have it
    "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
}  # fmt: skip
GENERATION: Final[Json] = {  # as versions 2.5 to 2.8 wrote it
    "bos_token_id": 0, "do_sample": False, "eos_token_ids": 0, "finetuning_task": None,
    "is_decoder": False, "length_penalty": 1.0, "max_length": 20, "num_beams": 1,
    "num_return_sequences": 1, "output_attentions": False, "output_hidden_states": False,
    "output_past": True, "pruned_heads": {}, "repetition_penalty": 1.0, "temperature": 1.0,
    "top_k": 50, "top_p": 1.0, "torchscript": False, "use_bfloat16": False,
}  # fmt: skip
DISTILBERT: Final[Json] = {
    "activation": "gelu", "attention_dropout": 0.1, "dim": 24, "dropout": 0.1, "hidden_dim": 40,
    "initializer_range": 0.02, "max_position_embeddings": 40, "model_type": "distilbert",
    "n_heads": 3, "n_layers": 2, "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
}  # fmt: skip
OLD_DISTILBERT: Final[Json] = {**DISTILBERT, "tie_weights_": True}
V5: Final[Json] = {
    "add_cross_attention": False, "bos_token_id": None, "classifier_dropout": None,
    "dtype": "float32", "eos_token_id": None, "is_decoder": False, "tie_word_embeddings": True,
    "transformers_version": "5.2.0", "use_cache": False,
}  # fmt: skip


def heads(name: str, **more: Any) -> Json:
    """The architecture of a config."""
    return {"architectures": [name], **more}


def labels(*names: str) -> Json:
    return {"id2label": {str(i): n for i, n in enumerate(names)},
            "label2id": {n: i for i, n in enumerate(names)}}  # fmt: skip


ROLES: Final[Json] = {
    "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}  # fmt: skip
XLM_ROLES: Final[Json] = {
    "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
    "sep_token": "</s>", "unk_token": "<unk>",
    "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True,
                   "normalized": True, "rstrip": False, "single_word": False},
}  # fmt: skip
UNCASED: Final[Json] = {"do_lower_case": True, "model_max_length": 512}
CASED: Final[Json] = {"do_lower_case": False, "model_max_length": 512}
OLDEST: Final[Json] = {"do_lower_case": False, "max_len": 512, "init_inputs": []}
BASIC: Final[Json] = {
    **ROLES, "do_basic_tokenize": True, "do_lower_case": True, "model_max_length": 512,
    "name_or_path": "somebody/encoder", "never_split": None, "strip_accents": None,
    "special_tokens_map_file": "/root/.cache/special_tokens_map.json",
    "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer",
}  # fmt: skip
PADDED: Final[Json] = {
    **BASIC, "max_length": 128, "pad_to_multiple_of": None, "pad_token_type_id": 0,
    "padding_side": "right", "stride": 0, "truncation_side": "right",
    "truncation_strategy": "longest_first",
}  # fmt: skip
DECODER: Final[Json] = {
    str(i): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
             "single_word": False, "special": True}
    for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
}  # fmt: skip
NEW: Final[Json] = {
    **BASIC, "added_tokens_decoder": DECODER, "additional_special_tokens": [],
    "clean_up_tokenization_spaces": True, "extra_special_tokens": {},
}  # fmt: skip
NEWEST: Final[Json] = {
    **ROLES, "backend": "tokenizers", "do_lower_case": True, "is_local": False,
    "model_max_length": 512, "strip_accents": None, "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer", "model_specific_special_tokens": {},
}  # fmt: skip
XLM: Final[Json] = {
    **XLM_ROLES, "clean_up_tokenization_spaces": True, "model_max_length": 512,
    "sp_model_kwargs": {}, "tokenizer_class": "XLMRobertaTokenizer",
}  # fmt: skip

OLD_MODULE: Final = "sentence_transformers.models."
NEW_MODULES: Final[Mapping[str, str]] = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
}


def modules(*kinds: str, first: str = "", new: bool = False) -> list[Json]:
    """What modules.json says: a module's folder is called as its number and kind."""
    return [
        {"idx": i, "name": str(i), "path": first if i == 0 else f"{i}_{kind}",
         "type": NEW_MODULES[kind] if new else f"{OLD_MODULE}{kind}"}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip


def pooling(mode: str = "mean_tokens", **more: Any) -> Json:
    """What the oldest folders say: four flags; later ones have two more, and include_prompt."""
    flags = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    said = {f"pooling_mode_{flag}": flag == mode for flag in flags}
    return {"word_embedding_dimension": 24, **said, **more}


LATER: Final[Json] = {
    "pooling_mode_weightedmean_tokens": False, "pooling_mode_lasttoken": False,
    "include_prompt": True,
}  # fmt: skip
READ: Final[Json] = {"max_seq_length": 24, "do_lower_case": False}
VERSIONS: Final[Json] = {
    "__version__": {"sentence_transformers": "3.0.1", "transformers": "4.41.2", "pytorch": "2.3.0"},
}  # fmt: skip


def embedder(*kinds: str, mode: str = "mean_tokens", **files: Any) -> Json:
    """The files of a sentence-transformers folder of version 2."""
    named = {name.replace("__", "/") + ".json": said for name, said in files.items()}
    return {
        "modules.json": modules("Transformer", "Pooling", *kinds), "1_Pooling/config.json":
        pooling(mode), "sentence_bert_config.json": READ, "config_sentence_transformers.json":
        {"__version__": {"sentence_transformers": "2.0.0"}}, **named,
    }  # fmt: skip


def dense(outside: int, activation: str) -> Json:
    return {"in_features": 24, "out_features": outside, "bias": True,
            "activation_function": f"torch.nn.modules.{activation}"}  # fmt: skip


TEXT, TOKENS, MASKS = "text-classification", "token-classification", "fill-mask"
EMBED, RANK, ANSWER = "sentence-embedding", "text-ranking", "question-answering"
ZERO, CHOICE, FEATURES = "zero-shot-classification", "multiple-choice", "feature-extraction"
BIO = ("O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
ALIBI = "position_embedding_type is 'alibi', expected 'absolute'"
FAMILY = "model_type is 'roberta', expected 'distilbert' or 'bert'"
JAPANESE = "is of a BertJapaneseTokenizer, which splits texts otherwise than BERT does"

SETTINGS: Final[Mapping[str, Setting]] = {
    # ---- DistilBERT ----
    "distilbert uncased, 2019": Setting(
        task=MASKS, config={**OLD_DISTILBERT, **heads("DistilBertForMaskedLM")}, settings=UNCASED),
    "distilbert cased, with what was written of generating": Setting(
        task=MASKS, config={**OLD_DISTILBERT, **GENERATION, **heads("DistilBertForMaskedLM")},
        tokenizer="vocab", settings=CASED),
    "distilbert multilingual, no architecture": Setting(
        task=MASKS, config=OLD_DISTILBERT, tokenizer="vocab", settings=CASED),
    "distilbert on film reviews": Setting(
        task=TEXT, settings=UNCASED, labels=("NEGATIVE", "POSITIVE"),
        config={**OLD_DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("NEGATIVE", "POSITIVE"), "finetuning_task": "sst-2"}),
    "distilbert on questions": Setting(
        task=ANSWER, settings=CASED, tokenizer="vocab",
        config={**OLD_DISTILBERT, **heads("DistilBertForQuestionAnswering")}),
    "distilbert on names": Setting(
        task=TOKENS, settings={**NEW, "do_lower_case": False}, tokenizer="vocab",
        config={**DISTILBERT, **heads("DistilBertForTokenClassification"), **labels(*BIO),
                "_name_or_path": "distilbert-base-cased", "torch_dtype": "float32"}),
    "distilbert on emotions": Setting(
        task=TEXT, settings=NEW, labels=("sadness", "joy", "love", "anger", "fear", "surprise"),
        config={**DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("sadness", "joy", "love", "anger", "fear", "surprise"),
                "problem_type": "single_label_classification"}),
    "distilbert on several labels at once": Setting(
        task=TEXT, settings=NEW, labels=("toxic", "insult", "threat"),
        config={**DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("toxic", "insult", "threat"),
                "problem_type": "multi_label_classification"}),
    "distilbert of a trainer for everybody": Setting(
        task=TEXT, settings=PADDED, labels=("0", "1", "2"),
        config={**DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("0", "1", "2"), "_name_or_path": "AutoTrain", "_num_labels": 3,
                "max_length": 128, "padding": "max_length"}),
    "distilbert that says how good a text is": Setting(
        task=TEXT, settings=NEW, labels=("LABEL_0",),
        config={**DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("LABEL_0"), "problem_type": "regression"}),
    "distilbert for labels of one's own": Setting(
        task=ZERO, settings=UNCASED,
        config={**OLD_DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("ENTAILMENT", "NEUTRAL", "CONTRADICTION")}),
    "distilbert with fewer heads": Setting(
        task=FEATURES, settings=UNCASED,
        config={**DISTILBERT, **heads("DistilBertModel"), "pruned_heads": {"0": [1]}}),
    "distilbert with waves for positions": Setting(
        task=FEATURES, settings=UNCASED,
        config={**DISTILBERT, **heads("DistilBertModel"), "sinusoidal_pos_embds": True}),
    "distilbert of today": Setting(
        task=TEXT, settings=NEWEST, labels=("LABEL_0", "LABEL_1"),
        config={**DISTILBERT, **V5, **heads("DistilBertForSequenceClassification")}),
    "distilbert of sparse vectors": Setting(
        task=MASKS, settings=NEW,
        config={**DISTILBERT, **heads("DistilBertForMaskedLM"), "torch_dtype": "float16"}),
    "distilbert in a box of its own making": Setting(
        task=TEXT, settings=NEW, labels=("LABEL_0", "LABEL_1"),
        config={**DISTILBERT, **heads("DistilBertForMultiLabelSequenceClassification")}),
    "distilbert on several choices": Setting(
        task=CHOICE, settings=UNCASED,
        config={**DISTILBERT, **heads("DistilBertForMultipleChoice")}),
    # ---- DistilBERT that embeds ----
    "distilbert for search, 2021": Setting(
        task=EMBED, settings=PADDED, dimensions=24, tokens=24,
        config={**DISTILBERT, **heads("DistilBertModel")}, files=embedder()),
    "distilbert with a dense layer behind": Setting(
        task=EMBED, settings=CASED, tokenizer="vocab", dimensions=10,
        config={**OLD_DISTILBERT, **heads("DistilBertModel")}, encoder="0_Transformer",
        files={"modules.json": modules("Transformer", "Pooling", "Dense", first="0_Transformer"),
               "1_Pooling/config.json": pooling(),
               "2_Dense/config.json": dense(10, "activation.Tanh"),
               "0_Transformer/sentence_distilbert_config.json":
               {"max_seq_length": 128, "do_lower_case": False}}),
    "distilbert for questions and answers, of length one": Setting(
        task=EMBED, settings=BASIC, dimensions=24, tokens=24,
        config={**DISTILBERT, **heads("DistilBertModel")},
        files=embedder("Normalize", mode="cls_token")),
    "distilbert with its head for classes and a folder for embeddings": Setting(
        task=TEXT, settings=NEW, labels=("no", "yes"),
        config={**DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("no", "yes")},
        files={"modules.json": modules("Transformer"), "config_sentence_transformers.json":
               {**VERSIONS, "activation_fn": "torch.nn.modules.linear.Identity"}}),
    # ---- BERT ----
    "bert uncased": Setting(
        task=MASKS, settings=UNCASED,
        config={**NEW_BERT, **heads("BertForMaskedLM"), "gradient_checkpointing": False}),
    "bert cased": Setting(
        task=MASKS, settings=CASED, tokenizer="vocab",
        config={**NEW_BERT, **heads("BertForMaskedLM"), "gradient_checkpointing": False}),
    "bert for Chinese": Setting(
        task=MASKS, settings=CASED, tokenizer="vocab",
        config={**NEW_BERT, **POOLER, **heads("BertForMaskedLM")}),
    "bert multilingual": Setting(
        task=MASKS, settings=CASED, tokenizer="vocab",
        config={**BERT, **POOLER, "model_type": "bert", **heads("BertForMaskedLM")}),
    "bert before it had heads": Setting(
        task=FEATURES, config=BERT, tokenizer="vocab", settings=None),
    "bert of biology, which says nothing": Setting(
        task=FEATURES, config={**BERT, "layer_norm_eps": 1e-12}, tokenizer="vocab",
        settings={"do_lower_case": False}),
    "bert of the sciences, a vocabulary alone": Setting(
        task=MASKS, config=BERT, tokenizer="vocab", settings=None),
    "bert of law, with both heads": Setting(
        task=MASKS, settings=UNCASED,
        config={**NEW_BERT, **GENERATION, **heads("BertForPreTraining")}),
    "bert, very small": Setting(
        task=FEATURES, tokenizer="vocab", settings=None,
        config={"hidden_size": 24, "hidden_act": "gelu", "initializer_range": 0.02,
                "hidden_dropout_prob": 0.1, "num_attention_heads": 3, "type_vocab_size": 2,
                "max_position_embeddings": 40, "num_hidden_layers": 1, "intermediate_size": 40,
                "attention_probs_dropout_prob": 0.1}),
    "bert on names, 2020": Setting(
        task=TOKENS, settings=OLDEST, tokenizer="vocab",
        config={**NEW_BERT, **POOLER, **heads("BertForTokenClassification"), **labels(*BIO),
                "_num_labels": 9, "output_past": True}),
    "bert on names, with ends and singles": Setting(
        task=TOKENS, settings=NEW,
        config={**NEW_BERT, **heads("BertForTokenClassification"), "finetuning_task": "ner",
                **labels("O", "B-PER", "I-PER", "E-PER", "S-PER")}),
    "bert on money": Setting(
        task=TEXT, settings=BASIC, labels=("positive", "negative", "neutral"),
        config={**NEW_BERT, **heads("BertForSequenceClassification"),
                **labels("positive", "negative", "neutral"), "_name_or_path": "C:\\models\\fin"}),
    "bert of stars": Setting(
        task=TEXT, settings=UNCASED, tokenizer="vocab",
        labels=("1 star", "2 stars", "3 stars", "4 stars", "5 stars"),
        config={**BERT, **POOLER, "model_type": "bert", "_num_labels": 5, "output_past": True,
                "finetuning_task": "sentiment-analysis", **heads("BertForSequenceClassification"),
                **labels("1 star", "2 stars", "3 stars", "4 stars", "5 stars")}),
    "bert on questions, whole words": Setting(
        task=ANSWER, settings=UNCASED,
        config={**NEW_BERT, **heads("BertForQuestionAnswering")}),
    "bert on choices": Setting(
        task=CHOICE, settings=UNCASED, config={**NEW_BERT, **heads("BertForMultipleChoice")}),
    "bert on what follows from what": Setting(
        task=ZERO, settings=NEW,
        config={**NEW_BERT, **heads("BertForSequenceClassification"),
                **labels("entailment", "neutral", "contradiction")}),
    "bert in Swedish, a class named in config.json": Setting(
        task=MASKS, settings=CASED, tokenizer="vocab",
        config={**NEW_BERT, **heads("BertForMaskedLM"), "tokenizer_class": "BertTokenizer"}),
    "bert in German, cased": Setting(
        task=FEATURES, tokenizer="vocab", settings={"do_lower_case": False, "max_len": 512},
        config={**BERT, "model_type": "bert"}),
    "bert in Spanish": Setting(
        task=MASKS, tokenizer="vocab", settings={**CASED, "strip_accents": False},
        special=ROLES, config={**BERT, "model_type": "bert", "output_past": True,
                               **heads("BertForMaskedLM")}),
    "bert in Arabic, with words never to be split": Setting(
        task=MASKS, tokenizer="vocab", special=ROLES,
        settings={**BASIC, "do_lower_case": False, "never_split": ["[user]", "[link]"]},
        config={**NEW_BERT, **heads("BertForMaskedLM")}),
    "bert in Korean": Setting(
        task=MASKS, settings={**NEW, "do_lower_case": False, "bos_token": "[CLS]",
                              "eos_token": "[SEP]"}, tokenizer="vocab",
        config={**NEW_BERT, **heads("BertForMaskedLM")}),
    "bert in Indonesian, with a pair of heads named": Setting(
        task=FEATURES, settings=UNCASED,
        config={**NEW_BERT, "architectures": ["BertModel", "BertForMaskedLM"]}),
    "bert of today": Setting(
        task=TEXT, settings=NEWEST, labels=("LABEL_0", "LABEL_1"),
        config={**NEW_BERT, **V5, **heads("BertForSequenceClassification")}),
    "bert on byte pairs": Setting(
        task=MASKS, tokenizer="bpe", special=XLM_ROLES,
        settings={**XLM_ROLES, "add_prefix_space": False, "errors": "replace",
                  "model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast",
                  "trim_offsets": True},
        config={**NEW_BERT, **heads("BertForMaskedLM")}),
    # ---- BERT that embeds ----
    "minilm, 2021": Setting(
        task=EMBED, settings=BASIC, special=ROLES, dimensions=24, tokens=24,
        config={**NEW_BERT, **heads("BertModel"), "gradient_checkpointing": False,
                "_name_or_path": "somebody/MiniLM-L6-H384-uncased"},
        files=embedder("Normalize")),
    "minilm in fifty languages": Setting(
        task=EMBED, tokenizer="unigram", settings=XLM, special=XLM_ROLES, dimensions=24,
        tokens=24, config={**NEW_BERT, **heads("BertModel")},
        files=embedder()),
    "e5, multilingual": Setting(
        task=EMBED, tokenizer="unigram", settings=XLM, dimensions=24, tokens=24,
        config={**NEW_BERT, **heads("BertModel"), "tokenizer_class": "XLMRobertaTokenizer"},
        files=embedder("Normalize")),
    "bge": Setting(
        task=EMBED, settings=NEW, special=ROLES, dimensions=24, tokens=24,
        config={**NEW_BERT, **heads("BertModel"), "id2label": {"0": "LABEL_0"},
                "label2id": {"LABEL_0": 0}},
        files=embedder("Normalize", mode="cls_token",
                       sentence_bert_config={"max_seq_length": 24, "do_lower_case": True})),
    "gte, half": Setting(
        task=EMBED, settings=NEW, dimensions=24, tokens=24,
        config={**NEW_BERT, **heads("BertModel"), "torch_dtype": "float16"}, files=embedder()),
    "arctic, with a prompt for queries": Setting(
        task=EMBED, settings=NEW, dimensions=24, tokens=40,
        config={**NEW_BERT, **heads("BertModel")},
        files=embedder("Normalize", mode="cls_token",
                       sentence_bert_config={"max_seq_length": 512, "do_lower_case": False},
                       config_sentence_transformers={
                           **VERSIONS, "prompts": {"query": "find this: "},
                           "default_prompt_name": None, "similarity_fn_name": "cosine"})),
    "a doll in a doll, cut to half": Setting(
        task=EMBED, settings=NEW, dimensions=12, tokens=24,
        config={**NEW_BERT, **heads("BertModel")},
        files=embedder(config_sentence_transformers={**VERSIONS, "prompts": {}, "truncate_dim": 12,
                                                     "default_prompt_name": None})),
    "for search by dot products": Setting(
        task=EMBED, settings=PADDED, dimensions=24, tokens=24,
        config={**NEW_BERT, **heads("BertModel")},
        files=embedder(mode="cls_token", config_sentence_transformers={
            **VERSIONS, "prompts": {}, "similarity_fn_name": "dot"})),
    "of a hundred languages, three modules": Setting(
        task=EMBED, settings=CASED, tokenizer="vocab", dimensions=24, tokens=24,
        config={**NEW_BERT, **POOLER, **heads("BertModel")},
        files=embedder("Dense", "Normalize", mode="cls_token",
                       **{"2_Dense__config": dense(24, "activation.Tanh")})),
    "instructed, without its prompt": Setting(
        task=EMBED, settings=NEW, dimensions=24, tokens=24,
        config={**NEW_BERT, **heads("BertModel")},
        files=embedder(**{"1_Pooling__config": {**pooling(), **LATER, "include_prompt": False}},
                       config_sentence_transformers={
                           **VERSIONS, "prompts": {"query": "say: ", "none": None},
                           "default_prompt_name": "query"})),
    "sentence-transformers of today": Setting(
        task=EMBED, settings=NEWEST, dimensions=24, tokens=24,
        config={**NEW_BERT, **V5, **heads("BertModel")},
        files={"modules.json": modules("Transformer", "Pooling", "Normalize", new=True),
               "1_Pooling/config.json": {"embedding_dimension": 24, "pooling_mode": "mean",
                                         "include_prompt": True},
               "sentence_bert_config.json": {
                   "max_seq_length": 24, "transformer_task": "feature-extraction",
                   "modality_config": {"text": {"method": "forward",
                                                "method_output_name": "last_hidden_state"}},
                   "module_output_name": "token_embeddings"},
               "config_sentence_transformers.json": {
                   **VERSIONS, "model_type": "SentenceTransformer", "default_prompt_name": None,
                   "prompts": {"query": "", "document": ""}, "similarity_fn_name": "cosine"}}),
    "with arguments for its tokenizer": Setting(
        task=EMBED, settings=NEW, dimensions=24, tokens=16,
        config={**NEW_BERT, **heads("BertModel")},
        files=embedder(sentence_bert_config={
            "max_seq_length": None, "do_lower_case": False,
            "model_args": {"torch_dtype": "float16"}, "config_args": {},
            "tokenizer_args": {"model_max_length": 16}})),
    # ---- cross-encoders ----
    "ranking, before it was written in words": Setting(
        task=RANK, settings=PADDED,
        config={**NEW_BERT, **heads("BertForSequenceClassification"), **labels("LABEL_0"),
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}),
    "ranking, since version four": Setting(
        task=RANK, settings=NEW,
        config={**NEW_BERT, **heads("BertForSequenceClassification"), **labels("LABEL_0"),
                "sentence_transformers": {
                    "activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.0.1"}}),
    "pairs that mean the same": Setting(
        task=RANK, settings=UNCASED,
        config={**OLD_DISTILBERT, **heads("DistilBertForSequenceClassification"),
                **labels("LABEL_0")}),
    # ---- what is told or refused by name ----
    "positions that lean": Setting(
        task=EMBED, settings=NEW, refused=ALIBI,
        config={**NEW_BERT, **heads("JinaBertForMaskedLM"), "position_embedding_type": "alibi",
                "auto_map": {"AutoModel": "somebody/code--modeling_bert.JinaBertModel"}}),
    "bert in Japanese": Setting(
        task=MASKS, tokenizer="vocab", refused=JAPANESE,
        settings={"do_lower_case": False, "word_tokenizer_type": "mecab",
                  "subword_tokenizer_type": "wordpiece", "mecab_kwargs": {"mecab_dic": "unidic"},
                  "tokenizer_class": "BertJapaneseTokenizer", "model_max_length": 512},
        config={**NEW_BERT, **heads("BertForMaskedLM")},
        told="says word_tokenizer_type, subword_tokenizer_type, mecab_kwargs, which npbert does"),
    "another family": Setting(
        task=MASKS, refused=FAMILY,
        config={**NEW_BERT, "model_type": "roberta", **heads("RobertaForMaskedLM")}),
    "code of its own": Setting(
        task=FEATURES, settings=UNCASED, told="says auto_map, which npbert does not know",
        config={**NEW_BERT, **heads("BertModel"), "auto_map": {"AutoModel": "own.Encoder"}}),
}  # fmt: skip
