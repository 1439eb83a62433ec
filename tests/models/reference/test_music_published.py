"""MuSiC on real bulk with flow cytometry, against outputs of the original program."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scdeconv import pp, tl
from scdeconv._stats.least_squares import solve_weighted

PARITY = Path(__file__).resolve().parents[4] / "shared" / "parity"


@pytest.fixture(scope="module", params=["finotello", "hoek"])
def published(request):
    """Cells, bulk and the two outputs of the original."""
    folder = PARITY / request.param
    if not folder.exists():
        pytest.skip(f"outputs of the original are not at {folder}")
    cells, bulk = (anndata.read_h5ad(folder / f"{name}.h5ad") for name in ("sc", "bulk"))
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        model = tl.train(pp.pair(cells, bulk), "music")
    outputs = [pd.read_csv(folder / "original" / f"{name}.csv", index_col=0) for name in ("music", "music_nnls")]
    return model, bulk, *(table.loc[bulk.obs_names, model.cell_types_] for table in outputs)


def test_weighted_fractions_equal_the_original(published):
    model, bulk, weighted, _ = published
    assert np.abs(model.predict(bulk) - weighted).max(axis=None) < 1e-6


def test_plain_least_squares_equals_the_original(published):
    model, bulk, _, plain = published
    expression = model.state_.scaled(bulk[:, model.genes_].X)
    weights = solve_weighted(model.state_.types.design, expression, (expression > 0).astype(float))
    assert np.abs(weights / weights.sum(axis=1, keepdims=True) - plain).max(axis=None) < 1e-6
