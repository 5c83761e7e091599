"""Which files are a model, and the cache that Hugging Face's programs share.

    models--org--name/refs/main             the commit where a branch stood when it was last asked
    models--org--name/snapshots/<commit>/   files of a commit, as links to those in blobs/
    models--org--name/.no_exist/<commit>/   empty files: names of which the commit has none

A snapshot holds what somebody wanted, which need not be all that there is.  Most files of a model
are optional, and one that is absent means something: without modules.json a model that makes
embeddings looks like any other, and pools otherwise.  So that a file is not there must be known.
The cache is read with the standard library alone.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.checkpoint import CONFIG, INDEX, MODULES, MODULES_LIMIT, WEIGHTS
from npbert.checkpoint.drafts import replace_files
from npbert.checkpoint.reading import read_bytes, read_json
from npbert.errors import CheckpointError, warn

REF_LIMIT: Final = 4096  # bytes; a commit has 40
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
TRUE_WORDS: Final = ("1", "ON", "YES", "TRUE")


class Snapshot(NamedTuple):
    """A model at one commit of a repository."""

    repository: Path  # in the cache
    commit: str
    subfolder: str  # of the repository, where the model is

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.repository / "snapshots" / self.commit / self.subfolder

    def has_file(self, name: str) -> bool | None:
        """Tell whether the repository has a file; None where nobody asked yet."""
        if (self.folder / name).is_file():
            return True
        return False if self.absence_marker(name).is_file() else None

    def absence_marker(self, name: str) -> Path:
        """Return the file that stands where the repository has none of this name."""
        return self.repository / ".no_exist" / self.commit / self.subfolder / name

    def keep(self, revision: str, absent: set[str]) -> None:
        """Write down what was learnt, or warn that the hub will be asked about it again."""
        try:
            with replace_files(self.repository) as draft:
                for name in absent:
                    with draft(self.absence_marker(name)):
                        pass  # its name says it all
                ref = self.repository / "refs" / revision
                if revision != self.commit and read_ref(ref) != self.commit:
                    with draft(ref) as file:
                        file.write(self.commit.encode())
        except (OSError, CheckpointError) as error:
            warn(
                f"{error}; the model is there, but the cache does not say so: the hub is asked "
                "again at each use, and offline it may not be found"
            )


def find_snapshot(repository: Path, revision: str, subfolder: str) -> Snapshot | None:
    """Return the model at a branch, tag or commit, as far as it is there; else None."""
    pinned = COMMIT.fullmatch(revision)
    commit = revision if pinned else read_ref(repository / "refs" / revision)
    known = COMMIT.fullmatch(commit) and (repository / "snapshots" / commit).is_dir()
    return Snapshot(repository, commit, subfolder) if known else None


def read_ref(path: Path) -> str:
    """Return the commit that a file of a branch or tag names, or whatever little it says."""
    try:
        return read_bytes(path, REF_LIMIT).decode("ascii", "replace").strip()
    except CheckpointError:
        return ""


def cache_folder(given: str | os.PathLike[str] | None) -> Path:
    """Return where models from the hub are kept."""
    said = os.environ.get
    home = said("HF_HOME") or os.path.join(said("XDG_CACHE_HOME") or "~/.cache", "huggingface")  # noqa: PTH118  (a variable may stand first)
    hub = said("HF_HUB_CACHE") or said("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")  # noqa: PTH118
    return Path(os.path.expanduser(os.path.expandvars(given or hub)))  # noqa: PTH111


def is_offline() -> bool:
    """Tell whether the environment forbids the network."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in TRUE_WORDS


def hub_address() -> str:
    """Return the address of the hub."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


Knows = Callable[[str], bool | None]  # is there such a file?  None: nobody knows

# The file's name says which encoder the folder was made for; all hold the same fields.
ENCODER_SETTINGS: Final = (
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json",
)  # fmt: skip
# Of every group npbert reads the first file that there is, and no other.
MODULE_FILES: Final[tuple[Sequence[str], ...]] = ((CONFIG,), WEIGHTS)
ENCODER_FILES: Final[tuple[Sequence[str], ...]] = (
    (MODULES,), ("tokenizer.json", "vocab.txt"), ("tokenizer_config.json",),
    ("special_tokens_map.json",), ("added_tokens.json",), ("config_sentence_transformers.json",),
    ENCODER_SETTINGS, *MODULE_FILES,
)  # fmt: skip


def unknown_files(folder: Path, has_file: Knows) -> list[str]:
    """Return the next files of which it must be found out whether they are there.

    Some files name others, so that after these there may be more; none means all is known.
    """
    first, *others = module_paths(folder / MODULES) or [""]
    places = dict.fromkeys(others, MODULE_FILES) | dict.fromkeys(["", first], ENCODER_FILES)
    return [
        name
        for under, groups in places.items()
        for group in groups
        for name in unknown_in_group(group, folder, under, has_file)
    ]


def unknown_in_group(
    group: Sequence[str], folder: Path, under: str, has_file: Knows
) -> Iterator[str]:
    """Yield the file of a group that decides, unless it is known; of an index, its shards."""
    for name in group:
        there = has_file(under + name)
        if there is None:
            yield under + name
        elif there and name.endswith(INDEX):
            yield from (s for s in shard_files(folder, under + name) if has_file(s) is None)
        if there is not False:
            return


def model_files(folder: Path) -> list[str]:
    """Return the files of a model's folder that npbert reads."""
    there: dict[str, bool] = {}

    def has_file(name: str) -> bool:
        there[name] = (folder / name).is_file()
        return there[name]

    unknown_files(folder, has_file)
    return sorted(name for name, is_file in there.items() if is_file)


def missing_files(folder: Path) -> list[str]:
    """Return which of the files that no model can do without are not in a folder."""
    under = (module_paths(folder / MODULES) or [""])[0]
    there = [name for name in WEIGHTS if (folder / under / name).is_file()]
    weights = [under + (there or WEIGHTS)[0]]
    if there and there[0].endswith(INDEX):
        weights = shard_files(folder, weights[0])
    return [name for name in [under + CONFIG, *weights] if not (folder / name).is_file()]


def module_paths(path: Path) -> list[str]:
    """Return the folders that a modules.json names, "" or ending in a slash."""
    said = read_leniently(path)
    entries = said[:MODULES_LIMIT] if isinstance(said, list) else []
    named = [each.get("path", "") for each in entries if isinstance(each, dict)]
    return [name and f"{name}/" for name in named if name == "" or is_inside(name)]


def shard_files(folder: Path, index: str) -> list[str]:
    """Return the files that an index names; they lie beside it."""
    said = read_leniently(folder / index)
    named = said.get("weight_map") if isinstance(said, dict) else None
    files = {n for n in named.values() if is_inside(n) and "/" not in n} if named else set()
    return [index[: index.rfind("/") + 1] + name for name in sorted(files)]


def read_leniently(path: Path) -> Any:
    """Return what a JSON file says, or None: whoever reads it in earnest tells what is wrong."""
    try:
        return read_json(path)
    except CheckpointError:
        return None


def is_inside(name: object) -> bool:
    """Tell whether a path leads down from where it starts, on every system."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > 255:
        return False
    return not set(name) & set('\\:*?"<>|') and not {"", ".", ".."} & set(name.split("/"))
