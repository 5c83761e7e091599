"""How many threads compute, and who computes what: everything that decides it, in one place.

Packs run side by side, each with one BLAS thread; with several they would fight for the cores.  A
pack that is alone shares its work with a helper thread.  There is no NumPy here, so that a process
can be set up before NumPy, and its BLAS, load.

BLAS threads are set as threadpoolctl does it (find the library, call its setter), for the OpenBLAS
that ships inside NumPy's wheels.  Where there is another BLAS, set its variable to 1 before NumPy
is imported, as the command line does; otherwise results stay right, and come slower.
"""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from functools import cache, partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeVar

from npbert.errors import require_count

# Any BLAS reads one of these when NumPy loads.
BLAS_VARIABLES: Final = (
    "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
WORTH_SHARING: Final = 8_000_000  # multiplications, 0.2 ms; a thread costs a quarter of that
FEW_TOKENS: Final = 8  # for fewer the time goes to reading the weights

A = TypeVar("A")
B = TypeVar("B")

_own = threading.local()
_lock = threading.Lock()
_inside = 0  # how many want one BLAS thread now
_outside = 0  # how many threads BLAS had before


def blas_environment(threads: int = 1) -> dict[str, str]:
    """Return the environment in which any BLAS starts so many threads."""
    return dict.fromkeys(BLAS_VARIABLES, str(threads))


def count_cores() -> int:
    """Return how many cores this process may use: by affinity, and by its cgroup's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").split()
        return max(1, min(allowed or 1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or "max"
        return allowed or 1


def count_threads(asked: int | None) -> int:
    """Return how many threads to compute with: as asked, or one for every core."""
    if asked is None:
        return count_cores()
    return require_count("threads", asked)


# ---- packs side by side --------------------------------------------------------------------------


def map_in_threads(function: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Yield function(item) for every item, in order, on a pool of threads, a little ahead."""
    given = iter(items)
    with limit_blas_threads():
        first = list(islice(given, 2 * threads))
        if threads == 1 or len(first) < 2:
            with helper_thread() if threads > 1 else nullcontext():
                yield from map(function, chain(first, given))
            return
        with ThreadPoolExecutor(threads) as pool:
            under_way = deque(run_in_pool(pool, partial(function, item)) for item in first)
            while under_way:
                result = under_way.popleft()()
                under_way.extend(
                    run_in_pool(pool, partial(function, item)) for item in islice(given, 1)
                )
                yield result


def run_in_pool(pool: ThreadPoolExecutor, work: Callable[[], B]) -> Callable[[], B]:
    """Have a pool do some work, and return what waits for its result.

    Where the pool takes no more, that does the work: Python closes all pools when its main thread
    ends, but waits for other threads, whose answers would be lost.
    """
    try:
        return pool.submit(work).result
    except RuntimeError:
        return work


# ---- one pack, shared with a helper --------------------------------------------------------------


class Helper:
    """A thread that computes beside the one that has it; two locks are all they say.

    To hand work over a queue, as a pool does, takes 0.05 ms longer: a tenth of what there is to do
    for a short text.  It ends when whoever has it is gone.
    """

    def __init__(self) -> None:
        self.asked, self.done = threading.Lock(), threading.Lock()
        self.asked.acquire()
        self.done.acquire()
        self.work: list[Callable[[], Any] | None] = []  # None: end
        self.outcomes: list[tuple[Any, bool]] = []  # results, or errors and True
        self.thread = threading.Thread(
            target=run_helper, name="npbert", daemon=True,
            args=(self.asked, self.done, self.work, self.outcomes),
        )  # fmt: skip
        self.thread.start()

    def begin(self, work: Callable[[], Any]) -> None:
        """Have the helper do some work; take_result must follow."""
        self.work.append(work)
        self.asked.release()

    def take_result(self) -> Any:
        """Return what came of the work, or raise what it raised."""
        self.done.acquire()
        result, failed = self.outcomes.pop()
        if failed:
            raise result
        return result

    def __del__(self) -> None:
        self.work.insert(0, None)
        if self.asked.locked():  # or it has not begun yet what it was asked for before
            self.asked.release()


def run_helper(
    asked: threading.Lock,
    done: threading.Lock,
    given: list[Callable[[], Any] | None],
    outcomes: list[tuple[Any, bool]],
) -> None:
    """Do what is given, until that is None."""
    while asked.acquire() and (work := given.pop()) is not None:
        try:
            outcomes.append((work(), False))
        except BaseException as error:  # it is raised where the work came from
            outcomes.append((error, True))
        del work  # it holds its arguments
        done.release()
        if None in given:
            return


@contextmanager
def helper_thread() -> Iterator[None]:
    """Let the one pack that this thread computes share its work with a helper.

    Every thread that asks has a helper of its own, which stays: to start a thread for every text
    would cost 0.2 ms.  Where no more threads can start, it computes alone.
    """
    if getattr(_own, "spare", None) is None:
        with suppress(RuntimeError):  # of an interpreter that ends
            _own.spare = Helper()
    _own.helper = getattr(_own, "spare", None)
    try:
        yield
    finally:
        _own.helper = None


def split_in_two(size: int, weights: int, tokens: int) -> list[slice]:
    """Return range(size) in two halves, or whole where so little is not worth a second thread.

    `weights` times `tokens` are multiplied.  The cut depends on nothing else, and is made whether
    there is a second thread or not, so that no bit of a result depends on who computed it.
    """
    if size < 2 or weights * max(tokens, FEW_TOKENS) < WORTH_SHARING:
        return [slice(0, size)]
    return [slice(0, size // 2), slice(size // 2, size)]


def run_parallel(function: Callable[[slice], B], parts: Sequence[slice]) -> list[B]:
    """Call a function for every part, one or two: the first here, the second by the helper."""
    first, *rest = parts
    helper = getattr(_own, "helper", None)
    if not rest or helper is None:
        return [function(part) for part in parts]
    # NumPy keeps what it does about overflow in the context, which a thread does not inherit.
    helper.begin(partial(copy_context().run, function, rest[0]))
    try:
        return [function(first), helper.take_result()]
    except BaseException:  # it may still compute, or hold what came of it
        _own.helper = _own.spare = None
        raise


# ---- BLAS ----------------------------------------------------------------------------------------


@cache
def find_openblas() -> tuple[ctypes.CDLL, str] | None:
    """Return the OpenBLAS of NumPy's wheel, and its names with {} for their middle, or None."""
    spec = find_spec("numpy")
    package = Path(spec.origin).parent.parent if spec and spec.origin else Path()
    for path in (package / "numpy.libs").glob("*openblas*"):
        found = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_{}64_", "openblas_{}64_", "scipy_openblas_{}", "openblas_{}"):
            if hasattr(found, name.format("set_num_threads")):
                return found, name
    return None


@cache
def thread_controls() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Return the functions that get and set OpenBLAS's number of threads, or None."""
    if (known := find_openblas()) is None:
        return None
    found, name = known
    get, put = (getattr(found, name.format(f"{verb}_num_threads")) for verb in ("get", "set"))
    return get, put


@contextmanager
def limit_blas_threads() -> Iterator[None]:
    """Give matrix products one thread each until the last of those who asked has left."""
    global _inside, _outside
    found = thread_controls()
    if found is None:
        yield
        return
    get, put = found
    with _lock:
        if _inside == 0:
            _outside = get()
            put(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside = max(0, _inside - 1)  # a fork may have come between
            if _inside == 0:
                put(_outside)


def reset_after_fork() -> None:
    """Forget, in a forked child, who computed in its parent: none of them will ever leave."""
    global _lock, _inside
    _own.__dict__.clear()  # a child has no threads but the one that forked
    _lock = threading.Lock()  # somebody may have held it
    if _inside and (found := thread_controls()):
        found[1](_outside)
    _inside = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_after_fork)
