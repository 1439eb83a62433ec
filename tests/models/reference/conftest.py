from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

TYPES = ["B cell", "NK cell", "T cell"]
SIZES = np.array([1.0, 4.0, 10.0])


@pytest.fixture
def silence():
    """No warning is allowed in this context."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def profiles():
    """Mean counts per cell of three types of very different size, 60 genes."""
    shares = np.random.default_rng(0).dirichlet(np.full(60, 0.5), size=3)
    adata = AnnData(SIZES[:, None] * 1000 * shares, obs=pd.DataFrame({"cell_type": TYPES}, index=TYPES))
    adata.var_names = [f"G{i}" for i in range(60)]
    return adata


@pytest.fixture
def shares():
    values = np.random.default_rng(1).dirichlet(np.ones(3), size=5)
    values[0] = [0, 0.25, 0.75]
    return pd.DataFrame(values, [f"s{i}" for i in range(5)], TYPES)
