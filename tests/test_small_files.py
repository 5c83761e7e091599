"""Small files that are hostile, and mutated by the thousand: each ends in a message, quickly.

No crash, no traceback, no hang, no flood of memory, in a process with a limit on it.

NPBERT_MUTATIONS=20000 python -m pytest -m long tests/test_small_files.py
"""

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from endings import COMMANDS, Ending, endings_of, lines, too_fat
from hostile.readers import NO_FILES, NPY, apply, attacks
from hostile.small_files import KINDS, command_of, spoil

import npbert
from npbert.checkpoint.files import parse_npy
from npbert.hub.cache import find_snapshot
from npbert.oracle.dialects import canonical_names
from npbert.oracle.maps import read_map

pytest.importorskip("resource", reason="limits and peak memory are POSIX")

SEED = int(os.environ.get("NPBERT_LONG_SEED", "1"))
MUTATIONS = int(os.environ.get("NPBERT_MUTATIONS", "1000")) // len(KINDS)  # of each kind
BATCH = 100
SECONDS = 2.0  # of processor time
MEGABYTES = 400.0
LETTERS = 20_000

ATTACKS = attacks()


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ending]]:
    """How each attack ended."""
    root = tmp_path_factory.mktemp("attacks")
    for name, kind in KINDS.items():
        (root / name).mkdir()
        kind.make(root / name)
    jobs = []
    homes = {id(kind): root / name for name, kind in KINDS.items()}
    for i, (name, attack) in enumerate(ATTACKS.items()):
        apply(attack, homes[id(attack[0])], root / str(i))
        jobs.append((name, command_of(attack[0], root / str(i))))
    yield endings_of(jobs, COMMANDS)
    shutil.rmtree(root)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_small_file_is_refused_with_a_message(
    endings: dict[str, Ending], name: str
) -> None:
    ending = endings[name]
    assert ending.outcome == "refused", f"{ending}{ending.error}"
    assert ending.seconds <= SECONDS
    assert len(ending.message) < LETTERS


def test_no_hostile_small_file_takes_more_than_400_mb(endings: dict[str, Ending]) -> None:
    assert not too_fat(endings, MEGABYTES)


@pytest.mark.parametrize("what", NO_FILES)
def test_a_ref_of_the_cache_that_is_no_small_file_names_no_commit(
    what: str, tmp_path: Path
) -> None:
    (tmp_path / "refs").mkdir()
    NO_FILES[what](tmp_path / "refs" / "main")
    assert find_snapshot(tmp_path, "main", "") is None


@pytest.mark.parametrize("what", NO_FILES)
def test_a_job_goes_on_beside_a_modules_json_that_its_task_does_not_read(
    what: str, tmp_path: Path
) -> None:
    """A list of modules says nothing to a classifier, but its bytes are of the model."""
    KINDS["config"].make(tmp_path)
    NO_FILES[what](tmp_path / "m" / "modules.json")
    command = ["text-classification", "-m", f"{tmp_path}/m", "good", "-o", f"{tmp_path}/o.jsonl"]
    (ending,) = endings_of([(what, command)], COMMANDS).values()
    if what == "3 GB of nothing":
        assert ending.message == (
            f"npbert: {tmp_path}/m/modules.json: has over 67108864 bytes, far more than such a "
            "file needs\n"
        )
    else:
        assert ending.outcome == "loaded", ending
    assert ending.seconds <= SECONDS
    assert ending.peak_mb <= MEGABYTES


def test_what_an_array_has_to_be_is_said() -> None:
    def message(raw: bytes) -> str:
        with pytest.raises(npbert.CheckpointError) as error:
            parse_npy(memoryview(raw), "x.npy")
        return str(error.value)

    assert message(NPY["10**12 numbers"]) == (
        "x.npy: has 16 bytes, expected 8000000000000 for (1000000000000,) in float64; it is cut "
        "short, or damaged"
    )
    assert message(NPY["objects"]) == "x.npy: has dtype 'object', expected numbers"
    assert message(NPY["fewer than none"]) == (
        "x.npy: has the shape (-1,), expected at most 8 whole numbers"
    )
    assert message(NPY["version 9.9"]) == (
        "x.npy: is no array in the format .npy, version 1.0 or 2.0"
    )


LEGAL = {
    "float16": np.arange(6, dtype=np.float16).reshape(2, 3),
    "of another byte order": np.arange(6, dtype=">f4"),
    "column by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "of no axes": np.array(5.0),
    "of no numbers": np.zeros((0, 7)),
    "of truths": np.array([True, False]),
    "of bytes": np.arange(4, dtype=np.uint8),
}


@pytest.mark.parametrize("name", LEGAL)
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_array_is_read_as_numpy_reads_it(name: str, version: tuple[int, int]) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, LEGAL[name], version)
    found = parse_npy(memoryview(stream.getvalue()), "x.npy")
    np.testing.assert_array_equal(found, LEGAL[name], strict=True)


