"""Fine-tunes a MiniLM on the data of a built-in model, and records what it says of more texts.

    python golden/train/teach.py sentiment DATA MINILM KEPT
    python golden/train/teach.py ner DATA MINILM KEPT

MINILM is the folder of sentence-transformers/all-MiniLM-L6-v2.  KEPT/sentiment.pt is one teacher,
written every 100 steps, KEPT/sentiment/texts.json what it is asked and KEPT/sentiment/00000.npy
what it says of the first 8,192 of that; a second call goes on where the first ended.  What the
teacher gets right of the held-out sentences is printed.  train_sentiment.py then trains
the student.  Needs torch 2.13 and transformers 4.57.  Two cores take half an hour.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import augment
import corpus
import numpy as np
import tagging
import torch
from corpus import PAD, SEED, TAGS, TEACHER_EPOCHS
from torch.nn.functional import cross_entropy
from train import fit, padded
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

RATE = 1e-4
TOKENS = 2048  # in a batch
LENGTH = 128
CHUNK = 8192
Tagged = tuple[list[int], list[int], list[int]]  # pieces, their types, first pieces of words


class SentimentTeacher:
    """A MiniLM that tells positive from negative."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2, attention_probs_dropout_prob=0.0
        )

    def encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]

    def read(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (rows, 2) and the means (rows, width) of the last hidden states."""
        ids = padded(rows)  # [PAD] is piece 0 of the teacher too
        there = (ids != PAD).long()
        out = self.model.bert(ids, attention_mask=there)
        mean = (out.last_hidden_state * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        return self.model.classifier(self.model.dropout(out.pooler_output)), mean

    @torch.inference_mode()
    def judge(self, texts: list[str]) -> np.ndarray:
        """Return what read() does, side by side (texts, 2 + width) float32."""
        self.model.eval()
        rows = self.encode(texts)
        found = np.empty((len(rows), 2 + self.model.config.hidden_size), np.float32)
        for batch in corpus.batches([len(row) for row in rows], random.Random(SEED), 2 * TOKENS):
            found[batch] = torch.cat(self.read([rows[i] for i in batch]), 1).numpy()
        return found

    def train(self, data: Path, kept: Path) -> None:
        """Fine-tune on review sentences and their phrases."""
        train, _ = corpus.reviews(data)
        rows = self.encode([text for text, _ in train])
        labels = torch.tensor([label for _, label in train])
        rng, lengths = random.Random(SEED), [len(row) for row in rows]
        epochs = range(TEACHER_EPOCHS["sentiment"])
        steps = [b for _ in epochs for b in corpus.batches(lengths, rng, TOKENS)]
        optim = torch.optim.AdamW(self.model.parameters(), RATE, weight_decay=0.01)

        def loss_of(batch: list[int]) -> torch.Tensor:
            return cross_entropy(self.read([rows[i] for i in batch])[0], labels[batch])

        fit(self.model, steps, [optim], loss_of, kept)

    def measure(self, data: Path) -> float:
        """Return which part of the unseen sentences is classified right."""
        held = corpus.unseen(data)
        found = self.judge([text for text, _ in held])[:, :2].argmax(1)
        return float((found == [label for _, label in held]).mean())

    def questions(self, data: Path) -> list[str]:
        """Return the texts of augment.py; of the training texts the label is known."""
        table = self.model.get_input_embeddings().weight.detach().numpy()
        return augment.unlabelled(data, table, self.tokenizer.get_vocab())


class NameTeacher:
    """A MiniLM that finds names; its token types tell the case of words."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForTokenClassification.from_pretrained(
            folder, num_labels=len(TAGS), attention_probs_dropout_prob=0.0
        )
        embeddings = self.model.bert.embeddings
        types = torch.nn.Embedding(3, self.model.config.hidden_size)
        with torch.no_grad():
            types.weight.copy_(embeddings.token_type_embeddings.weight[0])
            types.weight[1:] += torch.randn(2, types.embedding_dim) * 0.02
        embeddings.token_type_embeddings = types

    def encode(self, sentences: list[list[str]]) -> list[Tagged]:
        """Return pieces, their types, and the place of each word's first piece."""
        given = self.tokenizer(sentences, is_split_into_words=True)
        rows = []
        for number, words in enumerate(sentences):
            of_word = given.word_ids(number)
            types = [0 if w is None else tagging.case_of(words[w]) for w in of_word]
            first = [i for i, w in enumerate(of_word) if w is not None and w != of_word[i - 1]]
            if len(first) != len(words):  # of a word that is no piece at all
                known = [w for w in range(len(words)) if w in set(of_word)]
                places = dict(zip(known, first, strict=True))
                first = [places.get(w, 0) for w in range(len(words))]
            rows.append((given["input_ids"][number], types, first))
        return rows

    def read(self, rows: list[Tagged]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (words, tags) and the hidden states (words, width) behind them."""
        ids, types = padded([row[0] for row in rows]), padded([row[1] for row in rows])
        out = self.model.bert(ids, attention_mask=(ids != PAD).long(), token_type_ids=types)
        line = [i for i, row in enumerate(rows) for _ in row[2]]
        hidden = out.last_hidden_state[line, [place for row in rows for place in row[2]]]
        return self.model.classifier(self.model.dropout(hidden)), hidden

    @torch.inference_mode()
    def judge(self, sentences: list[list[str]]) -> np.ndarray:
        """Return what read() does of all words, side by side (words, tags + width) float32."""
        self.model.eval()
        rows = self.encode(sentences)
        starts = np.cumsum([0, *map(len, sentences)])
        found = np.empty((starts[-1], len(TAGS) + self.model.config.hidden_size), np.float32)
        lengths = [len(row[0]) for row in rows]
        for batch in corpus.batches(lengths, random.Random(SEED), 2 * TOKENS):
            places = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])
            found[places] = torch.cat(self.read([rows[i] for i in batch]), 1).numpy()
        return found

    def train(self, data: Path, kept: Path) -> None:
        """Fine-tune on labelled sentences; in every epoch half of the names are others."""
        rng, sentences = random.Random(SEED), tagging.training(data)
        pool, steps = tagging.pool_of(sentences), []
        for _ in range(TEACHER_EPOCHS["ner"]):
            made = [corpus.renamed(s, pool, rng) for s in sentences]
            rows = self.encode([words for words, _ in made])
            whole = [(row, tagging.tag_ids(s[1])) for row, s in zip(rows, made, strict=True)]
            lengths = [len(row[0]) for row in rows]
            steps += [[whole[i] for i in b] for b in corpus.batches(lengths, rng, TOKENS)]
        optim = torch.optim.AdamW(self.model.parameters(), RATE, weight_decay=0.01)

        def loss_of(batch: list[tuple[Tagged, list[int]]]) -> torch.Tensor:
            labels = torch.tensor([tag for _, tags in batch for tag in tags])
            return cross_entropy(self.read([row for row, _ in batch])[0], labels)

        fit(self.model, steps, [optim], loss_of, kept)

    def measure(self, data: Path) -> float:
        """Return the F1 of entities in the held-out sentences."""
        _, held, _ = corpus.names(data)
        best = self.judge([words for words, _ in held])[:, : len(TAGS)].argmax(1)
        left = iter(best.tolist())
        right = found = there = 0
        for _, tags in held:
            mine = set(corpus.entities([TAGS[next(left)] for _ in tags]))
            wanted = set(corpus.entities(tags))
            right, found = right + len(mine & wanted), found + len(mine)
            there += len(wanted)
        return 2 * right / (found + there)

    def questions(self, data: Path) -> list[list[str]]:
        """Return the sentences of tagging.py."""
        return tagging.questions(data)


def record(teacher: Any, questions: list[Any], folder: Path) -> None:
    """Write what a teacher says of questions, chunk after chunk."""
    for start in range(0, len(questions), CHUNK):
        path = folder / f"{start // CHUNK:05}.npy"
        if path.exists():
            continue
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            np.save(file, teacher.judge(questions[start : start + CHUNK]).astype(np.float16))
        draft.rename(path)
        print(f"{path.name}: {min(start + CHUNK, len(questions)):,} questions", flush=True)


def read_answers(folder: Path) -> tuple[list[Any], np.ndarray]:
    """Return the questions, and what the teacher said of them."""
    questions = json.loads((folder / "texts.json").read_text("utf-8"))
    return questions, np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])


TEACHERS = {"sentiment": SentimentTeacher, "ner": NameTeacher}


def main() -> None:
    """Train a teacher and ask it, or go on with that."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=list(TEACHERS))
    for name in ("data", "minilm", "kept"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    folder = args.kept / args.task
    folder.mkdir(parents=True, exist_ok=True)
    teacher = TEACHERS[args.task](args.minilm)
    teacher.train(args.data, args.kept / f"{args.task}.pt")
    print(f"teacher: {teacher.measure(args.data):.4f} of what is held out", flush=True)
    asked = folder / "texts.json"
    if not asked.exists():
        asked.write_text(json.dumps(teacher.questions(args.data), ensure_ascii=False), "utf-8")
    record(teacher, json.loads(asked.read_text("utf-8")), folder)


if __name__ == "__main__":
    main()
