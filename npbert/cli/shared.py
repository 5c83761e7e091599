"""What the commands share: how they are listed, the flags of a model, errors in flags, tables."""

import argparse
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

GROUPS: Final = ("tasks", "models", "oracle", "more")


class Commands:
    """The commands of npbert, in the groups in which --help lists them."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser
        self.parsers = parser.add_subparsers(
            prog=parser.prog, metavar="COMMAND", required=True, help=argparse.SUPPRESS
        )
        self.groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}

    def add(self, group: str, name: str, summary: str, **how: Any) -> argparse.ArgumentParser:
        """Add a command to a group; the first sentence of its summary is listed."""
        first = summary.partition(". ")[0].rstrip(".")
        self.groups[group].append((name, first[0].lower() + first[1:]))
        made: argparse.ArgumentParser = self.parsers.add_parser(name, description=summary, **how)
        return made

    def listing(self) -> str:
        """Return all commands by their groups, a line each."""
        width = max(len(name) for rows in self.groups.values() for name, _ in rows)
        lines = []
        for group, rows in self.groups.items():
            lines += [f"{group}:", *(f"  {name:{width}}  {first}" for name, first in rows), ""]
        return "\n".join(lines)


SOURCE: Final = "a folder, a built-in model (builtin:ner), or a name on the hub"


def add_hub_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a model on the hub."""
    group = parser.add_argument_group(
        "models on the hub",
        "A name such as distilbert/distilbert-base-uncased is downloaded once, and read from the "
        "cache ever after. For private ones, set HF_TOKEN.",
    )
    group.add_argument("--revision", metavar="NAME", help="a branch, tag or commit; default: main")
    group.add_argument("--subfolder", metavar="PATH", help="the folder below where the model is")
    group.add_argument(
        "--cache-dir", metavar="FOLDER", help="default: as HF_HUB_CACHE or HF_HOME say"
    )
    group.add_argument(
        "--offline",
        action="store_true",
        default=None,
        help="take what is in the cache, and ask nobody; default: as HF_HUB_OFFLINE says",
    )


def add_architecture_flags(
    parser: argparse.ArgumentParser, default: str = "what config.json says"
) -> None:
    """Add the flags of a model that is not quite what its config.json says."""
    parser.add_argument("--architecture", metavar="NAME", help=f"default: {default}")
    parser.add_argument(
        "--no-strict",
        dest="strict",
        action="store_false",
        help="ignore unknown tensors and draw a missing head at random, with warnings",
    )


def add_copy_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag of a model whose files may be overwritten."""
    parser.add_argument(
        "--copy",
        action="store_true",
        help="hold the weights in memory and do not map their file, which may then be overwritten",
    )


def hub_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags say of where a model is, as npbert.load and npbert.pipeline want it."""
    return {name: vars(args)[name] for name in ("revision", "subfolder", "cache_dir", "offline")}


def load_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags say of a model, as npbert.load and npbert.pipeline want it."""
    how = {name: vars(args)[name] for name in ("architecture", "strict", "copy")}
    return {**how, **hub_keywords(args)}


def print_table(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns."""
    pairs = [(name, str(value)) for name, value in rows]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}")


def spell_as_flags(message: str, names: Iterable[str], fields: Collection[str] = ()) -> str:
    """Return an error in the words of the command line: arguments become the flags they came from.

    `names` are those of the command's flags.  One with an underscore is a flag wherever it stands,
    but in a path; another only where the message is about it, or it has a value: "layer is 9",
    "long='error'".  What is said of a field of an input is said of the field, whoever gave it.
    """
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        message = re.sub(rf"(?<![\w.'-]){name}='(\w+)'", rf"{flag} \1", message)
        message = re.sub(rf"(?<![\w.'-]){name}=True\b", flag, message)
        message = re.sub(rf"(?<![\w.'-]){name}=False\b", f"--no-{flag[2:]}", message)
        message = re.sub(rf"(?<![\w.'-]){name}=\[\.\.\.\]", f"{flag}, once for each", message)
        message = re.sub(rf"(?<![\w.'-]){name}=(?=[,;\s]|$)", flag, message)
        if name in fields:
            continue
        where = r"(?<![\w.'/-])()" if "_" in name else r"^((?:.*?(?:text|line|row) \d+: )?)"
        behind = r"(?![\w.'=(/:-])" if "_" in name else r"(?= (?:is|has|are) )"
        message = re.sub(f"{where}{name}{behind}", rf"\g<1>{flag}", message)
    return message
