"""Trains npbert/demo/ner, which finds names, on what its teacher, a fine-tuned MiniLM, says.

    python golden/train/train_fill_mask.py DATA MINILM KEPT
    python golden/train/teach.py ner DATA MINILM KEPT
    python golden/train/train_ner.py DATA KEPT

The student starts with npbert/demo/fill-mask.  Of each word it learns the teacher's logits (Hinton
et al. 2015), of the training sentences the labels too, and through a matrix that is thrown away the
teacher's last hidden states.  KEPT/ner.student.pt is written every 100 steps and gone on from.
golden/measure/model_cards.py then measures it and writes its card.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import corpus
import numpy as np
import tagging
import torch
from corpus import DEMO, EPOCHS, PAD, SEED, TAGS
from student import SHAPE, distil, run, start_from, start_tokenizer
from teach import read_answers
from tokenizers import Tokenizer
from torch.nn import functional
from train import padded
from transformers import DistilBertConfig, DistilBertForTokenClassification

NAMES = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
PIECES = 3600
SHAPE = SHAPE | {"vocab_size": PIECES}
MOVED = [0, 2, 2, 4, 4, 6, 6]  # what TAGS are in the middle of a word: I-
TOKENS = 3072  # in a batch
DROPOUT = 0.1
HIDDEN = 1.0  # weight of the teacher's hidden states
SOFTENED = 2.0  # what logits are divided by
SURE = 0.9  # of a label, softened as logits are


class Row(NamedTuple):
    """A sentence's pieces; of those that belong to words: where, what of, and whether the first."""

    ids: list[int]
    places: np.ndarray
    targets: np.ndarray  # rows of what is to be learnt, one for a word
    first: np.ndarray


def cut(
    sentences: list[list[str]], targets: Iterable[list[int]], tokenizer: Tokenizer
) -> list[Row]:
    """Return sentences, given as words and what is to be learnt of each word, as rows."""
    rows = []
    encoded = tokenizer.encode_batch(sentences, is_pretokenized=True)
    for encoding, wanted in zip(encoded, targets, strict=True):
        words = np.array([-1 if w is None else w for w in encoding.word_ids[:256]])
        places = np.flatnonzero(words >= 0)
        first = words[places] != words[places - 1]  # [CLS] is before all
        rows.append(Row(encoding.ids[:256], places, np.array(wanted)[words[places]], first))
    return rows


def train(data: Path, kept: Path) -> tuple[DistilBertForTokenClassification, Tokenizer]:
    """Distil the teacher; return the student and its tokenizer."""
    asked, answers = read_answers(kept / "ner")
    labelled = tagging.training(data)
    texts = [" ".join(words) for words in asked] + [" ".join(words) for words, _ in labelled]
    origin = Tokenizer.from_file(str(DEMO / "fill-mask" / "tokenizer.json"))
    tokenizer = tagging.mark_capitals(start_tokenizer(texts, origin, PIECES, [tagging.MARK]))
    model = DistilBertForTokenClassification(
        DistilBertConfig(**SHAPE, **NAMES, dropout=DROPOUT, attention_dropout=0.0)
    )
    start_from(model.distilbert, tokenizer, DEMO / "fill-mask")
    starts = np.cumsum([0, *map(len, asked)])
    judged = cut(asked, map(range, starts, starts[1:]), tokenizer)
    answers = torch.from_numpy(answers)
    soft, hidden = (answers[:, : len(TAGS)].float() / SOFTENED).softmax(1), answers[:, len(TAGS) :]
    mean = hidden[:100_000].float().mean(0)
    wrong = (1 - SURE) / (len(TAGS) - 1)
    targets = torch.cat([soft, torch.eye(len(TAGS)) * (SURE - wrong) + wrong])
    matrix = torch.nn.Linear(SHAPE["dim"], hidden.shape[1])
    rng, pool, steps = random.Random(SEED), tagging.pool_of(labelled), []
    for _ in range(EPOCHS["ner"]):
        made = [corpus.renamed(sentence, pool, rng) for sentence in labelled]
        tags = ([len(soft) + tag for tag in tagging.tag_ids(s[1])] for s in made)
        rows = judged + cut([words for words, _ in made], tags, tokenizer)
        lengths = [len(row.ids) for row in rows]
        steps += [[rows[i] for i in b] for b in corpus.batches(lengths, rng, TOKENS)]
    print(f"{len(judged):,} and {len(labelled):,} sentences, {len(steps):,} steps", flush=True)

    def loss_of(batch: list[Row]) -> torch.Tensor:
        ids = padded([row.ids for row in batch])
        states = model.distilbert(ids, attention_mask=(ids != PAD).long()).last_hidden_state
        line = np.repeat(np.arange(len(batch)), [len(row.places) for row in batch])
        there = states[line, np.concatenate([row.places for row in batch])]
        rows = np.concatenate([row.targets for row in batch])
        first = np.concatenate([row.first for row in batch])
        wanted = targets[rows]
        inside = torch.zeros_like(wanted).index_add_(1, torch.tensor(MOVED), wanted)
        wanted = torch.where(torch.from_numpy(first)[:, None], wanted, inside)
        found = model.classifier(model.dropout(there)) / SOFTENED
        loss = functional.cross_entropy(found, wanted) * SOFTENED
        seen = first & (rows < len(soft))
        teacher = hidden[rows[seen]].float() - mean
        alike = functional.cosine_similarity(matrix(there[seen]), teacher)
        return loss + HIDDEN * (1 - alike).sum() / len(rows)

    distil(model, matrix, steps, loss_of, kept / "ner.student.pt")
    return model, tokenizer


if __name__ == "__main__":
    run(train, __doc__, "ner", **SHAPE, **NAMES)
