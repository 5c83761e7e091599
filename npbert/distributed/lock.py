"""Who has an output folder: one job at a time, which says so in a file that it alone could make.

On a local disk the system keeps the file locked until its process ends, however it ends.  Elsewhere
all depends on what the file system lets be created only where nothing is, and on the process.
"""

import getpass
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self
from uuid import uuid4

from npbert.checkpoint.reading import parse_json_object
from npbert.distributed.remote_files import (
    address_in,
    is_local,
    make_output_folder,
    part_address,
    read_whole,
    split_url,
)
from npbert.errors import CheckpointError, InputError, tell
from npbert.jobs.atomic import LOCK_ERRORS, is_open

try:
    import fcntl
except ImportError:  # Windows, where a process that is gone must be told by hand
    fcntl = None  # type: ignore[assignment]

LOCK_NAME: Final = "_npbert.lock"  # beside the answers, while a job writes them
LOCK_BYTES: Final = 4096  # at most
LOCK_ATTEMPTS: Final = 50  # while others take and give back the same folder
LOCK_SECONDS: Final = 0.02  # between two of them


class Holder(NamedTuple):
    """A job that has a folder."""

    id: str  # that no other job has
    user: str
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"a job of {self.user}, process {self.pid} on {self.host}, since {self.since},"

    @classmethod
    def from_here(cls) -> Self:
        """Return a new job of this process."""
        try:
            user = getpass.getuser()
        except (OSError, KeyError, ImportError):  # a container may have no name for a number
            user = "somebody"
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return cls(uuid4().hex, user, socket.gethostname(), os.getpid(), since)

    @classmethod
    def from_json(cls, raw: bytes, where: str) -> Self:
        """Return who wrote a lock.  Raises InputError for what does not tell."""
        try:
            said = parse_json_object(raw, where)
            kinds = {name: type(value) for name, value in said.items()}
            if kinds == cls.__annotations__ and all(str(x).isprintable() for x in said.values()):
                return cls(**said)
        except CheckpointError:
            pass
        raise InputError(f"{where}: does not say what job has this folder; if none has, delete it")

    def to_json(self) -> bytes:
        """Return what stands in the lock."""
        return json.dumps(self._asdict()).encode()

    def is_gone(self, *, unlocked: bool) -> bool:
        """Tell whether it has surely ended: its process, or the system's lock on its file."""
        return self.host == socket.gethostname() and (unlocked or not is_running(self.pid))


