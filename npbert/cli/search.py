"""npbert search, similarity: which texts of a file are nearest to a query, how alike texts are."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from npbert.cli.shared import (
    SOURCE,
    Commands,
    add_architecture_flags,
    add_copy_flag,
    add_hub_flags,
    load_keywords,
)
from npbert.cli.tasks import add_input_flags, add_options, option_values
from npbert.engine.threads import blas_environment
from npbert.errors import ExitStatus, InputError, require_count
from npbert.tasks.rows import SENTENCE_EMBEDDING

ROW: Final = SENTENCE_EMBEDDING
LEFT_OUT: Final = ("precision", "ranges")  # of its options: what is searched is no bytes


def add_search_parsers(commands: Commands) -> None:
    """Add the commands."""
    parser = commands.add(
        "more",
        "search",
        "Find the texts of a file that are nearest to a query. Their embeddings are written beside "
        "the file once, and used again until it changes. Prints a JSON object for every query.",
        epilog='example: npbert search --index texts.jsonl --query "a good cat" --top-k 3',
    )
    parser.add_argument(
        "--index", metavar="FILE", type=Path, required=True, help="the texts to search, .gz too"
    )
    parser.add_argument(
        "--query", action="append", metavar="TEXT",
        help="what to look for; may be given several times; default: the lines of stdin",
    )  # fmt: skip
    parser.add_argument(
        "--top-k", type=int, default=10, metavar="N", help="texts to find; default: 10"
    )
    parser.add_argument(
        "--embeddings", metavar="FILE", type=Path,
        help="where they are written; default: the name of --index and .npy",
    )  # fmt: skip
    for name, meaning in (
        ("query-prompt", "put this before every query, in place of --prompt"),
        ("query-prompt-name", "use the model's own prompt of that name for queries"),
    ):
        parser.add_argument(f"--{name}", metavar="TEXT", help=meaning)
    add_model_flags(parser)
    add_input_flags(parser.add_argument_group("files"), ROW)
    parser.set_defaults(run=run_search)
    parser = commands.add(
        "more",
        "similarity",
        "Tell how alike a text is to others: the cosine of their embeddings, or what the model's "
        "folder says. Prints a JSON object for every other text.",
        epilog='example: npbert similarity "A film to treasure." "I enjoyed this movie."',
    )
    parser.add_argument("text", metavar="A", help="a text")
    parser.add_argument("others", nargs="+", metavar="B", help="the texts to compare it with")
    add_model_flags(parser)
    parser.set_defaults(run=run_similarity)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the model that embeds, and of how it does."""
    parser.add_argument(
        "-m", "--model", metavar="MODEL", help=f"{SOURCE}; default: a small built-in model"
    )
    add_options(parser, ROW.options, LEFT_OUT)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="to compute with; default: all cores"
    )
    add_architecture_flags(parser, "the one that the task needs")
    add_copy_flag(parser)
    add_hub_flags(parser)


def make_task(args: argparse.Namespace) -> Any:
    """Return the task that embeds, as the flags say it."""
    os.environ.update(blas_environment())  # npbert's own threads want one of its each
    from npbert.tasks import pipeline

    return pipeline(
        ROW.name, args.model, threads=args.threads, **load_keywords(args),
        **option_values(args, ROW.options, LEFT_OUT),
    )  # fmt: skip


def run_search(args: argparse.Namespace) -> ExitStatus:
    """Embed what is not embedded yet, and print what is nearest to each query."""
    task = make_task(args)
    from npbert.jobs.corpus import embed_corpus, read_texts
    from npbert.jobs.lines import print_json
    from npbert.jobs.records import InputFormat
    from npbert.tasks.search import semantic_search

    require_count("top_k", args.top_k)
    given = InputFormat(task=ROW.name, form=args.form, field=tuple(args.field))
    asked = {"prompt": args.query_prompt, "prompt_name": args.query_prompt_name}
    changes = {name: value for name, value in asked.items() if value is not None}
    if args.query_prompt_name is not None:
        changes.setdefault("prompt", None)
    try:
        task.with_changes(changes)  # so that a prompt that is not there is told before the work
    except InputError as error:
        raise InputError(f"query_{error}") from None
    target = args.embeddings or args.index.with_name(f"{args.index.name}.npy")
    corpus = embed_corpus(task, given, args.index, target)
    if corpus is None:
        return ExitStatus.INTERRUPTED
    for queries in [args.query] if args.query else ([line] for line in read_queries()):
        found = semantic_search(
            task(queries, **changes), corpus, args.top_k, score_function=task.recipe.similarity,
            threads=args.threads,
        )  # fmt: skip
        texts = read_texts(given, args.index, {hit["corpus_id"] for hits in found for hit in hits})
        for query, hits in zip(queries, found, strict=True):
            results = [{**hit, **texts[hit["corpus_id"]]} for hit in hits]
            print_json({"query": query, "results": results})
    return ExitStatus.FINE


def read_queries() -> Iterable[str]:
    """Yield the lines of stdin.  Raises InputError."""
    if sys.stdin is None:
        raise InputError("there is no --query, and stdin is closed")
    for line in sys.stdin:
        yield line.rstrip("\r\n")


def run_similarity(args: argparse.Namespace) -> ExitStatus:
    """Print how alike the first text is to each other one."""
    task = make_task(args)
    from npbert.jobs.lines import print_json

    first, *others = task([args.text, *args.others])
    for text, score in zip(args.others, task.similarity(first, others)[0].tolist(), strict=True):
        print_json({"texts": [args.text, text], "score": score})
    return ExitStatus.FINE
