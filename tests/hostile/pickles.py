"""Hostile pytorch_model.bin files, made by code: what they call, how, and in which container.

Whatever runs leaves a file called `executed`, or is gone with what it was to spoil.
"""

import struct
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from hostile.archives import ARCHIVES
from hostile.assembly import (
    FLOAT,
    NUMBERS,
    ORDERED,
    PARAMETER,
    bare,
    dictionary,
    legacy,
    name,
    storage,
    tensor,
    value,
    wrapped,
    zipped,
)

TOUCH, WRITE = "touch executed", "open('executed', 'w')"

# module, name: the arguments that would do harm
CALLS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("os", "system"): (TOUCH,),
    ("posix", "system"): (TOUCH,),
    ("nt", "system"): (TOUCH,),
    ("os", "popen"): (TOUCH,),
    ("os", "mkdir"): ("executed",),
    ("os", "_exit"): (0,),
    ("os", "kill"): (0, 9),
    ("posix", "mkdir"): ("executed",),
    ("subprocess", "Popen"): (["touch", "executed"],),
    ("subprocess", "call"): (["touch", "executed"],),
    ("subprocess", "check_output"): (["touch", "executed"],),
    ("subprocess", "getoutput"): (TOUCH,),
    ("builtins", "eval"): (WRITE,),
    ("builtins", "exec"): (WRITE,),
    ("__builtin__", "eval"): (WRITE,),
    ("builtins", "compile"): (WRITE, "x", "exec"),
    ("builtins", "getattr"): (name("os", "path"), "exists"),
    ("builtins", "__import__"): ("antigravity",),
    ("builtins", "open"): ("executed", "w"),
    ("builtins", "bytearray"): (10**12,),
    ("builtins", "print"): ("executed",),
    ("io", "open"): ("executed", "w"),
    ("_io", "FileIO"): ("executed", "w"),
    ("codecs", "open"): ("executed", "w"),
    ("pathlib", "Path.touch"): ("executed",),
    ("importlib", "import_module"): ("antigravity",),
    ("runpy", "_run_code"): (WRITE, {}),
    ("runpy", "run_path"): ("executed",),
    ("pty", "spawn"): (["touch", "executed"],),
    ("ctypes", "CDLL"): ("libc.so.6",),
    ("shutil", "rmtree"): (".",),
    ("shutil", "copyfile"): ("config.json", "executed"),
    ("socket", "socket"): (),
    ("socket", "create_connection"): (("localhost", 9),),
    ("urllib.request", "urlopen"): ("http://localhost:9/",),
    ("webbrowser", "open"): ("http://localhost:9/",),
    ("torch", "load"): ("pytorch_model.bin",),
    ("torch.hub", "load"): ("a/b", "c"),
    ("torch.jit", "load"): ("pytorch_model.bin",),
    ("torch.serialization", "load"): ("pytorch_model.bin",),
    ("numpy", "load"): ("pytorch_model.bin", None, True),
    ("numpy.core.multiarray", "_reconstruct"): ((0,), b"N", "b"),
    ("functools", "partial"): (name("os", "system"), TOUCH),
    ("operator", "methodcaller"): ("system", TOUCH),
    ("operator", "attrgetter"): ("system",),
    ("types", "FunctionType"): (None, {}),
    ("types", "CodeType"): (0,),
    ("code", "interact"): (),
    ("pickle", "loads"): ("cos\nsystem\n.",),
    ("_pickle", "loads"): ("cos\nsystem\n.",),
    ("marshal", "loads"): ("N",),
    ("pip", "main"): (["install", "executed"],),
    ("timeit", "timeit"): (WRITE,),
    ("cProfile", "run"): (WRITE,),
    ("pdb", "run"): (WRITE,),
    ("pydoc", "locate"): ("antigravity",),
    ("atexit", "register"): (name("os", "system"), TOUCH),
    ("faulthandler", "_sigsegv"): (),
    ("signal", "raise_signal"): (9,),
    ("threading", "Thread"): (None, name("os", "system")),
    ("sys", "exit"): (0,),
    ("\u03bfs", "system"): (TOUCH,),  # a Greek omicron
    ("os", "syst\u0435m"): (TOUCH,),  # a Cyrillic ie
    ("torch._utils", "_rebuild_tens\u043er_v2"): (TOUCH,),
    ("collections", "OrderedDict "): (),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"): (),
}

Way = Callable[[str, str, tuple[Any, ...]], bytes]


def called(module: str, attribute: str, arguments: tuple[Any, ...]) -> bytes:
    """The plainest of all ways, as a part of others."""
    return name(module, attribute) + value(arguments) + b"R"


