"""pytorch_model.bin to tensors, in both formats of torch.save, without torch and running nothing.

A file of either format holds one pickle, which says what the tensors are, and the numbers beside
it: in entries of a zip archive that are stored as they are, or, before torch 1.6, one after the
other.  The pickle is read by pickle_opcodes.py; the numbers are mapped and not copied.
"""

import io
import math
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

from npbert import _import_lock
from npbert.checkpoint.files import BYTES, MappedFile, Tensor, map_file
from npbert.checkpoint.pickle_opcodes import Known, PickledName, Reader, describe_kind
from npbert.errors import CheckpointError, listing, quote

PICKLE_LIMIT: Final = 512 << 10  # bytes; a DistilBERT's has about 20,000
MAGIC: Final = 0x1950A86A20F9469CFC6C  # how a file of the older format begins
PROTOCOL: Final = 1001
MOST_AXES: Final = 8
SLACK: Final = 1 << 20  # bytes that expanded tensors may take beyond those in the file
STORAGES: Final = {
    "torch DoubleStorage": "F64", "torch FloatStorage": "F32", "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16", "torch LongStorage": "I64", "torch IntStorage": "I32",
    "torch ShortStorage": "I16", "torch CharStorage": "I8", "torch ByteStorage": "U8",
    "torch BoolStorage": "BOOL",
}  # fmt: skip
IMPOSTORS: Final = {
    b"<": "is a page of the web, not the file itself; download it again",
    b"{": "is JSON, no file of tensors",
}


class Storage(NamedTuple):
    """Numbers that lie in a row somewhere in the file."""

    dtype: str  # as safetensors spells it
    key: str
    numel: int


class View(NamedTuple):
    """A tensor: which numbers of a storage, counted in numbers and not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def reach(self) -> int:
        """Return how many numbers lie from the first to behind the last; 0 where there are none."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))

    def is_contiguous(self) -> bool:
        """Tell whether the numbers lie in the order of the rows, as in safetensors."""
        step = 1
        for n, stride in zip(self.shape[::-1], self.strides[::-1], strict=True):
            if n > 1 and stride != step:
                return False
            step *= n
        return True

    def fault(self) -> str | None:
        """Return what is wrong with it, or None."""
        if min((self.offset, *self.shape, *self.strides)) < 0:
            return "has a size, a stride or an offset below 0"
        if (reach := self.reach()) and self.offset + reach > self.storage.numel:
            return (
                f"reaches to number {quote(self.offset + reach)} of its storage, which has "
                f"{self.storage.numel}"
            )
        return None

    def nbytes(self) -> int:
        """Return how many bytes it takes, written on its own."""
        return math.prod(self.shape) * BYTES[self.storage.dtype]


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Map a file that torch.save wrote and check all that it says.  Raises CheckpointError."""
    file = map_file(path, Bounded)
    content = memoryview(file)
    head = bytes(content[:262])
    for beginning, what in IMPOSTORS.items():
        if head.startswith(beginning):
            raise CheckpointError(f"{path}: {what}")
    if head.endswith(b"ustar"):
        raise CheckpointError(
            f"{path}: is a tar archive, as torch before 0.2 wrote; save it with a newer one"
        )
    if head.startswith(b"PK\x03\x04"):
        views, numbers = read_zip(file, content, path)
    else:
        views, numbers = read_legacy(content, path)
    faults = [f"{quote(name)} {fault}" for name, view in views.items() if (fault := view.fault())]
    if faults:
        raise CheckpointError(f"{path}: {listing(faults)}")
    if (total := sum(view.nbytes() for view in views.values())) > 2 * len(content) + SLACK:
        raise CheckpointError(
            f"{path}: its tensors take {quote(total)} bytes, more than twice its own; tied ones "
            "explain a part of that, not all"
        )
    cuts: dict[tuple[str, int, int], memoryview] = {}  # tied tensors get the very same
    tensors = {}
    for name, view in views.items():
        (dtype, key, _), item = view.storage, BYTES[view.storage.dtype]
        start, stop = view.offset * item, (view.offset + view.reach()) * item
        cut = cuts.setdefault((key, start, stop), numbers[key][start:stop])
        strides = None if view.is_contiguous() else tuple(item * stride for stride in view.strides)
        tensors[name] = Tensor(dtype, view.shape, path, cut, strides)
    return tensors


class Interpreter(Reader):
    """What torch.save's pickles mean."""

    def __init__(self, path: Path) -> None:
        rebuilders: Known = {
            "collections OrderedDict": make_dict,
            "torch._utils _rebuild_tensor": rebuild_tensor,
            "torch._utils _rebuild_tensor_v2": rebuild_tensor,
            "torch._utils _rebuild_parameter": parameter,
        }
        super().__init__(str(path), {**rebuilders, **dict.fromkeys(STORAGES)}, self.storage)
        self.storages: dict[str, Storage] = {}

    def storage(self, identity: Any) -> Storage:
        """Return what a persistent id stands for: ("storage", its type, key, device, numel)."""
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise ValueError(f"finds {describe_kind(identity)}, expected the five of a storage")
        _, name, key, _, numel = identity[:5]
        if type(name) is not PickledName or name not in STORAGES or type(key) is not str:
            raise ValueError(
                f"finds {describe_kind(name)} and {describe_kind(key)}, expected a storage and "
                "its key"
            )
        if type(numel) is not int or numel < 0:
            raise ValueError(f"has a storage of {quote(numel)} numbers")
        if identity[5:] not in ((), (None,)):
            raise ValueError("has a storage that is part of another, as torch before 0.4 wrote")
        made = Storage(STORAGES[name], key, numel)
        if self.storages.setdefault(key, made) != made:
            raise ValueError(f"has two storages {quote(key)}")
        return made


