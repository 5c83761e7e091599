"""What a job's answers depend on beside its inputs: the model's files, options, the format."""

import hashlib
import json
import pickle
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from npbert import __version__
from npbert.checkpoint.reading import open_file, read_bytes
from npbert.hub.cache import model_files
from npbert.jobs.blocks import BLOCK_INPUTS
from npbert.jobs.records import InputFormat
from npbert.tasks.task import Task
from npbert.text.added_tokens import VOCABULARY_LIMIT


def job_identity(task: Task[Any, Any], given: InputFormat, form: str | None) -> dict[str, Any]:
    """Return all that a job's bytes depend on but its inputs, as JSON has it."""
    said = {
        "npbert": __version__,
        "model": hash_model(task.folder) if task.folder else None,
        "options": {
            each.name: hash_array(getattr(task.options, each.name)) for each in fields(task.options)
        },
        **asdict(given),
        "form": form,
        "block": BLOCK_INPUTS,
    }
    return json.loads(json.dumps(said))


def hash_array(value: Any) -> Any:
    """Return an option as JSON has it; of an array, which came from a file, its sha256."""
    return hashlib.sha256(value.tobytes()).hexdigest() if hasattr(value, "tobytes") else value


def task_bytes(task: Task[Any, Any], model: str) -> bytes:
    """Return a task as another process makes it once more, and the hash of its model.

    Other files under the same name are another task.  Its ranges are read no more.
    """
    # A file of ranges is read here; another process may have none of that name.
    if task.rebuild and (ranges := getattr(task.options, "ranges", None)) is not None:
        task.rebuild = partial(task.rebuild, ranges=ranges)
    return pickle.dumps((model, task))


def hash_model(folder: Path) -> str:
    """Return the sha256 of the files of a model that its answers depend on."""
    digest = hashlib.sha256()
    for name in model_files(folder):
        path = folder / name
        if path.suffix in (".json", ".txt"):
            whole = hashlib.sha256(read_bytes(path, VOCABULARY_LIMIT))
        else:
            with open_file(path) as file:
                whole = hashlib.file_digest(file, "sha256")
        digest.update(name.encode() + whole.digest())
    return digest.hexdigest()