def test_a_dump_may_be_as_large_as_its_file_and_packed(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=np.zeros(20_000_000))  # 160 MB
    assert npbert.Trace.load(tmp_path / "plain.npz")["x"].shape == (20_000_000,)
    few = {"x": np.random.default_rng(3).normal(size=1000), "padding": np.zeros(1_000_000)}
    np.savez_compressed(tmp_path / "packed.npz", **few)
    found = npbert.Trace.load(tmp_path / "packed.npz")
    assert all(np.array_equal(found[name], x) for name, x in few.items())


def test_a_packed_dump_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(25_000_000))
    size = (tmp_path / "x.npz").stat().st_size
    with pytest.raises(npbert.InputError) as error:
        npbert.Trace.load(tmp_path / "x.npz")
    assert str(error.value) == (
        f"{tmp_path}/x.npz: has {size} bytes and unpacks to 200000128, expected at most 134217728; "
        "if that is meant, write it with np.savez, which does not pack"
    )


@pytest.mark.parametrize("labels", [10, 2**17])
def test_a_head_is_drawn_no_larger_than_the_checkpoint_or_four_million_numbers(
    labels: int, tmp_path: Path
) -> None:
    config = npbert.Config(
        vocab_size=50, hidden_size=64, num_blocks=1, num_attention_heads=4, intermediate_size=64,
        max_positions=64, num_labels=labels,
    )  # fmt: skip
    npbert.init(config, "base").save(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text()) | {"num_labels": labels}
    said = {name: value for name, value in said.items() if "2" not in name}  # id2label, label2id
    (tmp_path / "config.json").write_text(json.dumps(said))
    if labels == 10:
        with pytest.warns(npbert.NpbertWarning, match="drawn at random"):
            model = npbert.load(tmp_path, "for_sequence_classification", strict=False)
        assert model([[1, 2]]).logits.shape == (1, 10)
        return
    with pytest.raises(npbert.CheckpointError) as error:
        npbert.load(tmp_path, "for_sequence_classification", strict=False)
    assert str(error.value) == (
        f"{tmp_path}/model.safetensors: classifier.weight is not in the file, and config.json "
        "gives it the shape (C, D) = (131072, 64): npbert makes at most 4194304 numbers for this "
        "file"
    )


MAPS = {
    "brackets": ("m.json", "[" * 100_000, "m.json: is nested too deeply to be read"),
    "brackets in TOML": ("m.toml", "a = " + "[" * 100_000, "m.toml: "),
    "2 MB": ("m.json", " " * (2 << 20), "m.json: has over 1048576 bytes, far more than such"),
    "a list": ("m.json", "[]", "m.json: expected an object of names, theirs to npbert's"),
    "a number twice": ("m.json", '{"{n}.{n}": "x"}', "the map has the template '{n}.{n}', expe"),
    "a star twice": ("m.json", '{"*/*": "x"}', "the map has the template '*/*', expected {n}"),
    "no letters": ("m.json", b"\xff\xfe", "m.json: is not valid JSON: "),
}


@pytest.mark.parametrize("what", MAPS)
def test_a_map_that_is_none_is_refused(what: str, tmp_path: Path) -> None:
    name, content, message = MAPS[what]
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(npbert.InputError) as error:
        canonical_names(["a"], read_map(str(tmp_path / name)))
    assert message in str(error.value)


def test_a_name_with_a_number_of_many_digits_is_a_name() -> None:
    name = f"transformer.layer.{'9' * 5000}.ffn"
    assert canonical_names([name], {"transformer.layer.{n}.ffn": "x.{n}"}) == {name: name}


def test_a_module_must_fit_the_one_before_it(tmp_path: Path) -> None:
    KINDS["modules"].make(tmp_path)
    path = tmp_path / "m" / "modules.json"
    modules = json.loads(path.read_text())
    path.write_text(json.dumps([*modules[:3], modules[2]]))
    with pytest.raises(npbert.CheckpointError) as error:
        npbert.pipeline("sentence-embedding", tmp_path / "m")
    assert str(error.value) == (
        f"{tmp_path}/m/2_Dense/config.json: works on vectors of 24 features, but the module before "
        "it makes 13"
    )


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_a_mutated_small_file_ends_in_an_answer_or_in_an_error_of_npbert(
    name: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    healthy = tmp_path / "healthy"
    healthy.mkdir()
    kind.make(healthy)
    bad = []
    for start in range(0, MUTATIONS, BATCH):
        jobs = []
        for i in range(start, min(start + BATCH, MUTATIONS)):
            spoil(kind, healthy, tmp_path / str(i), (SEED, i))
            jobs.append((f"{name} {i}", command_of(kind, tmp_path / str(i))))
        endings = endings_of(jobs, COMMANDS)
        bad += [
            ending
            for ending in endings.values()
            if ending.outcome not in ("loaded", "refused") or ending.seconds > SECONDS
        ]
        assert not too_fat(endings, MEGABYTES)
        assert len(endings) == len(jobs)
        for i in range(start, min(start + BATCH, MUTATIONS)):
            shutil.rmtree(tmp_path / str(i))
    assert not bad, lines(bad)


@pytest.mark.parametrize("name", KINDS)
def test_the_small_files_to_spoil_are_sound(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    kind.make(tmp_path)
    (ending,) = endings_of([(name, command_of(kind, tmp_path))], COMMANDS).values()
    assert ending.outcome == "loaded", f"{ending.error}{ending.message}"
