"""What a server tells Prometheus of itself."""

import os
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from npbert.serving.limits import COUNTERS_VARIABLE

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_SIZES: Final = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class ServerMetrics:
    """Counters of one app; of all processes together where there are several."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.requests = Counter(
            "npbert_requests", "Requests by what they asked for and how they ended",
            ["endpoint", "status"], registry=own,
        )  # fmt: skip
        self.seconds = Histogram(
            "npbert_request_seconds", "From a request's body to its answer", ["endpoint"],
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self.taken = Gauge(
            "npbert_requests_taken", "Requests that wait or are computed", registry=own,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.tokens = Counter("npbert_tokens", "Tokens computed", ["task"], registry=own)
        self.lists = Counter("npbert_token_lists", "Token lists computed", ["task"], registry=own)
        self.batch_tokens = Histogram(
            "npbert_batch_tokens",
            "Tokens of a batch",
            ["task"],
            buckets=BATCH_SIZES,
            registry=own,
        )
        self.batch_seconds = Histogram(
            "npbert_batch_seconds",
            "Seconds of a batch",
            ["task"],
            buckets=SECONDS,
            registry=own,
        )

    def count_batch(self, task: str, lists: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.tokens.labels(task).inc(tokens)
        self.lists.labels(task).inc(lists)
        self.batch_tokens.labels(task).observe(tokens)
        self.batch_seconds.labels(task).observe(seconds)

    def report(self) -> bytes:
        """Return everything in Prometheus' text format."""
        registry = self.registry
        if os.environ.get(COUNTERS_VARIABLE):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        made: bytes = generate_latest(registry)
        return made


def forget_process(process: int) -> None:
    """Count no longer what a process that has ended had taken."""
    multiprocess.mark_process_dead(process)
