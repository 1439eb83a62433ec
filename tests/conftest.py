from __future__ import annotations

import os

# before torch and numpy start: waiting threads on shared cores make small steps 20 times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")
# scanpy.pp.neighbors sets the number of threads of all later steps, such as k-means
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import logging
import random
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from scipy.optimize import nnls
from threadpoolctl import threadpool_info, threadpool_limits

from scdeconv import datasets, pp

# a pytest plugin of zarr imports numpy before this file, too early for the environment variable
threadpool_limits(int(os.environ["OMP_NUM_THREADS"]), "blas")

# background jobs ignore SIGINT, which the Ctrl-C tests send
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_warn = warnings.warn


def _scdeconv_frame(frame):
    """Return the nearest calling frame of scdeconv, or None; imports do not count as calls."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("importlib."):
            return None
        if name.startswith("scdeconv."):
            return frame
        frame = frame.f_back
    return None


def warn_as_scdeconv(message, category=None, stacklevel=1, **kwargs):
    """Attribute deprecations caused by a call of scdeconv at any depth to scdeconv; pyproject.toml makes them errors."""
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

# real data and outputs of the original programs, outside of the repository; skip reasons contain this path
SHARED = Path(__file__).resolve().parents[2] / "shared"
REQUIRE_DATA = "SCDECONV_REQUIRE_DATA"


def missing_data(report):
    """Return the skip reason if real data are missing, else None."""
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, (tuple, list)) else ""
    return reason.removeprefix("Skipped: ") if str(SHARED) in reason else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test without its real data if .ci/run sets the variable and ../shared exists."""
    report = yield
    reason = missing_data(report)
    if reason and os.environ.get(REQUIRE_DATA) and SHARED.is_dir():
        report.outcome = "failed"
        report.longrepr = f"Expected all real data in {SHARED}, as {REQUIRE_DATA} is set. Found: {reason}."
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """Print the number of tests skipped because of missing real data above the last line."""
    result = yield
    reasons = [reason for report in terminalreporter.stats.get("skipped", []) if (reason := missing_data(report))]
    if reasons:
        found = f"{SHARED} is not there" if not SHARED.is_dir() else f"{SHARED} is incomplete: {reasons[0]}"
        terminalreporter.write_line(f"{len(reasons)} real-data test(s) skipped: {found}", yellow=True)
    return result


ADATA_SLOTS = ("X", "obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers")
MDATA_SLOTS = ("mod", "obs", "var", "uns", "obsm", "varm", "obsmap", "varmap")


