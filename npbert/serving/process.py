"""The processes of a server: uvicorn with timeouts for slow callers, signals, several processes.

All processes are forked from one that has loaded the models and opened the port, so that they share
the mapped weights, and whoever is free takes the next connection.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from npbert.errors import InputError, tell
from npbert.serving.limits import COUNTERS_VARIABLE, ServerLimits

BACKLOG: Final = 1024  # connections that wait to be taken
RESTART_SECONDS: Final = 1.0  # before a process that died is replaced
LOOK_SECONDS: Final = 1  # between looks whether the parent is there, and whether to end


class TimedProtocol(H11Protocol):
    """HTTP for callers of whom some are slow: uvicorn waits for ever for a head, and for readers.

    A body's time is the app's affair, and so is a connection's between requests uvicorn's.
    """

    def __init__(self, *args: Any, seconds: float, **how: Any) -> None:
        super().__init__(*args, **how)
        self.seconds = seconds
        self.timers: dict[str, asyncio.TimerHandle] = {}  # by what is waited for

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.add_timer("head")

    def connection_lost(self, exc: Exception | None) -> None:
        for what in list(self.timers):
            self.remove_timer(what)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.remove_timer("head")
        elif not self.transport.is_closing():
            self.add_timer("head")

    def pause_writing(self) -> None:
        super().pause_writing()
        self.add_timer("reader")

    def resume_writing(self) -> None:
        super().resume_writing()
        self.remove_timer("reader")

    def add_timer(self, what: str) -> None:
        """Hang up unless it happens in time; a timer that runs is let run."""
        if what not in self.timers:
            self.timers[what] = self.loop.call_later(self.seconds, self.transport.abort)

    def remove_timer(self, what: str) -> None:
        """Let the caller be."""
        if timer := self.timers.pop(what, None):
            timer.cancel()


def open_port(host: str, port: int) -> socket.socket:
    """Return a socket that listens.  Raises InputError."""
    if not host:
        raise InputError("host is empty, expected a name or an address; 0.0.0.0 is all of them")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once, and does not wait for 40 ms, where the protocol is named.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        made.close()
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host} port {port}: {why}") from None
    return made


def tell_address(listener: socket.socket) -> None:
    """Tell where a browser finds the page; from now on a signal is obeyed in order."""
    host, port = listener.getsockname()[:2]
    tell(f"listens on http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends it")


def run_server(
    app: Any,
    listener: socket.socket,
    limits: ServerLimits,
    grace: int,
    parent: int | None = None,
) -> bool:
    """Answer at a port until a signal comes, and what was taken thereafter.

    Returns whether that was Ctrl-C.
    """
    came: list[int] = []  # signals: before uvicorn heard any, or as it sends them once more

    def note_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note_signal)

    if parent is None:
        tell_address(listener)

    async def look_around() -> None:
        orphaned = parent is not None and os.getppid() != parent
        server.should_exit = server.should_exit or orphaned or bool(came)

    config = uvicorn.Config(
        app, http=partial(TimedProtocol, seconds=limits.header_timeout), ws="none",
        log_config=None, log_level="critical", access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=limits.idle_timeout, backlog=BACKLOG,
        timeout_graceful_shutdown=grace, callback_notify=look_around, timeout_notify=LOOK_SECONDS,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.run([listener])
    return signal.SIGINT in came


class Workers:
    """Several processes that answer at one port; one that dies is replaced.

    Parameters
    ----------
    count : int
    work : callable
        What each does, from the fork to its end.
    """

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self.count = count
        self.work = work
        self.running: set[int] = set()
        self.asked: int | None = None  # the signal that ends them

    def end_workers(self, number: int, frame: FrameType | None) -> None:
        """Ask all processes to end, which they do when they have answered."""
        self.asked = number
        for process in self.running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    def add_worker(self) -> None:
        """Fork a process, unless all shall end."""
        parent, signals = os.getpid(), {signal.SIGTERM, signal.SIGINT}
        # One that came between the fork and the note of it would not reach the new process.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        process = os.fork() if self.asked is None else None
        if process != 0:
            self.running |= {process} if process else set()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return
        status = 1
        try:
            os.setpgid(0, 0)  # of a terminal's Ctrl-C the parent tells, once
            for number in signals:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            self.work(parent)
            status = 0
        finally:
            logging.shutdown()
            os._exit(status)

    def run(self, listener: socket.socket) -> bool:
        """Keep the processes until a signal comes; return whether that was Ctrl-C."""
        from npbert.serving.metrics import forget_process  # behind share_metrics

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.end_workers)
        tell_address(listener)
        for _ in range(self.count):
            self.add_worker()
        while self.running:
            process, status = os.wait()
            self.running.discard(process)
            forget_process(process)
            if self.asked is None:
                tell(f"a process ended with {os.waitstatus_to_exitcode(status)}, and is replaced")
                time.sleep(RESTART_SECONDS)
                self.add_worker()
        return self.asked == signal.SIGINT


def run_servers(
    app: Any, listener: socket.socket, limits: ServerLimits, grace: int, count: int
) -> bool:
    """Answer at a port with several processes; return whether Ctrl-C ended them."""
    if count == 1:
        return run_server(app, listener, limits, grace)
    if not hasattr(os, "fork"):
        raise InputError(f"workers is {count}, but this system cannot fork; expected 1")

    def run_worker(parent: int) -> None:
        run_server(app, listener, limits, grace, parent)
        if os.getppid() != parent:  # which would have removed what its processes share
            shutil.rmtree(os.environ[COUNTERS_VARIABLE], ignore_errors=True)

    return Workers(count, run_worker).run(listener)


def share_metrics() -> "tempfile.TemporaryDirectory[str]":
    """Let several processes count together, in a folder; before prometheus_client is imported."""
    folder = tempfile.TemporaryDirectory(prefix="npbert-metrics-")
    os.environ[COUNTERS_VARIABLE] = folder.name
    return folder
