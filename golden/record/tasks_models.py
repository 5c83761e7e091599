"""Makes the small checkpoints in golden/tasks on which the tasks' answers are recorded.

A folder holds what transformers or sentence-transformers writes: config.json, model.safetensors,
and the tokenizer's files, here without the line breaks that would double their size.  All
parameters are drawn as those of the other golden models are, save that heads are damped, so that
probabilities are neither even nor settled.  Most are rounded to half precision and stored so.
"""

import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from recording import drawn
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, DistilBertConfig, PreTrainedModel

# ---- the tokenizer ------------------------------------------------------------------------------

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIGNS = [*"!\"#$%&'(),-./:;?@€…–’“”", "😀", "中"]  # noqa: RUF001
LETTERS = [*string.ascii_lowercase, *"ßæø", *"אולםש"]
WORDS = """
a about after all an and animal anna are as asked at away bad band bank beautiful because before
ben berlin big blue boat book bought bread bridge built but by cafe café cake camera cat century
children city clara clear clock cold concert cost could david day did dog door dull early emma
euro evening every film fine for found friday friend from funny garden gave good great had hall
he her here hill him his holiday house how i in is it its july june kitchen known later left
letter light lives london long made man many maria market may meal met monday moved much museum
music name never new night no north not november of old on one open opened oslo over paid painted
paper paris people peter phone piano plays poor price quiet rain reads red river rome said saw
school sea she shop short sings smith so sold song station still story summer sunday table tall
teacher team than that the their then they this thousand three to told took town train tree
tuesday two under until very village violin visited waited walked was water we week well went
were what when where which white who wife wind winter with without woman works wrote year years
you young
""".split()  # noqa: SIM905
ENDINGS = ["##s", "##ed", "##ing", "##er", "##ly", "##ful", "##land", "##ville", "##son"]
LONGEST = 64


def pieces() -> list[str]:
    single = [*string.digits, *LETTERS]
    known = [*SPECIALS, *SIGNS, *single, *(f"##{each}" for each in single), *WORDS, *ENDINGS]
    return list(dict.fromkeys(known))  # "a" and "i" are letters and words


def tokenizer(lowercase: bool = True) -> Tokenizer:
    """A WordPiece tokenizer as BERT's is: accents are stripped where capitals are lowered."""
    made = Tokenizer(WordPiece({p: i for i, p in enumerate(pieces())}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(each, SPECIALS.index(each)) for each in ("[CLS]", "[SEP]")],
    )
    made.add_special_tokens(SPECIALS)
    return made


def write_tokenizer(
    folder: Path, lowercase: bool = True, words_only: bool = False, bert: bool = False
) -> None:
    if words_only:
        (folder / "vocab.txt").write_text("\n".join(pieces()) + "\n", "utf-8")
    else:
        (folder / "tokenizer.json").write_text(tokenizer(lowercase).to_str(), "utf-8")
    roles = {each.strip("[]").lower() + "_token": each for each in SPECIALS}
    settings = {"do_lower_case": lowercase, "model_max_length": LONGEST} | roles
    settings["tokenizer_class"] = "BertTokenizer" if bert else "DistilBertTokenizer"
    (folder / "tokenizer_config.json").write_text(compact(settings), "utf-8")


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"


# ---- models of transformers ---------------------------------------------------------------------

Fields = dict[str, Any]


def labels(*names: str, **fields: Any) -> Fields:
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        **fields,
    }


SEQUENCE, TOKENS = "SequenceClassification", "TokenClassification"
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.7.0"}