def fingerprint(value):
    """The content of an object with bytes and storage formats, as plain comparable values."""
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
    """The random states and process-wide settings that no call may change."""
    import matplotlib as mpl
    import torch

    name, keys, *rest = np.random.get_state()
    return {
        "numpy": (name, keys.tobytes(), *rest),
        "random": random.getstate(),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "threads of torch": torch.get_num_threads(),
        "threads of BLAS": [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"],
        "warnings": (list(warnings.filters), warnings.showwarning),
        "loggers": {name: logging.getLogger(name).level for name in ("lightning.pytorch", "scvi", "optuna", "")},
        "environment": dict(os.environ),
        "mudata": dict(mudata.config.OPTIONS) if hasattr(mudata, "config") else None,
        "matplotlib": dict(mpl.rcParams),
        "numpy errors": np.geterr(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.fixture
def unchanged():
    """A context that checks that its objects are not changed."""

    @contextmanager
    def check(*objects):
        before = [fingerprint(item) for item in objects]
        yield
        assert [fingerprint(item) for item in objects] == before

    return check


@pytest.fixture
def global_state_untouched():
    """A context that checks that random states and process-wide settings are not changed, except those named."""

    @contextmanager
    def check(*exceptions):
        before = global_state()
        yield
        after = global_state()
        assert {name: value for name, value in after.items() if name not in exceptions} == {
            name: value for name, value in before.items() if name not in exceptions
        }

    return check


@pytest.fixture
def interrupt_after():
    """Send this process SIGINT, as Ctrl-C does, after some seconds."""
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


# small inputs of pp.pair, made by hand

CELL_TYPES = ["B cell", "NK cell", "T cell"]
CELL_DONORS = ("D1", "D2", "D3", "D4", "C1")
BULK_DONORS = ("D3", "D1", "B1", "D4", "D2", "B2")


def small_inputs(
    cell_donors=CELL_DONORS, bulk_donors=BULK_DONORS, *, n_genes=40, cells_per_donor=25, cell_types=CELL_TYPES, seed=0
):
    """Cells (CSR counts) and bulk (dense counts); the first donor has no cell of the last type."""
    rng = np.random.default_rng(seed)
    genes = [f"G{i}" for i in range(n_genes)]
    profiles = rng.gamma(0.7, 2.0, (len(cell_types), n_genes))
    donor = np.repeat(list(cell_donors), cells_per_donor)
    kind = rng.integers(0, len(cell_types), len(donor))
    kind[: len(cell_types)] = range(len(cell_types))
    if len(cell_types) > 1:
        kind[(donor == cell_donors[0]) & (kind == len(cell_types) - 1)] = 0
        kind[-1] = len(cell_types) - 1
    counts = rng.poisson(profiles[kind])
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {"donor": donor, "cell_type": pd.Categorical.from_codes(kind, cell_types)},
        index=[f"cell{i}" for i in range(len(donor))],
    )
    cells = AnnData(sp.csr_matrix(counts.astype(np.int32)), obs=obs, var=pd.DataFrame(index=genes))
    shares = rng.dirichlet(np.ones(len(cell_types)), len(bulk_donors))
    bulk = AnnData(
        rng.poisson(500 * shares @ profiles).astype(np.int32) + 1,
        obs=pd.DataFrame({"donor": list(bulk_donors)}, index=[f"bulk{i}" for i in range(len(bulk_donors))]),
        var=pd.DataFrame(index=genes),
    )
    return cells, bulk


@pytest.fixture
def make_inputs():
    return small_inputs


@pytest.fixture
def inputs():
    return small_inputs()


@pytest.fixture
def mdata(inputs):
    return pp.pair(*inputs)


@pytest.fixture
def reference_inputs():
    """Bulk with fractions of its first four samples, profiles and pseudobulk, and no cells."""
    rng = np.random.default_rng(1)
    genes = pd.DataFrame(index=[f"G{i}" for i in range(40)])
    donors = [f"D{i}" for i in range(6)]
    profiles = AnnData(
        rng.gamma(0.7, 2.0, (3, 40)), obs=pd.DataFrame({"cell_type": CELL_TYPES}, index=["x", "y", "z"]), var=genes
    )
    bulk = AnnData(
        rng.poisson(300, (6, 40)), obs=pd.DataFrame({"donor": donors}, index=[f"bulk_{d}" for d in donors]), var=genes
    )
    fractions = rng.dirichlet(np.ones(3), 6)
    fractions[4:] = np.nan
    bulk.obsm["measured_fractions"] = pd.DataFrame(fractions, index=bulk.obs_names, columns=CELL_TYPES)
    pseudobulk = AnnData(rng.poisson(200, (6, 40)), obs=pd.DataFrame(index=donors[::-1]), var=genes)
    return {"bulk": bulk, "profiles": profiles, "pseudobulk": pseudobulk}


def same_matrix(first, second):
    dense = (np.asarray(x.toarray() if sp.issparse(x) else x) for x in (first, second))
    return np.array_equal(*dense)


def assert_same_adata(first, second):
    pd.testing.assert_frame_equal(first.obs, second.obs)
    pd.testing.assert_frame_equal(first.var, second.var)
    assert type(first.X) is type(second.X)
    assert first.X.dtype == second.X.dtype
    assert same_matrix(first.X, second.X)
    for name in ("obsm", "varm", "layers"):
        mine, others = getattr(first, name), getattr(second, name)
        assert set(mine) == set(others)
        for key in mine:
            if isinstance(mine[key], pd.DataFrame):
                pd.testing.assert_frame_equal(mine[key], others[key])
            elif sp.issparse(mine[key]):
                assert same_matrix(mine[key], others[key])
            else:
                np.testing.assert_array_equal(mine[key], others[key])
    assert without_values(first.uns) == without_values(second.uns)


def without_values(uns):
    """Return uns without the values remembered at pairing, which depend on the storage of the cells."""
    records = {step: record for step, record in uns.get("scdeconv", {}).items() if step != "values"}
    return {
        **{key: value for key, value in uns.items() if key != "scdeconv"},
        **({"scdeconv": records} if records else {}),
    }


@pytest.fixture
def assert_same():
    """Compare two AnnData or MuData in all their parts, exactly."""

    def compare(first, second):
        if isinstance(first, AnnData):
            assert_same_adata(first, second)
            return
        assert set(first.mod) == set(second.mod)
        assert first.uns == second.uns
        for name in first.mod:
            assert_same_adata(first[name], second[name])

    return compare


def fit_music(y, design, size, sigma, *, quirk=True, covariance=False):
    """MuSiC (R/analysis.R of xuranw/MuSiC @ f21fe67) for one sample; ``sigma`` is types × genes (× types)."""

    def spread(x):
        if covariance:
            return np.array([(x * size) @ sigma[:, g] @ (x * size) for g in range(len(y))])
        return np.array([((x * size) ** 2 * sigma[:, g]).sum() for g in range(len(y))])

    def weighted(w, root):
        x = nnls(design * root[:, None], y * root)[0]
        r = y - design @ x
        return x, (root * r if quirk else r)

    x = start = nnls(design, y)[0]
    r, p, rounds = y - design @ x, None, 0
    while True:
        w = 1 / (1e-4 + r**2 + spread(start if covariance else x))
        x, r = weighted(w, np.sqrt(w))
        new = x / x.sum()
        if p is not None and np.abs(new - p).sum() < 0.01:
            break
        p, rounds = new, rounds + 1
    residual = y - design @ x
    variance = np.diag(np.linalg.inv(design.T @ np.diag(w) @ design)) * (w * residual**2).mean() / x.sum() ** 2
    r_squared = 1 - residual.var(ddof=1) / y.var(ddof=1)
    return {"nnls": start, "x": x, "w": w, "rounds": rounds, "variance": variance, "r_squared": r_squared}


@pytest.fixture(scope="session")
def music_by_loops():
    """A function that fits one sample without zeros; the design is genes × cell types."""
    return fit_music


@pytest.fixture
def mixed():
    """Signature, bulk with noise and a tenth of outlier genes, and weights of 12 samples."""
    rng = np.random.default_rng(0)
    signature, weights = rng.gamma(0.5, 1, (4, 120)), rng.dirichlet(np.ones(4), 12)
    bulk = weights @ signature * rng.lognormal(0, 0.2, (12, 120))
    bulk[:, :12] *= 20
    return signature, bulk, weights
