"""Bytes on disk: widened exactly, mapped and not copied, in one file or in shards."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import drawn, prefixed, same, settings, write, write_raw
from corruption.checkpoint import CONFIG, INDEX, SHARDS, WEIGHTS, write_json
from safetensors.numpy import save_file

import npbert
from npbert import CheckpointError
from npbert.checkpoint.drafts import replace_file
from npbert.checkpoint.files import read_safetensors
from npbert.checkpoint.folders import read_tensors
from npbert.checkpoint.reading import JSON_LIMIT, read_json_object

DTYPES = (np.float32, np.float64)


def message(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    return str(caught.value)


def every_half(fraction_bits: int, bias: int) -> tuple[bytes, np.ndarray[Any, Any]]:
    """Every number of a 16-bit format that is not nan, and what it is by definition."""
    bits = np.arange(1 << 16)
    sign = np.where(bits >> 15, -1.0, 1.0)
    exponents = (1 << (15 - fraction_bits)) - 1
    exponent, fraction = bits >> fraction_bits & exponents, bits & ((1 << fraction_bits) - 1)
    normal = np.ldexp(1 + fraction / (1 << fraction_bits), exponent - bias)
    subnormal = np.ldexp(fraction / (1 << fraction_bits), 1 - bias)
    values = sign * np.where(exponent == 0, subnormal, normal)
    values = np.where(exponent == exponents, sign * np.inf, values)
    real = (exponent < exponents) | (fraction == 0)
    return bits[real].astype("<u2").tobytes(), values[real]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stored", "fraction", "bias"), [("F16", 10, 15), ("BF16", 7, 127)])
def test_every_16_bit_number_is_widened_exactly(
    tmp_path: Path, stored: str, fraction: int, bias: int, dtype: type[np.floating]
) -> None:
    raw, expected = every_half(fraction, bias)
    path = write_raw(tmp_path / WEIGHTS, {"x": (stored, (len(raw) // 2,), raw)})
    actual = read_safetensors(path)["x"].array(dtype)
    assert actual.dtype == dtype
    assert actual.tobytes() == expected.astype(dtype).tobytes()  # -0.0 is not 0.0
    assert np.float64(2.0 ** (1 - bias - fraction)) in actual  # the least subnormal number


def test_float64_is_rounded_to_the_nearest_float32(tmp_path: Path) -> None:
    x = np.array([0.1, 1 + 2.0**-24, 1 + 3 * 2.0**-24, -1e-45, 1e-60, -1e300])
    path = write_raw(tmp_path / WEIGHTS, {"x": ("F64", (6,), x.tobytes())})
    tensor = read_safetensors(path)["x"]
    expected = np.array([np.float32(0.1), 1, 1 + 2.0**-22, -(2.0**-149), 0, -np.inf], np.float32)
    assert tensor.array(np.float32).tobytes() == expected.tobytes()
    assert tensor.array(np.float64).tobytes() == x.tobytes()


def test_a_file_may_mix_dtypes(tmp_path: Path) -> None:
    values = np.array([[1.5, -2, 0.25], [0, 3, 1e-3]])
    path = write_raw(
        tmp_path / WEIGHTS,
        {
            "a": ("F16", (2, 3), values.astype("<f2").tobytes()),
            "b": ("BF16", (3,), bytes.fromhex("803f00c0803e")),
            "c": ("F32", (3, 2), values.astype("<f4").tobytes()),
            "d": ("F64", (), np.float64(0.1).tobytes()),
        },
    )
    tensors = read_safetensors(path)
    assert {n: (t.dtype, t.shape) for n, t in tensors.items()} == {
        "a": ("F16", (2, 3)),
        "b": ("BF16", (3,)),
        "c": ("F32", (3, 2)),
        "d": ("F64", ()),
    }
    assert tensors["a"].array(np.float32).tolist() == values.astype(np.float16).tolist()
    assert tensors["b"].array(np.float32).tolist() == [1, -2, 0.25]
    assert tensors["c"].array(np.float64).shape == (3, 2)
    assert tensors["d"].array(np.float64) == 0.1


@pytest.mark.parametrize(("stored", "dtype"), [("F32", np.float32), ("F64", np.float64)])
def test_weights_stored_as_computed_are_a_view_of_the_file_and_read_only(
    tmp_path: Path, stored: str, dtype: type[np.floating]
) -> None:
    raw = np.arange(6, dtype=dtype).tobytes()
    tensor = read_safetensors(write_raw(tmp_path / WEIGHTS, {"x": (stored, (2, 3), raw)}))["x"]
    array = tensor.array(dtype)
    assert np.shares_memory(array, np.frombuffer(tensor.content, np.uint8))
    assert not array.flags.writeable
    other = tensor.array(np.float64 if dtype == np.float32 else np.float32)
    assert not np.shares_memory(array, other)
    assert other.tolist() == array.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_numbers_between_the_words_of_memory_are_copied_into_place(
    tmp_path: Path, shift: int
) -> None:
    x = np.array([0.1, 0.2, 0.3], "<f4")
    entries = {"a": ("U8", (shift,), bytes(shift)), "x": ("F32", (3,), x.tobytes())}
    array = read_safetensors(write_raw(tmp_path / WEIGHTS, entries))["x"].array(np.float32)
    assert array.flags.aligned
    assert array.tobytes() == x.tobytes()


def test_shards_equal_the_single_file(tmp_path: Path) -> None:
    said, tensors = settings("base"), drawn("base")
    single = npbert.load(write(tmp_path / "single", tensors, said))
    sharded = write_shards(tmp_path / "sharded")
    assert same(npbert.load(sharded).parameters, single.parameters)
    assert {t.path.name for t in read_tensors(sharded).values()} == set(SHARDS)
    save_file(tensors, sharded / WEIGHTS)  # the single file goes first, as in transformers
    assert {t.path.name for t in read_tensors(sharded).values()} == {WEIGHTS}


def write_shards(folder: Path, **weight_map: Any) -> Path:
    """A base model in two shards; changes to the index come as tensor names and files."""
    tensors = drawn("base")
    names = list(tensors)
    halves = {SHARDS[0]: names[:7], SHARDS[1]: names[7:]}
    folder.mkdir()
    write_json(folder / CONFIG, settings("base"))
    for shard, half in halves.items():
        save_file({name: tensors[name] for name in half}, folder / shard)
    places = {name: shard for shard, half in halves.items() for name in half} | weight_map
    places = {name: shard for name, shard in places.items() if shard != "unnamed"}
    write_json(folder / INDEX, {"metadata": {}, "weight_map": places})
    return folder


BIAS = "embeddings.LayerNorm.bias"
INDEX_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"ghost": SHARDS[1]}, f"{{}}: names tensors that are not there: ghost in {SHARDS[1]}"),
    ({BIAS: SHARDS[1]}, f"{{}}: names tensors that are not there: {BIAS} in {SHARDS[1]}"),
    ({BIAS: "unnamed"}, f"{{}}: its files hold tensors that it does not name: {BIAS}"),
    ({BIAS: 7}, "{}: weight_map names 7, expected a file beside the index"),
    ({BIAS: f"../{SHARDS[0]}"}, f"{{}}: weight_map names '../{SHARDS[0]}', expected a file beside"),
]


@pytest.mark.parametrize(("changes", "expected"), INDEX_FAULTS, ids=lambda x: str(x)[:30])
def test_a_fault_of_the_index_is_named(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    folder = write_shards(tmp_path / "model", **changes)
    actual = message(npbert.load, folder)
    expected = expected.format(folder / INDEX)
    assert actual == expected + (" the index" if expected.endswith(" beside") else "")


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "model", **{BIAS: "third.safetensors"})
    assert message(npbert.load, folder) == (
        f"{folder / 'third.safetensors'}: cannot be read: No such file or directory"
    )


def test_an_index_without_weight_map_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / INDEX, {"metadata": {}})
    assert message(read_tensors, tmp_path) == (
        f"{tmp_path / INDEX}: weight_map is missing or empty, expected tensor names to files"
    )


def test_a_folder_without_weights_is_told_what_it_holds(tmp_path: Path) -> None:
    expected = (
        f"{tmp_path}: has no model.safetensors nor model.safetensors.index.json nor "
        "pytorch_model.bin nor pytorch_model.bin.index.json; it holds "
    )
    assert message(read_tensors, tmp_path) == expected + "nothing"
    for name in ("vocab.txt", CONFIG, "tf_model.h5"):
        (tmp_path / name).touch()
    assert message(read_tensors, tmp_path) == expected + "config.json, tf_model.h5, vocab.txt"


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS: list[tuple[dict[str, Any], str]] = [
    ({"x": 3}, "x: expected dtype, shape and data_offsets"),
    ({"x": ENTRY, "y": {**ENTRY, "data_offsets": [4, 12]}}, "y: starts at byte 4 of the data, "
     "expected 8: it overlaps the tensor before it"),
    ({"x": {**ENTRY, "data_offsets": [4, 12]}}, "x: starts at byte 4 of the data, expected 0: "
     "it leaves a gap before it"),
    ({"x": ENTRY}, "4 bytes follow the last tensor; the file is no safetensors file or damaged"),
    ({"x": {**ENTRY, "data_offsets": [8, 16]}}, "x: has the data_offsets [8, 16], expected two "
     "from 0 to 12, the end; the file is cut short, or damaged"),
    ({"x": {**ENTRY, "shape": [3]}}, "x: has 8 bytes, expected 12 for [3] in F32"),
    ({"x": {**ENTRY, "shape": [-2]}, "y": {**ENTRY, "shape": 2}}, "x: has the shape [-2], expected "
     "at most 8 whole numbers, y: has the shape 2, expected at most 8 whole numbers"),
    ({"x": {**ENTRY, "dtype": "F9"}}, "x: has the dtype 'F9', expected one of F64, F32, "
     "F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "expected"), HEADERS, ids=lambda x: str(x)[:40])
def test_a_fault_of_the_header_is_named(
    tmp_path: Path, header: dict[str, Any], expected: str
) -> None:
    path = tmp_path / WEIGHTS
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(12))
    assert message(read_safetensors, path) == f"{path}: {expected}"


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = write_raw(tmp_path / WEIGHTS, {"x": ("F32", (2,), bytes(8))})
    path.write_bytes(path.read_bytes()[:40])
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert message(read_safetensors, path) == (
        f"{path}: has 40 bytes, but its header alone should have {length}; "
        "it is cut short, or no safetensors file"
    )
    path.write_bytes(b"")
    assert message(read_safetensors, path) == f"{path}: is empty"


def test_json_is_read_with_a_byte_order_mark_but_not_with_a_name_twice(tmp_path: Path) -> None:
    path = tmp_path / CONFIG
    path.write_text('{"dim": 24}', "utf-8-sig")
    assert read_json_object(path) == {"dim": 24}
    path.write_text('{"deep": {"dim": 24, "n": 1, "dim": 48}}')
    expected = f"{path}: is not valid JSON: it says 'dim' twice"
    assert message(read_json_object, path) == expected
    path.write_text("[1]")
    assert message(read_json_object, path) == f"{path}: holds a list, expected a JSON object"
    path.write_bytes(b" " * (JSON_LIMIT + 1))
    expected = f"{path}: has over {JSON_LIMIT} bytes, far more than such a file needs"
    assert message(read_json_object, path) == expected


def write_and_fail(path: Path) -> None:
    with replace_file(path) as file:
        file.write(b"half of the n")
        raise KeyError("the disk is full")


def test_a_file_that_could_not_be_written_whole_keeps_its_old_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_and_fail(path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


PRIVATE_BYTES = """
import sys, npbert
def private():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(KINDS))
KINDS = ("Anonymous:", "Swap:")  # a page of a file just written counts as Private_Dirty
npbert.load(sys.argv[1])
before = private()
model = npbert.load(sys.argv[2])
print(private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_loading_takes_no_memory_for_weights_that_are_mapped(tmp_path: Path) -> None:
    weights = prefixed(drawn("for_masked_language_modeling"))
    said = settings("for_masked_language_modeling", vocab_size=600_000)
    small = write(tmp_path / "small", weights, said | {"vocab_size": 60})
    for name, array in weights.items():
        if len(array) == 60:
            weights[name] = np.zeros((600_000, *array.shape[1:]), np.float32)
    del weights["vocab_projector.weight"]
    big = write(tmp_path / "big", weights, said)
    assert (big / WEIGHTS).stat().st_size > 60e6
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.run(
        [sys.executable, "-c", PRIVATE_BYTES, small, big],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    (big / WEIGHTS).unlink()
    assert int(child.stdout) < 10e6
