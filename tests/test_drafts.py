"""What is written is whole or absent, and nothing outside the folder that was named changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corruption.checkpoint import CONFIG, WEIGHTS

import npbert
from npbert import CheckpointError, InputError, NpbertWarning
from npbert.checkpoint.drafts import make_draft, replace_file, replace_files
from npbert.checkpoint.folders import convert
from npbert.cli import main
from npbert.explaining import Explanation
from npbert.hub.cache import Snapshot
from npbert.jobs.outputs import ArrayOutput, LinesOutput
from npbert.oracle.dumps import write_dump
from npbert.oracle.kit import kit

BINS = Path(__file__).parent.parent / "golden" / "bins"
ARRAYS = {"a": np.arange(6000.0), "b": np.ones((2, 3), np.float32)}
COMMIT = "0" * 40


def model():
    return npbert.init(npbert.Config(hidden_size=24, num_attention_heads=3, num_blocks=1), "base")


def bin_folder(folder):
    folder.mkdir()
    shutil.copy(BINS / "shards" / CONFIG, folder)
    shutil.copy(BINS / "zip.bin", folder / "pytorch_model.bin")
    return folder


WRITERS = {  # what writes into a folder, and the names that it gives
    "save": (lambda folder: model().save(folder), {CONFIG, WEIGHTS}),
    "trace.safetensors": (lambda f: write_dump(f / "t.safetensors", ARRAYS, {}), {"t.safetensors"}),
    "trace.npz": (lambda folder: write_dump(folder / "t.npz", ARRAYS, {}), {"t.npz"}),
    "trace": (lambda folder: write_dump(folder, ARRAYS, {}), {"a.npy", "b.npy", "about.json"}),
    "page": (lambda folder: Explanation("page" * 9000).save(folder / "p.html"), {"p.html"}),
    "ref": (lambda folder: Snapshot(folder, COMMIT, "").keep("main", {"x.json"}), {"refs"}),
    "answers": (
        lambda folder: main(["text-classification", "good", "-o", str(folder / "o")]),
        {"o"},
    ),
}


def plant(kind, place, victim):
    """Put something that leads to a victim where a file will be written."""
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "dangling link":
        place.symlink_to(victim.with_name("created"))
    elif kind == "link to a folder":
        place.symlink_to(victim.parent)
    elif kind == "relative link":
        place.symlink_to(os.path.relpath(victim, place.parent))
    elif kind == "hard link":
        os.link(victim, place)
    elif kind == "pipe":
        os.mkfifo(place)


KINDS = ("link", "dangling link", "link to a folder", "relative link", "hard link", "pipe")


@pytest.fixture
def victim(tmp_path):
    """A file elsewhere, and what holds it to its contents."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "victim").write_text("precious")
    before = (elsewhere / "victim").stat().st_mtime_ns
    yield elsewhere / "victim"
    assert [(p.name, p.read_text()) for p in elsewhere.iterdir()] == [("victim", "precious")]
    assert (elsewhere / "victim").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "link to a folder"])
@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in ("ref", "answers")])
def test_a_link_under_a_files_own_name_is_replaced(writer, kind, tmp_path, victim):
    write, names = WRITERS[writer]
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "pipe" and writer == "page":
        return  # a pipe that was named is written to, and someone reads it
    for name in names:
        plant(kind, folder / name, victim)
    write(folder)
    assert {path.name for path in folder.iterdir()} == names
    assert all(path.is_file() and not path.is_symlink() for path in folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_names_that_drafts_had_once_lead_nowhere(writer, kind, tmp_path, victim):
    write, names = WRITERS[writer]
    folder = tmp_path / "folder"
    folder.mkdir()
    planted = {f"{name}{end}" for name in names for end in (f".{os.getpid()}.tmp", ".tmp")}
    planted |= {f"{name}.part.json.tmp" for name in names}
    for name in planted:
        plant(kind, folder / name, victim)
    write(folder)
    assert {path.name for path in folder.iterdir()} - {".no_exist"} == names | planted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [".part", ".part.json"])
