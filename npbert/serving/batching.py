"""Requests of many callers to batches and back: one thread computes for all who ask one model.

What waits are token lists.  A batch takes one of each caller in turn, so that a caller with many
delays the others by a batch at most, and the packs of a batch are made by the task itself, as for
any other list of texts.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from npbert.engine.packs import LISTS_AHEAD, PACK_TOKENS, TOKENS_AHEAD, Tokens
from npbert.engine.threads import count_threads
from npbert.tasks.task import Reading, Task
from npbert.textbook import Array

PACKS_PER_THREAD: Final = 2  # of a batch: enough for full packs, few enough to be soon done
RATE_MEMORY: Final = 0.9  # of the measured speed, what a new batch leaves of it


def default_batch_tokens(threads: int | None) -> int:
    """Return how many tokens a batch has at most, where nobody says it."""
    return min(TOKENS_AHEAD, PACKS_PER_THREAD * PACK_TOKENS * count_threads(threads))


class Caller:
    """What one caller waits for.

    Parameters
    ----------
    task : Task
        Computes the token lists.
    readings : list of Reading
    deliver : callable
        Gets the numbers of readings that are computed, each with its values; in the computing
        thread.
    fail : callable
        Gets what went wrong, after which nothing comes.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        readings: Sequence[Reading[Any]],
        deliver: Callable[[list[tuple[int, list[Array]]]], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self.task = task
        self.readings = readings
        self.deliver = deliver
        self.fail = fail
        self.arrived = 0.0  # in seconds of time.monotonic
        self.dropped = False  # by the caller, who waits no longer, or because it failed
        self.lists = [(i, tokens) for i, each in enumerate(readings) for tokens in each.tokens]
        self.taken = 0  # of the lists
        self.values: dict[int, list[Array]] = {}  # of readings that are computed in part
        self.tokens = sum(len(tokens.ids) for _, tokens in self.lists)

    def take_values(self, i: int, value: Array) -> list[Array] | None:
        """Keep a value of reading i; return all of them if it was the last."""
        kept = self.values.setdefault(i, [])
        kept.append(value)
        return self.values.pop(i) if len(kept) == len(self.readings[i].tokens) else None


class BatchPart(NamedTuple):
    """A token list of a batch."""

    caller: Caller
    reading: int
    tokens: Tokens


class Batcher:
    """The thread that computes for one model, and the queue before it.

    Parameters
    ----------
    max_wait : float
        Seconds that a caller waits for others to share its batch, where the thread was busy when it
        came; a caller that finds it idle is computed at once.
    max_tokens : int
        Of a batch.  A token list that is longer is a batch by itself.
    observe : callable, optional
        Gets the token lists, the tokens and the seconds of every batch.
    """

    def __init__(
        self,
        *,
        max_wait: float,
        max_tokens: int,
        observe: Callable[[int, int, float], None] | None = None,
    ) -> None:
        self.max_wait = max_wait
        self.max_tokens = max_tokens
        self.observe = observe
        self.ready = threading.Condition()
        self.callers: deque[Caller] = deque()
        self.waiting = 0  # tokens of the callers in the queue, as far as they are not taken
        self.rate = 0.0  # tokens a second, lately
        self.closing = False
        self.thread: threading.Thread | None = None

    def add(self, caller: Caller) -> None:
        """Put a caller in the queue; the thread starts with the first one."""
        caller.arrived = time.monotonic()
        empty = [i for i, each in enumerate(caller.readings) if not each.tokens]
        if empty:
            caller.deliver([(i, []) for i in empty])
        if not caller.lists:
            return
        with self.ready:
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name="npbert-batch", daemon=True)
                self.thread.start()
            self.callers.append(caller)
            self.waiting += caller.tokens
            self.ready.notify()

    def drop(self, caller: Caller) -> None:
        """Compute nothing more of a caller."""
        caller.dropped = True

    def close(self) -> None:
        """Compute what is in the queue, and end the thread; another caller starts it again."""
        with self.ready:
            self.closing = True
            self.ready.notify()
        if self.thread is not None:
            self.thread.join()
        self.thread, self.closing = None, False

    def predict_seconds(self) -> float:
        """Return about how long it takes to compute what waits."""
        return self.waiting / self.rate if self.rate else 0.0

    def run(self) -> None:
        """Compute batches until there are none, and the batcher is closed."""
        busy = False
        while batch := self.take_next(busy=busy):
            busy = True
            began = time.monotonic()
            self.compute(batch)
            seconds, tokens = time.monotonic() - began, sum(len(each.tokens.ids) for each in batch)
            last = tokens / max(seconds, 1e-9)
            kept = RATE_MEMORY if self.rate else 0.0
            self.rate = kept * self.rate + (1 - kept) * last
            if self.observe:
                self.observe(len(batch), tokens, seconds)

    def take_next(self, *, busy: bool) -> list[BatchPart]:
        """Wait for a batch, and return it; nothing where there will be none.

        `busy` is whether those in the queue came while another was computed.
        """
        with self.ready:
            busy = busy and bool(self.callers)
            while True:
                while not self.callers and not self.closing:
                    self.ready.wait()
                while busy and not self.closing and not self.is_full():
                    left = self.callers[0].arrived + self.max_wait - time.monotonic()
                    if left <= 0 or not self.ready.wait(left):
                        break
                batch = self.take_batch()
                if batch or self.closing:
                    return batch
                busy = False  # all that waited were dropped

    def is_full(self) -> bool:
        """Tell whether what waits fills a batch."""
        return self.waiting >= self.max_tokens or len(self.callers) >= LISTS_AHEAD

    def take_batch(self) -> list[BatchPart]:
        """Take token lists from the queue, of each caller one in turn, for one model's pass."""
        batch: list[BatchPart] = []
        others: list[Caller] = []  # that want another pass
        tokens = 0
        while self.callers and len(batch) < LISTS_AHEAD:
            caller = self.callers.popleft()
            if caller.dropped:
                self.waiting -= sum(len(each.ids) for _, each in caller.lists[caller.taken :])
                continue
            if batch and caller.task is not batch[0].caller.task:
                others.append(caller)
                continue
            reading, following = caller.lists[caller.taken]
            if batch and tokens + len(following.ids) > self.max_tokens:
                self.callers.appendleft(caller)
                break
            batch.append(BatchPart(caller, reading, following))
            tokens += len(following.ids)
            caller.taken += 1
            if caller.taken < len(caller.lists):
                self.callers.append(caller)
        self.callers.extendleft(reversed(others))
        self.waiting -= tokens
        return batch

    def compute(self, batch: Sequence[BatchPart]) -> None:
        """Compute token lists, and deliver what they complete."""
        callers = list(dict.fromkeys(part.caller for part in batch))
        try:
            groups = batch[0].caller.task.compute(part.tokens for part in batch)
            values = [value for group in groups for value in group]
        except Exception as error:
            if len(callers) == 1:
                callers[0].dropped = True
                callers[0].fail(error)
                return
            for caller in callers:  # whose fault it is, nobody knows; the others shall have answers
                self.compute([part for part in batch if part.caller is caller])
            return
        done: dict[Caller, list[tuple[int, list[Array]]]] = {}
        for part, value in zip(batch, values, strict=True):
            if (whole := part.caller.take_values(part.reading, value)) is not None:
                done.setdefault(part.caller, []).append((part.reading, whole))
        for caller, readings in done.items():
            if not caller.dropped:
                caller.deliver(readings)
