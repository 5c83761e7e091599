"""The oracle: every intermediate number, the first wrong step of a port, and its cause by name."""

from npbert.oracle.comparison import compare
from npbert.oracle.diagnosis import diagnose
from npbert.oracle.traces import Trace, trace

__all__ = ["Trace", "compare", "diagnose", "trace"]
