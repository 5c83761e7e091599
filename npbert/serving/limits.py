"""How much a server takes on: each limit once, for the library's keywords and the flags."""

from dataclasses import dataclass, fields
from typing import Final

from npbert.errors import require_count
from npbert.tasks.options import option

# The variable that names the folder where processes count together; prometheus_client reads it when
# it is imported.
COUNTERS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
QUEUED_BODIES: Final = 32  # bodies of the greatest size that may wait together


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What one request may ask for, and how long it may take."""

    max_body_bytes: int = option(1 << 22, "bytes of a request's body; more is 413")
    max_texts: int = option(2048, "texts of a request, labels and documents counted; more is 413")
    max_tokens: int = option(65_536, "tokens that a request's texts make; more is 413")
    max_top_k: int = option(1000, "the greatest top_k of a request; more is 413")
    max_answer_bytes: int = option(1 << 28, "bytes of a request's answers; more is 413")
    max_queue: int = option(512, "requests that wait or are computed; one more is 429")
    timeout: int = option(60, "seconds until a request is answered, or 504")
    body_timeout: int = option(10, "seconds for a request's body to come, or 408")
    header_timeout: int = option(10, "seconds for a request's head to come, before it is hung up")
    idle_timeout: int = option(30, "seconds that a connection may rest between requests")

    def __post_init__(self) -> None:
        for each in fields(self):
            require_count(each.name, getattr(self, each.name))
