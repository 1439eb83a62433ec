"""Inputs of ``tests/data/parity_small`` as AnnData and paired MuData, and the tables of the original programs."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import models, pp

FOLDER = Path(__file__).parents[1] / "data" / "parity_small"


def read_table(path):
    """Rows named by the first column."""
    return pd.read_csv(path, index_col=0, float_precision="round_trip")


def read_bulk(name):
    table = read_table(FOLDER / f"{name}.csv.gz")
    return AnnData(table.to_numpy(dtype=float), pd.DataFrame(index=table.index), pd.DataFrame(index=table.columns))


@pytest.fixture(scope="session")
def read_original():
    """A function that reads a table of an original program, in the order of the names given."""

    def read(name, index=None, columns=None):
        path = next(path for path in (FOLDER / "original" / f"{name}.csv{end}" for end in ("", ".gz")) if path.exists())
        return read_table(path).reindex(index=index, columns=columns)

    return read


@pytest.fixture(scope="session")
def assert_equals_original(read_original):
    """A function that compares a table with that of an original program, whose rows and columns may be in another order."""

    def check(found, name, atol=0.0, rtol=0.0):
        expected = read_original(name)
        assert set(expected.index) == set(found.index)
        assert set(expected.columns) == set(found.columns)
        expected = expected.loc[found.index, found.columns]
        np.testing.assert_allclose(found.to_numpy(dtype=float), expected.to_numpy(dtype=float), rtol=rtol, atol=atol)

    return check


@pytest.fixture(scope="session")
def bulk():
    """Bulk of donors without cells, counts, samples × genes."""
    return read_bulk("bulk")


@pytest.fixture(scope="session")
def cells(bulk):
    counts = sp.csr_matrix(sp.load_npz(FOLDER / "sc.npz").astype(float))
    obs = read_table(FOLDER / "cells.csv")
    return AnnData(counts, obs, pd.DataFrame(index=bulk.var_names))


@pytest.fixture(scope="session")
def unpaired(cells, bulk):
    """Cells, and bulk of other donors."""
    with redirect_stdout(StringIO()), pytest.warns(UserWarning, match="found 0"):
        return pp.pair(cells, bulk)


@pytest.fixture(scope="session")
def paired(cells):
    """Cells, and bulk of the same donors."""
    with redirect_stdout(StringIO()):
        return pp.pair(cells, read_bulk("pairs_bulk"))


@pytest.fixture(scope="session")
def train():
    """A function that trains a class of ``scdeconv.models`` on all genes."""

    def fit(name, mdata, **options):
        cls = getattr(models, name)
        cls.setup_mudata(mdata)
        model = cls(mdata, **options)
        model.train(held_out=False)
        return model

    return fit
