"""Worker processes end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

SECONDS_BETWEEN_LOOKS = 1.0
_watched: set[int] = set()


def end_with(caller: int) -> None:
    """End this process soon after its parent, even after ``kill -9``; joblib lets workers finish their computation.

    Nothing happens in the calling process, and in workers that another program started, such as those of Dask.

    Parameters
    ----------
    caller
        Process that distributes the work.
    """
    # a worker whose parent ended during its imports has another parent
    is_child = os.getppid() == caller or multiprocessing.current_process().name.startswith("LokyProcess")
    if is_child and os.getpid() not in {caller, *_watched}:
        _watched.add(os.getpid())
        threading.Thread(target=_watch, args=(caller,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
