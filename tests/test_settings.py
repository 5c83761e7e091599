"""Every key of a folder's settings is followed, known to have no effect, refused, or told of."""

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import words

import npbert
from npbert.checkpoint import known_keys
from npbert.checkpoint.known_keys import (
    CONFIG_WITHOUT_EFFECT,
    ENCODER_KEYS,
    ENCODER_WITHOUT_EFFECT,
    SENTENCE_KEYS,
    SENTENCE_WITHOUT_EFFECT,
    TOKENIZER_KEYS,
    TOKENIZER_WITHOUT_EFFECT,
    Reasons,
    config_keys,
    unknown_keys,
)
from npbert.families import FAMILIES

GOLDEN = Path(__file__).parent.parent / "golden" / "tasks"
TEXT = "Anna walked to the OLD house."
# What the originals write, by release: transformers 2 to 5, sentence-transformers 2 to 6.
CONFIG_WRITTEN = """
_attn_implementation_autoset _commit_hash _name_or_path _num_labels activation add_cross_attention
architectures attention_dropout attention_probs_dropout_prob attn_implementation bad_words_ids
begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_dropout
cross_attention_hidden_size decoder_start_token_id dim directionality diversity_penalty do_sample
dropout dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
gradient_checkpointing hidden_act hidden_dim hidden_dropout_prob hidden_size id2label
initializer_range intermediate_size is_decoder is_encoder_decoder label2id layer_norm_eps
length_penalty max_length max_position_embeddings min_length model_type n_heads n_layers
no_repeat_ngram_size num_attention_heads num_beam_groups num_beams num_hidden_layers num_labels
num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id
pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
position_embedding_type prefix problem_type pruned_heads qa_dropout quantization_config
remove_invalid_values repetition_penalty return_dict return_dict_in_generate
sbert_ce_default_activation_function sentence_transformers sep_token_id seq_classif_dropout
sinusoidal_pos_embds suppress_tokens task_specific_params temperature tf_legacy_loss
tie_encoder_decoder tie_weights_ tie_word_embeddings tokenizer_class top_k top_p torch_dtype
torchscript transformers_version type_vocab_size typical_p use_bfloat16 use_cache vocab_size
""".split()  # noqa: SIM905
TOKENIZER_WRITTEN = """
add_prefix_space added_tokens_decoder additional_special_tokens backend bos_token chat_template
clean_up_tokenization_spaces cls_token do_basic_tokenize do_lower_case eos_token errors
extra_special_tokens init_inputs is_local keep_accents mask_token max_len max_length
model_input_names model_max_length name_or_path never_split pad_to_multiple_of pad_token
pad_token_type_id padding_side processor_class remove_space sep_token sp_model_kwargs
local_files_only model_specific_special_tokens
special_tokens_map_file split_special_tokens stride strip_accents tokenize_chinese_chars
tokenizer_class tokenizer_file trim_offsets truncation_side truncation_strategy unk_token use_fast
""".split()  # noqa: SIM905
SENTENCE_WRITTEN = """
__version__ activation_fn default_prompt_name model_type prompts similarity_fn_name truncate_dim
""".split()  # noqa: SIM905
ENCODER_WRITTEN = """
config_args config_kwargs do_lower_case max_seq_length modality_config model_args model_kwargs
module_output_name processing_kwargs processor_kwargs tokenizer_args transformer_task unpad_inputs
document_length query_expansion query_length
""".split()  # noqa: SIM905
NEVER_TRUE = {"is_encoder_decoder"}  # of a family that npbert runs


def copy_model(target: Path, name: str) -> Path:
    shutil.copytree(GOLDEN / name, target)
    return target


def change(path: Path, **changes: Any) -> None:
    said = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**said, **changes}), "utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_all_keys_of_config_json_that_the_originals_write_are_known(family: str) -> None:
    written = dict.fromkeys(set(CONFIG_WRITTEN) - NEVER_TRUE, "something")
    refused = {name for row in FAMILIES.values() for name in row.refused} - config_keys(family)
    assert set(unknown_keys(written, config_keys(family), CONFIG_WITHOUT_EFFECT)) <= refused


@pytest.mark.parametrize(
    ("written", "followed", "without_effect"),
    [
        (TOKENIZER_WRITTEN, TOKENIZER_KEYS, TOKENIZER_WITHOUT_EFFECT),
        (SENTENCE_WRITTEN, SENTENCE_KEYS, SENTENCE_WITHOUT_EFFECT),
        (ENCODER_WRITTEN, ENCODER_KEYS, ENCODER_WITHOUT_EFFECT),
    ],
    ids=["tokenizer_config.json", "config_sentence_transformers.json", "sentence_bert_config.json"],
)
def test_all_keys_of_other_files_that_the_originals_write_are_known(
    written: list[str], followed: tuple[str, ...], without_effect: Reasons
) -> None:
    assert unknown_keys(dict.fromkeys(written, "something"), followed, without_effect) == []


