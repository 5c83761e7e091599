"""The lines of a file, or of stdin, as bytes bring them; gzip is noticed and undone."""

import codecs
import hashlib
import io
import os
import select
import signal
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from npbert.errors import InputError

LINE_LIMIT: Final = 4 << 20  # bytes of a line; a tokenizer takes 150 times as many for its text
GZIP: Final = b"\x1f\x8b"
BOM: Final = "\ufeff"  # of Windows' UTF-8
START: Final = 1024  # bytes that tell whether a file of JSON is an array
ARRAY_STEP: Final = 1 << 16  # bytes of an array that are read at a time


class Line(NamedTuple):
    """A line with its end, and what is wrong with it; then the text is only what can be shown."""

    text: str
    fault: InputError | None = None


class PutBack(io.RawIOBase):
    """A stream of which the first bytes were read already."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self.start = start
        self.rest = rest

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, room: Any) -> int:
        """Read what was put back, and then the rest, as it comes."""
        if not self.start:
            return self.rest.readinto1(room)  # type: ignore[attr-defined]
        size = min(len(room), len(self.start))
        room[:size], self.start = self.start[:size], self.start[size:]
        return size


class InterruptibleReader(io.RawIOBase):
    """A pipe, or what is typed, whose waiting a signal ends.

    A read of the system's is ended only by a signal that comes while it waits.  One that comes a
    moment before has Python take note, and then wait; so the waiting is for the signal too.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self.raw = raw
        self.heard, self.told = os.pipe()
        os.set_blocking(self.told, False)  # as signals ask of it
        self.either = select.poll()
        for one in (raw.fileno(), self.heard):
            self.either.register(one, select.POLLIN)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, room: Any) -> int | None:
        """Read what has come, or wait for it; what the signal's handler raises goes through."""
        before = -1
        try:
            before = signal.set_wakeup_fd(self.told, warn_on_full_buffer=False)
            while {one for one, _ in self.either.poll()} == {self.heard}:
                os.read(self.heard, select.PIPE_BUF)  # of a signal that asked for no end
        finally:
            signal.set_wakeup_fd(before)
        return self.raw.readinto(room)

    def close(self) -> None:
        """Close the two ends that tell of signals; the pipe is left to whoever opened it."""
        if not self.closed:
            os.close(self.heard)
            os.close(self.told)
        super().close()


def make_interruptible(raw: BinaryIO) -> BinaryIO:
    """Return what is read in its place, so that a signal ends the waiting for it.

    Only the main thread hears signals, a file is not waited for, and Windows ends a read itself.
    """
    here = threading.current_thread() is threading.main_thread()
    inner = getattr(raw, "raw", None)
    if os.name == "nt" or not here or not isinstance(inner, io.FileIO):
        return raw
    if stat.S_ISREG(os.fstat(inner.fileno()).st_mode):
        return raw
    return io.BufferedReader(InterruptibleReader(inner))


class Lines:
    """The lines of a file, or of stdin where there is no path; what was read of them is hashed.

    `opened` opens a file that is not on this system; the path is then only told.  Raises InputError
    for a file that cannot be read, or not to its end; its cause is what the system said, if it did.
    """

    def __init__(
        self, path: Path | str | None, opened: Callable[[], BinaryIO] | None = None
    ) -> None:
        self.where = str(path or "stdin")
        self.number = 0  # of the line, or the element, that was read last
        self.unit = "line"  # what is counted
        self.digest = hashlib.sha256()  # of all that was read, gzip undone
        self.own: BinaryIO | None = None  # what must be closed
        with self.guard():
            if path is not None:
                here: Callable[[], Any] = partial(Path(path).open, "rb")
                self.own = (opened or here)()
            self.raw = self.own or sys.stdin.buffer
            raw = make_interruptible(self.raw)
            stream: BinaryIO = raw
            start = raw.peek(2)[:2] if isinstance(raw, io.BufferedReader) else b""
            if start == GZIP[:1]:  # a pipe may bring one byte, and the other when it likes
                start = raw.read(2)
                stream = io.BufferedReader(PutBack(start, raw))
            self.stream = GzipFile(fileobj=stream) if start == GZIP else stream

    @property
    def size(self) -> int | None:
        """The bytes of the file, as it is stored; None for a pipe, whose end nobody knows."""
        try:
            about = os.fstat(self.raw.fileno())
        except OSError:  # it has no descriptor
            return None
        return about.st_size if stat.S_ISREG(about.st_mode) else None

    def position(self) -> int:
        """Return how many of its bytes were read."""
        return self.raw.tell()

    def close(self) -> None:
        """Close the file; stdin is left to whoever opened it."""
        if self.own is not None:
            self.own.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Line:
        """Return the next line."""
        with self.guard():
            raw = self.stream.readline(LINE_LIMIT + 1)
            self.digest.update(raw)
            more = raw if len(raw) > LINE_LIMIT else b""
            while more and not more.endswith(b"\n"):  # the rest of a line that is too long
                more = self.stream.readline(LINE_LIMIT)
                self.digest.update(more)
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) > LINE_LIMIT:
            return Line("", size_fault("a line"))
        first = self.number == 1
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            why = f"is not UTF-8: {error.reason} at byte {error.start}"
            utf_16 = first and raw.startswith((BOM.encode("utf-16-le"), BOM.encode("utf-16-be")))
            return Line(
                raw.decode(errors="replace"),
                InputError("is UTF-16, expected UTF-8" if utf_16 else why),
            )
        return Line(text.removeprefix(BOM) if first else text)

    def is_array(self) -> bool:
        """Tell whether what is read is a JSON array, whose elements are then what is counted."""
        stream: Any = self.stream  # gzip's and io's have no type in common that can do this
        with self.guard():
            start = stream.read1(START)
        self.stream = io.BufferedReader(PutBack(start, stream))
        found = start.removeprefix(BOM.encode()).lstrip().startswith(b"[")
        self.unit = "element" if found else "line"
        return found

    def read_chunks(self) -> Iterator[str]:
        """Yield what is left, whatever its lines; bytes that are no UTF-8 as lone surrogates."""
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        while True:
            with self.guard():
                raw = self.stream.read(ARRAY_STEP)
            yield decoder.decode(raw, final=not raw)
            if not raw:
                return

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Say of which file, and after which line, nothing more can be read."""
        cause: OSError | None = None
        try:
            yield
        except (EOFError, zlib.error, BadGzipFile) as error:
            why = f"the gzip file is cut off or damaged: {error}"
        except OSError as error:  # there is none, it is a folder, the disk fails
            why, cause = str(error.strerror or error), error
        else:
            return
        beyond = f" beyond {self.unit} {self.number}" if self.number else ""
        raise InputError(f"{self.where}: cannot be read{beyond}: {why}") from cause


def size_fault(what: str) -> InputError:
    """Return what is wrong with what would fill the memory."""
    return InputError(f"has over {LINE_LIMIT} bytes, the most that is read of {what}")
