"""The oracle: every intermediate number, the first wrong step of a port, and its cause by name."""

from npbert.oracle.comparing import compare
from npbert.oracle.diagnosing import diagnose
from npbert.oracle.shared import Trace
from npbert.oracle.tracing import trace

__all__ = ["Trace", "compare", "diagnose", "trace"]
