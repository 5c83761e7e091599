"""More texts for the sentiment model than were ever labelled, for its teacher to judge.

Training texts with phrases exchanged, words replaced by their neighbours, ends cut off, denials put
in, or two of them joined (Tang et al. 2019 do some of this), and sentences that people said about
films and much else.  No text stands in a held-out sentence, and none shares six words in a row with
one.
"""

import random
from collections.abc import Callable
from pathlib import Path

import corpus
import numpy as np
from corpus import SEED

MADE = 60_000  # texts made out of training texts
TAKEN = {  # sentences of DATA/corpus, of which SOURCES.md there says what they are
    "dialogue_self_dialogue": 16_000, "dialogue_topical_chat": 2_000, "tatoeba_laser": 5_000,
    "wordnet_glosses_examples": 2_500, "wikipedia_movie_extracts": 1_000,
    "common_voice_cc0": 1_000,
}  # fmt: skip
LONGEST = 40  # words
NEIGHBOURS = 12
JOINTS = (
    ", but ", ", but ", " but ", " and ", ", and ", ", yet ", ". ", ", ", " -- ", " although ",
    ", even though ", ", which is ", " because ", "; ", " instead of ", " rather than ",
    " without ",
)  # fmt: skip
DENIALS = (
    "not", "never", "hardly", "barely", "no", "far from", "anything but", "isn't", "without",
    "less", "too", "not very", "not at all", "neither",
)  # fmt: skip


def find_neighbours(vectors: np.ndarray, vocabulary: dict[str, int]) -> dict[str, list[str]]:
    """Return the NEIGHBOURS nearest of the given words (word: row of vectors) of each of them."""
    words = sorted(vocabulary)
    rows = vectors[[vocabulary[word] for word in words]]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = np.argpartition(-(rows @ rows.T), NEIGHBOURS + 1, axis=1)[:, : NEIGHBOURS + 1]
    return {
        word: [words[i] for i in line if words[i] != word]
        for word, line in zip(words, nearest, strict=True)
    }


def make_texts(
    texts: list[str], neighbours: dict[str, list[str]], rng: random.Random
) -> Callable[[], str]:
    """Return what makes another text out of training texts."""
    cut = [text.split() for text in texts]
    known = {tuple(words) for words in cut}
    long = [words for words in cut if len(words) >= 5]
    short = [words for words in cut if 2 <= len(words) <= 14]
    of_size: dict[int, list[list[str]]] = {}
    for words in cut:
        of_size.setdefault(len(words), []).append(words)

    def exchange(words: list[str]) -> list[str]:
        """Put another phrase in the place of one that was labelled alone."""
        runs = [
            (i, j)
            for i in range(len(words))
            for j in range(i + 1, min(len(words), i + 7) + 1)
            if j - i < len(words) and tuple(words[i:j]) in known
        ]
        if not runs:
            return cut_off(words)
        i, j = rng.choice(runs)
        size = max(1, j - i + rng.choice((-1, 0, 0, 0, 1)))
        return words[:i] + rng.choice(of_size[size]) + words[j:]

    def replace(words: list[str]) -> list[str]:
        rate = rng.choice((0.1, 0.2, 0.3))
        return [
            rng.choice(neighbours[w]) if rng.random() < rate and w in neighbours else w
            for w in words
        ]

    def cut_off(words: list[str]) -> list[str]:
        size = rng.randint(2, max(2, len(words) - 1))
        start = rng.randint(0, max(0, len(words) - size))
        return words[start : start + size]

    def deny(words: list[str]) -> list[str]:
        denied = [i for i, w in enumerate(words) if w in DENIALS or w.endswith("n't")]
        if denied and rng.random() < 0.5:
            i = rng.choice(denied)
            return words[:i] + words[i + 1 :]
        i = rng.randrange(len(words))
        return words[:i] + rng.choice(DENIALS).split() + words[i:]

    def join(words: list[str]) -> list[str]:
        joined = " ".join(rng.choice(short)) + rng.choice(JOINTS) + " ".join(rng.choice(short))
        return joined.split()

    ways = (exchange, exchange, exchange, replace, replace, cut_off, deny, join, join)

    def make() -> str:
        words = rng.choice(long)
        for _ in range(rng.choice((1, 1, 2))):
            words = rng.choice(ways)(words)
        return " ".join(words[:LONGEST])

    return make


def unlabelled(data: Path, vectors: np.ndarray, vocabulary: dict[str, int]) -> list[str]:
    """Return texts to judge; vectors and vocabulary tell which words are neighbours."""
    rng = random.Random(SEED)
    train, held = corpus.reviews(data)
    texts = [text for text, _ in train]
    used = {word for text in texts for word in text.split() if word.isalpha()}
    known = {word: row for word, row in vocabulary.items() if word in used and len(word) > 2}
    make = make_texts(texts, find_neighbours(vectors, known), rng)
    allowed = corpus.apart_from([text for text, _ in held])
    found = dict.fromkeys(texts, False)  # and whether it is new
    while sum(found.values()) < MADE:
        fresh = [make() for _ in range(1024)]
        found |= {text: True for text in fresh if text not in found and allowed(text)}
    for name, count in TAKEN.items():
        given = corpus.sentences_in(data / "corpus" / f"{name}.txt.gz", 2, 30)
        fresh = rng.sample(given, count)
        found |= {text: True for text in fresh if text not in found and allowed(text)}
    return [text for text, new in found.items() if new]
