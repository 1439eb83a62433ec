"""One progress bar for all long work: shown on terminals and in notebooks, silent in logs and inside other bars."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_nested: ContextVar[bool] = ContextVar("nested", default=False)


@contextmanager
def progress(total: int, description: str) -> Iterator[Any]:
    """Show a tqdm bar, whose ``update`` counts the work done."""
    from tqdm.auto import tqdm

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    token = _nested.set(True)
    try:
        with tqdm(total=total, desc=description, disable=not watched or token.old_value is True, leave=False) as bar:
            yield bar
    finally:
        _nested.reset(token)
