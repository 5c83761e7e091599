"""Dumps that are large, or say so: measured in pieces, and refused if they are holes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.cli import main
from npbert.oracle import dumps

MODEL = Path(__file__).parent.parent / "golden" / "DistilBertModel"
LAST = "transformer.layer.2.output_layer_norm"
GIGABYTES = 1 << 33


def write_sparse_npy(path: Path, size: int = GIGABYTES) -> None:
    """Write a .npy file that is whole, and whose zeros take no room on the disk."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (1, size)}
    )
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(head.getvalue())
        file.truncate(file.tell() + size)


def write_sparse_tensors(path: Path) -> None:
    """Write such a safetensors file."""
    entry = {"dtype": "BF16", "shape": [1, GIGABYTES // 2], "data_offsets": [0, GIGABYTES]}
    head = json.dumps({LAST: entry}).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(file.tell() + GIGABYTES)


def write_sparse_archive(path: Path) -> None:
    """Write an .npz file before whose entries there is nothing."""
    np.savez(path, **{LAST: np.zeros((1, 4, 24), np.float32)})
    raw = path.read_bytes()
    with path.open("wb") as file:
        file.truncate(GIGABYTES)
        file.seek(GIGABYTES)
        file.write(raw)


def write_dump(folder: Path, form: str) -> Path:
    """Write a sparse dump in a form, and return its path."""
    if form == "folder":
        write_sparse_npy(folder / "dump" / f"{LAST}.npy")
        return folder / "dump"
    if form == "many files":
        for i in range(99):
            write_sparse_npy(folder / "dump" / f"{i}.npy", GIGABYTES // 99)
        return folder / "dump"
    path = folder / f"dump.{form}"
    (write_sparse_tensors if form == "safetensors" else write_sparse_archive)(path)
    return path


@pytest.mark.parametrize("form", ["folder", "many files", "safetensors", "npz"])
def test_a_dump_of_gigabytes_that_are_holes_is_refused(form, tmp_path, capsys):
    dump = write_dump(tmp_path, form)
    if not (dump if dump.is_file() else next(dump.iterdir())).stat().st_blocks:
        pytest.skip("this file system does not tell what a file takes")
    place = dump / f"{LAST}.npy" if form == "folder" else dump
    for command in (["compare", MODEL, dump], ["diagnose", MODEL, dump], ["compare", dump, dump]):
        assert main([str(each) for each in command]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"npbert: {dump if form == 'folder' else place}")
        assert said.endswith(
            "of them were ever written; the copying was cut short, or the file is made to fill the "
            "memory\n"
        )
    with pytest.raises(npbert.InputError, match="were ever written"):
        npbert.Trace.load(dump)


def test_weights_of_gigabytes_that_are_holes_are_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((MODEL / "config.json").read_bytes())
    write_sparse_tensors(tmp_path / "model.safetensors")
    assert main(["info", str(tmp_path)]) == 3
    assert "of them were ever written" in capsys.readouterr().err


def test_a_small_file_may_be_all_holes(tmp_path):
    write_sparse_npy(tmp_path / "dump" / f"{LAST}.npy", 1 << 20)
    assert npbert.Trace.load(tmp_path / "dump")[LAST].shape == (1, 1 << 20)


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_arrays_that_are_measured_in_pieces_come_to_the_same(piece, monkeypatch):
    draw = np.random.default_rng(3)
    ours = {n: draw.normal(size=(2, 5, 3)) for n in ("a", "b", "c.masked_scores", "empty")}
    ours["empty"] = ours["empty"][:0]
    theirs = {n: x + draw.normal(size=x.shape) * 1e-3 for n, x in ours.items()}
    theirs["a"][1, 2, 1], ours["b"][0, 0, 0], theirs["b"][1, 4, 2] = np.nan, np.inf, np.inf
    ours["c.masked_scores"][0, 1] = theirs["c.masked_scores"][0, 1] = -np.inf
    theirs["c.masked_scores"][1, 1] = -1e9
    theirs["b"] = theirs["b"].transpose(1, 0, 2).copy().transpose(1, 0, 2)  # not in order of rows
    whole = npbert.compare(ours, theirs)
    monkeypatch.setattr(dumps, "PIECE", piece)
    for one, other in zip(whole.steps, npbert.compare(ours, theirs).steps, strict=True):
        for name in ("name", "end_to_end", "padding", "absolute", "relative", "ulps", "not_finite"):
            assert getattr(one, name) == getattr(other, name)
        assert repr(one.place) == repr(other.place)  # where there may be a NaN
        for name in ("rms_ratio", "cosine"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12)


def test_too_little_memory_is_told(monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise MemoryError("Unable to allocate 24.0 GiB")

    monkeypatch.setattr("npbert.oracle.traces.read_dump", fail)
    assert main(["compare", str(MODEL), "x"]) == 2
    assert capsys.readouterr().err == (
        "npbert: there is not enough memory for this: Unable to allocate 24.0 GiB\n"
    )


PEAK = """
import sys
from npbert.cli import main
assert main(sys.argv[1:]) == 0
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_comparing_takes_no_more_memory_than_the_dumps_and_400_mb(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **{LAST: np.zeros((1, 1, 1 << 26), np.uint8)})
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "compare", *[tmp_path / "x.npz"] * 2],
        capture_output=True, text=True, check=True, cwd=MODEL.parent.parent,
    )  # fmt: skip
    assert int(done.stderr) / 1024 <= 2 * 64 + 400
