"""The texts that the built-in checkpoints are trained on and measured with, cleaned and split.

What is measured on was seen in no stage: a seventh of the review sentences, with every phrase that
stands in one of them, and a fiftieth of the paragraphs of the books and the encyclopedia.
"""

import random
import re
import unicodedata
from pathlib import Path

from tokenizers import Tokenizer

DEMO = Path(__file__).parent.parent / "npbert" / "demo"
SEED = 20
EPOCHS = {"fill-mask": 8, "sentiment": 3}
PAD, UNK, CLS, SEP, MASK = range(5)
LENGTHS = (32, 64, 126, 254)  # pieces in a chunk of prose; short texts are what people type
BATCH = 4096  # tokens, padding included


def natural(text: str) -> str:
    """Treebank spelling ("wo n't", "-lrb-") to what a person types."""
    text = text.replace("-lrb-", "(").replace("-rrb-", ")").replace("``", '"').replace("''", '"')
    text = re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", text)
    return re.sub(r" ([,.;:!?%)])", r"\1", text).replace("( ", "(").strip()


def words(text: str) -> str:
    """Only letters and digits: the same sentence in any spelling of hyphens, accents and quotes."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return f" {' '.join(re.findall('[a-z0-9]+', plain))} "


def labelled(path: Path) -> list[tuple[str, int]]:
    rows = [line.rsplit("\t", 1) for line in path.read_text("utf-8").splitlines()]
    return [(text.strip(), int(label)) for text, label in rows if label in ("0", "1")]


def reviews(data: Path) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return (training, held-out) sentences and phrases with labels, in natural spelling.

    Every seventh sentence is held out; whatever stands in a held-out sentence, down to a single
    word, is left out of training.
    """
    sentences = labelled(data / "sst2" / "sent_train.tsv")
    phrases = labelled(data / "sst2" / "alps_train.tsv")
    random.Random(SEED).shuffle(sentences)
    held = sentences[::7]
    haystack = "|".join(words(text) for text, _ in held)
    rest = [s for i, s in enumerate(sentences) if i % 7] + phrases
    train = {natural(t): y for t, y in rest if words(t) not in haystack}
    return sorted(train.items()), [(natural(t), y) for t, y in held]


def runs(text: str) -> set[tuple[str, ...]]:
    """Return all runs of six words of a text; of a shorter one, all its words."""
    found = words(text).split()
    return {tuple(found[i : i + 6]) for i in range(max(1, len(found) - 5))}


def unseen(data: Path) -> list[tuple[str, int]]:
    """Return the held-out sentences without those that training has seen in another spelling.

    The two sources differ in brackets, accents and British spelling, which a comparison of whole
    sentences misses: out goes whatever shares a third of its runs of six words with training.
    """
    train, held = reviews(data)
    known = {run for text, _ in train for run in runs(text)}
    short = "|".join(words(text) for text, _ in train)
    return [
        (text, label)
        for text, label in held
        if len(runs(text) & known) * 3 < len(runs(text)) and words(text) not in short
    ]


def prose(data: Path) -> tuple[list[str], list[str]]:
    """Return (training, held-out) paragraphs of books and encyclopedia; one in 50 is held out."""
    paragraphs = []
    for path in sorted((data / "text").glob("*.md")):
        blocks = re.split(r"\n\s*\n", path.read_text("utf-8"))
        paragraphs += [
            " ".join(b.replace("_", "").split()) for b in blocks if not b.startswith("#")
        ]
    for line in (data / "text" / "wikitext-2.valid").read_text("utf-8").splitlines():
        line = line.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".")
        if not line.strip().startswith("="):
            paragraphs.append(natural(line.replace("<unk>", "")))
    paragraphs = [p for p in paragraphs if len(p) > 20]
    random.Random(SEED).shuffle(paragraphs)
    return paragraphs[len(paragraphs) // 50 :], paragraphs[: len(paragraphs) // 50]


def sentences_of(paragraph: str) -> list[str]:
    """Cut after a full stop, and after the quotation mark that may follow it."""
    return re.split(
        '(?<=[.!?]["\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]) |(?<=[.!?]) ',
        paragraph,
    )


def in_pieces(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def chunks(paragraphs: list[list[list[int]]], rng: random.Random) -> list[list[int]]:
    """Consecutive sentences of a paragraph, together no longer than a length drawn from LENGTHS."""
    made = []
    for sentences in paragraphs:
        ids: list[int] = []
        limit = rng.choice(LENGTHS)
        for sentence in sentences:
            if ids and len(ids) + len(sentence) > limit:
                made.append(ids)
                ids, limit = [], rng.choice(LENGTHS)
            ids = (ids + sentence)[:limit]
        made.append(ids)
    return [[CLS, *ids, SEP] for ids in made if len(ids) >= 4]


def batches(lengths: list[int], rng: random.Random) -> list[list[int]]:
    """Rows of about equal length, BATCH tokens at a time, in random order."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], rng.random()))
    made: list[list[int]] = [[]]
    for i in order:
        if lengths[i] * (len(made[-1]) + 1) > BATCH:
            made.append([])
        made[-1].append(i)
    rng.shuffle(made)
    return made