def test_no_key_is_followed_and_without_effect() -> None:
    tables = vars(known_keys)
    for name, followed in tables.items():
        if name.endswith("_KEYS") and (reasons := tables.get(name[:-5] + "_WITHOUT_EFFECT")):
            keys = [key for each in reasons.values() for key in each]
            assert not set(followed) & set(keys)
            assert len(set(keys)) == len(keys)


FILES = {
    "config.json": ("classes5", "text-classification"),
    "tokenizer_config.json": ("classes5", "text-classification"),
    "config_sentence_transformers.json": ("st_mean", "sentence-embedding"),
    "sentence_bert_config.json": ("st_mean", "sentence-embedding"),
    "1_Pooling/config.json": ("st_mean", "sentence-embedding"),
    "2_Dense/config.json": ("st_dense", "sentence-embedding"),
    "2_LayerNorm/config.json": ("st_layernorm", "sentence-embedding"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_key_that_is_not_known_is_told_in_one_warning(tmp_path: Path, name: str) -> None:
    model, task = FILES[name]
    folder = copy_model(tmp_path / "m", model)
    change(folder / name, rope_theta=1e4, auto_map={"AutoModel": "own.Bert"}, odd=None)
    with pytest.warns(npbert.NpbertWarning) as warned:
        npbert.pipeline(task, folder)
    assert [str(each.message) for each in warned] == [
        f"{folder / name}: says rope_theta, auto_map, which npbert does not know; if that changes "
        "what the model computes, or how it reads a text, its answers are not the original's"
    ]


def test_one_of_a_module_is_told(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m", "st_mean")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["scale"] = 2
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.warns(npbert.NpbertWarning, match=r"modules.json: says scale, which npbert"):
        npbert.pipeline("sentence-embedding", folder)


def test_the_dimensions_that_the_folder_names_are_the_default(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m", "st_mean")
    change(folder / "config_sentence_transformers.json", truncate_dim=8)
    task, whole = (
        npbert.pipeline("sentence-embedding", each) for each in (folder, GOLDEN / "st_mean")
    )
    assert np.array_equal(task(TEXT), whole(TEXT)[:8])
    assert task([TEXT, "x"]).shape == (2, 8)
    assert task([]).shape == (0, 8)
    assert task(TEXT, truncate_dim=12).shape == (12,)
    assert np.array_equal(task(TEXT, normalize=True), whole(TEXT, truncate_dim=8, normalize=True))


@pytest.mark.parametrize(("said", "made"), [(None, 24), (24, 24), (400, 24), (1, 1)])
def test_more_of_them_than_there_are_changes_nothing(
    tmp_path: Path, said: int | None, made: int
) -> None:
    folder = copy_model(tmp_path / "m", "st_mean")
    change(folder / "config_sentence_transformers.json", truncate_dim=said)
    assert npbert.pipeline("sentence-embedding", folder)(TEXT).shape == (made,)


@pytest.mark.parametrize("said", [0, -1, "8", 1.5, True])
def test_a_number_of_dimensions_that_is_none_is_an_error(tmp_path: Path, said: Any) -> None:
    folder = copy_model(tmp_path / "m", "st_mean")
    change(folder / "config_sentence_transformers.json", truncate_dim=said)
    with pytest.raises(npbert.CheckpointError, match=r"truncate_dim is .*, expected a whole numb"):
        npbert.pipeline("sentence-embedding", folder)


def test_a_null_prompt_is_no_prompt(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m", "st_mean")
    said = {"prompts": {"query": None, "other": "x"}, "default_prompt_name": "query"}
    change(folder / "config_sentence_transformers.json", **said)
    ours = npbert.pipeline("sentence-embedding", folder)(TEXT)
    assert np.array_equal(ours, npbert.pipeline("sentence-embedding", GOLDEN / "st_mean")(TEXT))


@pytest.mark.parametrize("name", ["tokenizer_args", "processor_kwargs"])
def test_changes_of_the_tokenizer_are_followed(tmp_path: Path, name: str) -> None:
    folder = copy_model(tmp_path / "m", "st_mean")
    args = {"do_lower_case": False, "model_max_length": 9, "truncation_side": "left",
            "use_fast": True, "padding_side": "left"}  # fmt: skip
    change(folder / "sentence_bert_config.json", **{name: args})
    with pytest.warns(npbert.NpbertWarning, match="do_lower_case = False; the latter holds"):
        task = npbert.pipeline("sentence-embedding", folder)
    assert task.tokenizer.max_length == 9
    assert task.tokenizer.cuts_left
    assert "[UNK]" in task.tokenizer.tokenize(TEXT).tokens  # OLD


def test_so_are_they_of_a_cross_encoder(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m", "cross1")
    change(folder / "sentence_bert_config.json", tokenizer_args={"model_max_length": 12})
    assert npbert.pipeline("text-ranking", folder).tokenizer.max_length == 12
    model = npbert.load(folder)
    assert npbert.pipeline("text-ranking", model).tokenizer.max_length == 12
    assert model.tokenizer is not None
    assert model.tokenizer.max_length == 64


HARMLESS = {
    "model_args": {"torch_dtype": "float16", "attn_implementation": "sdpa", "device_map": "auto"},
    "model_kwargs": {"add_pooling_layer": False, "use_safetensors": True},
    "config_args": {"trust_remote_code": True, "output_hidden_states": True},
    "config_kwargs": {"use_cache": False},
    "processing_kwargs": {},
    "unpad_inputs": True,
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
    "transformer_task": "feature-extraction",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_arguments_that_change_no_embedding_are_passed_over(tmp_path: Path, name: str) -> None:
    folder = copy_model(tmp_path / "m", "st_mean")
    change(folder / "sentence_bert_config.json", **{name: HARMLESS[name]})
    ours = npbert.pipeline("sentence-embedding", folder)(TEXT)
    assert np.array_equal(ours, npbert.pipeline("sentence-embedding", GOLDEN / "st_mean")(TEXT))


REFUSED = {
    "model_args": ({"hidden_act": "relu"}, "model_args says hidden_act = 'relu', which npbert"),
    "config_args": ({"hidden_act": "relu"}, "config_args says hidden_act = 'relu', which npbert"),
    "tokenizer_args": ({"odd": 1}, "tokenizer_args says odd = 1, which npbert does not follow"),
    "processing_kwargs": ({"text": {"max_length": 9}}, "processing_kwargs says text = "),
    "model_kwargs": ([1], "model_kwargs is [1], expected an object"),
    "module_output_name": ("sentence_embedding", "module_output_name is 'sentence_embedding', exp"),
    "transformer_task": ("fill-mask", "transformer_task is 'fill-mask', expected 'feature-extr"),
    "modality_config": (
        {"text": {"method": "forward", "method_output_name": "pooler_output"}},
        "method_output_name is 'pooler_output', expected 'last_hidden_state'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_would_change_it_are_refused_by_name(tmp_path: Path, name: str) -> None:
    value, message = REFUSED[name]
    folder = copy_model(tmp_path / "m", "st_mean")
    change(folder / "sentence_bert_config.json", **{name: value})
    with pytest.raises(npbert.CheckpointError, match=re.escape(message)) as caught:
        npbert.pipeline("sentence-embedding", folder)
    assert str(caught.value).startswith(f"{folder / 'sentence_bert_config.json'}: ")


def test_the_length_of_2019_holds(tmp_path: Path) -> None:
    words.folder(tmp_path, settings={"max_len": 7, "init_inputs": [], "do_lower_case": True})
    assert words.loaded(tmp_path).max_length == 7


@pytest.mark.parametrize(
    "name", ["BertJapaneseTokenizer", "XLMRobertaTokenizerFast", "T5Tokenizer"]
)
def test_a_vocabulary_of_another_tokenizer_is_refused(tmp_path: Path, name: str) -> None:
    words.folder(tmp_path, whole=False, settings={"tokenizer_class": name})
    with pytest.raises(npbert.CheckpointError) as caught:
        words.loaded(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'vocab.txt'}: is of a {name}, which splits texts otherwise than BERT does; "
        "write its tokenizer.json with transformers' fast tokenizer, if it has one"
    )


def test_a_vocabulary_without_basic_tokens_keeps_letters_as_they_are(tmp_path: Path) -> None:
    settings = {"do_basic_tokenize": False, "do_lower_case": True}
    words.folder(tmp_path, whole=False, vocabulary=words.CASED, settings=settings)
    assert words.loaded(tmp_path).tokenize("The caf\u00e9").tokens == ["The", "caf\u00e9"]


@pytest.mark.parametrize(
    ("said", "first"), [(True, "\u0120the"), (False, "the"), (None, "\u0120the")]
)
def test_a_space_before_a_text_is_as_the_settings_say(
    tmp_path: Path, said: bool | None, first: str
) -> None:
    folder = copy_model(tmp_path / "m", "tokens_bpe")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    data["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(data), "utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["add_prefix_space"]
    settings |= {} if said is None else {"add_prefix_space": said}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with warnings.catch_warnings(record=True, action="always") as caught:
        tokens = words.loaded(folder).tokenize("the").tokens
    assert "".join(tokens) == first
    assert [str(each.message).partition(" ")[0] for each in caught] == [str(path)] * (
        said is not True
    )