# folder: (head, what its configuration adds, by how much its last layer is damped)
MODELS: dict[str, tuple[str, Fields, float]] = {
    "classes5": (SEQUENCE, labels("very-bad", "bad", "so-so", "good", "very-good"), 0.3),
    "multilabel": (
        SEQUENCE,
        labels("news", "sport", "music", "food", problem_type="multi_label_classification"),
        0.3,
    ),
    "single": (SEQUENCE, labels("spam"), 0.4),
    "regression": (SEQUENCE, labels("stars", problem_type="regression"), 0.3),
    "bio": (
        TOKENS,
        labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-DATE-TIME", "I-DATE-TIME"),
        0.7,
    ),
    "plain": (TOKENS, labels("O", "PER", "LOC"), 0.6),
    "qa": ("QuestionAnswering", {"num_labels": 2}, 3.0),
    "nli": (SEQUENCE, labels("contradiction", "neutral", "entailment"), 0.5),
    "nli2": (SEQUENCE, labels("entailment", "neutral", "contradiction"), 0.5),
    "choice": ("MultipleChoice", {"num_labels": 1}, 0.5),
    "cross1": (SEQUENCE, {"num_labels": 1}, 0.5),
    "cross1_identity": (SEQUENCE, {"num_labels": 1, "sentence_transformers": IDENTITY}, 0.3),
    "cross3": (SEQUENCE, labels("no", "perhaps", "yes"), 0.4),
    # a third as many of BERT
    "bert_classes": (SEQUENCE, labels("bad", "so-so", "good"), 0.4),
    "bert_bio": (TOKENS, labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), 0.7),
    "bert_qa": ("QuestionAnswering", {"num_labels": 2}, 3.0),
    "bert_nli": (SEQUENCE, labels("contradiction", "neutral", "entailment"), 0.5),
    "bert_choice": ("MultipleChoice", {"num_labels": 1}, 0.5),
    "bert_cross": (SEQUENCE, {"num_labels": 1}, 0.6),
    "bert_mlm": ("MaskedLM", {}, 1.0),
}
BERT = "bert_"  # what the names of BERT's folders begin with
CROSS = {  # beside cross1, as sentence-transformers writes it
    "config_sentence_transformers": {
        "model_type": "CrossEncoder", "prompts": {"short": "in a word: "},
        "activation_fn": "torch.nn.modules.activation.Sigmoid",
    },
    "modules": [
        {"idx": 0, "name": "0", "path": "",
         "type": "sentence_transformers.base.modules.transformer.Transformer"},
    ],
    "sentence_bert_config": {
        "transformer_task": "sequence-classification", "module_output_name": "scores",
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    },
}  # fmt: skip
LAST = {"classifier", "qa_outputs"}
# So that tokens stay apart on their way through the blocks, and texts as well.
TUNED = {
    "out_lin": 0.2, "lin1": 0.4, "lin2": 0.2, "attention.output.dense": 0.2,
    "intermediate.dense": 0.4, "output.dense": 0.2,
}  # fmt: skip
WIDE = {"qa", "bert_qa"}  # stays in single precision
DRAWS = {"bio": "bio-4", "plain": "plain-27"}  # of several drawings, these give every label
WORDS_ONLY = {"choice"}  # this one has vocab.txt and no tokenizer.json


def fill(model: torch.nn.Module, key: str, damped: float = 1.0, wide: bool = False) -> None:
    """Redraw all parameters; `key` names the draw."""
    for name, parameter in model.named_parameters():
        parameter.data = drawn(key, name, parameter.shape)
        path = name.rpartition(".")[0]
        tuned = next((factor for end, factor in TUNED.items() if path.endswith(end)), 1.0)
        parameter.data *= damped if path.rpartition(".")[2] in LAST else tuned
        if not wide:
            parameter.data = parameter.data.half()


def built(head: str, fields: Fields, *, bert: bool = False) -> PreTrainedModel:
    if bert:
        usual = {
            "vocab_size": len(pieces()), "max_position_embeddings": LONGEST, "hidden_size": 24,
            "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40,
            "layer_norm_eps": 1e-5,
        }  # fmt: skip
        config = BertConfig(**{**usual, **fields})
        return getattr(transformers, f"Bert{head}")(config)
    usual = {
        "vocab_size": len(pieces()), "max_position_embeddings": LONGEST, "dim": 24, "n_layers": 3,
        "n_heads": 3, "hidden_dim": 40,
    }  # fmt: skip
    config = DistilBertConfig(**{**usual, **fields})
    return getattr(transformers, f"DistilBert{head}")(config)


def save_transformers_model(folder: Path) -> None:
    head, fields, damped = MODELS[folder.name]
    bert = folder.name.startswith(BERT)
    model = built(f"For{head}", fields, bert=bert)
    fill(model, DRAWS.get(folder.name, folder.name), damped, wide=folder.name in WIDE)
    model.save_pretrained(folder)
    write_tokenizer(folder, words_only=folder.name in WORDS_ONLY, bert=bert)


# ---- models of sentence-transformers ------------------------------------------------------------

BOOLEANS = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
PROMPTS = {"query": "find: ", "passage": "the story of "}


def dense(key: str, inside: int, outside: int, **options: Any) -> Dense:
    made = Dense(inside, outside, **options)
    fill(made, key)
    return made


def layer_norm() -> LayerNorm:
    made = LayerNorm(24)
    fill(made, "st_layernorm")
    return made


def pooling(*modes: str, **options: Any) -> Pooling:
    return Pooling(24, modes[0] if len(modes) == 1 else modes, **options)


