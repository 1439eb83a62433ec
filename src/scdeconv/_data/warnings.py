"""User warnings with the caller's line, and filters for warnings of dependencies."""

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
    """Emit a ``UserWarning`` that points at the line outside of this package that called it."""
    frame: FrameType | None = sys._getframe(1)
    level, depth = 2, 2
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] == PACKAGE:
            level = depth + 1
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@contextmanager
def dependency_warnings_ignored() -> Iterator[None]:
    """Ignore deprecation warnings inside anndata and mudata and all warnings of Lightning.

    anndata 0.13 and mudata 0.4 use options that pandas 3.1 deprecates (``mode.chained_assignment``,
    ``future.infer_string``, ``inplace``) when they create, subset or write objects. Lightning warns about data loaders
    and loggers that this package does not use. Neither the user nor this package can change this.

    Warning filters are global to the process. The first thread that enters installs the filters, and the last thread
    that exits restores the previous filters.
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
