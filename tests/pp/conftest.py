"""Cells, marker genes and proteins from which constraints are made."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import datasets
from scdeconv._data.modalities import columns_stay
from scdeconv._stats.markers import marker_ratio


@pytest.fixture(scope="module")
def cells():
    """Cells of 5 types, one in ten labelled in obs["known"]; do not change them."""
    cells, bulk = datasets.paired_cohort(
        n_donors=4, n_bulk_only=0, n_reference_only=0, n_genes=400, n_cell_types=5, cells_per_donor=(150, 300), seed=3
    )
    labelled = np.random.default_rng(0).random(cells.n_obs) < 0.1
    cells.obs["known"] = cells.obs["cell_type"].where(labelled)
    cells.uns["profiles"] = bulk.uns["cohort"]["profiles"]
    return cells


@pytest.fixture(scope="module")
def markers(cells):
    """The 6 best markers of each type, from the planted profiles."""
    best, score = marker_ratio(cells.uns["profiles"])
    table = pd.DataFrame({"gene": cells.var_names, "best": best, "score": score}).sort_values("score", ascending=False)
    types = cells.obs["cell_type"].cat.categories
    return {types[k]: list(rows["gene"][:6]) for k, rows in table.groupby("best")}


def protein_levels(codes, rng, n_proteins=12):
    """Counts of proteins that differ between types, of cells that differ in depth."""
    means = rng.gamma(0.5, 30, (codes.max() + 1, n_proteins)) + 1
    depth = rng.lognormal(0, 0.4, (len(codes), 1))
    return rng.negative_binomial(4, 1 / (1 + means[codes] * depth / 4)) + 1


@pytest.fixture(scope="module")
def multiome(cells):
    """RNA of all cells and proteins of nine tenths of them, in another order."""
    rng = np.random.default_rng(1)
    counts = protein_levels(cells.obs["cell_type"].cat.codes.to_numpy(), rng)
    genes = pd.DataFrame(index=[f"CD{i}" for i in range(counts.shape[1])])
    proteins = AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=cells.obs_names), var=genes)
    chosen = rng.permutation(cells.n_obs)[: int(0.9 * cells.n_obs)]
    with columns_stay():
        return mudata.MuData({"rna": cells.copy(), "prot": proteins[chosen].copy()})


@pytest.fixture
def levels():
    """Return the function that makes protein counts."""
    return protein_levels
