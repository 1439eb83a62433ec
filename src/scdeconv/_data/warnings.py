"""Warnings to the user, and those of dependencies that concern their own code."""

from __future__ import annotations

import sys
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = __name__.split(".", maxsplit=1)[0]

_lock = threading.Lock()
_n_users = 0
_filters: warnings.catch_warnings


def warn(message: str) -> None:
    """Warn the user, at the line that called this package, however deep the caller is."""
    frame: FrameType | None = sys._getframe(1)
    level, depth = 2, 2
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] == PACKAGE:
            level = depth + 1
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@contextmanager
def dependency_warnings_ignored() -> Iterator[None]:
    """Ignore what anndata, mudata and Lightning are warned of, or warn of, because of how they are written.

    anndata 0.13 and mudata 0.4 call parts of pandas that pandas 3.1 deprecates whenever an AnnData is made or subset and
    a MuData is made or written (``mode.chained_assignment``, ``future.infer_string``, ``inplace``). Lightning advises on
    data loaders and loggers that are not used here. Neither the user nor this package can do anything about it.

    Filters of warnings belong to the process, so threads share them: the first that enters installs them and the last
    that leaves restores those of before.
    """
    global _n_users, _filters
    with _lock:
        if not _n_users:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"(anndata|mudata)\.")
            warnings.filterwarnings("ignore", module=r"lightning\.")
        _n_users += 1
    try:
        yield
    finally:
        with _lock:
            _n_users -= 1
            if not _n_users:
                _filters.__exit__(None, None, None)
