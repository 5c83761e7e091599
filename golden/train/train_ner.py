"""Trains npbert/demo/ner, which finds names, from npbert/demo/fill-mask and labelled sentences.

    python golden/train/train_ner.py DATA

golden/measure/model_cards.py then measures it and writes its card.  DATA holds ner/*.conll, and
text/ as train.py wants it.  Needs torch 2.13 and transformers 4.57.  Two cores take ten minutes.
"""

import json
import random
import sys
from pathlib import Path

import corpus
import torch
from corpus import DEMO, EPOCHS, PAD, SEED, TAGS
from tokenizers import Regex, Tokenizer, normalizers
from torch.nn.functional import cross_entropy
from train import SHAPE, fit, model_language, optimisers, padded, save
from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertForTokenClassification

NAMES = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
RATE = 1e-3
DROPOUT = 0.2  # there are few names to learn, and many epochs
MARK = "\N{UPWARDS WHITE ARROW}"  # as on the shift key
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞŠŽ"
IGNORED = -100  # the label of a piece that is not learnt from


def in_tags(sentence: corpus.Sentence, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return a sentence's pieces and their labels; a word goes on with I-."""
    found, tags = sentence
    encoding = tokenizer.encode(found, is_pretokenized=True)
    labels, before = [], None
    for word in encoding.word_ids:
        tag = "O" if word is None else tags[word]
        tag = tag.replace("B-", "I-") if word == before else tag
        labels.append(IGNORED if word is None else TAGS.index(tag))
        before = word
    return encoding.ids[:256], labels[:256]


def marking(tokenizer: Tokenizer) -> Tokenizer:
    """Put a piece of its own, MARK, before every word with a capital, and then lower-case.

    Case is half of what tells a name, and the vocabulary has none; a mark leaves every word the
    piece, and the vector, that it had. (fastai's xxmaj; the piece was that of the lira sign.)
    """
    described = json.loads(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    vocabulary[MARK] = vocabulary.pop("\N{LIRA SIGN}")
    marked = Tokenizer.from_str(json.dumps(described))
    marks = [normalizers.Replace(Regex(rf"\b{c}"), f"{MARK} {c.lower()}") for c in CAPITALS]
    marked.normalizer = normalizers.Sequence([*marks, normalizers.BertNormalizer(lowercase=True)])
    return marked


def ner(data: Path) -> None:
    """Pretrain once more, with capitals marked; then fine-tune on articles and tweets."""
    rng = random.Random(SEED)
    wiki, _, tweets = corpus.names(data)
    train = wiki * 4 + tweets  # what is measured are articles, of which there are few
    tokenizer = marking(Tokenizer.from_file(str(DEMO / "fill-mask" / "tokenizer.json")))
    pretrained = DistilBertForMaskedLM.from_pretrained(
        DEMO / "fill-mask", dtype=torch.float32, dropout=0.0, attention_dropout=0.0
    )
    paragraphs = [corpus.sentences_of(paragraph) for paragraph in corpus.prose(data)[0]]
    paragraphs += [[" ".join(found)] for found, _ in wiki + tweets]
    model_language(pretrained, paragraphs, tokenizer, EPOCHS["ner"][0], RATE, rng)
    model = DistilBertForTokenClassification(
        DistilBertConfig(**SHAPE, **NAMES, dropout=DROPOUT, attention_dropout=DROPOUT)
    )
    model.distilbert.load_state_dict(pretrained.distilbert.state_dict())
    pool: dict[str, list[list[str]]] = {"PER": [], "LOC": [], "ORG": []}
    for found, tags in train:
        for start, end, kind in corpus.entities(tags):
            pool[kind].append(found[start:end])
    steps = []
    for _ in range(EPOCHS["ner"][1]):  # each epoch draws other names
        rows = [in_tags(corpus.renamed(s, pool, rng), tokenizer) for s in train]
        lengths = [len(ids) for ids, _ in rows]
        steps += [[rows[i] for i in batch] for batch in corpus.batches(lengths, rng)]

    def loss_of(rows: list[tuple[list[int], list[int]]]) -> torch.Tensor:
        ids = padded([ids for ids, _ in rows])
        labels = padded([labels for _, labels in rows], IGNORED)
        logits = model(ids, attention_mask=(ids != PAD).long()).logits
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    fit(model, steps, optimisers(model, RATE), loss_of)
    save(model, tokenizer, DEMO / "ner", **NAMES)


if __name__ == "__main__":
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    ner(Path(sys.argv[1]))
