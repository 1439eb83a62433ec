from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _no_trace_is_left():
    """Check that plots do not change global settings; close all figures."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")


@pytest.fixture
def make_adata():
    """Samples with measured and predicted fractions of `n_types` cell types and an obs column "group"."""

    def make(n_samples: int = 6, n_types: int = 3) -> AnnData:
        rng = np.random.default_rng(n_samples * n_types)
        names = [f"s{i}" for i in range(n_samples)]
        types = [f"type {i}" for i in range(n_types)]
        groups = pd.Categorical(["old", "young"] * (n_samples // 2), categories=["young", "old", "unused"])
        adata = AnnData(obs=pd.DataFrame({"group": groups}, index=names))
        for key in ("measured_fractions", "fractions"):
            adata.obsm[key] = pd.DataFrame(rng.dirichlet(np.ones(n_types), n_samples), names, types)
        return adata

    return make


@pytest.fixture
def adata(make_adata) -> AnnData:
    return make_adata()
