"""Tokenizers of every kind with added tokens of every kind, on models that fill masks.

Unigram, BPE and WordPiece as they come in tokenizer.json, and WordPiece as older folders have it,
in vocab.txt and added_tokens.json.  What transformers' fast tokenizers make of texts with added
tokens is recorded in golden/tasks/tokens/encodings.json.
"""

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from tasks_models import LONGEST, WORDS, compact, fill, pieces, tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from transformers import (
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForTokenClassification,
    PreTrainedTokenizerFast,
)

XLM = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-()"]
COUNT = 60  # words of which Unigram and BPE have pieces
# Of every kind: special, looked for as written, takes spaces, stands for a word only.
ADDED = {
    "[ENT]": {"special": True, "normalized": False},
    "<left>": {"special": True, "normalized": False, "lstrip": True},
    "<right>": {"special": True, "normalized": False, "rstrip": True},
    "<both>": {"special": False, "normalized": False, "lstrip": True, "rstrip": True},
    "Covid": {"special": False, "normalized": True},
    "ICU": {"special": False, "normalized": False},
    "pre": {"special": False, "normalized": True, "single_word": True},
    "old town": {"special": False, "normalized": True, "rstrip": True, "single_word": True},
    "##er": {"special": False, "normalized": False},
}


def template(begin: str, end: str, ids: dict[str, int], middle: str) -> Any:
    return processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {middle} $B {end}",
        special_tokens=[(each, ids[each]) for each in (begin, end)],
    )


def unigram() -> Tokenizer:
    """As XLM-R's: a space is a sign of its own, and <mask> takes the one before it."""
    words = [f"\u2581{word}" for word in WORDS[:COUNT] if word.isascii()]
    vocabulary = [*XLM, "\u2581", *LETTERS, *words]
    made = Tokenizer(
        Unigram([(piece, -float(i % 17) - 1) for i, piece in enumerate(vocabulary)], unk_id=3)
    )
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    made.post_processor = template("<s>", "</s>", ids, "</s> </s>")
    made.add_special_tokens([AddedToken(each, lstrip=each == "<mask>") for each in XLM])
    return made


def bytes_bpe() -> Tokenizer:
    """As RoBERTa's: bytes, merged from the left, with the space before a word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*XLM, *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in (word for word in WORDS[:COUNT] if word.isascii()):
        made = "\u0120"
        for letter in word:
            if made + letter not in vocabulary:
                vocabulary[made + letter] = len(vocabulary)
                merges.append((made, letter))
            made += letter
    result = Tokenizer(BPE(vocabulary, merges))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    result.post_processor = template("<s>", "</s>", vocabulary, "</s> </s>")
    result.add_special_tokens([AddedToken(each, lstrip=each == "<mask>") for each in XLM])
    return result


def with_added(made: Tokenizer, names: dict[str, Any] = ADDED) -> Tokenizer:
    made.add_tokens([AddedToken(content, **flags) for content, flags in names.items()])
    return made


def roles(*tokens: Any) -> dict[str, Any]:
    names = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
    return dict(zip(names, tokens, strict=True))


BERTS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
PLAIN = {
    "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST,
    "model_input_names": ["input_ids", "attention_mask"],
}  # fmt: skip
DISTILBERT = {"tokenizer_class": "DistilBertTokenizer", "model_max_length": LONGEST}
LEFT = {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "rstrip": False,
        "normalized": False, "single_word": False}  # fmt: skip
FLAGS = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False)


def files_of(name: str) -> dict[str, str]:
    """Return the files of a folder's tokenizer, as they came from 2019 to today."""
    if name in ("tokens_unigram", NAMES):
        settings = PLAIN | roles(*XLM) | {"additional_special_tokens": ["[ENT]", "<left>"]}
        return {"tokenizer.json": with_added(unigram()).to_str(),
                "tokenizer_config.json": compact(settings)}  # fmt: skip
    if name == "tokens_bpe":
        settings = PLAIN | roles(*XLM) | {"add_prefix_space": False}
        return {"tokenizer.json": with_added(bytes_bpe()).to_str(),
                "tokenizer_config.json": compact(settings)}  # fmt: skip
    if name == "tokens_decoder":  # whose flags are others than the tokenizer's, and hold
        made = with_added(tokenizer())
        said = made.get_vocab(with_added_tokens=True)
        decoder = {
            "[MASK]": {**FLAGS, "special": True, "lstrip": True, "rstrip": True},
            "[ENT]": {**FLAGS, "special": True, "rstrip": True},
            "ICU": {**FLAGS, "single_word": True},
            "Covid": {**FLAGS, "normalized": True, "lstrip": True},
            "late": {**FLAGS, "normalized": True},
        }
        decoder = {
            str(said.get(content, len(said))): {**flags, "content": content}
            for content, flags in decoder.items()
        }
        settings = DISTILBERT | roles(*BERTS) | {"added_tokens_decoder": decoder}
        return {"tokenizer.json": made.to_str(), "tokenizer_config.json": compact(settings)}
    if name == "tokens_bare":  # of which no added token is listed, save beside its role
        made = json.loads(tokenizer().to_str())
        made["added_tokens"] = []
        settings = DISTILBERT | roles(*BERTS[:4], LEFT)
        settings["additional_special_tokens"] = ["[NEW]", {**LEFT, "content": "garden"}]
        return {"tokenizer.json": compact(made), "tokenizer_config.json": compact(settings)}
    count = len(pieces())
    added = {"covid": count, "sars-cov-2": count + 1, "[e1]": count + 2, "[ent]": count + 3}
    mask = {name: value for name, value in LEFT.items() if name != "__type"}
    return {  # tokens_slow
        "vocab.txt": "\n".join(pieces()) + "\n",
        "added_tokens.json": compact(added),
        "tokenizer_config.json": compact({**DISTILBERT, "do_lower_case": True}),
        "special_tokens_map.json": compact(
            roles(*BERTS[:4], mask) | {"additional_special_tokens": ["[ent]"]}
        ),
    }


