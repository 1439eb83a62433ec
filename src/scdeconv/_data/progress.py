"""One progress bar for all long work, shown on terminals and in notebooks, silent in logs; libraries that keep quiet."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_nested: ContextVar[bool] = ContextVar("nested", default=False)
_in_log: ContextVar[bool] = ContextVar("in_log", default=False)


@contextmanager
def no_progress() -> Iterator[bool]:
    """Show no bars inside: those of steps of the work that has one. Yields whether bars were shown before."""
    token = _nested.set(True)
    try:
        yield token.old_value is not True
    finally:
        _nested.reset(token)


@contextmanager
def steps_in_logs() -> Iterator[None]:
    """Where no bar can be shown, write a line when its work begins: for pipelines, whose users read logs."""
    token = _in_log.set(True)
    try:
        yield
    finally:
        _in_log.reset(token)


@contextmanager
def progress(total: int, description: str) -> Iterator[Any]:
    """Show a tqdm bar, whose ``update`` counts the work done."""
    with warnings.catch_warnings():
        # without ipywidgets a notebook gets a bar of text, which is no reason for a warning
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm

    watched = (sys.stderr.isatty() or "ipykernel" in sys.modules) and "TQDM_DISABLE" not in os.environ
    with (
        no_progress() as outermost,
        tqdm(total=total, desc=description, disable=not watched or not outermost, leave=False) as bar,
    ):
        if _in_log.get() and outermost and not watched:
            print(f"{description} ...", file=sys.stderr, flush=True)
        yield bar


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Show errors only of a library's logger, and put its level back afterwards."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
