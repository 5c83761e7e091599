"""Trains npbert/demo/sentiment on what its teacher, a fine-tuned MiniLM, says of texts.

    python golden/train/train_fill_mask.py DATA MINILM KEPT
    python golden/train/teach.py sentiment DATA MINILM KEPT
    python golden/train/train_sentiment.py DATA KEPT

The student starts with npbert/demo/fill-mask.  It learns the labels of the training texts, and of
all others the teacher's logits, softened (Hinton et al. 2015), and through a matrix that is thrown
away the mean of its last hidden states.  KEPT/sentiment.student.pt is written every 100 steps and
gone on from.
golden/measure/model_cards.py then measures it and writes its card.
"""

import random
from pathlib import Path

import corpus
import torch
from corpus import DEMO, EPOCHS, PAD, SEED
from student import SHAPE, distil, run, start_from, start_tokenizer
from teach import read_answers
from tokenizers import Tokenizer
from torch.nn import functional
from train import padded
from transformers import DistilBertConfig, DistilBertForSequenceClassification

LABELS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
PIECES = 4500
SHAPE = SHAPE | {"vocab_size": PIECES}
SHARE = 0.7  # of the labelled texts in an epoch
TOKENS = 3072  # in a batch
DROPOUT = 0.1
SOFTENED = 2.0  # what logits are divided by
SURE = 0.9  # of a label, softened as logits are
HIDDEN = 1.0  # weight of the teacher's hidden states


def train(data: Path, kept: Path) -> tuple[DistilBertForSequenceClassification, Tokenizer]:
    """Distil the teacher; return the student and its tokenizer."""
    judged, answers = read_answers(kept / "sentiment")
    labelled = corpus.reviews(data)[0]
    texts = judged + [text for text, _ in labelled]
    origin = Tokenizer.from_file(str(DEMO / "fill-mask" / "tokenizer.json"))
    tokenizer = start_tokenizer(texts, origin, PIECES)
    model = DistilBertForSequenceClassification(
        DistilBertConfig(**SHAPE, **LABELS, dropout=DROPOUT, attention_dropout=0.0)
    )
    start_from(model.distilbert, tokenizer, DEMO / "fill-mask")
    rows = [e.ids for e in tokenizer.encode_batch_fast(texts)]
    print(f"{len(rows):,} texts, {sum(map(len, rows)):,} pieces", flush=True)
    soft = (torch.from_numpy(answers[:, :2]).float() / SOFTENED).softmax(1)
    labels = functional.one_hot(torch.tensor([label for _, label in labelled]))
    targets = torch.cat([soft, labels * SURE + (1 - labels) * (1 - SURE)])
    hidden = torch.from_numpy(answers[:, 2:])
    mean, matrix = hidden.float().mean(0), torch.nn.Linear(SHAPE["dim"], hidden.shape[1])
    rng = random.Random(SEED)

    def loss_of(batch: list[int]) -> torch.Tensor:
        ids = padded([rows[i] for i in batch])
        there = (ids != PAD).long()
        states = model.distilbert(ids, attention_mask=there).last_hidden_state
        pooled = model.dropout(model.pre_classifier(states[:, 0]).relu())
        found = model.classifier(pooled) / SOFTENED
        means = (states * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        loss = functional.cross_entropy(found, targets[batch]) * SOFTENED
        asked = [i < len(judged) for i in batch]
        seen = hidden[[i for i in batch if i < len(judged)]].float() - mean
        alike = functional.cosine_similarity(matrix(means[asked]), seen)
        return loss + HIDDEN * (1 - alike).sum() / len(batch)

    steps = []
    for _ in range(EPOCHS["sentiment"]):
        some = rng.sample(range(len(judged), len(rows)), round(SHARE * len(labelled)))
        order = [*range(len(judged)), *some]
        made = corpus.batches([len(rows[i]) for i in order], rng, TOKENS)
        steps += [[order[i] for i in batch] for batch in made]
    distil(model, matrix, steps, loss_of, kept / "sentiment.student.pt")
    return model, tokenizer


if __name__ == "__main__":
    run(train, __doc__, "sentiment", **SHAPE, **LABELS)
