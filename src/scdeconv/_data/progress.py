"""Progress bars for terminals and notebooks, progress lines for logs, and silenced loggers of dependencies."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from scdeconv._process import shared_change

from .warnings import warnings_ignored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_nested: ContextVar[bool] = ContextVar("nested", default=False)
_in_log: ContextVar[bool] = ContextVar("in_log", default=False)


@contextmanager
def no_progress() -> Iterator[bool]:
    """Disable nested progress bars; yield whether bars were enabled before."""
    token = _nested.set(True)
    try:
        yield token.old_value is not True
    finally:
        _nested.reset(token)


@contextmanager
def steps_in_logs() -> Iterator[None]:
    """Print one line per step to stderr if no bar can be shown, for example in a pipeline log."""
    token = _in_log.set(True)
    try:
        yield
    finally:
        _in_log.reset(token)


def log_step(description: str) -> None:
    """Print the start of a step with the time to stderr, inside of :func:`steps_in_logs` only."""
    if _in_log.get():
        print(f"{time.strftime('%H:%M:%S')} {description} ...", file=sys.stderr, flush=True)


@contextmanager
def progress(total: int, description: str) -> Iterator[Any]:
    """Yield a tqdm bar; call its ``update`` with the number of finished units."""
    # tqdm warns in notebooks without ipywidgets, although the text bar works
    with warnings_ignored(message="IProgress not found"):
        from tqdm.auto import tqdm

    watched = (sys.stderr.isatty() or "ipykernel" in sys.modules) and "TQDM_DISABLE" not in os.environ
    with (
        no_progress() as outermost,
        tqdm(total=total, desc=description, disable=not watched or not outermost, leave=False) as bar,
    ):
        if outermost and not watched:
            log_step(description)
        yield bar


def quiet(logger_name: str) -> AbstractContextManager[None]:
    """Return a context in which a logger has level ERROR; its level is restored afterwards."""
    return shared_change(f"level of logger {logger_name}", lambda: _only_errors(logging.getLogger(logger_name)))


@contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
