"""Which files are a model, and of which of them it is still open whether they are there.

Most are optional, and one that is absent means something: without modules.json a model that makes
embeddings looks like any other, and pools otherwise.  So that a file is not there must be known.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

Knows = Callable[[str], bool | None]  # is there such a file?  None: nobody knows

CONFIG: Final = "config.json"
MODULES: Final = "modules.json"
# The file's name says which encoder the folder was made for; all hold the same fields.
ENCODER_SETTINGS: Final = (
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json",
)  # fmt: skip
INDEX: Final = ".index.json"  # of shards
WEIGHTS: Final = (
    "model.safetensors", f"model.safetensors{INDEX}",
    "pytorch_model.bin", f"pytorch_model.bin{INDEX}",
)  # fmt: skip
# Of every group npbert reads the first file that there is, and no other.
LAYER: Final[tuple[Sequence[str], ...]] = ((CONFIG,), WEIGHTS)
ENCODER: Final[tuple[Sequence[str], ...]] = (
    (MODULES,), ("tokenizer.json", "vocab.txt"), ("tokenizer_config.json",),
    ("special_tokens_map.json",), ("added_tokens.json",), ("config_sentence_transformers.json",),
    ENCODER_SETTINGS, *LAYER,
)  # fmt: skip


def unknown(folder: Path, knows: Knows) -> list[str]:
    """Return the next files of which it must be found out whether they are there.

    Some files name others, so that after these there may be more; none means all is known.
    """
    first, *others = modules(folder / MODULES) or [""]
    places = dict.fromkeys(others, LAYER) | dict.fromkeys(["", first], ENCODER)
    return [
        name
        for under, groups in places.items()
        for group in groups
        for name in unknown_of(group, folder, under, knows)
    ]


def unknown_of(group: Sequence[str], folder: Path, under: str, knows: Knows) -> Iterator[str]:
    """Yield the file of a group that decides, unless it is known; of an index, its shards."""
    for name in group:
        there = knows(under + name)
        if there is None:
            yield under + name
        elif there and name.endswith(INDEX):
            yield from (s for s in shards(folder, under + name) if knows(s) is None)
        if there is not False:
            return


def present(folder: Path) -> list[str]:
    """Return the files of a model's folder that npbert reads."""
    there: dict[str, bool] = {}

    def knows(name: str) -> bool:
        there[name] = (folder / name).is_file()
        return there[name]

    unknown(folder, knows)
    return sorted(name for name, is_file in there.items() if is_file)


def lacking(folder: Path) -> list[str]:
    """Return which of the files that no model can do without are not in a folder."""
    under = (modules(folder / MODULES) or [""])[0]
    there = [name for name in WEIGHTS if (folder / under / name).is_file()]
    weights = [under + (there or WEIGHTS)[0]]
    if there and there[0].endswith(INDEX):
        weights = shards(folder, weights[0])
    return [name for name in [under + CONFIG, *weights] if not (folder / name).is_file()]


def modules(path: Path) -> list[str]:
    """Return the folders that a modules.json names, "" or ending in a slash."""
    said = content(path)
    entries = said if isinstance(said, list) else []
    named = [each.get("path", "") for each in entries if isinstance(each, dict)]
    return [name and f"{name}/" for name in named if name == "" or inside(name)]


def shards(folder: Path, index: str) -> list[str]:
    """Return the files that an index names; they lie beside it."""
    said = content(folder / index)
    named = said.get("weight_map") if isinstance(said, dict) else None
    files = {n for n in named.values() if inside(n) and "/" not in n} if named else set()
    return [index[: index.rfind("/") + 1] + name for name in sorted(files)]


def content(path: Path) -> Any:
    """Return what a JSON file says, or None: whoever reads it in earnest tells what is wrong."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def inside(name: object) -> bool:
    """Tell whether a path leads down from where it starts, on every system."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > 255:
        return False
    return not set(name) & set('\\:*?"<>|') and not {"", ".", ".."} & set(name.split("/"))
