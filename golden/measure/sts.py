"""Measures how far a model's similarities of sentences are ranked as people rank them.

    python golden/measure/sts.py FOLDER --sts sts_dev.tsv --sick SICK_trial.txt [--peer]

FOLDER is what sentence-transformers saved.  Prints 100 times Spearman's correlation of cosine and
score, for each file; with --peer also what sentence-transformers reaches on the same rows, if it is
installed.  Files are tab-separated: the STS benchmark's, whole (genre, file, year, id, score, two
sentences) or its last three columns alone, and SICK's (id, two sentences, relatedness and
entailment, in either order).
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import npbert

Row = tuple[str, str, float]  # two sentences, and how alike people find them
Embed = Callable[[list[str]], NDArray[np.floating]]


def read_columns(path: Path) -> list[list[str]]:
    """Return the rows of a tab-separated file; nothing in it is quoted."""
    return [line.split("\t") for line in path.read_text("utf-8").split("\n") if line]


def read_sts(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of the STS benchmark."""
    for columns in read_columns(path):
        at = 4 if len(columns) >= 7 else 0
        score, one, other = columns[at : at + 3]
        yield one, other, float(score)


def read_sick(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of SICK, whose full version has a header and more columns."""
    for _, one, other, *judged in read_columns(path):
        score = judged[0] if judged[0][:1].isdigit() else judged[1]
        if score[:1].isdigit():  # and is no header
            yield one, other, float(score)


def rank_values(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return everyone's place in line; equals share the middle of theirs."""
    ordered = np.sort(values)
    below, through = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (below + through - 1) / 2


def correlate_ranks(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return Spearman's correlation, times 100."""
    return float(np.corrcoef(rank_values(a), rank_values(b))[0, 1]) * 100


def score_of(embed: Embed, rows: list[Row]) -> float:
    """Return the correlation that embeddings reach."""
    ones, others, scores = zip(*rows, strict=True)
    a, b = (np.asarray(embed(list(texts)), np.float64) for texts in (ones, others))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return correlate_ranks((a * b).sum(1) / lengths, np.array(scores))


def peer_of(folder: Path) -> Embed:
    """Return how sentence-transformers embeds."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode


def main() -> None:
    """Print a line for every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sts", type=Path, action="append", default=[])
    parser.add_argument("--sick", type=Path, action="append", default=[])
    parser.add_argument("--peer", action="store_true", help="sentence-transformers too")
    args = parser.parse_args()
    if not (args.sts or args.sick):
        parser.error("name a file with --sts or --sick")
    warnings.simplefilter(
        "ignore", npbert.NpbertWarning
    )  # of texts that are cut, as the peer's are
    embeds: dict[str, Embed] = {"npbert": npbert.pipeline("sentence-embedding", args.folder)}
    if args.peer:
        embeds["sentence-transformers"] = peer_of(args.folder)
    for path, read in [*((p, read_sts) for p in args.sts), *((p, read_sick) for p in args.sick)]:
        rows = list(read(path))
        scores = {who: score_of(embed, rows) for who, embed in embeds.items()}
        told = ", ".join(f"{who} {score:.4f}" for who, score in scores.items())
        print(f"{path.name}, {len(rows):,} pairs: {told}")


if __name__ == "__main__":
    sys.exit(main())
