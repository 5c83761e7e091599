"""Measures the built-in embedding model beside its teacher, and writes its model card.

    python golden/measure/embedding.py DATA [--teacher FOLDER] [--model FOLDER]

DATA holds eval/sts_dev.tsv, eval/sick_trial.txt (what people say of pairs of sentences) and
qa/xquad.en.json, whose 1,190 questions look for their paragraph among 240; no training has seen
any of them.  With --teacher (all-MiniLM-L6-v2) the card of npbert/demo/embedding is written; with
--model another folder is measured.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from sts import read_sick, read_sts, score_of

import npbert
from npbert.tasks.task import Task

sys.path.insert(1, str(Path(__file__).parent.parent / "train"))

from corpus import DEMO, SEED

TEXTS, LOOKS = 112_640, 11  # learnt from; at what is measured, before the last time
CARD = """# npbert embedding

A small DistilBERT that gives a sentence a vector of 192 numbers, near to those of sentences with
the same meaning: 2 blocks of width 192, 6 heads, ffn 32, 256 positions, a lower-casing vocabulary
of 7,500 of its teacher's pieces, 1.8 million parameters in float16. A folder of
sentence-transformers: mean of all tokens, then length 1. It exists so that `sentence-embedding`,
`search`, `similarity` and `explain --compare` work without a network.

* **Not good for**: anything but English; rare words and names, which it knows by their parts; who
  does what to whom, which stands in the order of words; whether it is denied ("a man plays" and "no
  man plays" are near); texts over some 100 words, of which it saw few. In earnest take a larger
  model.
* **Teacher**: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; 6 blocks of width 384), whose
  embeddings it was taught to give, reduced to their 190 strongest directions, and whose judgement
  of how alike two texts are.
* **Data**: {texts:,} sentences and paragraphs, 49,152 of them COCO captions, half with a word
  exchanged, denied, or shortened. CC BY: OpenStax textbooks and descriptions of their figures, COCO
  captions, MedQuAD, NLVR2, Tatoeba, tldr pages, NLU and CLINC utterances, Taskmaster, GUM. CC
  BY-SA: Wikipedia (WikiSplit, GAP, FewRel, QED, films, vital articles), query-wellformedness,
  Natural Questions, WikiTableQuestions, Schema-Guided Dialogue, documentation of GNOME and Debian.
  CC0 or public domain: Common Voice, SNIPS, CIA factbook, United States government sites, speeches,
  SQLite, recipes. MIT or BSD: StrategyQA, GSM8K, QALD, WikiSQL, self-dialogue. WordNet's glosses
  and PostgreSQL's documentation (licences of their own), Topical-Chat (CDLA-Sharing 1.0). The
  sentences of STS-B and SICK are in none of them.
* **Training**: golden/train/sentences.py, teacher.py and train_embedding.py, seed {seed}; two
  epochs of the table of word pieces. The blocks have learnt nothing yet and add next to nothing:
  what it knows it knows of words, not of their order. It was trained with 8,000 pieces and an ffn
  of 384; the 500 rarest pieces, and the units that had learnt nothing, were taken out afterwards.
* **Measured**: 100 times Spearman's correlation with what people say, and nDCG@10 of finding the
  paragraph that answers a question among {paragraphs:,}. STS-B dev and SICK trial were looked at
  {looks} times while settings were chosen, XQuAD three times.

  | | STS-B, {sts_n:,} pairs | SICK, {sick_n:,} pairs | XQuAD, {questions:,} questions |
  |---|--:|--:|--:|
  | this model | {new[sts]:.1f} | {new[sick]:.1f} | {new[xquad]:.3f} |
  | the default before, fill-mask | {old[sts]:.1f} | {old[sick]:.1f} | {old[xquad]:.3f} |
  | its teacher | {teacher[sts]:.1f} | {teacher[sick]:.1f} | {teacher[xquad]:.3f} |

  STS-B dev is without its rows of MSRpar and MSRvid.
* **Licence**: Apache-2.0.
"""


def read_questions(path: Path) -> tuple[list[str], list[str], list[int]]:
    """Return the questions and paragraphs of a file like SQuAD's, and which answers which."""
    questions, paragraphs, answers = [], [], []
    for article in json.loads(path.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                questions.append(asked["question"])
                answers.append(len(paragraphs))
            paragraphs.append(paragraph["context"])
    return questions, paragraphs, answers


def gain_of(task: Task, path: Path) -> float:
    """Return nDCG@10: one paragraph is right, and counts 1 / log2(its place + 1)."""
    questions, paragraphs, answers = read_questions(path)
    found = npbert.semantic_search(task(questions), task(paragraphs), 10)
    places = [
        1 + [hit["corpus_id"] for hit in hits].index(answer)
        for hits, answer in zip(found, answers, strict=True)
        if answer in [hit["corpus_id"] for hit in hits]
    ]
    return float(np.sum(1 / np.log2(1 + np.array(places)))) / len(questions)


def measure(task: Task, data: Path) -> dict[str, float]:
    """Return the three figures of a model."""
    return {
        "sts": score_of(task, list(read_sts(data / "eval" / "sts_dev.tsv"))),
        "sick": score_of(task, list(read_sick(data / "eval" / "sick_trial.txt"))),
        "xquad": gain_of(task, data / "qa" / "xquad.en.json"),
    }


def main() -> None:
    """Print the figures, and write the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--model", type=Path, default=DEMO / "embedding")
    args = parser.parse_args()
    warnings.simplefilter("ignore", npbert.NpbertWarning)  # of paragraphs that are cut
    folders = {"new": args.model, "old": DEMO / "fill-mask", "teacher": args.teacher}
    figures = {}
    for name, folder in folders.items():
        if folder is not None:
            figures[name] = measure(npbert.pipeline("sentence-embedding", folder), args.data)
            print(name, {of: round(figure, 4) for of, figure in figures[name].items()}, flush=True)
    if args.teacher and args.model == DEMO / "embedding":
        questions, paragraphs, _ = read_questions(args.data / "qa" / "xquad.en.json")
        card = CARD.format(
            **figures, seed=SEED, texts=TEXTS, looks=LOOKS, questions=len(questions),
            paragraphs=len(paragraphs),
            sts_n=len(list(read_sts(args.data / "eval" / "sts_dev.tsv"))),
            sick_n=len(list(read_sick(args.data / "eval" / "sick_trial.txt"))),
        )  # fmt: skip
        (args.model / "README.md").write_text(card, "utf-8")


if __name__ == "__main__":
    main()
