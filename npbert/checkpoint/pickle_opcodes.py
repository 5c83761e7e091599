"""Pickles read as data: the few opcodes that torch.save writes, and no way to run anything.

Python's own unpickler imports and calls what a file names.  Here a name is looked up in a table
of those which the caller knows, and an opcode in the table below; all else is refused before its
argument is read.  No value is hashed, compared or printed but strings and short numbers: tuples
can be built in 100 bytes that would take years to hash.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

from npbert import _import_lock
from npbert.errors import CheckpointError, quote

# What stands for a name: what to make of the arguments it is called with, or None where it is
# only handed on.
Known = Mapping[str, Callable[[tuple[Any, ...]], Any] | None]

PROTOCOLS: Final = range(6)
CONSTANT_OPCODES: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERAL_OPCODES: Final = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINSTRING", "SHORT_BINSTRING",  # of Python 2
}  # fmt: skip
EMPTY_OPCODES: Final[Mapping[str, Callable[[], Any]]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
TUPLE_OPCODES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
STORE_OPCODES: Final = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
FETCH_OPCODES: Final = {"BINGET", "LONG_BINGET"}
OTHER_OPCODES: Final = {
    "PROTO", "FRAME", "MARK", "TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPERSID",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "STOP",
}  # fmt: skip
OPCODES: Final = {
    *CONSTANT_OPCODES,
    *LITERAL_OPCODES,
    *EMPTY_OPCODES,
    *TUPLE_OPCODES,
    *STORE_OPCODES,
    *FETCH_OPCODES,
    *OTHER_OPCODES,
}
KEY_LIMIT: Final = 1 << 63  # a number that is a key; hashing longer ones takes time, over and over


class PickledName(str):
    """A name that a pickle asks for, "module name": nothing but its letters."""

    __slots__ = ()


class Reader:
    """The stack of values that a pickle builds, and the memo of those it builds once."""

    def __init__(self, where: str, known: Known, stored: Callable[[Any], Any]) -> None:
        self.where = where
        self.known = known
        self.stored = stored  # what a persistent id stands for
        self.stack: list[Any] = []
        self.marks: list[int] = []  # how high the stack was
        self.memo: dict[int, Any] = {}

    def read(self, stream: io.BytesIO) -> Any:
        """Read one pickle and stop behind it.  Raises CheckpointError."""
        with _import_lock:
            import pickletools  # thousands of lines that only a .bin needs

        self.stack, self.marks, self.memo = [], [], {}
        table = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
        while code := stream.read(1):
            place, opcode = stream.tell() - 1, table.get(code)
            name = opcode.name if opcode else repr(code)
            try:
                if opcode is None or name not in OPCODES:
                    raise ValueError("torch.save writes this for no tensor")
                if name == "STOP":
                    return self.end()
                if name == "GLOBAL":
                    self.stack.append(self.name(" ".join((read_line(stream), read_line(stream)))))
                else:
                    self.execute(name, opcode.arg.reader(stream) if opcode.arg else None)
                continue
            except IndexError:
                said = "finds no value to work on"
            except CheckpointError:
                raise
            except ValueError as error:
                said = str(error)
            raise CheckpointError(
                f"{self.where}: its pickle is damaged or hostile: at byte {place}, {name}: {said}"
            )
        raise CheckpointError(
            f"{self.where}: its pickle has no end within {stream.tell()} bytes; it is cut short, "
            "or far longer than one of tensors"
        )

    def end(self) -> Any:
        """Return the one value that is left."""
        value = self.stack.pop()
        if self.stack or self.marks:
            raise ValueError("leaves values over")
        return value

    def execute(self, name: str, argument: Any) -> None:
        """Follow one opcode.  Raises ValueError or IndexError for one that cannot be followed."""
        stack = self.stack
        if name in STORE_OPCODES:
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in LITERAL_OPCODES:
            stack.append(argument)
        elif name in FETCH_OPCODES:
            if argument not in self.memo:
                raise ValueError(f"there is no value {argument}")
            stack.append(self.memo[argument])
        elif name in CONSTANT_OPCODES:
            stack.append(CONSTANT_OPCODES[name])
        elif name in EMPTY_OPCODES:
            stack.append(EMPTY_OPCODES[name]())
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in TUPLE_OPCODES:
            stack.append(tuple(self.pop_values(TUPLE_OPCODES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self.pop_since_mark()))
        elif name == "STACK_GLOBAL":
            stack.append(self.name(" ".join(map(require_text, self.pop_values(2)))))
        elif name in ("APPEND", "APPENDS"):
            values = self.pop_since_mark() if name == "APPENDS" else self.pop_values(1)
            require_type(list, stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            set_items(
                self.pop_since_mark() if name == "SETITEMS" else self.pop_values(2),
                require_type(dict, stack[-1]),
            )
        elif name == "BINPERSID":
            stack.append(self.stored(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self.pop_values(2)
            make = self.known[function] if type(function) is PickledName else None
            if make is None:
                raise ValueError(f"calls {describe_kind(function)}")
            stack.append(make(require_type(tuple, arguments)))
        elif name == "BUILD":  # an OrderedDict's attributes: torch's _metadata, which says versions
            stack.pop()
            require_type(dict, stack[-1])
        elif name == "PROTO" and argument not in PROTOCOLS:
            raise ValueError(f"expected one of the protocols to {PROTOCOLS[-1]}, not {argument}")

    def pop_values(self, count: int) -> list[Any]:
        """Take the last values off the stack."""
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise IndexError
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_since_mark(self) -> list[Any]:
        """Take all values since the last mark off the stack."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def name(self, name: str) -> PickledName:
        """Return a name that the caller knows.  Raises CheckpointError for any other."""
        if name in self.known:
            return PickledName(name)
        asked = ascii(name.replace(" ", "."))[1:-1]
        whole = name.startswith(("transformers.", "torch.nn.", "sentence_transformers."))
        raise CheckpointError(
            f"{self.where}: its pickle asks for {asked[:80]}, which no tensor needs; "
            + (
                "a whole model was saved, and only its state_dict() can be read"
                if whole
                else "it may be hostile, and other programs would run what it says"
            )
        )


def read_line(stream: io.BytesIO) -> str:
    """Read a line, which a name has two of; pickletools takes them for ASCII before Python 3.12."""
    return stream.readline().decode().removesuffix("\n")


def set_items(values: list[Any], into: dict[str | int, Any]) -> None:
    """Put keys and values, in turns, into a dict."""
    if len(values) % 2:
        raise ValueError("has a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if type(key) is not str and not (type(key) is int and -KEY_LIMIT < key < KEY_LIMIT):
            raise ValueError(f"has {describe_kind(key)} for a key, expected a string")
        if key in into:
            raise ValueError(f"says {quote(key)} twice")
        into[key] = value


def require_text(value: Any) -> str:
    """Return a value that must be a string."""
    if type(value) is not str:
        raise ValueError(f"finds {describe_kind(value)}, expected a string")
    return value


def require_type(wanted: type[Any], value: Any) -> Any:
    """Return a value that must be of a type."""
    if type(value) is not wanted:
        raise ValueError(f"finds {describe_kind(value)}, expected a {wanted.__name__}")
    return value


def describe_kind(value: Any) -> str:
    """Say what a value is, and not what is in it."""
    name = type(value).__name__
    if type(value) is PickledName:
        return f"the name {value.replace(' ', '.')}"
    if type(value) in (dict, list, tuple):
        return f"a {name} of {len(value)}"
    return "nothing" if value is None else f"{'an' if name == 'int' else 'a'} {name}"
