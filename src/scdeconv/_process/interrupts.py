"""SIGINT (Ctrl-C) and SIGTERM: handled alike, deferred while files are published. Only the main thread handles signals."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """Install a handler and yield the previous ones; ignored signals stay ignored, as nohup and ``&`` demand."""
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    # None: a handler that was not installed from Python
    previous = {number: old for number, old in handlers.items() if old not in (None, signal.SIG_IGN)}
    with ExitStack() as restored:
        for number, old in previous.items():
            restored.callback(signal.signal, number, old)
        for number in previous:
            signal.signal(number, handler)
        yield previous


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Deliver signals after the block."""
    deferred: list[int] = []
    try:
        with _handled_by(lambda number, _: deferred.append(number)):
            yield
    finally:
        for number in deferred[:1]:
            signal.raise_signal(number)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore signals in a block that completes a result: they come too late."""
    with _handled_by(lambda *_: None):
        yield


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` on both signals; :func:`received_interrupt` tells afterwards which one came."""

    def interrupt(number: int, _: Any) -> None:
        _received.append(number)
        raise KeyboardInterrupt

    _received.clear()
    with _handled_by(interrupt):
        yield


def received_interrupt() -> int | None:
    """Return the first signal in :func:`interrupts_raised`, also if the program has handled it and gone on."""
    return _received[0] if _received else None


@contextmanager
def first_interrupt_calls(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Call a function on the first signal, and leave later signals to the previous handlers.

    SIGTERM without a handler still ends the process, because the script behind this call does not expect to go on.
    Yields a function that installs the handlers again, for use after a library has installed its own.
    """
    previous: dict[int, Any] = {}
    came: list[int] = []

    def handle(number: int, _: Any) -> None:
        for each, old in previous.items():
            signal.signal(each, old)
        if previous[number] is signal.SIG_DFL:
            signal.raise_signal(number)
        came.append(number)
        _received.append(number)
        stop()

    def install() -> None:
        for number in () if came else previous:
            signal.signal(number, handle)

    with _handled_by(handle) as replaced:
        previous |= replaced
        yield install
