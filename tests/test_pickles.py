"""What torch.save wrote is what safetensors wrote, bit for bit, and nothing in it ever runs."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import same
from corruption.checkpoint import CONFIG, PICKLE, WEIGHTS
from corruption.random import bin_of
from hostile.archives import overlapping, sparse_directory
from hostile.assembly import FLOAT, dictionary, legacy, tensor, value, wrapped, zipped

import npbert
from npbert import CheckpointError, InputError
from npbert.checkpoint.files import (
    BYTES,
    FLOATS,
    Tensor,
    read_safetensors,
    write_safetensors,
)
from npbert.checkpoint.folders import convert, read_tensors
from npbert.checkpoint.pickles import read_pickle
from npbert.cli import main

BINS = Path(__file__).parent.parent / "golden" / "bins"
TASKS = BINS.parent / "tasks"
TWINS = {
    "zip.bin": "twins/float32.safetensors",
    "legacy.bin": "twins/float32.safetensors",
    "transposed.bin": "twins/float32.safetensors",
    "parameters.bin": "twins/float32.safetensors",
    "shards": "twins/float32.safetensors",
    "float16.bin": "twins/float16.safetensors",
    "bfloat16.bin": "twins/bfloat16.safetensors",
    "every.bin": "twins/every.safetensors",
    "every-legacy.bin": "twins/every.safetensors",
}
MODELS = [name for name in TWINS if not name.startswith("every")]
WORDS, PROJECTOR = "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"


def read(name: str) -> dict[str, Tensor]:
    return read_pickle(BINS / name) if name.endswith(".bin") else read_tensors(BINS / name)


def folder_of(name: str, tmp_path: Path) -> Path:
    """A model's folder around a recorded file."""
    folder = tmp_path / "model"
    if (BINS / name).is_dir():
        shutil.copytree(BINS / name, folder)
    else:
        folder.mkdir(parents=True)
        shutil.copy(BINS / "shards" / CONFIG, folder)
        shutil.copy(BINS / name, folder / (PICKLE if name.endswith(".bin") else WEIGHTS))
    return folder


