from __future__ import annotations

import logging
import threading
from contextlib import contextmanager

import pytest
import torch
from threadpoolctl import threadpool_info

from scdeconv._data.progress import quiet
from scdeconv._process import one_blas_thread, one_openmp_thread, shared_change


@contextmanager
def overlapping(context):
    """Enter a context in another thread, and leave it there while this thread is still in its own."""
    entered, leave = threading.Event(), threading.Event()

    def other():
        with context():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)

    def end():
        leave.set()
        thread.join(10)

    yield end
    end()


def test_last_of_overlapping_calls_restores_the_setting():
    events = []

    @contextmanager
    def change():
        events.append("changed")
        yield
        events.append("restored")

    with overlapping(lambda: shared_change("test", change)) as end, shared_change("test", change):
        end()
        assert events == ["changed"]
    assert events == ["changed", "restored"]


def test_setting_is_restored_after_an_error():
    logger = logging.getLogger("scvi")
    before = logger.level
    levels = []

    def fail():
        with quiet("scvi"):
            levels.append(logger.level)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert levels == [logging.ERROR]
    assert logger.level == before


def test_blas_stays_on_one_thread_until_the_last():
    def numbers():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = numbers()
    with overlapping(one_blas_thread) as end, one_blas_thread():
        end()
        assert numbers() == {1}
    assert numbers() == before


def test_other_threads_keep_their_openmp_threads():
    previous = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with overlapping(one_openmp_thread):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(previous)
