"""Words, pieces and tags of the model that finds names, for its teacher and for the student.

Case is half of what tells a name, and neither has it in its pieces.  The teacher sees it as token
types, the student as a piece of its own, MARK, before every word with a capital.
"""

import random
import re
from pathlib import Path

import corpus
from corpus import SEED, TAGS
from tokenizers import Regex, Tokenizer, normalizers

MARK = "\N{UPWARDS WHITE ARROW}"  # as on the shift key; fastai's xxmaj
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞŠŽ"
LONGEST = 60  # words
TAKEN = {  # sentences of DATA/corpus that the teacher is asked, where they hold a name
    "gum_open_genres": 2_000, "state_union_inaugural": 1_500, "tatoeba_laser": 1_000,
    "us_gov_web_18f_digitalgov_nist": 500, "wikipedia_movie_extracts": 6_000,
    "wikipedia_sentences_mixed": 12_000, "wikipedia_vital_summaries": 7_000,
}  # fmt: skip
RENAMED = 6_000  # training sentences with other names in them, that it is asked too


def case_of(word: str) -> int:
    """Return 0 for a word without a capital at its start, 1 with one, 2 if all is capitals."""
    if not word[:1].isupper():
        return 0
    return 2 if len(word) > 1 and word.isupper() else 1


def mark_capitals(tokenizer: Tokenizer) -> Tokenizer:
    """Put a piece of its own, MARK, before every word with a capital, and then lower-case.

    A mark leaves every word the piece, and the vector, that it had.
    """
    marked = Tokenizer.from_str(tokenizer.to_str())
    marks = [normalizers.Replace(Regex(rf"\b{c}"), f"{MARK} {c.lower()}") for c in CAPITALS]
    marked.normalizer = normalizers.Sequence([*marks, normalizers.BertNormalizer(lowercase=True)])
    return marked


def split_words(text: str) -> list[str]:
    """Return the words and signs of a text, as the labelled sentences are cut."""
    return re.findall(r"\w+(?:[-'\N{RIGHT SINGLE QUOTATION MARK}.]\w+)*|[^\w\s]", text)


def pool_of(sentences: list[corpus.Sentence]) -> dict[str, list[list[str]]]:
    """Return the names in sentences, of each kind."""
    pool: dict[str, list[list[str]]] = {"PER": [], "LOC": [], "ORG": []}
    for found, tags in sentences:
        for start, end, kind in corpus.entities(tags):
            pool[kind].append(found[start:end])
    return pool


def training(data: Path) -> list[corpus.Sentence]:
    """Return an epoch's labelled sentences: articles four times, tweets if they hold a name."""
    wiki, _, tweets = corpus.names(data)
    named = [s for s in tweets if any(tag != "O" for tag in s[1])]
    return wiki * 4 + named + [s for s in tweets if all(tag == "O" for tag in s[1])][::4]


def questions(data: Path) -> list[list[str]]:
    """Return sentences, as words, to ask the teacher; none shares six words with a held-out one."""
    rng = random.Random(SEED)
    wiki, held, tweets = corpus.names(data)
    allowed = corpus.apart_from([" ".join(words) for words, _ in held])
    found = []
    for name, count in TAKEN.items():
        given = corpus.sentences_in(data / "corpus" / f"{name}.txt.gz", 4, LONGEST)
        cut = [split_words(text) for text in given if allowed(text)]
        named = [words for words in cut if any(map(case_of, words[1:]))]
        found += rng.sample(named, min(count, len(named)))
    pool = pool_of(wiki * 4 + tweets)
    some = [rng.choice(wiki + wiki + tweets) for _ in range(RENAMED)]
    found += [corpus.renamed(sentence, pool, rng)[0] for sentence in some]
    return [words for words in found if len(words) <= LONGEST]


def tag_ids(tags: list[str]) -> list[int]:
    """Return the numbers of tags."""
    return [TAGS.index(tag) for tag in tags]