def bits(tensors: dict[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (t.dtype, t.shape, t.to_bytes()) for name, t in tensors.items()}


def test_every_recorded_file_has_a_twin_here() -> None:
    there = {p.name for p in BINS.iterdir() if p.name != "twins"}
    assert there == set(TWINS)


@pytest.mark.parametrize("name", TWINS)
def test_a_file_of_torch_holds_what_its_twin_holds(name: str) -> None:
    ours, twins = read(name), read_safetensors(BINS / TWINS[name])
    assert len(twins) >= 20
    assert bits(ours) == bits(twins)
    for name_of_one, one in ours.items():
        if one.dtype in FLOATS:
            for dtype in (np.float32, np.float64):
                array, expected = one.array(dtype), twins[name_of_one].array(dtype)
                assert array.tobytes() == expected.tobytes()
                assert array.flags.c_contiguous
                assert array.flags.aligned


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_torch_loads_as_its_twin_does(name: str, tmp_path: Path) -> None:
    ours = npbert.load(folder_of(name, tmp_path))
    twin = npbert.load(folder_of(TWINS[name], tmp_path / "twin"))
    assert same(ours.parameters, twin.parameters)
    assert ours.load_report == twin.load_report


def test_what_lies_in_order_is_a_view_of_the_file_and_tied_tensors_are_one() -> None:
    tensors = read("zip.bin")
    arrays = {name: one.array(np.float32) for name, one in tensors.items()}
    for name, array in arrays.items():
        assert np.shares_memory(array, np.frombuffer(tensors[name].content, np.uint8))
        assert not array.flags.writeable
    assert tensors[WORDS].content is tensors[PROJECTOR].content


# ---- what is refused, and in which words --------------------------------------------------------


def message(content: bytes, tmp_path: Path) -> str:
    path = tmp_path / PICKLE
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_pickle(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


SOUND = dictionary(a=tensor())
HURT = "its pickle is damaged or hostile: at byte "
NAMED = "which no tensor needs; it may be hostile, and other programs would run what it says"
MESSAGES = [
    (b"", "is empty"),
    (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, which stands for a "
     "file that was not downloaded; run git lfs pull in its folder, or load the model by its name "
     "on the hub"),
    (b"<!doctype html>", "is a web page, which a server sent in place of the file; download the "
     "file itself (on the hub: resolve, not blob, in its address)"),
    (b"hello", "is no file of torch.save, in neither of its formats"),
    (bytes(257) + b"ustar", "is a tar archive, as torch before 0.2 wrote; save it with a newer "
     "one"),
    (pickle.dumps([1, 2], 2), "is a pickle of a list of 2, no file of torch.save"),
    (zipped(b"\x80\x02cposix\nsystem\n."), f"its pickle asks for posix.system, {NAMED}"),
    (zipped(b"\x80\x02" + "c\u03bfs\nsystem\n.".encode()), f"its pickle asks for \\u03bfs.system, "
     f"{NAMED}"),
    (zipped(b"\x80\x02ctransformers.x\nModel\n."), "its pickle asks for transformers.x.Model, "
     "which no tensor needs; a whole model was saved, and only its state_dict() can be read"),
    (zipped(b"\x80\x02ios\nsystem\n."), f"{HURT}2, INST: torch.save writes this for no "
     "tensor"),
    (zipped(b"\x80\x02K"), f"{HURT}2, BININT1: not enough data in stream to read uint1"),
    (zipped(b"\x80\x02K\x05"), "its pickle has no end within 4 bytes; it is cut short, or far "
     "longer than one of tensors"),
    (zipped(b"\x80\x09."), f"{HURT}0, PROTO: expected one of the protocols to 5, not 9"),
    (zipped(b"\x80\x02h\x05."), f"{HURT}2, BINGET: there is no value 5"),
    (zipped(b"\x80\x02}}u."), f"{HURT}4, SETITEMS: finds no value to work on"),
    (zipped(b"\x80\x02}K\x01K\x02K\x03."), f"{HURT}9, STOP: leaves values over"),
    (zipped(b"\x80\x02]K\x01s."), f"{HURT}5, SETITEM: finds no value to work on"),
    (zipped(wrapped(b"}", b")", b"K\x01", b"s")), f"{HURT}6, SETITEM: has a tuple of 0 for a key, "
     "expected a string"),
    (zipped(wrapped(b"}", b"X\1\0\0\0a", b"N", b"s") [:-1] + b"X\1\0\0\0aNs."), f"{HURT}18, "
     "SETITEM: says 'a' twice"),
    (zipped(wrapped(b"K\x05)R")), f"{HURT}5, REDUCE: calls an int"),
    (zipped(wrapped(FLOAT + b")R")), f"{HURT}23, REDUCE: calls the name torch.FloatStorage"),
    (zipped(wrapped(b"K\x05Q")), f"{HURT}4, BINPERSID: finds an int, expected the five of a "
     "storage"),
    (zipped(b"\x80\x02]."), "holds a list of 0, expected tensors by name"),
    (zipped(b"\x80\x02}."), "holds a dict of 0, expected tensors by name"),
    (zipped(dictionary(state_dict=dictionary(a=tensor())[2:-1], epoch=b"K\x07")), "holds more "
     "than tensors: 'state_dict' is a dict of 1, 'epoch' is an int; the weights seem to be inside "
     "'state_dict': save that alone, torch.save(torch.load(...)['state_dict'], ...)"),
    (zipped(dictionary(a=tensor(shape=(7,)), b=tensor(offset=-1))), "'a' reaches to number 7 of "
     "its storage, which has 6, 'b' has a size, a stride or an offset below 0"),
    (zipped(dictionary(a=tensor(shape=(2**40,), strides=(0,)))), "its tensors take 4398046511104 "
     "bytes, more than twice its own; tied ones explain a part of that, not all"),
    (zipped(dictionary(a=tensor(shape=(1, 2), strides=(1,)))), f"{HURT}141, REDUCE: makes a tensor "
     "of 2 sizes and 1 strides"),
    (zipped(dictionary(a=tensor(key="7"))), "storage '7' is missing"),
    (zipped(dictionary(a=tensor(numel=7))), "storage '0' has 24 bytes, expected 28"),
    (zipped(dictionary(a=tensor(), b=tensor(numel=5))), f"{HURT}230, BINPERSID: has two storages "
     "'0'"),
    (zipped(SOUND, {"byteorder": b"big"}), "its byteorder is b'big', expected little"),
    (zipped(SOUND, packed=True), "'archive/data.pkl' is compressed, which torch.save never does, "
     "but TorchScript, 'archive/data/0' is compressed, which torch.save never does, but "
     "TorchScript"),
    (zipped(SOUND, {"../../x": b""}), "has entries outside of 'archive/': 'archive/../../x'"),
    (zipped(SOUND)[:-1], "begins as a zip archive, but is none: File is not a zip file; it is cut "
     "short, or damaged"),
    (overlapping(), "'archive/data/0' overlaps the entry before it"),
    (sparse_directory(), "begins as a zip archive, but is none: its directory has 8000000 bytes, "
     "expected at most 1048576; it is cut short, or damaged"),
    (zipped(dictionary(a=tensor(hooks=value({"a": 1})))), f"{HURT}123, REDUCE: makes a tensor "
     "with hooks or flags, which npbert does not know"),
    (legacy(SOUND)[:-1], "storage '0' should have 6 numbers, but says 6, and 31 bytes are left; "
     "the file is cut or damaged"),
    (legacy(SOUND) + b"x", "1 bytes follow the last storage"),
    (legacy(SOUND, keys=("1",)), "does not list the storages that its tensors lie in"),
    (legacy(SOUND, little=False), "was written on a big-endian machine, expected little"),
    (legacy(SOUND, protocol=7), "says another protocol than 1001, torch.save's"),
    (legacy(SOUND, numel=2**62), "storage '0' should have 6 numbers, but says "
     "4611686018427387904, and 32 bytes are left; the file is cut or damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), MESSAGES, ids=lambda x: str(x)[:40])
def test_a_fault_of_a_file_is_told(content: bytes, expected: str, tmp_path: Path) -> None:
    assert message(content, tmp_path) == expected


@pytest.mark.parametrize("make", [zipped, legacy])
def test_files_made_by_hand_are_sound_before_they_are_spoilt(make, tmp_path: Path) -> None:
    (tmp_path / PICKLE).write_bytes(make(SOUND))
    tensors = read_pickle(tmp_path / PICKLE)
    assert tensors["a"].array(np.float32).tolist() == [0, 1, 2, 3, 4, 5]


def test_what_has_no_numbers_may_begin_anywhere(tmp_path: Path) -> None:
    (tmp_path / PICKLE).write_bytes(zipped(dictionary(a=tensor(shape=(0,), offset=9))))
    assert read_pickle(tmp_path / PICKLE)["a"].array(np.float32).shape == (0,)


def test_each_pickle_of_an_older_file_has_a_memo_of_its_own(tmp_path: Path) -> None:
    system = wrapped(b"}\x94(", value("little_endian"), b"\x88u")
    pickled = dictionary(a=tensor(key=value("0") + b"\x94"), b=tensor(key=b"h\x00"))
    (tmp_path / PICKLE).write_bytes(legacy(pickled, system=system))
    assert set(read_pickle(tmp_path / PICKLE)) == {"a", "b"}


# ---- convert ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_has_the_same_bits_names_and_dtypes(name: str, tmp_path: Path) -> None:
    source = folder_of(name, tmp_path)
    (source / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    target = tmp_path / "there" / "new"
    written = convert(source, target)
    assert (
        {path.relative_to(target).as_posix() for path in written}
        == {p.name for p in target.iterdir()}
        == {WEIGHTS, CONFIG, "vocab.txt"}
    )
    before, after = bits(read(name)), bits(read_safetensors(target / WEIGHTS))
    if name != "transposed.bin":  # each of the two was turned on its own
        assert before.pop(PROJECTOR) == after[WORDS]
    assert after == before
    assert same(npbert.load(target).parameters, npbert.load(source).parameters)
    assert (target / CONFIG).read_bytes() == (source / CONFIG).read_bytes()


def test_the_safetensors_package_reads_what_was_converted(tmp_path: Path) -> None:
    from safetensors import safe_open

    convert(folder_of("zip.bin", tmp_path), tmp_path / "new")
    with safe_open(tmp_path / "new" / WEIGHTS, "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor(WORDS).shape == (29, 8)


def test_every_dtype_is_written_where_a_processor_likes_it(tmp_path: Path) -> None:
    before = read("every.bin")
    with (tmp_path / WEIGHTS).open("wb") as file:
        write_safetensors(file, before)
    after = read_safetensors(tmp_path / WEIGHTS)
    assert bits(after) == bits(before)
    for one in after.values():
        if one.content:
            assert np.frombuffer(one.content, f"u{BYTES[one.dtype]}").flags.aligned


def test_without_a_target_the_file_comes_beside_the_old_one_and_only_once(tmp_path: Path) -> None:
    source = folder_of("legacy.bin", tmp_path)
    assert convert(source) == [source / WEIGHTS]
    with pytest.raises(InputError) as caught:
        convert(source)
    assert str(caught.value) == (
        f"{source}: there is nothing to convert, it is safetensors already"
    )


def test_nothing_is_replaced_and_a_broken_model_leaves_nothing_behind(tmp_path: Path) -> None:
    source, target = folder_of("zip.bin", tmp_path), tmp_path / "new"
    target.mkdir()
    (target / WEIGHTS).write_text("mine")
    with pytest.raises(InputError) as caught:
        convert(source, target)
    assert str(caught.value) == f"{target / WEIGHTS}: there already, and nothing is replaced"
    assert [(p.name, p.read_text()) for p in target.iterdir()] == [(WEIGHTS, "mine")]
    content = (source / PICKLE).read_bytes()
    (source / PICKLE).write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        convert(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_modules_of_a_sentence_transformer_are_converted_too(tmp_path: Path) -> None:
    source, target = tmp_path / "old", tmp_path / "new"
    shutil.copytree(TASKS / "st_dense", source)
    dense = source / "2_Dense"
    expected = npbert.pipeline("sentence-embedding", source)(["a b", "c"])
    for folder in (source, dense):
        content = bin_of((folder / WEIGHTS).read_bytes(), "zip")
        (folder / PICKLE).write_bytes(content)
        (folder / WEIGHTS).unlink()
    assert np.array_equal(npbert.pipeline("sentence-embedding", source)(["a b", "c"]), expected)
    convert(source, target)
    there = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    made = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert made == {name.replace(PICKLE, WEIGHTS) for name in there}
    assert np.array_equal(npbert.pipeline("sentence-embedding", target)(["a b", "c"]), expected)


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys) -> None:
    source = folder_of("zip.bin", tmp_path)
    assert main(["convert", str(source)]) == 0
    size = (source / WEIGHTS).stat().st_size
    assert capsys.readouterr().out == f"{source / WEIGHTS}  {size:,}\n"
    assert main(["convert", str(source)]) == 2
    assert main(["convert", str(tmp_path)]) == 3
