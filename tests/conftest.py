from __future__ import annotations

import os

# before torch and numpy start: threads that wait for shared cores slow small steps down twentyfold
os.environ.setdefault("OMP_NUM_THREADS", "1")
# scanpy's neighbours set the threads of all that comes after them, k-means above all
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from scdeconv import datasets, pp

# a job started in the background ignores Ctrl-C, and the tests that send it would test nothing
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_warn = warnings.warn


def _scdeconv_frame(frame):
    """Return the nearest frame of scdeconv that called, or None; what a dependency does when imported is no call."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("importlib."):
            return None
        if name.startswith("scdeconv."):
            return frame
        frame = frame.f_back
    return None


def warn_as_scdeconv(message, category=None, stacklevel=1, **kwargs):
    """Attribute deprecations that a call of scdeconv causes, however deep, to scdeconv; pyproject.toml makes them errors."""
    kind = type(message) if isinstance(message, Warning) else category or UserWarning
    frame = None
    if issubclass(kind, (FutureWarning, DeprecationWarning, PendingDeprecationWarning)):
        with warnings.catch_warnings(record=True) as shown:
            _warn(message, category, stacklevel + 1, **kwargs)
        if not shown:
            return None
        frame = _scdeconv_frame(sys._getframe(1))
    if frame is not None:
        return warnings.warn_explicit(message, kind, frame.f_code.co_filename, frame.f_lineno, module="scdeconv")
    return _warn(message, category, stacklevel + 1, **kwargs)


warnings.warn = warn_as_scdeconv

ADATA_SLOTS = ("X", "obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers")
MDATA_SLOTS = ("mod", "obs", "var", "uns", "obsm", "varm", "obsmap", "varmap")


def fingerprint(value):
    """Everything in an object, down to the bits and storage formats, as plain comparable values."""
    if isinstance(value, (AnnData, MuData)):
        slots = ADATA_SLOTS if isinstance(value, AnnData) else MDATA_SLOTS
        return {slot: fingerprint(getattr(value, slot)) for slot in slots}
    if isinstance(value, Mapping):
        return {key: fingerprint(item) for key, item in value.items()}
    if isinstance(value, pd.DataFrame):
        columns = {name: (str(column.dtype), fingerprint(column.array)) for name, column in value.items()}
        return list(value.index), value.index.name, list(columns), columns
    if isinstance(value, pd.Categorical):
        return list(value.categories), value.codes.tobytes()
    if sp.issparse(value):
        return value.format, value.shape, *(fingerprint(getattr(value, k)) for k in ("data", "indices", "indptr"))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    return repr(list(value)) if hasattr(value, "__iter__") else repr(value)


def global_state():
    """The random states and process-wide settings that training must leave alone.

    Not the state of Python's ``random``: mudata draws names of temporary columns from it.
    """
    import torch

    name, keys, *rest = np.random.get_state()
    return {
        "numpy": (name, keys.tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.fixture
def unchanged():
    """A context that proves that the objects in it come out as they went in."""

    @contextmanager
    def check(*objects):
        before = [fingerprint(item) for item in objects]
        yield
        assert [fingerprint(item) for item in objects] == before

    return check


@pytest.fixture
def global_state_untouched():
    """A context that proves that no random state or process-wide setting is moved."""

    @contextmanager
    def check():
        before = global_state()
        yield
        assert global_state() == before

    return check


@pytest.fixture
def interrupt_after():
    """Send this process a real SIGINT, as Ctrl-C does, after some seconds."""
    timers = []

    def start(seconds):
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.cancel()
        timer.join()


@pytest.fixture(scope="session")
def cohort():
    """Cells and bulk of a small cohort: 10 pairs, 2 donors with bulk only, 1 with cells only; do not change them."""
    return datasets.paired_cohort(
        n_donors=10, n_bulk_only=2, n_reference_only=1, n_genes=240, n_cell_types=4, cells_per_donor=(60, 120), seed=1
    )


@pytest.fixture
def pairs(cohort):
    """The small cohort, paired; a new object for every test."""
    with redirect_stdout(StringIO()):
        return pp.pair(*cohort)
