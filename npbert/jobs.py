"""Batch work that loses nothing: any number of inputs through a task, in order, in little memory.

Inputs are cut into blocks, and no pack of the model holds inputs of two blocks, so that a job that
goes on at a block's beginning gives the same bytes as one that was never stopped.
"""

import hashlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from npbert.errors import InputError
from npbert.hub.parts import present
from npbert.tasks.shared import Reading, Refusal, Tally, Task

BLOCK: Final = 256  # inputs; a multiple of those that are read ahead, so that packs are full


class Item(NamedTuple):
    """One input: which it is, what it is or why it is none, and what else goes with its answer."""

    number: int
    given: Any  # InputError: why there is none
    beside: Mapping[str, Any] | None = None
    unit: str = "line"  # what is counted


@dataclass
class Counts(Tally):
    """What a job has done so far."""

    inputs: int = 0
    failed: int = 0


class Output(Protocol):
    """What makes safe, block by block, what became of the answers."""

    def commit(self, state: Mapping[str, Any]) -> None: ...
    def finish(self, state: Mapping[str, Any]) -> None: ...


class Unsaved:
    """An output of which nothing is safe before all is, or nothing ever."""

    def commit(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class Stop:
    """The first Ctrl-C ends the reading of inputs, so that those read are answered; a second all.

    While an input is waited for, nothing is in hand, and the first ends the waiting.
    """

    def __init__(self) -> None:
        self.asked = False  # for an end, by the signal
        self.ended = False  # the inputs, by themselves
        self.waiting = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other hears signals
            self.before = signal.signal(signal.SIGINT, self.heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)

    def heard(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        again, self.asked = self.asked, True
        if again or self.waiting:
            raise KeyboardInterrupt

    def until(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield items until the signal comes."""
        while not self.asked:
            try:
                self.waiting = True
                item = next(items)
            except StopIteration:
                self.ended = True
                return
            except KeyboardInterrupt:
                return
            finally:
                self.waiting = False
            yield item


class Job:
    """A task over many inputs.

    Parameters
    ----------
    task : Task
    counts : Counts
        What was done before, where a job goes on; what is done is added.
    record : bool
        Let a Refusal stand in the place of an answer; otherwise it is raised, as an InputError.
    block : int
        How many inputs make a block.
    """

    def __init__(
        self, task: Task[Any, Any], counts: Counts, *, record: bool, block: int = BLOCK
    ) -> None:
        task.streamable(task.options)
        self.task = task
        self.counts = counts
        self.record = record
        self.block = block
        self.stop = Stop()

    def answers(
        self, items: Iterator[Item], output: Output, digest: Callable[[], str]
    ) -> Iterator[tuple[Item, Any]]:
        """Yield items with their results; what becomes of them block by block is made safe.

        `digest` tells of all that was read of the input.  Raises InputError in an item's turn.
        """
        items = self.stop.until(items)
        while True:
            before = self.counts.inputs
            for pair in self.block_of(islice(items, self.block)):
                yield pair
                self.counts.inputs += 1
                self.counts.failed += isinstance(pair[1], Refusal)
            whole = self.counts.inputs - before == self.block
            if whole or self.stop.ended:
                state = {**asdict(self.counts), "sha256": digest()}
                (output.finish if self.stop.ended else output.commit)(state)
            if not whole or self.stop.ended:
                return

    def block_of(self, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
        """Yield some items with their results."""
        read: deque[Item] = deque()

        def readings() -> Iterator[Reading[Any] | Refusal]:
            for item in items:
                read.append(item)
                yield self.reading(item)

        for result in self.task.answers(readings(), self.task.options, self.counts):
            yield read.popleft(), result

    def reading(self, item: Item) -> Reading[Any] | Refusal:
        """Return an item as the model reads it, or why it cannot be read."""
        try:
            if isinstance(item.given, InputError):
                raise item.given
            return self.task.reading(item.given, self.task.options)
        except InputError as error:
            if self.record:
                return Refusal(str(error))
            raise InputError(f"{item.unit} {item.number}: {error}") from None


def fingerprint(folder: Path) -> str:
    """Return the sha256 of the files of a model that its answers depend on."""
    digest = hashlib.sha256()
    for name in present(folder):
        with (folder / name).open("rb") as file:
            digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
