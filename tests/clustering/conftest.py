from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData


def generate_cells(n_cells=300, n_genes=200, n_groups=4, *, markers=25, fold=6.0, seed=0):
    """Negative binomial counts, sparse, of groups that differ in marker genes of their own; ``obs["group"]`` is the truth.

    Depth varies between cells; groups are of unequal size (the first the largest), and in random order.
    """
    rng = np.random.default_rng(seed)
    profiles = np.tile(rng.gamma(0.7, 1.0, n_genes), (n_groups, 1))
    for group, profile in enumerate(profiles):
        own = slice(group * markers, (group + 1) * markers)
        profile[own] = fold * (profile[own] + 0.1)
    groups = rng.permutation(np.arange(n_cells) % (n_groups + 1) % n_groups)
    mean = profiles[groups] * rng.lognormal(0, 0.3, (n_cells, 1))
    counts = rng.negative_binomial(3, 3 / (3 + mean)).astype(np.float32)
    # no cell is empty
    counts[counts.sum(axis=1) == 0, 0] = 1
    return AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame({"group": [f"g{group}" for group in groups]}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
    )


@pytest.fixture(scope="session")
def make_cells():
    """The function that generates cells."""
    return generate_cells


@pytest.fixture
def grouped_cells():
    """300 cells in 4 groups × 200 genes; a new object for every test."""
    return generate_cells()
