"""Blocks of inputs, answered in order: what is safe of a job, and where one goes on.

Inputs are cut into blocks, and no pack of the model holds inputs of two blocks, so that a job that
goes on at a block's beginning gives the same bytes as one that was never stopped.
"""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from npbert.errors import InputError
from npbert.jobs.records import Item
from npbert.tasks.containers import count_characters
from npbert.tasks.task import Reading, Refusal, Tally, Task

BLOCK_INPUTS: Final = 256  # inputs; a multiple of those that are read ahead, so that packs are full


@dataclass
class Counts(Tally):
    """What a job has done so far."""

    inputs: int = 0
    failed: int = 0


class BlockOutput(Protocol):
    """What makes safe, block by block, what became of the answers."""

    def commit(self, state: Mapping[str, Any]) -> None: ...
    def finish(self, state: Mapping[str, Any]) -> None: ...


class UnsavedOutput:
    """An output of which nothing is safe before all is, or nothing ever."""

    def commit(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class StopSignal:
    """The first Ctrl-C ends the reading of inputs, so that those read are answered; a second all.

    While an input is waited for, nothing is in hand, and the first ends the waiting.
    """

    def __init__(self) -> None:
        self.asked = False  # for an end, by the signal
        self.ended = False  # the inputs, by themselves
        self.waiting = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other hears signals
            self.before = signal.signal(signal.SIGINT, self.note_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)

    def note_signal(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        again, self.asked = self.asked, True
        if again or self.waiting:
            raise KeyboardInterrupt

    def take_until_asked(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield items until the signal comes."""
        while True:
            try:
                self.waiting = True  # before it is asked: the signal may come between the two
                if self.asked:
                    return
                item = next(items)
            except StopIteration:
                self.ended = True
                return
            except KeyboardInterrupt:
                return
            finally:
                self.waiting = False
            yield item


class BlockEnd(NamedTuple):
    """What is known of a block's inputs when all of them are read."""

    sha256: str  # of all that was read, up to the last of them
    last: bool  # no inputs follow


class AnsweredBlock(NamedTuple):
    """The inputs of a block with their results, and when these were taken, what was read."""

    pairs: Iterator[tuple[Item, Any]]
    end: Callable[[], BlockEnd]


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
        self,
        task: Task[Any, Any],
        counts: Counts,
        *,
        record: bool,
        block: int = BLOCK_INPUTS,
    ) -> None:
        task.require_streamable(task.options)
        self.task = task
        self.counts = counts
        self.record = record
        self.block = block
        self.stop = StopSignal()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Let go of what computes."""

    def answers(
        self, items: Iterator[Item], output: BlockOutput, digest: Callable[[], str]
    ) -> Iterator[tuple[Item, Any]]:
        """Yield items with their results; what becomes of them block by block is made safe.

        `digest` tells of all that was read of the input.  Raises InputError in an item's turn.
        """
        for block in self.blocks(self.stop.take_until_asked(items), digest):
            before = self.counts.inputs
            for pair in block.pairs:
                yield pair
                self.counts.inputs += 1
                self.counts.failed += isinstance(pair[1], Refusal)
            whole = self.counts.inputs - before == self.block
            end = block.end()
            if whole or end.last:
                state = {**asdict(self.counts), "sha256": end.sha256}
                (output.finish if end.last else output.commit)(state)
            if not whole or end.last:
                return

    def blocks(self, items: Iterator[Item], digest: Callable[[], str]) -> Iterator[AnsweredBlock]:
        """Yield blocks of inputs in order, each to be taken whole before the next."""
        while True:
            yield self.stream_block(items, digest)

    def stream_block(self, items: Iterator[Item], digest: Callable[[], str]) -> AnsweredBlock:
        """Return a block whose inputs are read as their results are taken."""
        pairs = self.answer_block(islice(items, self.block))
        return AnsweredBlock(pairs, lambda: BlockEnd(digest(), self.stop.ended))

    def answer_block(self, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
        """Yield some items with their results."""
        read: deque[Item] = deque()

        def readings() -> Iterator[Reading[Any] | Refusal]:
            for item in items:
                read.append(item)
                yield self.read_input(item)

        for result in self.task.answers(readings(), self.task.options, self.counts):
            yield read.popleft(), result

    def read_input(self, item: Item) -> Reading[Any] | Refusal:
        """Return an item as the model reads it, or why it cannot be read."""
        size = count_characters(item.given) + count_characters(item.beside)
        if isinstance(item.given, InputError):  # which is not raised: it would hold its own item
            return self.refuse(item, item.given, size)
        try:
            reading = self.task.read_input(item.given, self.task.options)
        except InputError as error:
            return self.refuse(item, error, size)
        return replace(reading, characters=size)

    def refuse(self, item: Item, error: InputError, size: int) -> Refusal:
        """Return why an item cannot be read, if that is recorded; or else raise it."""
        if self.record:
            return Refusal(str(error), size)
        raise InputError(f"{item.unit} {item.number}: {error}") from None