def pushed(arguments: tuple[Any, ...]) -> bytes:
    return b"".join(map(value, arguments))


WAYS: dict[str, Way] = {
    "GLOBAL, REDUCE": lambda m, n, a: wrapped(called(m, n, a)),
    "STACK_GLOBAL, REDUCE": lambda m, n, a: wrapped(
        value(m), value(n), b"\x93", value(a), b"R", protocol=4
    ),
    "INST": lambda m, n, a: wrapped(b"(", pushed(a), f"i{m}\n{n}\n".encode()),
    "OBJ": lambda m, n, a: wrapped(b"(", name(m, n), pushed(a), b"o"),
    "NEWOBJ": lambda m, n, a: wrapped(name(m, n), value(a), b"\x81"),
    "NEWOBJ_EX": lambda m, n, a: wrapped(name(m, n), value(a), b"}\x92", protocol=4),
    "inside of BUILD": lambda m, n, a: wrapped(
        ORDERED, b")R}", value("_metadata"), called(m, n, a), b"sb"
    ),
    "beside tensors": lambda m, n, a: dictionary(a=tensor(), b=called(m, n, a), c=tensor()),
    "for a tensor, uncalled": lambda m, n, a: dictionary(a=tensor(), b=name(m, n)),
    "for a persistent id": lambda m, n, a: dictionary(a=called(m, n, a) + b"Q"),
    "for a storage's type": lambda m, n, a: dictionary(a=tensor(kind=name(m, n))),
    "for a storage's key": lambda m, n, a: dictionary(a=tensor(key=called(m, n, a))),
    "for a tensor's storage": lambda m, n, a: dictionary(a=tensor(within=called(m, n, a))),
    "for a tensor's hooks": lambda m, n, a: dictionary(a=tensor(hooks=called(m, n, a))),
    "for a parameter's data": lambda m, n, a: dictionary(
        a=PARAMETER + value((called(m, n, a), False, ORDERED + b")R")) + b"R"
    ),
    "for an OrderedDict's items": lambda m, n, a: wrapped(ORDERED, value((called(m, n, a),)), b"R"),
    "by way of torch._utils": lambda m, n, a: wrapped(called("torch._utils", f"{m}.{n}", a)),
    "by way of collections": lambda m, n, a: wrapped(
        called("collections", f"_sys.modules.{m}.{n}", a)
    ),
    "fetched from the memo": lambda m, n, a: wrapped(
        name(m, n), b"q\x05", value({}), b"h\x05", value(a), b"R"
    ),
    "behind the end": lambda m, n, a: dictionary(a=tensor())[:-1] + called(m, n, a) + b".",
    "in protocol 0": lambda m, n, a: b"(dp0\n" + called(m, n, a) + b".",
}
CONTAINERS: dict[str, Callable[[bytes], bytes]] = {"zip": zipped, "legacy": legacy, "bare": bare}


