"""Where a job on a cluster reads and writes: patterns of files, and files that appear whole."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from npbert.checkpoint.reading import read_bytes
from npbert.errors import InputError
from npbert.jobs.atomic import sync_folder
from npbert.jobs.lines import FORMS_BY_SUFFIX, form_of

PART_SUFFIX: Final = ".npbert-part"  # the end of a file's name while it is written
# By file system.
STAMP_FIELDS: Final = ("mtime", "ETag", "etag", "LastModified", "updated", "created")
FORM_SUFFIXES: Final = {".txt": "lines", ".parquet": "parquet", **FORMS_BY_SUFFIX}


class InputFile(NamedTuple):
    """A file to read, and the one that its answers make."""

    source: str  # an absolute path, or a URL
    target: str
    form: str  # as of npbert.jobs.lines, or "parquet"
    stamp: str  # what changes when the file does


def list_inputs(pattern: str, out: str, form: str | None) -> list[InputFile]:
    """Return the files of a pattern, the largest first, so that none is waited for at the end.

    Each keeps its place below the pattern's first wildcard.  Raises InputError.
    """
    system, path = split_url("--input", pattern)
    if system.isdir(path):
        raise InputError(f"--input {pattern}: is a folder; say which of its files: '{pattern}/*'")
    fixed = path[: min((path.index(c) for c in "*?[" if c in path), default=len(path))]
    root, base = fixed.rpartition("/")[0] + "/", address_in(out, "")
    if address_of(system, root).startswith(base):
        raise InputError(f"--output {out}: is where the files of --input are")
    found = {
        name: about
        for name, about in find_files(system, path).items()
        if not is_folder(about) and not address_of(system, name).startswith(base)
    }
    if not found:
        raise InputError(f"--input {pattern}: there is no such file")
    made = []
    for name in sorted(found, key=lambda name: (-(found[name].get("size") or 0), name)):
        kind = form or form_by_suffix(name)
        target = address_in(out, answer_name(name.removeprefix(root).lstrip("/"), kind))
        made.append(
            InputFile(address_of(system, name), target, kind, modification_stamp(found[name]))
        )
    refuse_collisions(made)
    return made


def modification_stamp(about: Any) -> str:
    """Return what a file system tells of a file that changes when the file does."""
    known = [about[name] for name in STAMP_FIELDS if about.get(name) is not None]
    return " ".join(map(str, [about.get("size"), *known[:1]]))


def pattern_address(pattern: str) -> str:
    """Return a pattern that means the same from any folder."""
    return address_of(*split_url("--input", pattern))


def refuse_collisions(made: list[InputFile]) -> None:
    """Raise InputError where an answer would take the place of another."""
    owners: dict[str, str] = {}
    for file in made:
        if file.target in owners:
            raise InputError(
                f"{owners[file.target]} and {file.source} would both be answered in {file.target}"
            )
        owners[file.target] = file.source


def find_files(system: Any, path: str) -> dict[str, Any]:
    """Return what a pattern stands for, with what the file system tells of each."""
    try:
        if any(c in path for c in "*?["):
            return dict(system.glob(path, detail=True))
        return {path: system.info(path)} if system.exists(path) else {}
    except OSError as error:
        raise InputError(f"--input {path}: cannot be read: {error.strerror or error}") from None


def is_folder(about: Any) -> bool:
    """Tell whether an entry of a file system is a folder."""
    return bool(about.get("type") == "directory")


def form_by_suffix(name: str) -> str:
    """Return what a file holds, as its name says.  Raises InputError for a name that does not."""
    bare = name.removesuffix(".gz")
    suffix = Path(bare).suffix.lower()
    if suffix not in FORM_SUFFIXES or (suffix == ".parquet" and bare != name):
        raise InputError(
            f"{name}: expected one of {', '.join(FORM_SUFFIXES)} at the end of its name, all but "
            "parquet perhaps packed as .gz; or say --jsonl, --csv or --tsv"
        )
    return "parquet" if suffix == ".parquet" else form_of(Path(name))


def answer_name(name: str, form: str) -> str:
    """Return the name of a file's answers: JSON lines, packed where it is, or parquet."""
    if form == "parquet":
        return name
    packed = ".gz" if name.endswith(".gz") else ""
    stem, dot, suffix = name.removesuffix(".gz").rpartition(".")
    return f"{stem if dot and '/' not in suffix else name.removesuffix('.gz')}.jsonl{packed}"


def split_url(what: str, name: str) -> tuple[Any, str]:
    """Return a file system, and a path on it.  Raises InputError."""
    if Path(name).is_absolute():  # where "::" and the like are letters
        return LocalFileSystem(), name.rstrip("/")
    try:
        system, path = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:  # s3fs is not installed; nobody knows the protocol
        raise InputError(f"{what} {name}: {error}") from None
    return system, path.rstrip("/")


