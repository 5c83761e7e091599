"""The cache that Hugging Face's programs share, read with the standard library alone.

    models--org--name/refs/main             the commit where a branch stood when it was last asked
    models--org--name/snapshots/<commit>/   files of a commit, as links to those in blobs/
    models--org--name/.no_exist/<commit>/   empty files: names of which the commit has none

A snapshot holds what somebody wanted, which need not be all that there is.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
TRUE: Final = ("1", "ON", "YES", "TRUE")


class Snapshot(NamedTuple):
    """A model at one commit of a repository."""

    repository: Path  # in the cache
    commit: str
    subfolder: str  # of the repository, where the model is

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.repository / "snapshots" / self.commit / self.subfolder

    def knows(self, name: str) -> bool | None:
        """Tell whether the repository has a file; None where nobody asked yet."""
        if (self.folder / name).is_file():
            return True
        return False if self.marker(name).is_file() else None

    def marker(self, name: str) -> Path:
        """Return the file that stands where the repository has none of this name."""
        return self.repository / ".no_exist" / self.commit / self.subfolder / name

    def keep(self, revision: str, absent: set[str]) -> None:
        """Write down what was learnt; a cache that cannot be written is asked about again."""
        with suppress(OSError):
            for name in absent:
                self.marker(name).parent.mkdir(parents=True, exist_ok=True)
                self.marker(name).touch()
            ref = self.repository / "refs" / revision
            if revision != self.commit and (not ref.exists() or ref.read_text() != self.commit):
                ref.parent.mkdir(parents=True, exist_ok=True)
                temporary = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
                temporary.write_text(self.commit)
                temporary.replace(ref)


def cached(repository: Path, revision: str, subfolder: str) -> Snapshot | None:
    """Return the model at a branch, tag or commit, as far as it is there; else None."""
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = (repository / "refs" / revision).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
    known = COMMIT.fullmatch(commit) and (repository / "snapshots" / commit).is_dir()
    return Snapshot(repository, commit, subfolder) if known else None


def cache_folder(given: str | os.PathLike[str] | None) -> Path:
    """Return where models from the hub are kept."""
    said = os.environ.get
    home = said("HF_HOME") or os.path.join(said("XDG_CACHE_HOME") or "~/.cache", "huggingface")  # noqa: PTH118  (a variable may stand first)
    hub = said("HF_HUB_CACHE") or said("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")  # noqa: PTH118
    return Path(os.path.expanduser(os.path.expandvars(given or hub)))  # noqa: PTH111


def is_offline() -> bool:
    """Tell whether the environment forbids the network."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in TRUE


def endpoint() -> str:
    """Return the address of the hub."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
