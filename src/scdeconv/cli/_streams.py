"""Standard streams whose failure costs no result: a reader that goes away (``| head``), or a log on a full disk."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def lasting_streams() -> Iterator[list[OSError]]:
    """Go on without a standard stream that fails; yield a list of errors, without those of readers that went away."""
    failed: list[OSError] = []
    given = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        # a stream that was closed before the start is None
        sys.stdout, sys.stderr = (_Lasting(stream or nowhere, failed) for stream in given)
        try:
            yield failed
        finally:
            sys.stdout, sys.stderr = given


class _Lasting:
    """A stream that is replaced by nothing after an error."""

    def __init__(self, stream: Any, failed: list[OSError]) -> None:
        self.stream, self.failed = stream, failed
        # each line goes to a log immediately; a log may not know all characters. Not every stream can change
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(line_buffering=True)
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text if it can be written."""
        try:
            self.stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush what can be written."""
        try:
            self.stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Send further output, also what Python flushes when it ends, to nowhere."""
        if error.errno != errno.EPIPE:
            self.failed.append(error)
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