def address_of(system: Any, path: str) -> str:
    """Return what a worker can open a file by."""
    return path if is_local(system) else str(system.unstrip_protocol(path))


def address_in(out: str, name: str) -> str:
    """Return what a worker can open a file in a folder by."""
    system, path = split_url("--output", out)
    return address_of(system, f"{path}/{name}")


def open_remote(source: str) -> BinaryIO:
    """Open a file for reading."""
    system, path = split_url("--input", source)
    raw: BinaryIO = system.open(path, "rb")
    return raw


def read_whole(address: str, limit: int) -> bytes:
    """Return what a file holds, at most `limit` bytes.

    Raises FileNotFoundError, CheckpointError for a device or a larger file.
    """
    system, path = split_url("--output", address)
    if not is_local(system):
        return cast(bytes, system.cat_file(path, 0, limit))
    Path(path).stat()
    return read_bytes(Path(path), limit)


def write_whole(address: str, raw: bytes) -> None:
    """Write a small file, which takes the place of its predecessor at once."""
    part = part_address(address, "")
    with write_part(part) as file:
        file.write(raw)
    give_names({part: address})


def part_address(target: str, job: str) -> str:
    """Return what a file is called while a job writes it, and nothing else ever is."""
    folder, _, name = target.rpartition("/")
    return f"{folder}/.{name}.{job}{uuid4().hex}{PART_SUFFIX}"


def parts_of(targets: Iterable[str], there: Iterable[str]) -> set[str]:
    """Return which files are parts of some targets, of any job."""
    known = set(targets)

    def place_of(part: str) -> str:
        folder, _, name = part.removesuffix(PART_SUFFIX).rpartition("/")
        return f"{folder}/{name.removeprefix('.').rpartition('.')[0]}"

    return {name for name in there if name.endswith(PART_SUFFIX) and place_of(name) in known}


@contextmanager
def write_part(part: str) -> Iterator[BinaryIO]:
    """Yield a new file, which stays if it becomes whole.  Raises InputError, OSError."""
    system, path = split_url("--output", part)
    try:
        with open_new(system, path) as file:
            yield file
            if is_local(system):
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        remove_files({part})
        raise


def open_new(system: Any, path: str) -> BinaryIO:
    """Open a file that is not there yet, in a folder that may not be there either."""
    if is_local(system):
        make_output_folder(Path(path).parent)
        return Path(path).open("xb")
    try:
        return cast(BinaryIO, system.open(path, "wb"))
    except FileNotFoundError:  # where folders are more than beginnings of names
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        return cast(BinaryIO, system.open(path, "wb"))


def give_names(targets: dict[str, str]) -> None:
    """Give whole files their names.  Raises InputError, OSError."""
    if not targets:
        return
    systems = {part: split_url("--output", part) for part in targets}
    system = next(iter(systems.values()))[0]
    if not is_local(system):  # objects in the names of others, as many at a time as it can
        paths = [path for _, path in systems.values()]
        system.mv(paths, [split_url("--output", target)[1] for target in targets.values()])
        return
    for part, target in targets.items():
        Path(part).replace(target)
    for folder in {Path(target).parent for target in targets.values()}:
        sync_folder(folder)


def make_output_folder(folder: Path) -> bool:
    """Make a folder, unless it is there; tell whether it is new.  Raises InputError."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made: {error.strerror}") from error
    return new


def is_local(system: Any) -> bool:
    """Tell whether a file system is that of this machine."""
    return isinstance(system, LocalFileSystem)


def list_outputs(out: str) -> set[str]:
    """Return the files of a folder and of those below it, as `files` names them."""
    system, path = split_url("--output", out)
    system.invalidate_cache()
    return (
        {address_of(system, name) for name in system.find(path)} if system.exists(path) else set()
    )


def remove_files(names: set[str]) -> None:
    """Remove what is there of some files."""
    for name in names:
        system, path = split_url("--output", name)
        with suppress(OSError):  # it is gone, or what it stood in is
            system.rm_file(path)


def refuse_ways_out(out: str, targets: Iterable[str]) -> None:
    """Raise InputError where a link in a folder leads elsewhere with what is to be written."""
    if not is_local(split_url("--output", out)[0]):
        return
    base = os.path.realpath(address_in(out, ""))
    for folder in {Path(target).parent for target in targets}:
        if os.path.commonpath([base, os.path.realpath(folder)]) != base:
            raise InputError(f"--output {out}: {folder} is a link that leads elsewhere; delete it")
