"""One progress bar for all long work: shown on terminals and in notebooks, silent in logs."""

from __future__ import annotations

import sys
from typing import Any


def progress(total: int, description: str) -> Any:
    """Return a tqdm bar (a context manager with ``update``) that is silent where nobody watches."""
    from tqdm.auto import tqdm

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(total=total, desc=description, disable=not watched, leave=False)
