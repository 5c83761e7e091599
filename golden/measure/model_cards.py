"""Measures the built-in checkpoints on sentences that no stage of training has seen.

    python golden/measure/model_cards.py DATA

Runs npbert itself on the files that ship, and writes the figures into the model card beside them.
"""

import random
import sys
import textwrap
from itertools import accumulate
from pathlib import Path

import npbert
from npbert.tasks.task import Task

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))

import augment
import corpus
import tagging
from corpus import DEMO, EPOCHS, TEACHER_EPOCHS

# what teach.py's teachers reach on the held-out sentences: how many right, F1 of entities
TAUGHT = {"sentiment": 0.898, "ner": 0.734}
SOURCES = {  # files of DATA/corpus: what they are called, and their licence
    "common_voice_cc0": "Common Voice (CC0)",
    "dialogue_self_dialogue": "self-dialogue (BSD-3-Clause)",
    "dialogue_topical_chat": "Topical-Chat (CDLA-Sharing 1.0)",
    "gum_open_genres": "GUM (CC BY, CC BY-SA)",
    "state_union_inaugural": "speeches of presidents (public domain)",
    "tatoeba_laser": "Tatoeba (CC BY 2.0 FR)",
    "us_gov_web_18f_digitalgov_nist": "sites of the United States government (public domain)",
    "wikipedia_movie_extracts": "films in Wikipedia (CC BY-SA)",
    "wikipedia_sentences_mixed": "WikiSplit, GAP, FewRel, QED (CC BY-SA)",
    "wikipedia_vital_summaries": "vital articles of Wikipedia (CC BY-SA)",
    "wordnet_glosses_examples": "WordNet's glosses (its own licence)",
}

FILL_MASK = """# npbert fill-mask

A small DistilBERT for masked-language modelling of English: 2 blocks of width 192, 6 heads, ffn
768, 256 positions, a lower-casing vocabulary of 6,500 pieces of BERT's, 2.2 million parameters in
float16. It exists so that npbert's first command works without a network, and as a reference
checkpoint with trained weights.

* **Not good for**: anything but English; facts, of which it knows none; texts other than novels,
  articles and what people say of films; rare words and names, which it knows by their parts and
  never fills in whole. In earnest take a larger model.
* **Data**: nine novels and Darwin's Origin of Species (public domain), the WikiText-2 validation
  set (CC BY-SA 3.0), review sentences and phrases of the Stanford Sentiment Treebank (Socher et al.
  2013), and in the first {added} epochs up to {taken:,} sentences beside them in each:
  {sources}.
  No text shares six words in a row with a held-out sentence.
* **Start**: the embeddings of its pieces in sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0),
  reduced to 192 directions.
* **Training**: golden/train/train_fill_mask.py, seed {seed}, {epochs} epochs, 43 million tokens in
  all; a fifth of the words hidden, all pieces of a word at once.
* **Measured** on held-out sentences, one whole word hidden in each, a word of several pieces
  counted as missed:

  | the word is | this model, 2.2 million parameters | the model before, 2.9 million |
  |---|--:|--:|
  | among the first five, in {prose_n:,} sentences of prose | {prose5:.1%} | 49.9% |
  | the first | {prose1:.1%} | 26.9% |
  | among the first five, in {review_n:,} of reviews | {review5:.1%} | 42.2% |
  | the first | {review1:.1%} | 25.3% |
* **Licence**: Apache-2.0.
"""