NAMES = "tokens_names"  # which finds them with the pieces of Unigram
KINDS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TOKENIZERS = ("tokens_unigram", "tokens_bpe", "tokens_decoder", "tokens_bare", "tokens_slow")


def save_token_models(out: Path) -> None:
    """Write a small model for each of the tokenizers."""
    for name in (*TOKENIZERS, NAMES):
        folder = out / name
        folder.mkdir(parents=True)
        for file, text in files_of(name).items():
            (folder / file).write_text(text, "utf-8")
        config = DistilBertConfig(
            vocab_size=len(fast_tokenizer(folder)), max_position_embeddings=LONGEST, dim=12,
            n_layers=1, n_heads=3, hidden_dim=20,
        )  # fmt: skip
        if name == NAMES:
            config.id2label, config.label2id = dict(enumerate(KINDS)), {}
        model = (DistilBertForTokenClassification if name == NAMES else DistilBertForMaskedLM)(
            config
        )
        fill(model, name, 0.7)
        model.save_pretrained(folder)


@cache
def fast_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(folder, use_fast=True)


def token_texts(mask: str) -> list[str]:
    """Return texts in which added tokens stand beside spaces, letters, signs, and each other."""
    return [
        f"The old {mask} sat in the garden.",
        f"She opened the{mask}and  {mask}  walked",
        f"{mask} is a {mask}, [ENT]{mask}[ENT] .",
    ]


NAMED = [
    "Anna [ENT] and David walked to the<left> old town.",
    "Clara <right> met Ben<both>in Berlin, Covid or not",
    "  [ENT]the ICU[ENT]  <mask> of Anna's book",
    "David asked pre Anna: covid-19 in the house?",
]
ENCODED = [
    "a [ENT] cat, [ENT]cat cat[ENT] [ent] [Ent]",
    "the <left> cat<left>cat  <left>  end <left>",
    "the <right> cat<right>cat  <right>  end <right>",
    "the <both> cat <both>cat<both> \t <both> end",
    "Covid covid COVID covids uncovid  Covid-19 covid",
    "ICU icu in ICU. ICUs xICU",
    "pre press pre-war, a pre (pre) pre",
    "the old town hall, old towns, Old Town  old town",
    "tall##er paint##er ##er late later sars-cov-2 [e1] [e1]x [NEW] new",
    "the [MASK] cat <mask> sat[MASK]  [mask]on <mask>,<s> [CLS] </s>[SEP]",
    "caf\u00e9 \u00c9cole [ENT] \u4e2d[ENT]\u4e2d \U0001f600<left>\U0001f600",
]


def record_tokens(out: Path) -> None:
    """Write what the fast tokenizers make of every text: ids, tokens, and offsets."""
    cases = []
    for name, (i, text) in product(TOKENIZERS, enumerate(ENCODED)):
        made = fast_tokenizer(out / name)(text, return_offsets_mapping=True)
        tokens, offsets = made.tokens(), [list(pair) for pair in made["offset_mapping"]]
        model = f"golden/tasks/{name}"
        cases.append({"name": f"{i:02d} {name}", "model": model, "text": text,
                      "ids": made["input_ids"], "tokens": tokens, "offsets": offsets})  # fmt: skip
    folder = out / "tokens"
    folder.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, sort_keys=True) for case in cases)
    (folder / "encodings.json").write_text(f'{{"cases": [\n{lines}\n]}}\n', "utf-8")
    print(f"tokens: {len(cases)} cases")