class FolderLock:
    """One job's right to an output folder.  Raises InputError where another has it.

    Parameters
    ----------
    out : str
        The folder, which is made.
    resume : bool
        Take over from a job that has ended without giving the folder back.
    """

    def __init__(self, out: str, *, resume: bool) -> None:
        self.out, self.resume, self.me = out, resume, Holder.from_here()
        self.address = address_in(out, LOCK_NAME)
        self.system, self.path = split_url("--output", self.address)
        self.file: BinaryIO | None = None  # which the system keeps locked
        folder = self.path.rpartition("/")[0]
        if self.system.isfile(folder):
            raise InputError(f"--output {out}: expected a folder, and it is a file")
        self.made_folder = is_local(self.system) and make_output_folder(Path(folder))
        take = self.take_local if is_local(self.system) else self.take_remote
        try:
            for _ in range(LOCK_ATTEMPTS):
                if take():
                    return
                time.sleep(LOCK_SECONDS)
        except OSError as error:
            raise InputError(
                f"--output {out}: cannot be written: {error.strerror or error}"
            ) from None
        raise InputError(f"--output {out}: other jobs take it again and again; try later")

    def take_local(self) -> bool:
        """Make the lock, or take it over; tell whether that was possible now."""
        path = Path(self.path)
        self.file = open_locked(path, self.me)
        if self.file:
            return True
        try:  # a pipe there would block, and a link lead elsewhere
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
            found = os.fdopen(os.open(path, flags), "rb")
        except FileNotFoundError:
            return False
        except OSError as error:
            why = "is a link" if path.is_symlink() else f"cannot be read: {error.strerror}"
            raise InputError(f"{path}: {why}; if no job has this folder, delete it") from None
        with found:
            if not stat.S_ISREG(os.fstat(found.fileno()).st_mode):
                raise InputError(f"{path}: is no file; if no job has this folder, delete it")
            unlocked = keep_others_out(found)
            raw = found.read(LOCK_BYTES)
            if not is_open(path, found) or (unlocked is False and not raw):
                return False  # given back, or just being taken
            if unlocked is False:
                raise InputError(
                    f"--output {self.out}: {Holder.from_json(raw, str(path))} writes there; wait "
                    "for its end, or take another folder"
                )
            if raw or not unlocked:  # else it was killed before it could say anything
                self.require_gone(Holder.from_json(raw, str(path)), unlocked=bool(unlocked))
            draft = Path(part_address(self.path, ""))
            self.file = open_locked(draft, self.me)
            draft.replace(path)
        return True

    def take_remote(self) -> bool:
        """Do the same where no system keeps files locked, and see whether it is there."""
        raw = self.me.to_json()
        try:
            found = Holder.from_json(read_whole(self.address, LOCK_BYTES), self.address)
        except FileNotFoundError:
            try:
                try:
                    self.system.pipe_file(self.path, raw, mode="create")
                except (TypeError, ValueError, NotImplementedError):  # it can only overwrite
                    self.system.pipe_file(self.path, raw)
            except FileExistsError:
                return False
            except FileNotFoundError:  # where folders are more than beginnings of names
                self.system.makedirs(self.path.rpartition("/")[0], exist_ok=True)
                return False
            return self.is_held()
        self.require_gone(found, unlocked=False)
        self.system.pipe_file(self.path, raw)
        return self.is_held()

    def require_gone(self, found: Holder, *, unlocked: bool) -> None:
        """Refuse to take over from a job that may be running, or without being asked to."""
        if not found.is_gone(unlocked=unlocked):
            seems = "seems to run" if found.host == self.me.host else "cannot be seen from here"
            raise InputError(
                f"--output {self.out}: {found} has it, and {seems}; if it is over, delete "
                f"{self.address}, and --resume goes on"
            )
        if not self.resume:
            raise InputError(
                f"--output {self.out}: {found} was killed there; --resume goes on with it"
            )
        tell(f"{found} was killed in {self.out}; this one takes over")

    def is_held(self) -> bool:
        """Tell whether the lock is still this job's."""
        if self.file:
            return is_open(Path(self.path), self.file)
        try:
            raw = read_whole(self.address, LOCK_BYTES)
            return Holder.from_json(raw, self.address) == self.me
        except (FileNotFoundError, InputError):
            return False

    def require_held(self) -> None:
        """Raise InputError where somebody has taken the lock away."""
        if not self.is_held():
            raise InputError(
                f"{self.address}: was taken away while this job wrote there; once no other job "
                "does, --resume goes on with what is not answered yet"
            )

    def give_back(self) -> None:
        """Let others have the folder, without it if it is new and empty."""
        held = self.is_held()
        try:
            if self.file:
                with self.file:
                    if os.name == "nt":  # removes nothing that is open
                        self.file.close()
                    if held:
                        Path(self.path).unlink()
            elif held:
                self.system.rm_file(self.path)
        except OSError as error:
            tell(
                f"{self.path}: cannot be removed: {error.strerror or error}; delete it, or the "
                "next job is told that one was killed here"
            )
        if self.file and self.made_folder:
            with suppress(OSError):  # it is not empty
                Path(self.path).parent.rmdir()


@contextmanager
def keep_folder(out: str, *, resume: bool) -> Iterator[FolderLock]:
    """Keep other jobs from a folder.  Raises InputError where another has it."""
    lock = FolderLock(out, resume=resume)
    try:
        yield lock
    finally:
        lock.give_back()


def open_locked(path: Path, holder: Holder) -> BinaryIO | None:
    """Return a new file that says who has it and is locked; None where there is one already."""
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "r+b")
    except FileExistsError:
        return None
    unlocked = keep_others_out(file)
    if unlocked is not False:
        file.write(holder.to_json())
        file.flush()
        if is_open(path, file):
            return file
    file.close()  # another job was faster
    return None


def keep_others_out(file: BinaryIO) -> bool | None:
    """Lock a file; tell whether nobody else has, or None where a file system locks none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in LOCK_ERRORS else None
    return True


def is_running(pid: int) -> bool:
    """Tell whether a process of this machine is there, as far as that can be seen."""
    if os.name == "nt":  # where to ask would be to kill
        return True
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's, or there is no /proc
        return True
    return state[:1] != ["Z"]  # ended, and nobody has asked how
