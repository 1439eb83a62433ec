"""Files that are complete or absent: publication and locks."""

from __future__ import annotations

from .locks import locked
from .publish import (
    clear_leftovers,
    is_hidden,
    note_written,
    published_paths,
    publishing,
    resolved,
    try_writing,
)
