"""Plots that compare estimates say if these are the fit of training samples."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pl

NOTE = "in-sample fit,\nnot an estimate"
PLOTS = [pl.measured_vs_predicted, pl.bland_altman, pl.intervals]
each_plot = pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    adata = AnnData(obs=pd.DataFrame(index=[f"s{i}" for i in range(6)]))
    for key in ("measured_fractions", "fractions"):
        adata.obsm[key] = pd.DataFrame(rng.dirichlet(np.ones(3), 6), adata.obs_names, ["B", "NK", "T"])
    adata.obsm["fractions_lower"] = adata.obsm["fractions"] - 0.1
    adata.obsm["fractions_upper"] = adata.obsm["fractions"] + 0.1
    adata.uns["scdeconv"] = {"fractions": {"method": "ridge"}}
    yield adata
    plt.close("all")


def titles(axes):
    return [ax.get_title() for ax in np.ravel(axes)]


@each_plot
def test_fit_is_named_in_every_title(adata, plot):
    adata.uns["scdeconv"]["fractions"]["in_sample"] = adata.obs_names.to_numpy()
    assert titles(plot(adata)) == [f"{cell_type}\n{NOTE}" for cell_type in ("B", "NK", "T")]


@each_plot
def test_number_of_fitted_samples_is_shown(adata, plot):
    adata.uns["scdeconv"]["fractions"]["in_sample"] = np.array(["s0", "s3", "sample of an earlier table"], dtype=object)
    assert titles(plot(adata))[0] == f"B\n{NOTE}\n(2 of 6 samples)"


@each_plot
def test_estimates_have_plain_titles(adata, plot):
    adata.uns["scdeconv"]["fractions"]["out_of_fold"] = adata.obs_names.to_numpy()
    assert titles(plot(adata)) == ["B", "NK", "T"]


def test_samples_without_bounds_are_not_outside(adata):
    for side in ("lower", "upper"):
        adata.obsm[f"fractions_{side}"].iloc[:2] = np.nan
    inside = (adata.obsm["measured_fractions"] - adata.obsm["fractions"]).abs().iloc[2:] <= 0.1
    for ax, cell_type in zip(pl.intervals(adata), ("B", "NK", "T"), strict=True):
        assert ax.texts[0].get_text() == f"{inside[cell_type].sum()} of 4 measured inside"
        assert np.isfinite(ax.get_ylim()).all()
