"""Locks of folders, so that processes publish one after the other. They end with the process that holds them."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:
    # Windows has no flock
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_SECONDS = 0.002


@contextmanager
def locked(folder: Path, seconds: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a folder; yield whether it was obtained.

    Parameters
    ----------
    folder
        Existing folder.
    seconds
        Time to wait for the process that holds the lock. Not obtained at once: folders that cannot be read, and file
        systems without locks.
    """
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        yield _obtained(descriptor, seconds)
    finally:
        # a process that was forked meanwhile has the descriptor, too
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _obtained(descriptor: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_SECONDS)
        except OSError:
            return False
        else:
            return True
