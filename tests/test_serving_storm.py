"""npbert serve under callers of every kind: no answer lost, doubled or mixed up, nothing left over.

NPBERT_REQUESTS=100000 python -m pytest -m serve tests/test_serving_storm.py
"""

import http.client
import json
import os
import random
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving_process import Server, request_bytes

import npbert

pytestmark = [
    pytest.mark.serve,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
]
MODELS = Path(__file__).parent.parent / "golden" / "tasks"
SEED = int(os.environ.get("NPBERT_LONG_SEED", "1"))
REQUESTS = int(os.environ.get("NPBERT_REQUESTS", "3000"))
CALLERS = 16
EMBED, CLASSIFY, PREDICT = "/embed", "/v1/text-classification", "/predict"
LARGEST = 1 << 16  # bytes of a body
WORDS = ["cat", "film", "tedious", "treasure", "ship", "garden", "old", "scarlet", "funny", "dull"]
# What callers do, and how often.  Only the first two count on an answer at these two paths.
KINDS = {"embed": 40, "classify": 40, "gone": 8, "cut": 4, "large": 3, "wrong": 4, "slow": 0.2}
REFUSED = {"large": 413, "wrong": 422}


class Books:
    """What is right, and what came."""

    def __init__(self) -> None:
        rng = random.Random(SEED)
        self.texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 15))) for _ in range(60)]
        embed = npbert.pipeline("sentence-embedding", MODELS / "st_cls_norm", batch_invariant=True)
        classify = npbert.pipeline("text-classification", batch_invariant=True)
        self.right = {EMBED: embed(self.texts).tolist(), CLASSIFY: classify(self.texts)}


class Caller:
    """One who asks again and again, on a connection that is kept as long as it lasts."""

    def __init__(self, server: Server, books: Books, seed: int) -> None:
        self.server, self.books = server, books
        self.rng = random.Random(f"{SEED} {seed}")
        self.connection: http.client.HTTPConnection | None = None
        self.seen = Counter()

    def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=900)
        self.connection.request("POST", path, body)
        reply = self.connection.getresponse()
        status, data = reply.status, reply.read()
        if reply.will_close:
            self.hang_up()
        return status, data

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def act(self) -> None:
        kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        some = self.rng.sample(range(len(self.books.texts)), self.rng.choice([1, 1, 1, 1, 9]))
        body = json.dumps({"inputs": [self.books.texts[i] for i in some]}).encode()
        if kind in ("embed", "classify"):
            path = EMBED if kind == "embed" else CLASSIFY
            status, data = self.ask(path, body)
            assert status == 200, data
            right = self.books.right[path]
            assert json.loads(data) == [right[i] for i in some]
            self.seen[path] += 1
        elif kind in REFUSED:
            long = b"x" * self.rng.randint(LARGEST + 1, 8 * LARGEST)
            status, _ = self.ask(
                PREDICT, long if kind == "large" else body[: -self.rng.randint(1, 9)]
            )
            assert status == REFUSED[kind]
        else:
            whole = request_bytes(PREDICT, body)
            size = self.rng.randrange(len(whole)) if kind == "cut" else len(whole)
            with self.server.connect(whole[: size if kind != "slow" else 1]) as own:
                if kind == "gone":
                    time.sleep(self.rng.choice([0, 0, 0.002, 0.02]))
                if kind == "slow":
                    self.send_slowly(own, whole[1:])
        self.seen[kind] += 1

    def send_slowly(self, own: socket.socket, data: bytes) -> None:
        """Send a byte a second, until the server has enough of it."""
        own.settimeout(1)
        for byte in data:
            try:
                said = own.recv(1000)
            except TimeoutError:
                own.sendall(bytes([byte]))
            except ConnectionResetError:
                return
            else:
                assert said == b"" or b" 408 " in said
                return


def figures(process: int) -> tuple[int, int, int]:
    """Return the kB of memory, the threads and the open descriptors of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    size = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    threads, files = (len([*Path(f"/proc/{process}/{each}").iterdir()]) for each in ("task", "fd"))
    return size, threads, files


def wait_for_rest(process: int, files: int) -> tuple[int, int, int]:
    """Return the figures of a process when no more descriptors are open than at rest."""
    for _ in range(400):
        if (found := figures(process))[2] <= files:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{found[2] - files} descriptors are left open")


def test_a_storm_of_callers_leaves_every_answer_right_and_nothing_behind():
    books = Books()
    with Server(
        "text-classification", f"sentence-embedding={MODELS / 'st_cls_norm'}", "--batch-invariant",
        "--max-body-bytes", str(LARGEST), "--header-timeout", "3", "--body-timeout", "3",
        "--timeout", "900", "--idle-timeout", "900", "--verbose",
    ) as made:  # fmt: skip
        callers = [Caller(made, books, i) for i in range(CALLERS)]
        made.ask("/health")
        time.sleep(0.5)
        _, _, at_rest = figures(made.process.pid)  # those of an event loop too

        def act(caller, count):
            for _ in range(count):
                caller.act()

        measured = []
        with ThreadPoolExecutor(CALLERS) as pool:
            for _ in range(10):
                list(pool.map(act, callers, [REQUESTS // 10 // CALLERS] * CALLERS))
                for caller in callers:
                    caller.hang_up()
                measured.append(wait_for_rest(made.process.pid, at_rest))
        seen = sum((caller.seen for caller in callers), Counter())
        assert all(seen[kind] for kind in KINDS if kind != "slow" or REQUESTS >= 10_000)

        def act_until_ended(caller):
            while True:
                try:
                    caller.act()
                except (ConnectionError, http.client.BadStatusLine):  # which was not taken
                    caller.hang_up()
                    if made.process.poll() is not None:
                        return

        with ThreadPoolExecutor(CALLERS) as pool:
            last = [pool.submit(act_until_ended, caller) for caller in callers]
            time.sleep(1)
            assert made.end() == 0
            for each in last:
                each.result()
        seen = sum((caller.seen for caller in callers), Counter())
        for path in (EMBED, CLASSIFY):  # each that was taken was answered, and answered once
            assert made.log.count(f"npbert: {path} 200, ") == seen[path]
            assert made.log.count(f"npbert: {path} ") == seen[path]
        told = ("tedious", "treasure", "scarlet")  # others are parts of paths
        found = [line for line in made.log.splitlines() if any(word in line for word in told)]
        assert found == []  # no text stands in the log
    sizes, threads, _ = zip(*measured, strict=True)
    print(f"asked: {dict(seen)}; kB: {sizes}; threads: {threads}")  # pytest -s shows it
    assert sizes[-1] <= 1.05 * sizes[0] + 4096, sizes
    assert len(set(threads)) == 1, threads
