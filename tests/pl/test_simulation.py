from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.decomposition import PCA

from scdeconv import metrics, pl, pp


@pytest.fixture
def simulated(cohort):
    with redirect_stdout(StringIO()):
        mdata = pp.pair(*cohort)
    pp.simulate(mdata, 60, calibration=pp.calibrate(mdata))
    return mdata


def log_shares_of(adata, genes):
    """The expression scale of the models in explicit form."""
    counts = adata[:, genes].X
    counts = np.asarray(counts.todense() if hasattr(counts, "todense") else counts, dtype=float)
    return np.log1p(10 * counts.shape[1] * counts / counts.sum(axis=1, keepdims=True))


def test_points_are_scores_on_simulated_components(simulated):
    ax = pl.simulation(simulated)
    points = {group.get_label(): np.asarray(group.get_offsets()) for group in ax.collections}
    assert list(points) == ["simulated (n = 60)", "real (n = 12)"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(points)
    real, drawn = (log_shares_of(simulated[name], simulated["bulk"].var_names) for name in ("bulk", "simulated"))
    pca = PCA(2, svd_solver="full").fit(drawn)
    for found, expected in zip(points.values(), (pca.transform(drawn), pca.transform(real)), strict=True):
        signs = np.sign((points["simulated (n = 60)"] * pca.transform(drawn)).sum(axis=0))
        np.testing.assert_allclose(found * signs, expected, atol=1e-3)
    explained = [f"{share:.0%}" for share in pca.explained_variance_ratio_]
    assert ax.get_xlabel() == f"PC 1 ({explained[0]} of variance)"
    assert ax.get_ylabel() == f"PC 2 ({explained[1]} of variance)"


@pytest.mark.parametrize("n_selected", [None, 80])
def test_title_shows_overlap_of_selected_genes(simulated, n_selected):
    genes = simulated["bulk"].var_names
    if n_selected is not None:
        pp.select_genes(simulated, n_selected)
        genes = genes[simulated["bulk"].var["selected"]]
        assert len(genes) == n_selected
    expected = metrics.overlap(*(log_shares_of(simulated[name], genes) for name in ("bulk", "simulated")))
    title = pl.simulation(simulated).get_title()
    assert title == f"{expected:.0%} of real bulk where 95% of simulated bulk lies"


def test_overlap_is_lower_for_unrelated_bulk(simulated):
    good = int(re.match(r"\d+", pl.simulation(simulated).get_title())[0])
    simulated["simulated"].X = simulated["simulated"].X[:, ::-1].copy()
    bad = int(re.match(r"\d+", pl.simulation(simulated).get_title())[0])
    assert bad < 20 < 75 < good


def test_given_ax_is_used(simulated):
    _, ax = plt.subplots()
    assert pl.simulation(simulated, ax=ax) is ax
    assert len(plt.get_fignums()) == 1
    assert len(ax.collections) == 2


def test_data_are_not_changed(simulated, unchanged):
    with unchanged(simulated):
        pl.simulation(simulated)


def test_missing_simulation_error_names_the_function(pairs):
    with pytest.raises(KeyError, match=r"Expected mdata\['simulated'\], found modalities .*'bulk'.*Call pp.simulate"):
        pl.simulation(pairs)
    assert not plt.get_fignums()
