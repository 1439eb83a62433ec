"""User warnings with the caller's line, and filters for warnings of dependencies."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = __name__.split(".", maxsplit=1)[0]


def warn(message: str) -> None:
    """Emit a ``UserWarning`` that points at the line outside of this package that called it."""
    frame: FrameType | None = sys._getframe(1)
    level, depth = 2, 2
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] == PACKAGE:
            level = depth + 1
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, UserWarning, stacklevel=level)


class _InThisThread:
    """Pattern of a warning filter that matches in the thread that created it only."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.thread = re.compile(pattern), threading.get_ident()

    def match(self, text: str) -> bool:
        return threading.get_ident() == self.thread and self.pattern.match(text) is not None


@contextmanager
def warnings_ignored(category: type[Warning] = Warning, *, message: str = "", module: str = "") -> Iterator[None]:
    """Ignore warnings in this thread.

    ``warnings.catch_warnings`` replaces the filters of all threads; if two calls overlap, the filters of the first one
    stay. Here each call adds one filter and removes the same filter.

    Parameters
    ----------
    category
        Class of the warnings.
    message, module
        Regular expressions that match the start of the message and of the module that warns.
    """
    mine = ("ignore", _InThisThread(message), category, re.compile(module), 0)
    changed = warnings.filters
    changed.insert(0, mine)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        # another thread may have replaced the filters by a copy
        for filters in (changed, warnings.filters):
            while mine in filters:
                filters.remove(mine)  # type: ignore[attr-defined]


@contextmanager
def dependency_warnings_ignored() -> Iterator[None]:
    """Ignore deprecation warnings inside anndata and mudata and all warnings of Lightning.

    anndata 0.13 and mudata 0.4 use options that pandas 3.1 deprecates (``mode.chained_assignment``,
    ``future.infer_string``, ``inplace``) when they create, subset or write objects. Lightning warns about data loaders
    and loggers that this package does not use. Neither the user nor this package can change this.
    """
    with ExitStack() as stack:
        for category in (DeprecationWarning, FutureWarning):
            stack.enter_context(warnings_ignored(category, module=r"(anndata|mudata)\."))
        stack.enter_context(warnings_ignored(module=r"lightning\."))
        yield