# folder: what follows the encoder
STACKS = {
    "st_mean": lambda: [pooling("mean")],
    "st_cls_norm": lambda: [pooling("cls"), Normalize()],
    "st_max": lambda: [pooling("max")],
    "st_all": lambda: [pooling(*BOOLEANS)],
    "st_dense": lambda: [pooling("mean"), dense("st_dense", 24, 13), Normalize()],
    "st_dense_identity": lambda: [
        pooling("mean"),
        dense("one", 24, 17, activation_function=torch.nn.GELU(), bias=False),
        dense("two", 17, 11, activation_function=None),
    ],
    "st_tokens": lambda: [
        dense("tokens", 24, 13, module_input_name="token_embeddings"),
        Pooling(13, ("max", "mean")),
        dense("behind", 26, 9, bias=False),
    ],
    "st_layernorm": lambda: [pooling("mean"), layer_norm()],
    "st_prompts": lambda: [pooling("cls", "mean", "weightedmean", include_prompt=False)],
    "st_lower": lambda: [pooling("mean")],
    "bert_st": lambda: [pooling("mean"), Normalize()],
    "bert_st_cls": lambda: [pooling("cls")],
}
# sentence_bert_config.json as it was written until version 5 in these folders
OLD = {
    "st_mean": {"max_seq_length": LONGEST, "do_lower_case": False},
    "st_prompts": {"max_seq_length": 20, "do_lower_case": False},
    "st_lower": {"max_seq_length": LONGEST, "do_lower_case": True},
}
UNREAD = ["README.md", "special_tokens_map.json", "vocab.txt"]


# folder: how a sparse embedding is made
SPARSE = {
    "splade_max": lambda: SpladePooling("max"),
    "splade_sum": lambda: SpladePooling("sum"),
    "bert_splade": lambda: SpladePooling("max", activation_function="log1p_relu"),
}
SPARSER = 4.0  # is taken from all logits, as training does it


def save_sentence_model(folder: Path) -> None:
    """Let sentence-transformers write a folder, then make its tokenizer's files small."""
    bare = folder.with_name(f"{folder.name}.bare")
    bert = folder.name.startswith(BERT)
    encoder = built("Model", {}, bert=bert)
    fill(encoder, "st")
    encoder.save_pretrained(bare)
    write_tokenizer(bare, lowercase=folder.name != "st_lower", bert=bert)
    told: Fields = {}
    if folder.name == "st_prompts":
        told = {"prompts": PROMPTS, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    stack = [Transformer(str(bare), model_kwargs={"dtype": torch.float16})]
    model = SentenceTransformer(modules=[*stack, *STACKS[folder.name]()], device="cpu", **told)
    save_small(model, bare, folder)
    if folder.name in OLD:
        make_old(folder)


def save_small(model: SentenceTransformer | SparseEncoder, bare: Path, folder: Path) -> None:
    """Save a model, with the tokenizer's files as they were."""
    model.save(str(folder), create_model_card=False)
    for name in UNREAD:
        (folder / name).unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bare / name, folder / name)
    shutil.rmtree(bare)


def save_sparse_model(folder: Path) -> None:
    """Let sentence-transformers write a folder, or rewrite it as versions before 5.4 wrote it."""
    bare = folder.with_name(f"{folder.name}.bare")
    bert, old = folder.name.startswith(BERT), folder.name == "splade_sum"
    model = built("ForMaskedLM", {"num_hidden_layers": 1} if bert else {"n_layers": 1}, bert=bert)
    fill(model, folder.name)
    (model.cls.predictions if bert else model.vocab_projector).bias.data -= SPARSER
    model.save_pretrained(bare)
    write_tokenizer(bare, bert=bert)
    how: Fields = {"model_kwargs": {"dtype": torch.float16}, "transformer_task": "fill-mask"}
    told: Fields = {"prompts": PROMPTS, "default_prompt_name": "query"} if old else {}
    encoder = Transformer(str(bare), **how)
    stack = [encoder, SPARSE[folder.name]()]
    save_small(SparseEncoder(modules=stack, device="cpu", **told), bare, folder)
    if old:
        settings = {"max_seq_length": 20, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(compact(settings), "utf-8")
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        for module, name in zip(modules, ("MLMTransformer", "SpladePooling"), strict=True):
            module["type"] = f"sentence_transformers.sparse_encoder.models.{name}"
        (folder / "modules.json").write_text(json.dumps(modules, indent=2), "utf-8")


def make_old(folder: Path) -> None:
    """Rewrite what earlier versions of sentence-transformers wrote in other words."""
    (folder / "sentence_bert_config.json").write_text(compact(OLD[folder.name]), "utf-8")
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rsplit(".", 1)[-1]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2), "utf-8")
    path = folder / "1_Pooling" / "config.json"
    new = json.loads(path.read_text("utf-8"))
    modes = np.atleast_1d(new["pooling_mode"])
    old = {f"pooling_mode_{name}": bool(mode in modes) for mode, name in BOOLEANS.items()}
    old |= {"word_embedding_dimension": 24, "include_prompt": new["include_prompt"]}
    path.write_text(json.dumps(old, indent=4), "utf-8")


def save_models(out: Path) -> None:
    """Write all folders."""
    for name in MODELS:
        save_transformers_model(out / name)
    for name, content in CROSS.items():
        (out / "cross1" / f"{name}.json").write_text(json.dumps(content) + "\n")
    for name in STACKS:
        save_sentence_model(out / name)
    for name in SPARSE:
        save_sparse_model(out / name)
