"""From the body of a request to the body of its reply: read off the event loop, computed together.

An event loop waits for the reply; a few threads read inputs and write answers; the thread of a
batcher computes.  A caller who no longer waits is dropped wherever its request is.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from npbert.errors import InputError, listing, quote
from npbert.serving.batching import Caller
from npbert.serving.limits import QUEUED_BODIES, ServerLimits
from npbert.serving.questions import AnswerText, Endpoint, ServedTask, TaskQuestion, parse_body
from npbert.tasks.task import Reading, Tally
from npbert.textbook import Array

READERS: Final = 4  # threads; a request that takes long to read leaves three to others
INPUTS_AT_ONCE: Final = 16  # that such a thread reads before others have their turn
NOTICE: Final = "npbert-notice"  # the header that tells of texts that were truncated
logger: Final = logging.getLogger("npbert.serving")


class RefusedError(Exception):
    """A request that is answered with a status and a reason.

    Parameters
    ----------
    status : int
    message : str
        For the caller.
    headers : mapping, optional
        Of the reply.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class Reply(NamedTuple):
    """The body of an answer, and its headers."""

    body: bytes
    headers: dict[str, str]


def count_texts(value: Any) -> int:
    """Return how many strings a JSON value holds, and lists that are ids of a text's tokens.

    Raises InputError.
    """
    if isinstance(value, str):
        return 1
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    elif value and isinstance(value[0], int):
        return 1
    try:
        return sum(map(count_texts, value))
    except RecursionError:
        raise InputError("the body is nested too deeply") from None


def count_listed_texts(body: Mapping[str, Any]) -> int:
    """Return how many texts a body holds, but for words that choose.  Raises InputError."""
    parameters = body.get("parameters", {})
    return sum(
        count_texts(value)
        for name, value in [*body.items(), *parameters.items()]
        if value is not parameters and not isinstance(value, str)
    )


class AskedRequest:
    """A request whose inputs are read, some at a time, and then answered, as they are computed."""

    def __init__(self, question: TaskQuestion, served: ServedTask, limits: ServerLimits) -> None:
        self.question = question
        self.served = served
        self.limits = limits
        self.pass_task = question.task.task_for(question.options)
        self.readings: list[Reading[Any]] = []
        self.tally = Tally()
        self.text = AnswerText(question)
        self.left = len(question.inputs)  # to answer
        self.lock = threading.Lock()
        self.dropped = False

    @property
    def is_read(self) -> bool:
        """Whether all inputs are."""
        return len(self.readings) == len(self.question.inputs)

    def read_some(self) -> None:
        """Read a few more inputs.  Raises InputError, RefusedError."""
        first = len(self.readings)
        some = self.question.inputs[first : first + INPUTS_AT_ONCE]
        for i, item in enumerate(some, first):
            reading = self.pass_task.read_numbered(i, item, self.question.options)
            self.readings.append(reading)
            self.tally.add(reading)
            if self.tally.tokens > self.limits.max_tokens:
                raise RefusedError(
                    413,
                    f"the first {i + 1} of {len(self.question.inputs)} inputs make "
                    f"{self.tally.tokens} tokens, but this server reads {self.limits.max_tokens} "
                    "of a request; send fewer at once",
                )
            if self.dropped:
                return

    def write_some(self, computed: list[tuple[int, list[Array]]]) -> Reply | None:
        """Answer inputs whose values are computed; return the reply if they are the last.

        Raises InputError, RefusedError.
        """
        question = self.question
        for i, values in computed:
            if self.dropped:
                return None
            answer = question.task.answer(self.readings[i], values, question.options)
            with self.lock:
                self.text.add(i, answer)
                self.left -= 1
            if self.text.size > self.limits.max_answer_bytes:
                raise RefusedError(
                    413,
                    f"the answers have more than {self.limits.max_answer_bytes} bytes; ask for "
                    "fewer at once",
                )
        with self.lock:
            if self.left:
                return None
            self.left = -1  # no other thread finds none left
        return self.finish()

    def finish(self) -> Reply:
        """Return the reply, when all is answered."""
        notes = "; ".join(self.question.task.omission_notes(self.tally, self.question.options))
        headers = {NOTICE: notes.encode("ascii", "replace").decode()} if notes else {}
        return Reply(self.text.finish(self.tally.tokens), headers)


