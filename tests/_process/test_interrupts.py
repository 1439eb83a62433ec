from __future__ import annotations

import signal
import threading

import pytest

from scdeconv._process import first_interrupt_calls, interrupts_deferred, interrupts_raised, received_interrupt

each_signal = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def raised():
    with interrupts_raised():
        yield


@each_signal
def test_signal_raises_and_is_recorded(raised, number):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert received_interrupt() == number


@each_signal
def test_deferred_signal_comes_after_the_block(raised, number):
    steps = []

    def block():
        with interrupts_deferred():
            signal.raise_signal(number)
            steps.append("block")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert steps == ["block"]


@each_signal
def test_first_signal_calls_and_second_raises(raised, number):
    called = []
    with first_interrupt_calls(lambda: called.append(number)) as install:
        signal.raise_signal(number)
        # not installed again after the first signal
        install()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert called == [number]
    assert received_interrupt() == number


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interrupts_raised(), first_interrupt_calls(lambda: None), interrupts_deferred():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_leave_handlers_alone():
    before = signal.getsignal(signal.SIGINT)
    found = []

    def work():
        with interrupts_deferred(), first_interrupt_calls(lambda: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
