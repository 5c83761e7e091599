"""Blocks of short texts in several processes, where threads would wait for Python's lock.

A narrow model computes a short text in hundreds of small steps, between which its thread holds
Python's lock; so a second thread gains little, and a second process a whole core.  Every process
maps the same weights.  Blocks are computed as they would be here, so that no byte of the answers
depends on how many processes there are.
"""

import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from copy import copy
from functools import cache, partial
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from typing import Any, Final, NamedTuple

from npbert.errors import CheckpointError, InputError, NpbertError, NpbertWarning
from npbert.jobs.blocks import AnsweredBlock, BlockEnd, Counts, Job
from npbert.jobs.identity import hash_model, task_bytes
from npbert.jobs.records import Item
from npbert.tasks.containers import count_characters
from npbert.tasks.task import Tally, Task

BLOCK_CHARACTERS: Final = 1 << 17  # of a block that travels; a longer one is computed here

_recipe = b""  # of this process: what it answers with, pickled
_record = False  # whether a refusal stands in the place of an answer


class BlockResults(NamedTuple):
    """What a process sends back: results, what was read, and the error that ended the block."""

    results: list[Any]
    tally: Tally
    error: NpbertError | None


class TravellingBlock(NamedTuple):
    """A block that a process has, and what ended its reading here, if anything did."""

    items: list[Item]
    future: "Future[BlockResults]"
    end: BlockEnd
    error: Exception | None


class ProcessJob(Job):
    """A job whose blocks are computed by processes, all but those of long texts.

    Parameters
    ----------
    task, counts, record
        As Job has them.
    processes : int
    """

    def __init__(
        self, task: Task[Any, Any], counts: Counts, *, record: bool, processes: int
    ) -> None:
        super().__init__(task, counts, record=record)
        alone = copy(task)
        alone.threads = 1
        model = hash_model(task.folder) if task.folder else ""
        recipe = task_bytes(alone, model)
        self.ahead = 2 * processes  # blocks, so that no process waits for the next
        self.pool = ProcessPoolExecutor(
            processes, get_context("spawn"), prepare_process, (recipe, record)
        )

    def __exit__(self, *raised: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def blocks(self, items: Iterator[Item], digest: Callable[[], str]) -> Iterator[AnsweredBlock]:
        """Yield blocks of inputs in order, of which some are computed ahead."""
        under_way: deque[TravellingBlock] = deque()
        while True:
            some: list[Item] = []
            error: Exception | None = None
            try:
                size = 0
                for item in islice(items, self.block):
                    some.append(item)
                    size += count_characters(item.given) + count_characters(item.beside)
                    if size > BLOCK_CHARACTERS:
                        break
            except Exception as raised:  # it comes in its turn
                error = raised
            whole = len(some) == self.block or self.stop.ended or self.stop.asked
            if error is None and not whole:  # its texts are long
                yield from self.take_blocks(under_way, 0)
                yield self.stream_block(chain(some, items), digest)
                continue
            end = BlockEnd(digest(), self.stop.ended)
            under_way.append(TravellingBlock(some, self.give_to_process(some), end, error))
            # A block that is not full is the last, for whatever reason.
            yield from self.take_blocks(under_way, self.ahead - 1 if len(some) == self.block else 0)

    def give_to_process(self, items: list[Item]) -> "Future[BlockResults]":
        """Have a process answer a block, and return what waits for its results."""
        future: Future[BlockResults] = Future()
        if not items:
            future.set_result(BlockResults([], Tally(), None))
            return future
        try:
            with hold_interrupts():  # a process that is started here never hears them
                return self.pool.submit(answer_items, items)
        except BrokenProcessPool as error:
            future.set_exception(error)
            return future

    def take_blocks(
        self, under_way: "deque[TravellingBlock]", most: int
    ) -> Iterator[AnsweredBlock]:
        """Take blocks until no more than `most` are under way."""
        while len(under_way) > most:
            block = under_way.popleft()
            yield AnsweredBlock(self.take_results(block), partial(getattr, block, "end"))

    def take_results(self, block: TravellingBlock) -> Iterator[tuple[Item, Any]]:
        """Yield the inputs of a block with their results, and then raise what ended it."""
        try:
            results, tally, error = block.future.result()
        except BrokenProcessPool:
            first = block.items[0]
            raise InputError(
                f"a process ended while it computed from {first.unit} {first.number} on: killed, "
                "perhaps for want of memory; --resume goes on, and --processes 1 takes the least"
            ) from None
        self.counts.add_tally(tally)
        yield from zip(block.items, results, strict=False)
        if stopped := error or block.error:
            raise stopped


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back, from this thread and from what it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in a process of the pool --------------------------------------------------------------------


def prepare_process(recipe: bytes, record: bool) -> None:
    """Take note of what is answered with; leave Ctrl-C to the parent, and do not outlive it."""
    global _recipe, _record
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    _recipe, _record = recipe, record


def end_with_parent() -> None:
    """End this process when its parent has ended, however that was."""
    parent = parent_process()
    assert parent is not None  # a process of a pool
    parent.join()
    os._exit(1)


def answer_items(items: list[Item]) -> BlockResults:
    """Answer a block of inputs, as far as it can be read."""
    tally, results = Counts(), []
    try:
        job = Job(rebuild_task(), tally, record=_record)
        for _, result in job.answer_block(iter(items)):
            results.append(result)
    except NpbertError as error:
        return BlockResults(results, tally, error)
    return BlockResults(results, tally, None)


@cache
def rebuild_task() -> Task[Any, Any]:
    """Return the task that this process answers with.  Raises NpbertError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NpbertWarning)  # the parent has told, when it loaded
        model, task = pickle.loads(_recipe)
    if task.folder and hash_model(task.folder) != model:
        raise CheckpointError(f"{task.folder}: its files have changed since the job began")
    return task
