from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import pp

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
    assert first.uns == second.uns


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
