"""Settings of the process that several threads share: numbers of threads, levels of loggers, options."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_lock = threading.Lock()
_scanpy_lock = threading.RLock()
_n_users: Counter[str] = Counter()
_changes: dict[str, ExitStack] = {}


@contextmanager
def shared_change(setting: str, change: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Change a setting of the process. The first of overlapping calls changes it, the last one restores it.

    If each call saved and restored the setting, the last one would restore the value that the first one had set.

    Parameters
    ----------
    setting
        Name of the setting. Calls with the same name share the change.
    change
        Returns a context that changes the setting.
    """
    with _lock:
        if not _n_users[setting]:
            _changes[setting] = ExitStack()
            _changes[setting].enter_context(change())
        _n_users[setting] += 1
    try:
        yield
    finally:
        with _lock:
            _n_users[setting] -= 1
            if not _n_users[setting]:
                _changes.pop(setting).close()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run BLAS on one thread: faster for small matrices, and sums do not depend on the number of cores."""
    with shared_change("threads of BLAS", lambda: threadpool_limits(1, "blas")):
        yield


@contextmanager
def scanpy_alone() -> Iterator[None]:
    """Run scanpy in one thread at a time, and restore the number of OpenMP threads, which numba changes.

    scanpy sets the random generator of igraph, which the process shares, and numba may end the process if two threads
    run parallel functions.
    """
    with _scanpy_lock, one_blas_thread(), one_openmp_thread():
        yield


def one_openmp_thread() -> AbstractContextManager[Any]:
    """Run torch and scikit-learn on one thread when this thread calls them. Other threads keep their number."""
    return threadpool_limits(1, "openmp")
