"""Which keys of a folder's settings npbert follows, and which are known to have no effect, and why.

What stands in neither table is told of in a warning: it may change what a model computes, or how it
reads a text.  The fields of config.json that a family has stand in its row.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from npbert.errors import listing, warn
from npbert.families import FAMILIES

Reasons = Mapping[str, tuple[str, ...]]  # why they have no effect: keys

GENERATION: Final = (
    "bad_words_ids", "begin_suppress_tokens", "cross_attention_hidden_size",
    "decoder_start_token_id", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "eos_token_ids", "length_penalty", "max_length", "max_new_tokens",
    "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
    "output_past",
    "output_scores", "prefix", "remove_invalid_values", "repetition_penalty",
    "return_dict_in_generate", "suppress_tokens", "task_specific_params", "temperature",
    "tie_encoder_decoder", "top_k", "top_p", "typical_p", "use_cache",
)  # fmt: skip
LOADING: Final = (
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
    "_commit_hash", "_from_auto", "_name_or_path", "attn_implementation", "cache_dir", "device_map",
    "dtype", "local_files_only", "low_cpu_mem_usage", "model_name_or_path", "name_or_path",
    "revision", "subfolder", "token", "tokenizer_name_or_path", "torch_dtype",
    "transformers_version", "trust_remote_code", "use_auth_token", "use_safetensors",
)  # fmt: skip
CONFIG_KEYS: Final = (  # that are followed, beside the fields of the family
    "architectures", "label2id", "model_type", "sbert_ce_default_activation_function",
    "sentence_transformers",
)  # fmt: skip
CONFIG_WITHOUT_EFFECT: Final[Reasons] = {
    "of generating text, which no encoder does": GENERATION,
    "of saving and loading; tensors have their dtypes, and npbert one attention": (
        *LOADING, "chunk_size_feed_forward", "license", "neuron", "pipeline_tag",
        "quantization_config", "tf_legacy_loss", "transformers.js_config", "unsloth_fixed",
        "unsloth_version", "use_bfloat16",
    ),
    "of what a call returns, which its arguments say": (
        "output_attentions", "output_hidden_states", "return_dict", "torchscript",
    ),
    "of one call, in which npbert pads nothing": ("padding", "truncation"),
    "of training": (
        "finetuning_task", "gradient_checkpointing", "layerdrop", "loss_type", "_num_labels",
    ),
    "ids that the tokenizer knows, which has its own class": (
        "bos_token_id", "cls_token_id", "eos_token_id", "mask_token_id", "sep_token_id",
        "tokenizer_class", "unk_token_id", "tokenizer_name",
    ),
    "of the first BERTs' files, and read by nobody": (
        "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
        "pooler_size_per_head", "pooler_type", "tie_weights_", "type_of_model", "vocab_file",
    ),
}  # fmt: skip
TOKENIZER_KEYS: Final = (  # that are followed
    "add_prefix_space", "added_tokens_decoder", "additional_special_tokens", "bos_token",
    "clean_up_tokenization_spaces", "cls_token", "do_basic_tokenize", "do_lower_case", "eos_token",
    "extra_special_tokens", "mask_token", "max_len", "model_input_names", "model_max_length",
    "model_specific_special_tokens", "pad_token", "sep_token", "split_special_tokens",
    "strip_accents", "tokenize_chinese_chars", "tokenizer_class", "truncation_side", "unk_token",
)  # fmt: skip
TOKENIZER_WITHOUT_EFFECT: Final[Reasons] = {
    "of one call, in which npbert pads nothing and truncates as it is told": (
        "max_length", "pad_to_multiple_of", "pad_token_type_id", "padding", "padding_side",
        "return_attention_mask", "return_special_tokens_mask", "return_token_type_ids", "stride",
        "truncation", "truncation_strategy", "verbose",
    ),
    "of saving and loading": (
        *LOADING, "backend", "from_slow", "init_inputs", "is_local", "legacy", "merges_file",
        "model_type", "processor_class", "special_tokens_map_file", "tokenizer_file",
        "tokenizer_type", "use_fast", "vocab_file",
    ),
    "of slow tokenizers; those of tokenizer.json have it written there": (
        "errors", "full_tokenizer_file", "keep_accents", "never_split", "remove_space",
        "sp_model_kwargs", "trim_offsets", "use_regex", "vocab_size", "wordpieces_prefix",
    ),
    "of chats": ("chat_template", "response_schema", "tool_parser_type"),
}  # fmt: skip
SENTENCE_KEYS: Final = (
    "activation_fn", "default_prompt_name", "prompts", "similarity_fn_name", "truncate_dim",
)  # fmt: skip
SENTENCE_WITHOUT_EFFECT: Final[Reasons] = {
    "of saving": ("__version__",),
    "told by modules.json": ("model_type",),
}
ENCODER_KEYS: Final = (
    "config_args", "config_kwargs", "do_lower_case", "max_seq_length", "modality_config",
    "model_args", "model_kwargs", "module_output_name", "processing_kwargs", "processor_kwargs",
    "tokenizer_args", "transformer_task",
)  # fmt: skip
ENCODER_WITHOUT_EFFECT: Final[Reasons] = {
    "of saving and loading": (*LOADING, "backend"),
    "of padding, of which npbert does none": ("unpad_inputs",),
    "of calls that say whether a text is a query, which here a prompt does": (
        "document_length",
        "query_expansion",
        "query_length",
    ),
}
MODEL_ARGS_WITHOUT_EFFECT: Final[Reasons] = {
    "of saving and loading": (*LOADING, "export", "file_name", "provider"),
    "of what is computed beside the hidden states": (
        "add_pooling_layer", "output_attentions", "output_hidden_states", "return_dict",
    ),
}  # fmt: skip
MODULES_KEYS: Final = ("path", "type")
MODULES_WITHOUT_EFFECT: Final[Reasons] = {
    "of PyTorch's names": ("idx", "name"),
    "arguments of calls, which the modules here do not have": ("kwargs",),
}  # fmt: skip
SPARSE_POOLING_KEYS: Final = ("activation_function", "pooling_strategy")
DENSE_KEYS: Final = (
    "activation_function", "bias", "in_features", "module_input_name", "module_output_name",
    "out_features", "use_residual",
)  # fmt: skip
LAYER_NORM_KEYS: Final = ("dimension",)
POOLING_KEYS: Final = ("include_prompt", "pooling_mode")  # beside a flag for each mode
POOLING_WITHOUT_EFFECT: Final[Reasons] = {
    "told by the encoder": ("embedding_dimension", "word_embedding_dimension")
}


def config_keys(family: str) -> set[str]:
    """Return the keys of config.json that are followed in a family, or refused by their values.

    Those of another family's fields have no effect: nobody reads them.
    """
    fields = {
        name
        for row in FAMILIES.values()
        for ours, theirs in row.config_names.items()
        for name in (ours, *theirs)
    }
    return fields | set(FAMILIES[family].refused) | set(CONFIG_KEYS)


def unknown_keys(
    said: Mapping[str, Any], followed: Collection[str], without_effect: Reasons
) -> list[str]:
    """Return the keys that stand in no table; one without a value says nothing."""
    known = {*followed, *(key for keys in without_effect.values() for key in keys)}
    empty: tuple[Any, ...] = (None, False, "", [], {})
    return [key for key, value in said.items() if key not in known and value not in empty]


def warn_of_unknown(
    path: Path, said: Mapping[str, Any], followed: Collection[str], without_effect: Reasons
) -> None:
    """Tell of the keys of a file that npbert does not know, in one warning."""
    if unknown := unknown_keys(said, followed, without_effect):
        warn(
            f"{path}: says {listing(unknown)}, which npbert does not know; if that changes what "
            "the model computes, or how it reads a text, its answers are not the original's"
        )
