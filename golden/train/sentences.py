"""The sentences that the built-in embedding model is distilled on, in a fixed order.

Any beginning of the order is a balanced sample: a file's share is its row in SHARES, as long as it
lasts.  Captions, questions, dialogue and definitions count for more than their bulk, since what
people compare are short sentences.  Captions come a second time, each beside another in which a
little is different, since of whole texts few are that near to each other.  What is measured on
(DATA/eval, DATA/qa) is in none of the files.
"""

import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import SEED, sentences_of

SHARES = {  # of DATA/corpus; what a file is, and under which licence, DATA/corpus/SOURCES.md says
    "assistant_utterances_clinc_nlueval_snips": 4, "cia_factbook": 1, "coco_captions_30k": 16,
    "common_voice_cc0": 6, "dialogue_self_dialogue": 7, "dialogue_sgd": 2,
    "dialogue_taskmaster": 1, "dialogue_topical_chat": 5, "gum_open_genres": 2,
    "medquad_nih": 4, "nlvr2_sentences": 4, "openstax_image_descriptions": 4,
    "openstax_textbooks": 4, "questions_wellformed_nq_webq_wtq": 8, "state_union_inaugural": 2,
    "strategyqa_gsm8k": 3, "tatoeba_laser": 14, "tech_docs_gnome_sqlite_postgres_debian": 2,
    "tldr_and_recipes": 2, "us_gov_web_18f_digitalgov_nist": 3, "wikipedia_movie_extracts": 3,
    "wikipedia_sentences_mixed": 7, "wikipedia_vital_summaries": 5, "wikisql_questions": 2,
    "wordnet_glosses_examples": 10,
}  # fmt: skip
LONGEST = 30  # words of a sentence
PARAGRAPH = 40, 120  # words of a paragraph that is taken whole
WHOLE = 40  # one in so many texts is a paragraph


def read_sentences(path: Path, rng: random.Random) -> tuple[list[str], list[str]]:
    """Return a file's sentences of 3 to LONGEST words, and its paragraphs, both shuffled."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    found = dict.fromkeys(s.strip() for line in lines for s in sentences_of(line))
    short = [s for s in found if 3 <= len(s.split()) <= LONGEST and re.search("[a-z]{3}", s)]
    long = [line for line in lines if PARAGRAPH[0] <= len(line.split()) <= PARAGRAPH[1]]
    rng.shuffle(short)
    rng.shuffle(long)
    return short, long


def texts(data: Path) -> Iterator[str]:
    """Yield all sentences, balanced, with a paragraph now and then."""
    rng = random.Random(SEED)
    read = {name: read_sentences(data / "corpus" / f"{name}.txt.gz", rng) for name in SHARES}
    paragraphs = [text for _, long in read.values() for text in long]
    rng.shuffle(paragraphs)
    left = {name: short for name, (short, _) in read.items()}
    given = dict.fromkeys(SHARES, 0)
    count = 0
    while left:
        name = min(left, key=lambda n: (given[n] + 1) / SHARES[n])
        given[name] += 1
        yield left[name].pop()
        if not left[name]:
            del left[name]
        count += 1
        if count % WHOLE == 0 and paragraphs:
            yield paragraphs.pop()


def captions(data: Path) -> Iterator[str]:
    """Yield descriptions of pictures that texts() has late or not, and each with a change."""
    rng = random.Random(SEED)
    short, _ = read_sentences(data / "corpus" / "coco_captions_30k.txt.gz", rng)
    found = [
        re.sub(r"\b(man|woman|person|boy|girl|dog|cat) (\w+ing)\b", r"\1 is \2", s) for s in short
    ]
    found = [
        re.sub(r"\b(men|women|people|dogs|children) (\w+ing)\b", r"\1 are \2", s) for s in found
    ]
    found = [s.strip(" .") + "." * (rng.random() < 0.3) for s in found]
    words: dict[str, list[str]] = {}  # of one ending
    for word in re.findall("[a-z]{4,}", " ".join(found)):
        words.setdefault(ending(word), []).append(word)
    for text in found:
        yield text
        yield changed(text, words, rng)


def ending(word: str) -> str:
    """Return what tells roughly which kind of word it is."""
    return next((end for end in ("ing", "ed", "ly", "s") if word.endswith(end)), "")


def changed(text: str, words: dict[str, list[str]], rng: random.Random) -> str:
    """Return a text with another word, without its end, denied, or told in another way."""
    kind = rng.choice(["word", "word", "words", "end", "deny", "tell"])
    if kind == "deny":
        for old, new in ((" is ", " is not "), (" are ", " are not "), (" with ", " without ")):
            if old in text:
                return text.replace(old, new, 1)
        return re.sub("^(A|An|The|Two|Some) ", "There is no ", text)
    if kind == "tell":
        start = rng.choice(["The ", "One ", "There is a ", "A picture of a ", "Some "])
        return re.sub("^(A|An|The) ", start, text)
    if kind == "end" and (cut := re.search("^(.{12,}) (in|on|with|at|near|by|next|while) ", text)):
        return cut[1]
    for _ in range(2 if kind == "words" else 1):
        places = [m for m in re.finditer("[a-z]{4,}", text) if m[0] not in ("with", "that", "from")]
        if places:
            place = rng.choice(places)
            other = rng.choice(words[ending(place[0])])
            text = text[: place.start()] + other + text[place.end() :]
    return text