class Service:
    """What answers requests: models by their tasks, limits, and threads.

    Parameters
    ----------
    served : mapping
        By the names of tasks and then of models; the first of a task is the one that is asked
        where a request names none.
    limits : ServerLimits
    """

    def __init__(
        self, served: Mapping[str, Mapping[str, ServedTask]], limits: ServerLimits
    ) -> None:
        self.served = served
        self.limits = limits
        self.taken = 0  # requests that are not answered yet
        self.held = 0  # bytes of their bodies
        self.pool = self.make_pool()

    def make_pool(self) -> ThreadPoolExecutor:
        """Return threads that read and write; they start when they are needed."""
        return ThreadPoolExecutor(READERS, thread_name_prefix="npbert-read")

    def close(self) -> None:
        """Answer what was taken, and end all threads; another request starts them again."""
        for models in self.served.values():
            for each in models.values():
                each.batcher.close()
        self.pool.shutdown()
        self.pool = self.make_pool()

    def choose_model(self, endpoint: Endpoint, name: str | None) -> ServedTask:
        """Return the model that a request asks.  Raises RefusedError."""
        models = self.served.get(endpoint.row.name, {})
        if not models:
            raise RefusedError(
                404, f"no {endpoint.row.name} is served here, but {listing(self.served)}"
            )
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            known = listing(map(repr, models))
            raise RefusedError(
                404, f"model is {quote(name)}, but {endpoint.row.name} has {known} here"
            )
        return models[name]

    def read_question(self, endpoint: Endpoint, body: bytes) -> AskedRequest:
        """Return what a body asks, its first inputs read.  Raises InputError, RefusedError."""
        given = parse_body(body, endpoint.fields)
        texts, most = count_listed_texts(given), self.limits.max_texts
        if texts > most:
            raise RefusedError(
                413, f"the body has {texts} texts, but this server reads {most} of a request; "
                "send fewer at once",
            )  # fmt: skip
        served = self.choose_model(endpoint, given.get("model"))
        question = endpoint.ask(given, served)
        asked, most = getattr(question.options, "top_k", None), self.limits.max_top_k
        if isinstance(asked, int) and asked > most:
            raise RefusedError(413, f"top_k is {asked}, but this server gives at most {most}")
        made = AskedRequest(question, served, self.limits)
        made.read_some()
        return made

    def require_room(self, size: int) -> None:
        """Refuse one request more, with a body of so many bytes, where there are too many."""
        full = self.taken >= self.limits.max_queue
        if full or self.held + size > QUEUED_BODIES * self.limits.max_body_bytes:
            ahead = max(
                each.batcher.predict_seconds()
                for models in self.served.values()
                for each in models.values()
            )
            raise RefusedError(
                429, f"{self.taken} requests wait already; try again later",
                {"Retry-After": str(max(1, math.ceil(ahead)))},
            )  # fmt: skip

    async def answer(self, endpoint: Endpoint, body: bytes) -> Reply:
        """Return the reply to a request.  Raises InputError, RefusedError, or what went wrong."""
        self.require_room(len(body))
        self.taken += 1
        self.held += len(body)
        asked: AskedRequest | None = None
        try:
            loop = asyncio.get_running_loop()
            asked = await loop.run_in_executor(self.pool, self.read_question, endpoint, body)
            while not asked.is_read:
                await loop.run_in_executor(self.pool, asked.read_some)
            return await self.compute(asked)
        finally:
            if asked is not None:
                asked.dropped = True
            self.taken -= 1
            self.held -= len(body)

    async def compute(self, asked: AskedRequest) -> Reply:
        """Have the inputs of a request computed, and return the reply."""
        if not asked.readings:
            return asked.finish()
        loop = asyncio.get_running_loop()
        waited: asyncio.Future[Reply] = loop.create_future()

        def end_waiting(error: Exception | None, reply: Reply | None = None) -> None:
            """End the waiting, in the event loop."""
            if waited.done():  # the caller has gone
                return
            if error is not None:
                waited.set_exception(error)
            elif reply is not None:
                waited.set_result(reply)

        def write(computed: list[tuple[int, list[Array]]]) -> None:
            try:
                reply = asked.write_some(computed)
            except Exception as error:
                call_in_loop(loop, end_waiting, error)
            else:
                call_in_loop(loop, end_waiting, None, reply)

        def write_in_pool(computed: list[tuple[int, list[Array]]]) -> None:
            try:
                self.pool.submit(write, computed)
            except RuntimeError:  # Python ends, and its pools are closed
                write(computed)

        def end_failed(error: Exception) -> None:
            call_in_loop(loop, end_waiting, error)

        caller = Caller(asked.pass_task, asked.readings, write_in_pool, end_failed)
        asked.served.batcher.add(caller)
        try:
            return await waited
        finally:
            asked.served.batcher.drop(caller)


def call_in_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any
) -> None:
    """Call a function in an event loop, from another thread, if it still runs."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        logger.debug("an answer came when the event loop was closed")
