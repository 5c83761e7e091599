"""From the name of a model to a folder: one that is here, or in the cache, or on the hub."""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, SupportsIndex

from npbert.checkpoint.other_folders import find_in_cache
from npbert.errors import HubError, InputError, listing, quote, suggest, warn
from npbert.hub.cache import (
    cache_folder,
    find_snapshot,
    is_inside,
    is_offline,
    missing_files,
    unknown_files,
)
from npbert.hub.fetching import Token, Wanted, fetch

ModelSource = str | os.PathLike[str]

BUILT_IN: Final = Path(__file__).parent.parent / "demo"  # the folder of the models that come along
BUILT_IN_PREFIX: Final = "builtin:"
ADDRESS: Final = re.compile(
    r"(?:(?:https?|hf|git|ssh)://(?:[^/]*@)?|git@)?"
    r"(?:(?<=hf://)|(?:(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)|(?<=//)[^/]+)[:/])"
    r"(?P<path>.*)"
)
NO_REPOSITORIES: Final = (".safetensors", ".npz", ".npy", ".bin", ".json", ".txt", ".git")
REPOSITORY_NAME: Final = re.compile(r"(?:\w(?:[\w.-]{0,94}\w)?/)?\w(?:[\w.-]{0,94}\w)?", re.ASCII)


def locate(
    source: ModelSource,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    cache_dir: ModelSource | None = None,
    token: Token = None,
    offline: bool | None = None,
    fresh: bool = False,
) -> Path:
    """Return the folder of a model, fetching it from the hub where it is not here yet.

    A name is that of a folder, or else of a built-in model, or else of a repository on the hub.

    A model that is whole in the cache is taken from there, and the hub is not asked, unless `fresh`
    wants what the branch is today.  `offline` asks nobody; None does as HF_HUB_OFFLINE says.
    Raises InputError, HubError.
    """
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise InputError(
            f"source is {quote(source)}, expected the path of a folder, or a name on the hub"
        )
    for what, value in (("revision", revision), ("subfolder", subfolder)):
        if value not in (None, "") and not is_inside(value):
            raise InputError(f"{what} is {quote(value)}, expected names with slashes between them")
    if not isinstance(token, str | bool | None):
        raise InputError(f"token is a {type(token).__name__}, expected a string or a bool")
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise InputError(f"cache_dir is {quote(cache_dir)}, expected the path of a folder")
    if isinstance(source, str) and (name := built_in_name(source)):
        source = BUILT_IN / name
    if isinstance(source, str) and not os.path.lexists(source):
        refuse_address(source)
    if not isinstance(source, str) or not is_name(source):
        for what, given in (("revision", revision), ("token", token)):
            if given is not None:
                raise InputError(
                    f"{what} is given, but {os.fspath(source)} is a path; only models on the hub "
                    f"have use for a {what}"
                )
        folder = find_in_cache(Path(source))
        return folder / subfolder if subfolder else folder
    repository = cache_folder(cache_dir) / f"models--{source.replace('/', '--')}"
    wanted = Wanted(source, revision or "main", subfolder or "", repository, token)
    model = find_snapshot(repository, wanted.revision, wanted.subfolder)
    lacks = missing_files(model.folder) if model else []
    open_yet = unknown_files(model.folder, model.has_file) if model else []
    usable = model.folder if model and not lacks else None
    if usable and not open_yet and not fresh:
        return usable
    reason = "this is offline"
    if not (is_offline() if offline is None else offline):
        try:
            return fetch(wanted)
        except HubError as error:
            if fresh or not usable:
                raise
            reason = str(error).removeprefix(f"{source}: ").removeprefix("is no folder here, and ")
    elif not usable:
        raise HubError(
            f"{source}: is no folder here, and {repository} has "
            f"{f'no {listing(lacks)}' if model else 'nothing'} of {wanted.revision}; as this is "
            f"offline, run npbert download {source} where there is a network, or unset "
            "HF_HUB_OFFLINE"
        )
    if open_yet:
        warn(
            f"{source}: what is cached is used, but nobody knows whether the repository also has "
            f"{listing(open_yet)}, and {reason}; npbert download {source} finds out"
        )
    return usable


def built_in_name(source: str) -> str | None:
    """Return the name of the built-in model that is meant, or None.

    Raises HubError for a name behind "builtin:" that none has.
    """
    there = sorted(path.parent.name for path in BUILT_IN.glob("*/config.json"))
    name = source.removeprefix(BUILT_IN_PREFIX)
    if name in there and (name != source or not os.path.lexists(source)):
        return name
    if name == source:
        return None
    raise HubError(
        f"{source}: there is no such built-in model{suggest(name, there)}; there are "
        f"{', '.join(BUILT_IN_PREFIX + each for each in there)}"
    )


def refuse_address(source: str) -> None:
    """Refuse the address of a web page, and say what it is called.  Raises HubError."""
    found = ADDRESS.match(source)
    if not found and "://" not in source:
        return
    parts = (found["path"] if found else "").removesuffix(".git").strip("/").split("/")
    if parts[0] in ("datasets", "spaces") or len(parts) < 2 or not is_name("/".join(parts[:2])):
        raise HubError(
            f"{source}: is an address, expected a folder, or the name of a model's repository on "
            "the hub, as in owner/name"
        )
    revision = parts[3] if len(parts) > 3 and parts[2] in ("tree", "blob", "resolve") else "main"
    more = f", with revision={revision!r}" if revision != "main" else ""
    raise HubError(
        f"{source}: is an address, and models on the hub are called by their repository; pass "
        f"{'/'.join(parts[:2])}{more}"
    )


def suggest_name(source: ModelSource) -> str:
    """Return a hint for a path that is not there and looks like a name on the hub, or ''."""
    name, at, revision = str(source).rstrip("/").partition("@")
    parts = name.split("/")
    if at and is_name(name):
        return f"; of a repository on the hub pass {name}, with revision={revision!r}"
    if len(parts) > 2 and is_name("/".join(parts[:2])):
        below = "/".join(parts[2:])
        return f"; of a repository on the hub pass {'/'.join(parts[:2])}, with subfolder={below!r}"
    if name.startswith("models--"):
        return f"; of the repository on the hub pass {name[8:].replace('--', '/')!r}"
    return f"; of the repository on the hub pass the str {name!r}" if is_name(name) else ""


class Rebuildable:
    """What can be made once more, and is pickled as that: as a source, not as weights."""

    rebuild: partial[Any] | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return (self.rebuild, ()) if self.rebuild else super().__reduce_ex__(protocol)

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made


def pin_source(
    source: ModelSource, folder: Path, where: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return what to ask for once more to get the same files, whatever becomes of a branch.

    `folder` is what locate(source, **where) returned.  A token is no part of it: it would be
    written down wherever this is, and HF_TOKEN says it there.
    """
    if isinstance(source, str) and (name := built_in_name(source)):
        return BUILT_IN_PREFIX + name, {}
    if not isinstance(source, str) or not is_name(source):
        return os.path.realpath(folder), {}
    depth = len(Path(where["subfolder"] or "").parts)
    commit = [folder, *folder.parents][depth].name
    cache = where["cache_dir"] and str(cache_folder(where["cache_dir"]).absolute())
    return source, {**where, "cache_dir": cache, "token": None, "revision": commit}


def is_name(source: str) -> bool:
    """Tell whether a source is the name of a repository; what exists here is a path."""
    odd = "--" in source or ".." in source or source.endswith(NO_REPOSITORIES)
    return not odd and bool(REPOSITORY_NAME.fullmatch(source)) and not os.path.lexists(source)
