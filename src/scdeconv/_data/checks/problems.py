"""Collected problems of the user's input, reported in one error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Problems:
    """Collected problems that are raised as one ``ValueError``, and notes on what was changed on reading."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.messages: list[str] = []
        self.notes: list[str] = []

    def add(self, message: str) -> None:
        """Add one message of the form "Expected X, found Y. Do Z."."""
        self.messages.append(message)

    def note(self, message: str) -> None:
        """Add something that was done to the input and must be told to the user; it is no problem."""
        self.notes.append(message)

    def raise_if_any(self) -> None:
        """Raise a ``ValueError`` that lists all problems, if there are any."""
        if not self.messages:
            return
        count = f"{len(self.messages)} problem{'s' if len(self.messages) > 1 else ''}"
        lines = [f"  {number}. {message}" for number, message in enumerate(self.messages, start=1)]
        raise ValueError("\n".join([f"{self.title}: {count} found.", *lines]))


def examples(values: Iterable[object], n: int = 3) -> str:
    """Return the first values as text and the number of remaining values."""
    items = [str(value) for value in values]
    more = f" and {len(items) - n} more" if len(items) > n else ""
    return ", ".join(repr(item) for item in items[:n]) + more
