"""What things are called elsewhere: the name that each has here, or why there is no need of it.

The library's arguments and the command line's flags are looked up in one table, so that a call that
was written for another system ends in a sentence that says what to write, and never in a TypeError.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from npbert.errors import InputError, listing, suggest

P = ParamSpec("P")
R = TypeVar("R")


class Spelling(NamedTuple):
    """What a name of another system is here."""

    names: tuple[str, ...] = ()  # of arguments; the first that there is
    why: str = ""  # it is not needed, or how else it is said


_DEVICE: Final = "npbert computes on the CPU, on all of its cores; threads= takes fewer"
_BATCHES: Final = "texts share packs without padding, as many as are fastest; pass any number"
_PADDING: Final = "nothing is padded; texts of any lengths share a pack"
_VALUES: Final = "answers are plain Python values, and NumPy arrays where there are many numbers"
_TOKENIZER: Final = "the tokenizer is read from the model's folder, with all of its settings"
_WEIGHTS: Final = "safetensors and PyTorch's files are found by themselves, and mapped, not copied"
_NO_CODE: Final = "npbert never runs a repository's code"
_FRESH: Final = "npbert download NAME fetches what is new of a repository"
_QUANTIZED: Final = "npbert computes in float32, which it does as fast as the processor can"
_DTYPE: Final = "pass a Model: npbert.load(source, dtype='float64')"
_CONFIG: Final = "pass a Model: npbert.load(source, config={...}) changes fields of a config"
_ATTENTION: Final = "there is one attention, exact, which needs no choice"
_PROGRESS: Final = "progress is shown where a person looks on, and warnings are Python's own"
_GENERATION: Final = "an encoder writes no text"
_TRAINING: Final = "npbert does not train"
_FORMAT: Final = "the name of the file says its format"

# Each line: names elsewhere, names here.
RENAMED: Final[Mapping[str, str]] = {
    "topk k top_n topn n_best num_results max_active_dims return_all_scores": "top_k",
    "max_seq_len max_seq_length max_len maxlen model_max_length seq_length seq_len": "max_length",
    "doc_stride overlap": "stride",
    "max_question_len": "max_question_length",
    "max_answer_len": "max_answer_length",
    "grouped_entities group_entities aggregation ignore_subwords strategy": "aggregation_strategy",
    "ignore_label ignored_labels exclude_labels skip_labels": "ignore_labels",
    "multi_class multilabel": "multi_label",
    "labels label candidates candidate_label classes class_names": "candidate_labels",
    "hypothesis template": "hypothesis_template",
    "normalize_embeddings normalise l2_normalize": "normalize",
    "truncation truncate on_long": "long",
    "activation_fn activation_fct activation_function apply_softmax": "function_to_apply",
    "handle_impossible impossible": "handle_impossible_answer",
    "target target_words": "targets",
    "dim dimensions output_dim matryoshka_dim": "truncate_dim",
    "output_dtype quantization embedding_precision": "precision",
    "default_prompt_name": "prompt_name",
    "instruction query_prompt": "prompt",
    "return_offsets return_offsets_mapping offset_mapping": "offsets",
    "layers layer_index output_layer": "layer",
    "num_threads n_threads nthreads num_workers workers n_jobs jobs nproc": "threads",
    "model model_name model_id model_path model_name_or_path pretrained_model_name_or_path "
    "checkpoint repo repo_id folder path": "model source_or_model source",
    "cache cache_folder cachedir": "cache_dir",
    "use_auth_token auth_token hf_token api_token api_key": "token",
    "local_files_only offline_mode": "offline",
    "branch tag commit code_revision": "revision",
    "head_mask": "attention_head_mask",
    "mask": "attention_mask",
    "token_types segment_ids": "token_type_ids",
    "ids tokens": "input_ids",
    "torch_dtype compute_dtype": "dtype",
    "arch architectures model_class auto_model": "architecture",
    "ignore_mismatched_sizes": "strict",
    "input_file infile in_file data_file data_files file": "input",
    "out outfile out_file output_file output_path save_to": "output",
    "text_column column text_field text_key": "field column",
    "errors skip_errors ignore_errors": "on_error",
    "return_docs": "return_documents",
    "sentences sentence sequences sequence texts text args data inputs docs pairs": "inputs",
    "second_text pair": "text_pair",
}
NEEDLESS: Final[Mapping[str, str]] = {
    "device device_map device_id cuda gpu gpus use_gpu use_cuda no_cuda cpu n_gpu": _DEVICE,
    "batch_size batchsize bs per_device_batch_size chunk_size bucket_size": _BATCHES,
    "padding pad padding_side pad_to_max_length pad_to_multiple_of": _PADDING,
    "return_tensors return_tensor return_dict convert_to_tensor convert_to_numpy to_numpy "
    "framework return_text output_value json": _VALUES,
    "tokenizer tokenizer_name tokenizer_kwargs tokenizer_args use_fast do_lower_case lowercase "
    "add_special_tokens feature_extractor image_processor processor": _TOKENIZER,
    "from_tf from_flax from_pt use_safetensors weights_only low_cpu_mem_usage state_dict variant "
    "mmap": _WEIGHTS,
    "trust_remote_code custom_pipeline pipeline_class": _NO_CODE,
    "force_download resume_download proxies": _FRESH,
    "load_in_8bit load_in_4bit quantization_config quantize int8 bits": _QUANTIZED,
    "torch_dtype dtype compute_dtype fp16 bf16 half amp float16": _DTYPE,
    "config model_kwargs config_kwargs model_args": _CONFIG,
    "attn_implementation use_flash_attention_2 flash_attention": _ATTENTION,
    "verbose quiet silent progress progress_bar show_progress_bar log_level": _PROGRESS,
    "max_new_tokens min_new_tokens temperature num_beams do_sample top_p": _GENERATION,
    "epochs learning_rate lr train optimizer": _TRAINING,
    "format output_format fmt delimiter sep": _FORMAT,
    "backend provider file_name export": "there is one engine, in NumPy",
    "seed random_state": "answers are never random",
}
# Tasks of transformers for which it takes another kind of model.
OTHER_TASKS: Final[Mapping[str, str]] = {
    "text-generation text2text-generation summarization translation conversational chat generate": (
        _GENERATION
    ),
    "image-classification object-detection image-segmentation image-to-text depth-estimation "
    "video-classification image-feature-extraction": "an encoder of texts sees no image",
    "automatic-speech-recognition audio-classification text-to-speech text-to-audio": (
        "an encoder of texts hears no sound"
    ),
    "document-question-answering visual-question-answering table-question-answering "
    "image-text-to-text": "npbert reads plain texts only",
}


def read_spellings() -> dict[str, Spelling]:
    """Return the two tables as one, by the names elsewhere."""
    made: dict[str, Spelling] = {}
    for others, own in RENAMED.items():
        made |= dict.fromkeys(others.split(), Spelling(tuple(own.split())))
    for others, why in NEEDLESS.items():
        for name in others.split():
            made[name] = made.get(name, Spelling())._replace(why=why)
    return made


SPELLINGS: Final[Mapping[str, Spelling]] = read_spellings()


def explain_name(name: str, known: Iterable[str], show: Callable[[str], str] = repr) -> str:
    """Return what to say behind a name that is none of those known: what it is here, or ''."""
    there = list(known)
    plain = name.strip("-").replace("-", "_").lower()
    spelling = SPELLINGS.get(plain, Spelling())
    for own in (plain, *spelling.names):
        if own in there and own != name:
            return f"; it is called {show(own)} here"
    if spelling.why:
        return f": {spelling.why}"
    if "inputs" in spelling.names:
        return ": what is read comes first, without a name"
    return suggest(plain, there, show)


def explain_task(name: object, known: Mapping[str, Iterable[str]]) -> str:
    """Return what to say behind a task that there is not; `known` has the other names of each."""
    plain = str(name).strip().replace("_", "-").replace(" ", "-").lower()
    for own, others in known.items():
        if plain == own or plain in others:
            return f"; it is called {own!r} here"
    for others, why in OTHER_TASKS.items():
        if plain in others.split():
            return f": {why}"
    return suggest(plain, known)


def explain_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function raise InputError, with a hint, where Python finds no such argument."""

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(*args, **keywords)
        except TypeError:
            fault = fault_of_call(function, args, keywords)
            if fault is None:  # not of the call itself
                raise
            raise InputError(fault) from None

    return call


def fault_of_call(
    function: Callable[..., Any], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> str | None:
    """Return what is wrong with a call before anything is done, or None."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **keywords)
    except TypeError as error:
        why = str(error)
    else:
        return None
    is_method = next(iter(signature.parameters), "") in ("self", "cls")
    known = [name for name in signature.parameters if name not in ("self", "cls")]
    title = function.__qualname__.removesuffix(".__call__")
    if unknown := [name for name in keywords if name not in known]:
        hint = explain_name(unknown[0], known) or f"; it has {listing(known, most=20)}"
        return f"{title} has no argument {unknown[0]!r}{hint}"
    if "too many positional" in why:
        kinds = [each.kind.name for each in signature.parameters.values()]
        able = sum(kind.startswith("POSITIONAL") for kind in kinds) - is_method
        return (
            f"{title} takes {able} arguments without names, but {len(args) - is_method} came; "
            f"its arguments are {listing(known, most=20)}"
        )
    return f"{title}: {why}"
