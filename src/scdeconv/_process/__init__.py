"""What all threads of a process share: signals, numbers of threads and other settings."""

from __future__ import annotations

from .interrupts import (
    first_interrupt_calls,
    interrupts_deferred,
    interrupts_ignored,
    interrupts_raised,
    received_interrupt,
)
from .settings import one_blas_thread, one_openmp_thread, scanpy_alone, shared_change
from .versions import loaded_versions