def test_a_part_or_a_journal_that_no_job_makes_is_refused(kind, end, tmp_path, victim):
    place = tmp_path / f"o{end}"
    plant(kind, place, victim)
    said = {"hard link": "a file with 2 names", "pipe": "no file"}.get(kind, "a link")
    for resume in (False, True):
        with pytest.raises(InputError) as caught:
            LinesOutput(tmp_path / "o", {}, resume=resume)
        assert str(caught.value) == (
            f"{place}: is {said}, which no job makes; nothing is read or written through it; move "
            "it out of the way"
        )
    assert not (tmp_path / "o").exists()
    assert os.path.lexists(place)


@pytest.mark.parametrize("kind", ["link", "dangling link", "relative link", "hard link"])
def test_an_output_is_written_beside_a_link_of_its_name_and_not_through_it(kind, tmp_path, victim):
    plant(kind, tmp_path / "o", victim)
    assert main(["text-classification", "good", "-o", str(tmp_path / "o")]) == 0
    assert json.loads((tmp_path / "o").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"o", "elsewhere"}


def test_a_conversion_replaces_no_link(tmp_path, victim):
    source = bin_folder(tmp_path / "m")
    plant("dangling link", source / WEIGHTS, victim)
    with pytest.raises(CheckpointError) as caught:
        convert(source)
    assert str(caught.value) == f"{source / WEIGHTS}: cannot be read: No such file or directory"
    assert (source / WEIGHTS).is_symlink()


def test_a_folder_below_that_leads_elsewhere_is_refused(tmp_path, victim):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "DistilBertForMaskedLM").symlink_to(victim.parent)
    with pytest.raises(InputError) as caught:
        kit(tmp_path / "kit")
    assert str(caught.value) == (
        f"{tmp_path}/kit/DistilBertForMaskedLM/model: leads out of {tmp_path}/kit through a link, "
        "and nothing is written there; put a folder in its place"
    )


@pytest.mark.parametrize("name", ["refs", ".no_exist"])
def test_a_folder_of_the_cache_that_leads_elsewhere_is_left_alone(name, tmp_path, victim):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).symlink_to(victim.parent)
    with pytest.warns(NpbertWarning, match="leads out of .* the cache does not say so"):
        Snapshot(tmp_path / "cache", COMMIT, "").keep("main", {"x.json"})
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_drafts_are_new_files_of_names_that_nobody_knows(tmp_path):
    made = [make_draft(tmp_path / "x") for _ in range(3)]
    for _, file in made:
        file.close()
    assert len({path for path, _ in made}) == 3
    assert all(len(path.name) == len("x.0123456789abcdef.tmp") for path, _ in made)


def test_a_draft_that_is_there_already_is_never_taken(tmp_path, victim, monkeypatch):
    monkeypatch.setattr(os, "urandom", bytes)  # as if somebody had guessed it
    for kind in ("link", "dangling link", "hard link", "pipe"):
        planted = tmp_path / f"x.{bytes(8).hex()}.tmp"
        plant(kind, planted, victim)
        with (
            pytest.raises(CheckpointError, match="cannot be written: File exists"),
            replace_file(tmp_path / "x"),
        ):
            raise AssertionError(kind)
        planted.unlink()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_get_the_permissions_that_umask_gives(mask, tmp_path):
    before = os.umask(mask)
    try:
        for number, (write, _) in enumerate(WRITERS.values()):
            folder = tmp_path / str(number)
            folder.mkdir()
            write(folder)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 11
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}


def test_of_several_files_none_appears_when_one_fails(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), replace_files(tmp_path) as draft:  # noqa: PT012  (two in turn)
        with draft(tmp_path / "a") as file:
            file.write(b"new")
        with draft(tmp_path / "below" / "b") as file:
            raise KeyError
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["old"]


# ---- a full disk --------------------------------------------------------------------------------

FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_drafts import BINS, WRITERS, bin_folder, convert, model
from npbert.errors import NpbertError
from npbert.oracle.kit import kit
root, limits = Path(sys.argv[2]), [0, 100, 7000, 20000]
source = bin_folder(root / "source")
writers = {name: write for name, (write, _) in WRITERS.items() if name not in ("ref", "answers")}
writers["convert"] = lambda folder: convert(source, folder)
writers["kit"] = kit
model()
for name, write in writers.items():
    for limit in limits[:2] if name == "convert" else limits:
        folder = root / f"{name}-{limit}"
        folder.mkdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
        try:
            write(folder)
            said = "nothing"
        except NpbertError as error:
            said = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        left = [str(path) for path in folder.rglob("*") if path.is_file()]
        print(name, limit, said.startswith(str(folder)), said.endswith(
            "cannot be written: File too large"), left)
"""


def test_a_full_disk_leaves_nothing_of_what_it_could_not_hold(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, __file__, tmp_path], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent)])},
        check=False,
    )  # fmt: skip
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 26
    assert [line for line in lines if not line.endswith(" True True []")] == []


# ---- journals -----------------------------------------------------------------------------------

SOUND = {"job": {}, "bytes": 3, "inputs": 1, "sha256": "x", "tokens": 1, "failed": 0}
WRONG = {
    "a list": [1, 2], "a number": 7, "a text": "x", "nothing": None, "empty": {},
    **{f"without {key}": {k: v for k, v in SOUND.items() if k != key}
       for key in ("job", "bytes", "inputs", "sha256")},
    **{f"{key} is {value!r:.20}": {**SOUND, key: value}
       for key, values in {
           "job": ([], "x", None, 1, True), "sha256": (1, None, [], {}, True),
           "bytes": (-1, True, "3", 3.0, None, [3], 10**30, float("inf"), float("nan")),
           "inputs": (-1, True, "1", 1.0, None, {"n": 1}, 10**30, 2**63),
           "tokens": ("1", None, -1, [], 2**70), "failed": (False, {}, 0.5, -7),
           "whole": (1, "yes", [], {}, None, False)}.items()
       for value in values},
}  # fmt: skip
RAW = {
    "not UTF-8": b'{"job": "\xff"}', "cut short": b'{"job": {}, "bytes"', "no bytes": b"",
    "nested": b'{"job":' * 3000, "a long number": b'{"bytes": ' + b"9" * 5000 + b"}",
    "NUL": bytes(64), "a name twice": b'{"bytes": 1, "bytes": 2}', "UTF-16": "{}".encode("utf-16"),
    "surrogates": b'{"job": {"\\ud800": 1}, "bytes": 3, "inputs": "\\udfff"}',
}  # fmt: skip


@pytest.mark.parametrize("name", [*WRONG, *RAW])
def test_a_journal_of_wrong_types_is_refused_in_a_sentence(name, tmp_path):
    path = tmp_path / "o"
    raw = RAW[name] if name in RAW else json.dumps(WRONG[name]).encode()
    (tmp_path / "o.part").write_bytes(b"{}\n")
    (tmp_path / "o.part.json").write_bytes(raw)
    for resume in (True, False):
        with pytest.raises(InputError) as caught:
            LinesOutput(path, {}, resume=resume)
        assert str(caught.value) == (
            f"{path}.part.json: is no journal of a job; delete it and the .part to start anew"
        )
    assert (tmp_path / "o.part").read_bytes() == b"{}\n"
    assert (tmp_path / "o.part.json").read_bytes() == raw


@pytest.mark.parametrize("part", [b"", b"abc", b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\xff\xff{",
                                  b"\x93NUMPY\x01\x00\x02\x00{}", b"PK\x03\x04" * 9])  # fmt: skip
def test_an_array_that_is_none_is_not_gone_on_with(part, tmp_path):
    path = tmp_path / "o.npy"
    (tmp_path / "o.npy.part").write_bytes(part)
    (tmp_path / "o.npy.part.json").write_text(json.dumps({**SOUND, "bytes": len(part)}))
    with pytest.raises(InputError) as caught:
        ArrayOutput(path, {}, resume=True)
    assert str(caught.value) == (
        f"{path}.part: is no array to go on with; delete it and its .json to start anew"
    )
    assert (tmp_path / "o.npy.part").read_bytes() == part
