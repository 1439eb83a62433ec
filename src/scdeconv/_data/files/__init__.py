"""Files that are complete or absent: publication, locks and interrupts. Uses the standard library only."""

from __future__ import annotations

from .interrupts import (
    first_interrupt_calls,
    interrupts_deferred,
    interrupts_ignored,
    interrupts_raised,
    received_interrupt,
)
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