def make_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Return an empty dict, which every dict is by now."""
    if arguments:
        raise ValueError(
            f"makes an OrderedDict of {describe_kind(arguments)}, expected an empty one"
        )
    return {}


def rebuild_tensor(arguments: tuple[Any, ...]) -> View:
    """Return a tensor: storage, offset, shape, strides, and what training needs."""
    storage, offset, shape, strides = (*arguments[:4], *[None] * 4)[:4]
    parts = (storage, offset, shape, strides)
    if list(map(type, parts)) != [Storage, int, tuple, tuple]:
        raise ValueError(f"makes a tensor of {', '.join(map(describe_kind, parts))}")
    if len(shape) > MOST_AXES or len(shape) != len(strides):
        raise ValueError(f"makes a tensor of {len(shape)} sizes and {len(strides)} strides")
    if not all(type(n) is int for n in (*shape, *strides)):
        raise ValueError("makes a tensor whose shape or strides are no whole numbers")
    if len(arguments) > 7 or any(map(is_filled, arguments[5:])):  # hooks; conjugate or negative
        raise ValueError("makes a tensor with hooks or flags, which npbert does not know")
    return View(storage, offset, shape, strides)


def is_filled(value: Any) -> bool:
    """Tell whether a value is anything but an empty dict or None."""
    return value is not None and not (type(value) is dict and not value)


def parameter(arguments: tuple[Any, ...]) -> View:
    """Return the tensor that a parameter is: data, requires_grad, hooks."""
    if len(arguments) != 3 or type(arguments[0]) is not View or is_filled(arguments[2]):
        raise ValueError(
            f"makes a parameter of {describe_kind(arguments)}, expected a tensor and two more"
        )
    return arguments[0]


def flatten_tensors(value: Any, path: Path) -> dict[str, View]:
    """Return the tensors by name, if that is what a pickle holds.  Raises CheckpointError."""
    if type(value) is not dict or not value:
        raise CheckpointError(f"{path}: holds {describe_kind(value)}, expected tensors by name")
    odd = [key for key, found in value.items() if type(key) is not str or type(found) is not View]
    if odd:
        inside = [
            key
            for key in odd[:8]
            if (found := value[key]) and type(found) is dict
            if all(type(v) is View for v in found.values())
        ]
        hint = (
            f"; the weights seem to be inside {quote(inside[0])}: save that alone, "
            f"torch.save(torch.load(...)[{quote(inside[0])}], ...)"
            if inside
            else ""
        )
        said = [f"{quote(key)} is {describe_kind(value[key])}" for key in odd]
        raise CheckpointError(f"{path}: holds more than tensors: {listing(said, 4)}{hint}")
    return value


def read_zip(
    file: "Bounded", content: memoryview, path: Path
) -> tuple[dict[str, View], dict[str, memoryview]]:
    """Return the tensors of an archive, and the bytes of their storages by key."""
    entries = read_directory(file, content, path)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path}: is a zip archive of {listing(entries, 4) or 'nothing'}, expected one with "
            "one data.pkl, as torch.save writes it"
        )
    top = pickles[0].removesuffix("data.pkl")
    astray = [
        quote(name) for name in entries if not name.startswith(top) or ".." in name.split("/")
    ]
    if astray:
        raise CheckpointError(f"{path}: has entries outside of {quote(top)}: {listing(astray, 4)}")
    order = bytes(entries.get(f"{top}byteorder", memoryview(b"little"))[:16])
    if order != b"little":
        raise CheckpointError(f"{path}: its byteorder is {quote(order)}, expected little")
    if len(entries[pickles[0]]) > PICKLE_LIMIT:
        raise CheckpointError(
            f"{path}: has a pickle of {len(entries[pickles[0]])} bytes, expected at most "
            f"{PICKLE_LIMIT}"
        )
    interpreter, stream = Interpreter(path), io.BytesIO(entries[pickles[0]])
    views = flatten_tensors(interpreter.read(stream), path)
    faults, numbers = [], {}
    for key, storage in interpreter.storages.items():
        found, need = entries.get(f"{top}data/{key}"), storage.numel * BYTES[storage.dtype]
        if found is None:
            faults.append(f"storage {quote(key)} is missing")
        elif len(found) != need:
            faults.append(f"storage {quote(key)} has {len(found)} bytes, expected {quote(need)}")
        else:
            numbers[key] = found
    if faults:
        raise CheckpointError(f"{path}: {listing(faults)}")
    return views, numbers


def read_legacy(content: memoryview, path: Path) -> tuple[dict[str, View], dict[str, memoryview]]:
    """Return the tensors of a file of torch before 1.6, and the bytes of their storages by key."""
    if bytes(content[:1]) != b"\x80":
        raise CheckpointError(f"{path}: is no file of torch.save, in neither of its formats")
    interpreter, stream = Interpreter(path), io.BytesIO(content[:PICKLE_LIMIT])
    magic = interpreter.read(stream)
    if type(magic) is not int or magic != MAGIC:
        raise CheckpointError(
            f"{path}: is a pickle of {describe_kind(magic)}, no file of torch.save"
        )
    protocol, system = interpreter.read(stream), interpreter.read(stream)
    if type(protocol) is not int or protocol != PROTOCOL or type(system) is not dict:
        raise CheckpointError(f"{path}: says another protocol than {PROTOCOL}, torch.save's")
    if system.get("little_endian") is not True:
        raise CheckpointError(f"{path}: was written on a big-endian machine, expected little")
    views, keys = flatten_tensors(interpreter.read(stream), path), interpreter.read(stream)
    told = [key for key in keys if type(key) is str] if type(keys) is list else []
    if sorted(told) != sorted(interpreter.storages) or len(told) != len(keys):
        raise CheckpointError(f"{path}: does not list the storages that its tensors lie in")
    at, numbers = stream.tell(), {}
    for key in told:
        storage = interpreter.storages[key]
        said, end = int.from_bytes(content[at : at + 8], "little", signed=True), at + 8
        end += storage.numel * BYTES[storage.dtype]
        if said != storage.numel or end > len(content):
            raise CheckpointError(
                f"{path}: storage {quote(key)} should have {quote(storage.numel)} numbers, but "
                f"says {said}, and {len(content) - at} bytes are left; the file is cut or damaged"
            )
        numbers[key], at = content[at + 8 : end], end
    if at < len(content):
        raise CheckpointError(f"{path}: {len(content) - at} bytes follow the last storage")
    return views, numbers


DIRECTORY_LIMIT: Final = 1 << 20  # bytes of an archive's directory; a DistilBERT's has 12,000


class Bounded(MappedFile):
    """A mapped file that is never read but in small pieces: zipfile reads a directory whole."""

    def seekable(self) -> bool:
        """Tell that one can go to any place in it, as an mmap says from Python 3.13 on."""
        return True

    def read(self, n: int | None = None) -> bytes:
        rest = self.size() - self.tell()
        n = rest if n is None or n < 0 else min(n, rest)
        if n > DIRECTORY_LIMIT:
            raise ValueError(f"its directory has {n} bytes, expected at most {DIRECTORY_LIMIT}")
        return super().read(n)


def read_directory(file: Bounded, content: memoryview, path: Path) -> dict[str, memoryview]:
    """Return the bytes of all entries of a zip archive, none of which may be packed or overlap."""
    with _import_lock:
        from zipfile import ZIP_STORED, BadZipFile, ZipFile  # slow to import; only a .bin needs it

    try:
        with ZipFile(cast("BinaryIO", file)) as archive:  # it can all that reading takes
            entries_in_order = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    except (BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError) as error:
        raise CheckpointError(
            f"{path}: begins as a zip archive, but is none: {error}; it is cut short, or damaged"
        ) from None
    entries: dict[str, memoryview] = {}
    faults, end = [], 0
    for entry in entries_in_order:
        head = bytes(content[entry.header_offset :][:30])
        start = entry.header_offset + 30 + int.from_bytes(head[26:28], "little")
        start += int.from_bytes(head[28:30], "little")
        if entry.compress_type != ZIP_STORED or entry.compress_size != entry.file_size:
            fault = "is compressed, which torch.save never does, but TorchScript"
        elif entry.flag_bits & 1:
            fault = "is encrypted"
        elif stat.S_ISLNK(entry.external_attr >> 16):
            fault = "is a link"
        elif entry.filename in entries:
            fault = "is there twice"
        elif head[:4] != b"PK\x03\x04" or start + entry.file_size > len(content):
            fault = "lies outside of the file"
        elif entry.header_offset < end:
            fault = "overlaps the entry before it"
        else:
            end = start + entry.file_size
            entries[entry.filename] = content[start:end]
            continue
        faults.append(f"{quote(entry.filename)} {fault}")
    if faults:
        raise CheckpointError(f"{path}: {listing(faults, 4)}")
    return entries
