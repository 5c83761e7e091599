"""npbert serve as a process of its own on loopback, and callers that behave, or do not."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, NamedTuple

ADDRESS = re.compile(r"npbert: listens on http://[\d.]+:(\d+); Ctrl-C ends it\n")


class Reply(NamedTuple):
    status: int
    value: Any
    headers: dict[str, str]


class Server:
    """A running npbert serve."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "npbert", "serve", "--port", "0", *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "NPBERT_API_KEY": "", **environment}
            if "NPBERT_API_KEY" in environment
            else {k: v for k, v in os.environ.items() if k != "NPBERT_API_KEY"} | environment,
        )  # fmt: skip
        self.log = ""
        while not (found := ADDRESS.search(self.log)):
            line = self.process.stderr.readline()
            assert line, self.log
            self.log += line
        self.port = int(found[1])
        self.reader = threading.Thread(target=self.read_log)
        self.reader.start()

    def read_log(self) -> None:
        for line in self.process.stderr:
            self.log += line

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
        """Send a request on a connection of its own; a body is sent as JSON, bytes as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, given, {"Content-Type": "application/json", **names})
            reply = connection.getresponse()
            data = reply.read()
            headers = {name.lower(): value for name, value in reply.getheaders()}
            whole = headers.get("content-type") == "application/json"
            return Reply(reply.status, json.loads(data) if whole else data.decode(), headers)
        finally:
            connection.close()

    def connect(self, data: bytes = b"") -> socket.socket:
        """Return a connection on which something was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        made.sendall(data)
        return made

    def count(self, name: str) -> float:
        """Return a number of GET /metrics, all its labels together."""
        text = self.ask("/metrics").value
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if re.match(rf"{name}(\{{|\s)", line)
        )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self.reader.join()
        self.process.stderr.close()
        return status

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *how: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()


def request_bytes(path: str, body: Any, host: str = "localhost") -> bytes:
    """Return a request as it goes over the wire."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data
