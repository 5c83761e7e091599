"""The texts that the built-in checkpoints are trained on and measured with, cleaned and split.

What is measured on was seen in no stage: a seventh of the review sentences, with every phrase that
stands in one of them, a fiftieth of the paragraphs of the books and the encyclopedia, and the
articles at the end of WikiGold that make up a fifth of its sentences.
"""

import gzip
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

DEMO = Path(__file__).parent.parent.parent / "npbert" / "demo"
SEED = 20
EPOCHS = {"fill-mask": (6, 5), "sentiment": 8, "ner": 8}
TEACHER_EPOCHS = {"sentiment": 1, "ner": 5}
BESIDE = {  # sentences of DATA/corpus that fill-mask's first epochs read beside the prose, in each
    "common_voice_cc0": 25_000, "dialogue_self_dialogue": 20_000, "dialogue_topical_chat": 5_000,
    "tatoeba_laser": 30_000, "wikipedia_movie_extracts": 15_000,
    "wikipedia_sentences_mixed": 15_000, "wikipedia_vital_summaries": 5_000,
}  # fmt: skip
PAD, UNK, CLS, SEP, MASK = range(5)
LENGTHS = (30, 46, 62, 126)  # pieces in a chunk of prose; short texts are what people type
BATCH = 4096  # tokens, padding included
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
KINDS = {  # the label sets of all sources in one; whatever is not named (MISC, product, work) is O
    "PER": "PER", "person": "PER", "LOC": "LOC", "location": "LOC",
    "ORG": "ORG", "corporation": "ORG", "group": "ORG",
}  # fmt: skip
Sentence = tuple[list[str], list[str]]  # words and their tags
Span = tuple[int, int, str]  # first word, word after the last, kind


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


def apart_from(held: list[str]) -> Callable[[str], bool]:
    """Return what tells whether a text is in none of these, and shares no six words with one."""
    haystack = "|".join(words(text) for text in held)
    known = {run for text in held for run in runs(text)}
    return lambda text: not runs(text) & known and words(text) not in haystack


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


def tagged(path: Path) -> list[list[Sentence]]:
    """Read a file's articles, their sentences' labels turned into TAGS.

    WikiGold begins no entity with B-: what follows a word of another kind begins one here too.
    """
    articles: list[list[Sentence]] = [[]]
    for block in re.split(r"\n\s*\n", path.read_text("utf-8")):
        rows = [line.rsplit(maxsplit=1) for line in block.split("\n") if len(line.split()) > 1]
        if rows and rows[0][0] == "-DOCSTART-":
            articles.append([])
        elif rows:
            tags = ["O"]
            for _, label in rows:
                kind = KINDS.get(label[2:], "")
                inside = label[0] == "I" and tags[-1][2:] == kind
                tags.append(("I-" if inside else "B-") + kind if kind else "O")
            articles[-1].append(([word for word, _ in rows], tags[1:]))
    return [article for article in articles if article]


def without_handles(sentence: Sentence) -> Sentence:
    """Take the label off "@ name": tweets call it PER or ORG, but it is an address, not a name."""
    found, tags = sentence[0], list(sentence[1])
    for i, word in enumerate(found):
        if word == "@" and tags[i] != "O":
            tags[i : i + 2] = ["O"] * len(tags[i : i + 2])
            if tags[i + 2 : i + 3] and tags[i + 2][0] == "I":
                tags[i + 2] = "B" + tags[i + 2][1:]
    return found, tags


def names(data: Path) -> tuple[list[Sentence], list[Sentence], list[Sentence]]:
    """Return WikiGold's training and held-out sentences, and the training sentences of tweets.

    Held out are whole articles, since sentences of one article name the same things; no training
    sentence stands in them.
    """
    articles = tagged(data / "ner" / "wikigold.train.conll")
    wanted, held = sum(map(len, articles)) / 5, []
    while len(held) < wanted:
        held = articles.pop() + held
    paths = sorted(p for p in (data / "ner").glob("*.conll") if p.name != "wikigold.train.conll")
    tweets = [without_handles(s) for path in paths for article in tagged(path) for s in article]
    known = {words(" ".join(found)) for found, _ in held}
    wiki, tweets = (
        [s for s in sentences if words(" ".join(s[0])) not in known]
        for sentences in ([s for article in articles for s in article], tweets)
    )
    return wiki, held, tweets


def entities(tags: list[str]) -> list[Span]:
    """Group tags: B- begins an entity, and so does I- after a tag of another kind."""
    spans: list[Span] = []
    for i, tag in enumerate(tags):
        if tag[0] == "I" and spans and spans[-1][1:] == (i, tag[2:]):
            spans[-1] = (spans[-1][0], i + 1, tag[2:])
        elif tag != "O":
            spans.append((i, i + 1, tag[2:]))
    return spans


def renamed(sentence: Sentence, pool: dict[str, list[list[str]]], rng: random.Random) -> Sentence:
    """Put another name of its kind in the place of every second entity.

    So few sentences would else be learnt by heart, and the words around a name not be looked at.
    """
    found, tags = list(sentence[0]), list(sentence[1])
    for start, end, kind in reversed(entities(tags)):
        name = rng.choice(pool[kind]) if rng.random() < 0.5 else found[start:end]
        found[start:end] = name
        tags[start:end] = ["B-" + kind] + ["I-" + kind] * (len(name) - 1)
    return found, tags


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


def sentences_in(path: Path, least: int, most: int) -> list[str]:
    """Return a file's sentences of so many words, each once, in the alphabet's order."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = {s.strip() for line in file for s in sentences_of(line.strip())}
    return sorted(s for s in found if least <= len(s.split()) <= most and re.search("[a-z]{3}", s))


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


def alone(texts: list[list[int]]) -> list[list[int]]:
    """Return rows of one text each."""
    return [[CLS, *ids[:254], SEP] for ids in texts if ids]


def batches(lengths: list[int], rng: random.Random, tokens: int = BATCH) -> list[list[int]]:
    """Rows of about equal length, so many tokens at a time, in random order."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], rng.random()))
    made: list[list[int]] = [[]]
    for i in order:
        if lengths[i] * (len(made[-1]) + 1) > tokens:
            made.append([])
        made[-1].append(i)
    rng.shuffle(made)
    return made
