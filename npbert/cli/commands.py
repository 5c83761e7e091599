"""What the commands of the tasks are: what each reads, and from where."""

import argparse
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from npbert.options import split

RESULTS: Final = "results"  # where an answer stands beside what is passed through
ERROR: Final = "error"  # where the reason stands that there is none
# Any BLAS reads one of these when NumPy loads.
BLAS_THREADS: Final = (
    "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


class Command(NamedTuple):
    """What a task's command is for, and what its TEXT is."""

    summary: str
    example: str
    fields: tuple[str, ...]  # of an input; TEXT is the first of them that no flag gives
    flags: Mapping[str, str] = {}  # a field that can be given for all texts: what it is
    needs: bool = False  # one of the flags, where texts come plain
    gathers: bool = False  # all TEXTs together are one input
    model: str = "default: a small built-in model"


NEEDED: Final = "there is no built-in one"
COMMANDS: Final = {
    "text-classification": Command(
        "which class has a text, or a pair of texts?",
        'npbert text-classification "A gorgeous, witty, seductive movie."',
        ("text", "text_pair"),
        {"text_pair": "a second text, to go with each"},
    ),
    "token-classification": Command(
        "which words name a person, a place, an organisation?",
        'npbert token-classification "Ada Lovelace met Charles Babbage in London."',
        ("text", "words"),
    ),
    "fill-mask": Command(
        "which words may stand where a text says [MASK]?",
        'npbert fill-mask "The ship sank in the [MASK]."',
        ("text", "text_pair"),
    ),
    "question-answering": Command(
        "which words of a text answer a question? TEXT is a question, or, with --question, a text.",
        'npbert question-answering -m FOLDER --context "The ship left Bristol in 1843." "When?"',
        ("question", "context"),
        {"context": "the text that answers each question", "question": "what to ask each text"},
        needs=True,
        model=NEEDED,
    ),
    "multiple-choice": Command(
        "which of some endings goes with a beginning?",
        'npbert multiple-choice -m FOLDER --choices "blue, made of cheese" "The sky is"',
        ("prompt", "choices"),
        {"choices": "the endings, separated by commas; or said once each"},
        needs=True,
        model=NEEDED,
    ),
    "zero-shot-classification": Command(
        "which of your own labels fits a text?",
        'npbert zero-shot-classification -m FOLDER --candidate-labels "sport, politics" "A goal!"',
        ("text", "candidate_labels"),
        model=NEEDED,
    ),
    "sentence-embedding": Command(
        "one vector for a text, near those of texts that mean the same.",
        "npbert sentence-embedding --output embeddings.npy < texts.txt",
        ("text",),
    ),
    "text-ranking": Command(
        "which texts answer a query best? All texts are ranked together.",
        'npbert text-ranking -m FOLDER --query "How deep is the sea?" "A cat." "Some 3,700 m."',
        ("documents", "query"),
        {"query": "what the texts should answer"},
        needs=True,
        gathers=True,
        model=NEEDED,
    ),
    "feature-extraction": Command(
        "what the model makes of every token, a vector each.",
        'npbert feature-extraction --layer 0 --offsets "Hello."',
        ("text", "text_pair"),
    ),
}


def flag(name: str) -> str:
    """Return the flag for a name."""
    return f"--{name.replace('_', '-')}"


def listing(values: list[str]) -> list[str]:
    """Return what a flag was given: names between commas, or one each time."""
    return list(split(values[0])) if len(values) == 1 else values


def fixed(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that flags give, the same for every text."""
    given = {name: getattr(args, name) for name in COMMANDS[args.task].flags}
    return {
        name: listing(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