def attacks() -> Iterator[tuple[str, bytes]]:
    """Every call in half of the ways, and in one container after the other."""
    for (i, (way, make)), (j, ((module, attribute), arguments)) in product(
        enumerate(WAYS.items()), enumerate(CALLS.items())
    ):
        if (i + j) % 2 == 0:
            container = [*CONTAINERS][j // 2 % len(CONTAINERS)]
            content = CONTAINERS[container](make(module, attribute, arguments))
            yield f"{container}: {f'{module}.{attribute}'!a} {way}", content
    for (module, attribute), arguments in [*CALLS.items()][:8]:
        harm = wrapped(called(module, attribute, arguments))
        yield f"legacy: {module}.{attribute} for what the system is", legacy(SOUND, system=harm)
        yield f"legacy: {module}.{attribute} for the keys", legacy(SOUND, listing=harm)


# ---- no code, but too much of everything --------------------------------------------------------

SOUND = dictionary(a=tensor())
HUGE = 2**62


def laughs(tuples: bool) -> bytes:
    """A billion laughs: forty times two of the last."""
    twice = b"h\x00h\x00\x86q\x00" if tuples else b"](h\x00h\x00eq\x00"
    return value("ha") + b"q\x00" + twice * 40


BOMBS: dict[str, bytes] = {
    "a memo of 2**31 places": wrapped(b"N", b"r\xff\xff\xff\x7f"),
    "a memo of 2**32 places": wrapped(b"N", b"r\xff\xff\xff\xff"),
    "PUT far away": wrapped(b"Np999999999999\n"),
    "200,000 places in the memo": wrapped(
        b"N", bytes(b for i in range(200_000) for b in (113, i % 256))
    ),
    "500,000 MEMOIZE": wrapped(b"N", b"\x94" * 500_000, protocol=4),
    "a billion laughs, tuples": wrapped(laughs(tuples=True)),
    "a billion laughs, lists": wrapped(laughs(tuples=False)),
    "a billion laughs for a key": wrapped(b"}", laughs(tuples=True), b"Ns"),
    "a billion laughs for a key of many": wrapped(b"}(", laughs(tuples=True), b"Nu"),
    "a billion laughs for a storage": wrapped(laughs(tuples=True), b"Q"),
    "a billion laughs for a shape": dictionary(a=tensor(shape=laughs(tuples=True))),
    "a billion laughs for an offset": dictionary(a=tensor(offset=laughs(tuples=True))),
    "a billion laughs for a name": wrapped(laughs(tuples=True), value("x"), b"\x93"),
    "a billion laughs for a value": dictionary(a=laughs(tuples=True)),
    "a billion laughs in a storage's id": dictionary(a=tensor(key=laughs(tuples=True))),
    "100,000 tuples, each in the next": wrapped(b")", b"\x85" * 100_000),
    "100,000 lists, each in the next": wrapped(b"]" * 100_000, b"a" * 99_999),
    "100,000 dicts, each in the next": wrapped(
        b"}" + (value("a") + b"}") * 60_000, b"s" * 60_000
    ),
    "a list in itself": wrapped(b"]q\x00h\x00a"),
    "a dict in itself": wrapped(b"}q\x00", value("a"), b"h\x00s"),
    "500,000 marks": wrapped(b"(" * 500_000),
    "500,000 dicts": wrapped(b"}" * 500_000),
    "tensors of one shape of 100,000": wrapped(
        b"(", b"K\x01" * 100_000, b"tq\x00}(",
        b"".join(value(str(i)) + tensor(shape=b"h\x00", strides=b"h\x00") for i in range(700)),
        b"u",
    ),
    "one dict of views under 20,000 names": wrapped(
        tensor(), b"q\x00}(", b"".join(value(f"{i}") + b"h\x00" for i in range(20_000)), b"Nh\x00u",
    ),
    "a string of 2**62 letters": b"\x80\x04\x8d" + HUGE.to_bytes(8, "little"),
    "a string of 4 GB": b"\x80\x02X\xff\xff\xff\xff",
    "a string of minus one letters": b"\x80\x02T\xff\xff\xff\xff",
    "bytes of 2**62": b"\x80\x04\x8e" + HUGE.to_bytes(8, "little"),
    "a bytearray of 2**62": b"\x80\x05\x96" + HUGE.to_bytes(8, "little"),
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "a number of minus one bytes": b"\x80\x02\x8b\xff\xff\xff\xff",
    "a frame of 2**62": b"\x80\x04\x95" + HUGE.to_bytes(8, "little") + b".",
    "a number of 400,000 digits": wrapped(b"L" + b"9" * 400_000 + b"L\n"),
    "a number of 400,000 digits, short": wrapped(b"I" + b"9" * 400_000 + b"\n"),
    "half an escape": wrapped(b"S'\\x'\n"),
    "a string that is no UTF-8": wrapped(b"X\x02\x00\x00\x00\xff\xfe"),
    "EXT1": wrapped(b"\x82\x01"),
    "EXT2": wrapped(b"\x83\x01\x00"),
    "EXT4": wrapped(b"\x84\x01\x00\x00\x00"),
    "PERSID": wrapped(b"Pos.system\n"),
    "NEXT_BUFFER": wrapped(b"\x97", protocol=5),
    "READONLY_BUFFER": wrapped(b"\x98", protocol=5),
    "FROZENSET": wrapped(b"(\x91", protocol=4),
    "POP": wrapped(b"N0"),
    "DUP": wrapped(b"N2"),
    "no opcode": wrapped(b"\xff"),
    "protocol 255": b"\x80\xff.",
    "nothing but an end": b".",
    "no end": b"\x80\x02}",
    "a pickle of 600,000 bytes": wrapped(value("a" * 600_000)),
    "BUILD of a list": wrapped(b"]}b"),
    "BUILD of a tensor": dictionary(a=tensor() + b"}b"),
    "a dict called": wrapped(b"})R"),
    "a storage called": wrapped(b"ctorch\nFloatStorage\n)R"),
    "a tensor of nothing": wrapped(b"ctorch._utils\n_rebuild_tensor_v2\n)R"),
    "a tensor of a list": wrapped(b"ctorch._utils\n_rebuild_tensor_v2\n]R"),
    "conjugate": dictionary(
        a=b"ctorch._utils\n_rebuild_tensor_v2\n"
        + value((storage(), 0, (6,), (1,), False, b"}", {"conj": True})) + b"R"
    ),
    "a storage of a storage": dictionary(a=tensor(within=storage(kind=storage()))),
    "a storage in another": dictionary(
        a=tensor(within=value(("storage", FLOAT, "0", "cpu", 6, ("1", 0, 6))) + b"Q")
    ),
    "a module for a storage": dictionary(a=tensor(within=value(("module", 1, 2, 3, 4)) + b"Q")),
    "a storage of 2**62 numbers": dictionary(a=tensor(numel=HUGE)),
    "a storage of 2**600 numbers": dictionary(a=tensor(numel=2**600)),
    "a storage of -1 numbers": dictionary(a=tensor(numel=-1)),
    "a storage of half a number": dictionary(a=tensor(numel=b"G?\xe0" + bytes(6))),
    "a storage of 24 bytes called 8 numbers": dictionary(a=tensor(numel=8)),
    "a storage with two types": dictionary(
        a=tensor(), b=tensor(kind=b"ctorch\nIntStorage\n")
    ),
    "a storage by a path": dictionary(a=tensor(key="../../../etc/passwd")),
    "a storage by an absolute path": dictionary(a=tensor(key="/etc/passwd")),
    "the pickle for a storage": dictionary(a=tensor(key="../data.pkl")),
    "offset -1": dictionary(a=tensor(offset=-1)),
    "offset 2**62": dictionary(a=tensor(offset=HUGE)),
    "offset True": dictionary(a=tensor(offset=b"\x88")),
    "a size of -1": dictionary(a=tensor(shape=(-1,))),
    "a size of 7": dictionary(a=tensor(shape=(7,))),
    "a size of 2**62": dictionary(a=tensor(shape=(HUGE,))),
    "a size of 2**62, stride 0": dictionary(a=tensor(shape=(HUGE,), strides=(0,))),
    "sizes of 2**32, strides 0": dictionary(a=tensor(shape=(2**32,) * 8, strides=(0,) * 8)),
    "a size of 2**600, stride 0": dictionary(a=tensor(shape=(2**600,), strides=(0,))),
    "a stride of -1": dictionary(a=tensor(strides=(-1,))),
    "a stride of 2": dictionary(a=tensor(strides=(2,))),
    "a stride of 2**62": dictionary(a=tensor(shape=(2,), strides=(HUGE,))),
    "nine axes": dictionary(a=tensor(shape=(1,) * 9, strides=(1,) * 9)),
    "more axes than strides": dictionary(a=tensor(shape=(1, 1))),
    "a list for a shape": dictionary(a=tensor(shape=[6])),
    "a string for a shape": dictionary(a=tensor(shape="6")),
    "a key that is a tensor": wrapped(b"}", tensor(), b"Ns"),
    "a key that is 2**600": wrapped(b"}", value(2**600), b"Ns"),
    "a key twice": wrapped(b"}(", (value("a") + tensor()) * 2, b"u"),
    "no tensor": wrapped(b"}"),
    "a number beside tensors": dictionary(a=tensor(), b=b"K\x01"),
    "a dict of dicts": dictionary(model=value({"a": tensor()})),
}  # fmt: skip


def hostile() -> list[tuple[str, bytes]]:
    """All of them by name."""
    made = [*attacks(), *ARCHIVES.items()]
    for what, content in BOMBS.items():
        made += [(f"{where}: {what}", wrap(content)) for where, wrap in CONTAINERS.items()]
    made += [
        (f"legacy: a storage that says {numel} numbers", legacy(SOUND, numel=numel))
        for numel in (-1, 0, 5, 7, HUGE)
    ]
    made += [
        ("legacy: cut in its numbers", legacy(SOUND)[:-1]),
        ("legacy: cut before its numbers", legacy(SOUND)[: -len(NUMBERS) - 4]),
        ("legacy: more than its numbers", legacy(SOUND) + bytes(8)),
        ("legacy: a key listed twice", legacy(SOUND, keys=("0", "0"))),
        ("legacy: a key that no tensor has", legacy(SOUND, keys=("0", "1"))),
        ("legacy: a key that is a number", legacy(SOUND, keys=(0,))),
        ("legacy: no keys", legacy(SOUND, keys=())),
        ("legacy: another byte order", legacy(SOUND, little=False)),
        ("legacy: another protocol", legacy(SOUND, protocol=1002)),
        ("legacy: only a magic number", legacy(SOUND)[:15]),
        ("bare: a tar archive", b"\x80" + bytes(256) + b"ustar"),
        ("bare: a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\n"),
        ("bare: a length of safetensors", struct.pack("<Q", 2) + b"{}"),
    ]
    return made
