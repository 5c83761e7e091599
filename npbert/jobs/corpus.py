"""A file of texts that is searched: its embeddings are written once beside it, and used again.

FILE.npy holds them, FILE.npy.json what they were made of: the texts, the model, how it was asked.
Where any of these is another now, that is told, and they are made anew.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.checkpoint.drafts import replace_files, write_json
from npbert.checkpoint.reading import open_file, read_json_object
from npbert.errors import CheckpointError, ExitStatus, InputError, tell
from npbert.jobs.atomic import Places
from npbert.jobs.identity import job_identity
from npbert.jobs.job import run_batch
from npbert.jobs.lines import form_of
from npbert.jobs.records import InputFormat, Source
from npbert.tasks.task import Task

# What embeddings are made of, and what is said where it is another now.
CHANGES: Final[Mapping[str, str]] = {
    "sha256": "the texts have changed",
    "model": "the model is another",
    "options": "the options are others",
    "npbert": "npbert is another version",
}


def embed_corpus(
    task: Task[Any, Any], given: InputFormat, path: Path, target: Path
) -> NDArray[Any] | None:
    """Return the embeddings of all texts of a file, mapped; None where making them was interrupted.

    They are taken from `target` if they were made of the same, or else made, and written there.
    Raises InputError, and OSError where nothing can be written.
    """
    if not path.is_file():
        raise InputError(f"--index {path}: {'is no file' if path.exists() else 'no such file'}")
    if target.suffix != ".npy":
        raise InputError(f"--embeddings {target}: expected a name in .npy")
    notes = target.with_name(f"{target.name}.json")
    made_of = {**job_identity(task, given, given.form or form_of(path)), "sha256": hash_file(path)}
    before = read_notes(notes)
    if os.path.lexists(target) and not before:
        raise InputError(
            f"{target}: is there, but not {notes.name}, which says what it was made of; move it "
            "out of the way, or name another file with --embeddings"
        )
    changed = [name for name in made_of if before.get(name) != made_of[name]]
    if before and not changed and target.is_file():
        return load_array(target)
    if before and target.is_file():
        why = next((CHANGES[name] for name in CHANGES if name in changed), "it is read otherwise")
        tell(f"{path}: {why} since its embeddings were written to {target}; they are made anew")
    notes.unlink(missing_ok=True)
    unfinished = Places.from_path(target).journal.exists()
    if not unfinished:
        target.unlink(missing_ok=True)
    status = run_batch(task, given, (), str(path), str(target), resume=True)
    if status != ExitStatus.FINE:
        return None
    if hash_file(path) != made_of["sha256"]:
        raise InputError(f"{path}: changed while its texts were embedded; try again")
    with replace_files(target.parent) as draft, draft(notes) as file:
        write_json(file, made_of)
    return load_array(target)


def load_array(path: Path) -> NDArray[Any]:
    """Return an array as its file is mapped.  Raises InputError for a file that holds none."""
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: holds no array: {error}; delete it to start anew") from None
    return mapped


def read_notes(path: Path) -> dict[str, Any]:
    """Return what is said of embeddings that were written, or nothing."""
    try:
        return read_json_object(path) if path.is_file() else {}
    except CheckpointError:
        return {}


def hash_file(path: Path) -> str:
    """Return the sha256 of a file."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except CheckpointError as error:
        raise InputError(str(error)) from None


def read_texts(given: InputFormat, path: Path, wanted: Collection[int]) -> dict[int, Any]:
    """Return the texts of a file that have these numbers, counted from 0, and what stands by them.

    A text is {"text": ...}, with {"fields": {...}} where its record has others.
    """
    found: dict[int, Any] = {}
    last = max(wanted, default=-1)
    with closing(Source(given, (), str(path))) as source:
        for number, item in zip(range(last + 1), source.items(), strict=False):
            if number in wanted:
                text = item.given if isinstance(item.given, str) else item.given["text"]
                found[number] = {"text": text}
                if item.beside:
                    found[number]["fields"] = dict(item.beside)
    return found
