"""From the hub to the cache: only the files of a model, all of one commit.

huggingface_hub does the work.  It is imported here, when it is needed, and none of its exceptions
passes: each becomes a HubError that says what to do.
"""

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert import _import_lock
from npbert.checkpoint import CONFIG, MODULES, WEIGHTS
from npbert.checkpoint.other_folders import explain_names
from npbert.errors import HubError, NpbertError, listing, quote
from npbert.hub.cache import COMMIT, Snapshot, hub_address, missing_files, unknown_files

Token = str | bool | None

TEXT_SUFFIXES: Final = (".json", ".txt", ".md", ".py", ".gitattributes", ".gitignore")
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOKEN_VARIABLES: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SECRET: Final = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=Bearer )[^'\"]+|(?<=//)[^/@\s]+(?=@)")


class Wanted(NamedTuple):
    """A model to be fetched."""

    name: str
    revision: str
    subfolder: str
    repository: Path  # in the cache
    token: Token


def fetch(wanted: Wanted) -> Path:
    """Download what is not there yet of a model, and return its folder.  Raises HubError."""
    name, start = wanted.name, f"{wanted.subfolder}/" if wanted.subfolder else ""
    with reword_errors(wanted):
        package = import_hub(name)
        hub = package.HfApi(endpoint=hub_address())
        # Old releases have only the function, and the address of when they were imported.
        download = getattr(hub, "hf_hub_download", package.hf_hub_download)
        patience = getattr(package.constants, "HF_HUB_ETAG_TIMEOUT", 10)  # seconds
        about = hub.model_info(name, revision=wanted.revision, timeout=patience, token=wanted.token)
        commit, every = str(about.sha), [file.rfilename for file in about.siblings or ()]
    if not COMMIT.fullmatch(commit):
        raise HubError(f"{name}: the hub names no commit; is HF_ENDPOINT the address of a hub?")
    model = Snapshot(wanted.repository, commit, wanted.subfolder)
    refuse_odd_entries(wanted.repository)
    there = {file.removeprefix(start) for file in every if file.startswith(start)}
    absent = set()
    require_model(wanted, there, every)

    def has_file(file: str) -> bool | None:
        if file not in there:
            absent.add(file)
            return False
        return (model.folder / file).is_file() or None

    with show_bars_on_terminal(package.utils):
        while files := unknown_files(model.folder, has_file):
            for file in files:
                with reword_errors(wanted):
                    download(
                        name, start + file, revision=commit, token=wanted.token,
                        cache_dir=str(wanted.repository.parent),
                    )  # fmt: skip
                if not has_file(file):
                    raise HubError(f"{name}: {file} came from another commit; try again")
    if lacks := missing_files(model.folder):
        raise HubError(f"{name}: has no {listing(lacks)} at {wanted.revision}")
    # Last of all, so that whatever went wrong before leaves nothing that looks whole.
    model.keep(wanted.revision, absent)
    return model.folder


def refuse_odd_entries(repository: Path) -> None:
    """Refuse a cache in which a download would write through a link, or into a pipe.

    Links are read wherever they lead, for so caches are shared; files in snapshots and refs, and
    whole blobs, are replaced and never written into.  Raises HubError.
    """
    cache, name = repository.parent, repository.name
    tops = [repository, cache / ".locks", cache / ".locks" / name]
    found = [top for top in tops if top.is_symlink()]
    for top in (repository, cache / ".locks" / name):
        for at, folders, files in os.walk(top):
            place = Path(at)
            found += [place / folder for folder in folders if (place / folder).is_symlink()]
            written = top != repository or ".no_exist" in place.relative_to(top).parts[:1]
            found += [
                place / file
                for file in files
                if (written or file.endswith(".incomplete")) and is_odd(place / file)
            ]
    if found:
        raise HubError(
            f"{listing(map(str, sorted(found)), 4)}: a link, or no file, through which a download "
            "would write outside of the cache; delete it, or choose another place by cache_dir "
            "(--cache-dir) or HF_HOME"
        )


def is_odd(path: Path) -> bool:
    """Tell whether a path is there and no plain file; others may delete it meanwhile."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def import_hub(name: str) -> Any:
    """Return huggingface_hub, which takes half a second.  Raises HubError where there is none."""
    try:
        with _import_lock:
            import_module("huggingface_hub.hf_api")  # or it would come at the first call
            return import_module("huggingface_hub")
    except ImportError:
        raise HubError(
            f"{name}: is no folder here, and models are fetched from the hub with "
            "huggingface_hub, which is not installed: pip install 'npbert[hub]'"
        ) from None


def require_model(wanted: Wanted, there: set[str], every: list[str]) -> None:
    """Refuse what is no model before a byte of it is fetched.  Raises HubError."""
    where = f"{wanted.name} at {wanted.revision}"
    if wanted.subfolder:
        if not there:
            folders = sorted({file.rpartition("/")[0] for file in every} - {""})
            raise HubError(
                f"{where}: has no folder {wanted.subfolder}; it has {listing(folders) or 'none'}"
            )
        where = f"{where}: {wanted.subfolder}"
    if MODULES in there:  # which may name another folder
        return
    if CONFIG not in there:
        if other := explain_names(there):
            raise HubError(f"{where}: {other}")
        raise HubError(
            f"{where}: has no {CONFIG}, so it is no model of transformers; it holds "
            f"{listing(sorted(there)) or 'nothing'}"
        )
    if not there & set(WEIGHTS):
        if other := explain_names(there):
            raise HubError(f"{where}: {other}")
        others = sorted(file for file in there if not file.endswith(TEXT_SUFFIXES))
        raise HubError(
            f"{where}: has neither {WEIGHTS[0]} nor {WEIGHTS[2]}, which npbert reads; it holds "
            f"{listing(others) or 'no weights'}; save it with transformers as safetensors"
        )


@contextmanager
def show_bars_on_terminal(utils: Any) -> Iterator[None]:
    """Let huggingface_hub show its progress only where somebody sees it."""
    seen = sys.stderr is not None and sys.stderr.isatty()
    said = "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ  # and has the last word
    if seen or said or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


@contextmanager
def reword_errors(wanted: Wanted) -> Iterator[None]:
    """Turn whatever goes wrong into a HubError that says what to do."""
    try:
        yield
    except NpbertError:
        raise
    # Whatever huggingface_hub and the libraries below it raise, in every release of theirs.
    except Exception as error:
        raise HubError(
            f"{wanted.name}: {remove_secrets(explain_failure(error, wanted), wanted)}"
        ) from None


def explain_failure(error: BaseException, wanted: Wanted) -> str:
    """Return what went wrong, and what to do about it."""
    causes: list[Any] = list(cause_chain(error))
    kinds = {kind.__name__ for each in causes for kind in type(each).__mro__}
    replies = [each.response for each in causes if getattr(each, "response", None) is not None]
    status = replies[0].status_code if replies else None
    if "OfflineModeIsEnabled" in kinds:
        return (
            "huggingface_hub was told to stay offline when it was imported, by HF_HUB_OFFLINE or "
            "TRANSFORMERS_OFFLINE; unset them and start again"
        )
    if "GatedRepoError" in kinds:
        return (
            "its owners let in only whom they know; ask for access at "
            f"{hub_address()}/{wanted.name}, then"
            " set HF_TOKEN to a token of yours"
        )
    if "RepositoryNotFoundError" in kinds:
        return (
            f"is no folder here, and {hub_address()} has no repository of this name, or a private "
            "one; is it spelt right? For a private one set HF_TOKEN to a token that may read it"
        )
    if "RevisionNotFoundError" in kinds:
        return (
            f"has no revision {quote(wanted.revision)}; its branches and tags are listed at "
            f"{hub_address()}/{wanted.name}/tree/main"
        )
    if status in (401, 403):
        return (
            f"{hub_address()} refuses the token (HTTP {status}); is HF_TOKEN right, and not "
            "expired?"
        )
    for each in causes:
        if isinstance(each, OSError) and (each.errno in NO_ROOM or each.filename is not None):
            return (
                f"{wanted.repository.parent} cannot be written: {each.strerror}; make room, or "
                "choose another place by cache_dir (--cache-dir) or HF_HOME"
            )
    return (
        f"is no folder here, and could not be fetched from {hub_address()}: {cause_line(causes)}; "
        "try again, what came whole is kept"
    )


def cause_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what led to it."""
    met: list[BaseException] = []
    while error is not None and error not in met:
        met.append(error)
        yield error
        error = error.__cause__ or error.__context__


def cause_line(causes: list[BaseException]) -> str:
    """Return the first thing that the first cause says, not too long."""
    telling = [each for each in causes if type(each).__name__ != "LocalEntryNotFoundError"]
    error = (telling or causes)[0]
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return (line if len(line) <= 200 else f"{line[:200]}...") or type(error).__name__


def remove_secrets(text: str, wanted: Wanted) -> str:
    """Return a message without tokens, which libraries quote when they are odd, and passwords."""
    for secret in (wanted.token, *map(os.environ.get, TOKEN_VARIABLES)):
        if isinstance(secret, str) and secret.strip():
            text = text.replace(secret.strip(), "***")
    return SECRET.sub("***", text)