SENTIMENT = """# npbert sentiment

A small DistilBERT that tells positive from negative English review sentences: 2 blocks of width
192, 6 heads, ffn 512, 256 positions, a lower-casing vocabulary of 4,500 pieces of its teacher's,
1.6 million parameters in float16. It exists so that npbert's first command works without a network,
and as a reference checkpoint with trained weights.

* **Not good for**: anything but English; what is neither positive nor negative, which it calls one
  of the two all the same; irony ("Oh great, another sequel" is positive to it); whole reviews, of
  which it saw single sentences; goods and places more than films. In earnest take a larger model.
* **Teacher**: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; 6 blocks of width 384),
  fine-tuned on the labelled texts, which itself has {taught:.1%} of the held-out sentences right.
  The student starts with npbert's fill-mask, less a third of each ffn, and learns the teacher's
  logits and hidden states.
* **Data**: {labelled:,} sentences and phrases of the Stanford Sentiment Treebank (Socher et al.
  2013; research data without an explicit licence, on which models are published under Apache-2.0
  throughout); {made:,} texts made of them, phrases exchanged, words replaced, denied, or two
  joined, and {taken:,} sentences, which the teacher judged:
  {sources}.
* **Held out**: a seventh of the treebank's sentences; every phrase that stands in one was removed
  from training, of the teacher too, and so was a made or added text that shares six words in a row
  with one. Sentences of which training has seen another spelling ("theater", "( it 's )") are not
  measured on.
* **Training**: golden/train/teach.py and train_sentiment.py, seed {seed}; {teacher_epochs} epoch of
  the teacher, {epochs} of the student.
* **Measured** on {n:,} held-out whole sentences:

  | | right | parameters |
  |---|--:|--:|
  | this model | {accuracy:.1%} | 1.6 million |
  | a model fine-tuned without a teacher | 82.5% | 3.0 million |
  | its teacher | {taught:.1%} | 22.7 million |
* **Licence**: Apache-2.0.
"""

NER = """# npbert ner

A small DistilBERT that finds the names of persons (PER), places (LOC) and organisations (ORG) in
English sentences: 2 blocks of width 192, 6 heads, ffn 512, 256 positions, a vocabulary of 3,600,
1.4 million parameters in float16. It exists so that npbert's first command works without a network,
and as a reference checkpoint with trained weights.

The vocabulary has no capitals. As case is half of what tells a name, the tokenizer puts a piece of
its own, ⇧, before every word that begins with a capital, and lower-cases it then.

* **Not good for**: anything but English; names of anything but persons, places and organisations;
  lower-cased texts; organisations that are named after places or persons, which it mixes up.
  In earnest take a larger model.
* **Teacher**: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; 6 blocks of width 384), which saw
  the case of words as token types, fine-tuned on the labelled sentences; its own F1 is
  {taught:.3f}. The student starts with npbert's fill-mask, less a third of each ffn, and learns the
  teacher's logits and hidden states.
* **Data**: labelled are the training part of WikiGold (Balasuriya et al. 2009), the Broad Twitter
  Corpus (Derczynski et al. 2016), and the training and development sets of WNUT 2017 (Derczynski et
  al. 2017), all CC BY 4.0. Labels: person became PER, location LOC, corporation and group ORG;
  MISC, product and creative-work became O, and so did Twitter's "@ name". WikiGold's I-X became
  B-X I-X. The teacher was asked {renamed:,} of these with other names in them, and {taken:,} more:
  {sources}.
* **Held out**: the last whole articles of WikiGold's training part that make up a fifth of its
  sentences; a training sentence that stands there too is left out, and so is one for the teacher
  that shares six words in a row with one of them. The texts of fill-mask share such runs with 12 of
  them, which are common phrases ("Nobel Prize in Physiology or Medicine").
* **Training**: golden/train/teach.py and train_ner.py, seed {seed}; {teacher_epochs} epochs of the
  teacher, {epochs} of the student, WikiGold four times in each, half of the names replaced by
  others of their kind.
* **Measured**: entities with exactly the right words and kind, in {n:,} held-out sentences with
  {entities:,} entities.

  | | F1 | precision | recall | parameters |
  |---|--:|--:|--:|--:|
  | this model | {f1:.3f} | {precision:.3f} | {recall:.3f} | 1.4 million |
  | the model before, fine-tuned without a teacher | 0.587 | | | 2.9 million |
  | its teacher | {taught:.3f} | | | 22.7 million |
* **Licence**: Apache-2.0.
"""


def sources(taken: dict[str, int]) -> str:
    """Return what a card says of the files of DATA/corpus that sentences were taken from."""
    text = ", ".join(SOURCES[name] for name in sorted(taken))
    return textwrap.fill(text, 97, break_on_hyphens=False).replace("\n", "\n  ")


