"""Files that are written aside and get their names when all of them are whole.

A draft has a name that nobody can guess, and is new: a link that lies in a folder is never written
through.  A link, a hard link or a pipe under a file's own name is replaced, and what it leads to
stays as it is.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from npbert.errors import CheckpointError

OPEN_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # as systems have
NEW_FLAGS: Final = OPEN_FLAGS | os.O_CREAT | os.O_EXCL

Draft = Callable[[Path], AbstractContextManager[BinaryIO]]  # of the file that gets this name


def make_draft(path: Path, suffix: str = ".tmp") -> tuple[Path, BinaryIO]:
    """Create an empty file beside a path, under a name that was nobody's.  Raises OSError."""
    draft = path.with_name(f"{path.name}.{os.urandom(8).hex()}{suffix}")
    return draft, os.fdopen(os.open(draft, NEW_FLAGS | os.O_WRONLY, 0o666), "wb")


@contextmanager
def replace_files(folder: Path) -> Iterator[Draft]:
    """Give what opens files to be written in a folder, all of which get their names at the end.

    After an error none does.  Folders below `folder` are made; one that is a link, and leads out
    of it, is refused.  A file that is still mapped keeps its old contents for those who read it.
    Raises CheckpointError for what cannot be written.
    """
    drafts: dict[Path, Path] = {}
    current = folder

    @contextmanager
    def open_draft(path: Path) -> Iterator[BinaryIO]:
        nonlocal current
        current = path
        if path.parent != folder:
            if not path.parent.resolve().is_relative_to(folder.resolve()):
                raise CheckpointError(
                    f"{path.parent}: leads out of {folder} through a link, and nothing is "
                    "written there; put a folder in its place"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
        draft, file = make_draft(path)
        drafts[draft] = path
        with file:
            yield file

    try:
        yield open_draft
        while drafts:
            draft, current = next(iter(drafts.items()))
            draft.replace(current)
            del drafts[draft]
    except OSError as error:
        raise CheckpointError(f"{current}: cannot be written: {error.strerror or error}") from None
    finally:
        for draft in drafts:
            with suppress(OSError):  # what went wrong before is what is told
                draft.unlink()


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when all went well.  Raises CheckpointError."""
    with replace_files(path.parent) as draft, draft(path) as file:
        yield file


def remove_drafts(path: Path) -> None:
    """Remove what kills have left of a file that nobody else writes."""
    own = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.tmp")
    for name in filter(own.fullmatch, os.listdir(path.parent)):  # noqa: PTH208  (names suffice)
        path.with_name(name).unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe or a device, to be written as it is: it cannot be replaced.

    A link is none, but for those by which a system calls open files, as /dev/stdout.
    """
    if path.is_symlink():
        folder = Path(os.path.realpath(path.parent))
        return path.exists() and (folder == Path("/dev") or Path("/proc") in folder.parents)
    return path.exists() and not path.is_file() and not path.is_dir()


def write_json(file: BinaryIO, data: Mapping[str, Any]) -> None:
    """Write a JSON object as transformers does: two spaces, names in order."""
    file.write((json.dumps(data, indent=2, sort_keys=True) + "\n").encode())