def hidden_words(texts: list[str], task: Task) -> tuple[float, float, int]:
    """Hide a word of every text; return how often it is in the first five, first, of how many."""
    rng = random.Random(corpus.SEED)
    questions, words = [], []
    for text in texts:
        encoding = task.tokenizer.encode(text)
        spans: dict[int, list[int]] = {}
        for i, word in enumerate(encoding.word_ids):
            if word is not None:
                spans.setdefault(word, []).append(i)
        candidates = [span for span in spans.values() if encoding.tokens[span[0]].isalpha()]
        if len(candidates) < 5 or encoding.cut:
            continue
        span = rng.choice(candidates)
        start, end = encoding.offsets[span[0]][0], encoding.offsets[span[-1]][1]
        questions.append(f"{text[:start]}[MASK]{text[end:]}")
        words.append(encoding.ids[span[0]] if len(span) == 1 else None)
    answers = [[a["token"] for a in answer] for answer in task(questions)]
    pairs = list(zip(words, answers, strict=True))
    five = sum(word in tokens for word, tokens in pairs)
    return (
        five / len(pairs),
        sum(word == tokens[0] for word, tokens in pairs) / len(pairs),
        len(pairs),
    )


def found_entities(task: Task, sentences: list[corpus.Sentence]) -> tuple[int, int, int]:
    """Return how many entities are found with the right words and kind, found, and there."""
    right = found = there = 0
    answers = task([{"words": words} for words, _ in sentences])
    for (words, tags), answer in zip(sentences, answers, strict=True):
        starts = [0, *accumulate(len(word) + 1 for word in words)]
        wanted = {(starts[a], starts[b] - 1, kind) for a, b, kind in corpus.entities(tags)}
        given = {(a["start"], a["end"], a["entity_group"]) for a in answer}
        right, found, there = right + len(wanted & given), found + len(given), there + len(wanted)
    return right, found, there


def main(data: Path) -> None:
    """Measure the checkpoints and write their cards."""
    _, paragraphs = corpus.prose(data)
    reviews = corpus.unseen(data)
    fill = npbert.pipeline("fill-mask", DEMO / "fill-mask")
    prose = [s for paragraph in paragraphs for s in corpus.sentences_of(paragraph)]
    p5, p1, pn = hidden_words(prose, fill)
    r5, r1, rn = hidden_words([text for text, _ in reviews], fill)
    card = FILL_MASK.format(
        seed=corpus.SEED, epochs=sum(EPOCHS["fill-mask"]), added=EPOCHS["fill-mask"][0],
        taken=sum(corpus.BESIDE.values()), sources=sources(corpus.BESIDE),
        prose5=p5, prose1=p1, prose_n=pn, review5=r5, review1=r1, review_n=rn,
    )  # fmt: skip
    (DEMO / "fill-mask" / "README.md").write_text(card)
    print(card)

    classify = npbert.pipeline("text-classification", DEMO / "sentiment")
    answers = classify([text for text, _ in reviews])
    right = sum(
        a["label"] == ("NEGATIVE", "POSITIVE")[y]
        for a, (_, y) in zip(answers, reviews, strict=True)
    )
    card = SENTIMENT.format(
        seed=corpus.SEED, epochs=EPOCHS["sentiment"], teacher_epochs=TEACHER_EPOCHS["sentiment"],
        taught=TAUGHT["sentiment"], labelled=len(corpus.reviews(data)[0]), made=augment.MADE,
        taken=sum(augment.TAKEN.values()), sources=sources(augment.TAKEN),
        accuracy=right / len(reviews), n=len(reviews),
    )  # fmt: skip
    (DEMO / "sentiment" / "README.md").write_text(card)
    print(card)

    _, held, _ = corpus.names(data)
    ner = npbert.pipeline("token-classification", DEMO / "ner", aggregation_strategy="first")
    right, found, there = found_entities(ner, held)
    card = NER.format(
        seed=corpus.SEED, epochs=EPOCHS["ner"], teacher_epochs=TEACHER_EPOCHS["ner"],
        taught=TAUGHT["ner"], renamed=tagging.RENAMED, taken=sum(tagging.TAKEN.values()),
        sources=sources(tagging.TAKEN), n=len(held), entities=there,
        f1=2 * right / (found + there), precision=right / found, recall=right / there,
    )  # fmt: skip
    (DEMO / "ner" / "README.md").write_text(card)
    print(card)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
