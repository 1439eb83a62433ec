from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

from scdeconv import pl


@pytest.fixture
def adata(make_adata):
    adata = make_adata(30)
    adata.obs["age"] = np.random.default_rng(0).uniform(20, 80, 30)
    return adata


def test_points_are_the_samples(adata):
    adata.obs.loc["s3", "age"] = np.nan
    adata.obsm["fractions"].loc["s5"] = np.nan
    kept = adata.obs_names.drop(["s3", "s5"])
    for ax, cell_type in zip(pl.fractions_against(adata, "age"), adata.obsm["fractions"], strict=True):
        expected = np.c_[adata.obs.loc[kept, "age"], adata.obsm["fractions"].loc[kept, cell_type]]
        np.testing.assert_allclose(ax.collections[0].get_offsets(), expected)
        rho = stats.spearmanr(*expected.T).statistic
        assert ax.texts[0].get_text() == f"ρ = {rho:.2f}  n = 28".replace("-", "−")


def test_line_is_the_least_squares_fit(adata):
    for ax, cell_type in zip(pl.fractions_against(adata, "age"), adata.obsm["fractions"], strict=True):
        fit = stats.linregress(adata.obs["age"], adata.obsm["fractions"][cell_type])
        x, y = ax.lines[0].get_data()
        np.testing.assert_allclose(y, fit.intercept + fit.slope * x)


def test_band_is_the_interval_of_the_mean(adata):
    x, y = adata.obs["age"].to_numpy(), adata.obsm["fractions"]["type 0"].to_numpy()
    design = np.c_[np.ones(30), x]
    coefficients, residual, *_ = np.linalg.lstsq(design, y)
    covariance = np.linalg.inv(design.T @ design) * residual[0] / 28
    band = pl.fractions_against(adata, "age")[0].collections[1].get_paths()[0].vertices
    for at in (x.min(), x.max()):
        row = np.array([1, at])
        half = stats.t.ppf(0.975, 28) * np.sqrt(row @ covariance @ row)
        found = band[np.isclose(band[:, 0], at), 1]
        np.testing.assert_allclose([found.min(), found.max()], row @ coefficients + np.array([-half, half]))


def test_few_or_equal_values_have_no_line(adata):
    adata.obs["age"] = 3.0
    assert all("ρ undefined" in ax.texts[0].get_text() for ax in pl.fractions_against(adata, "age"))
    adata.obs["age"] = [1.0, 2.0] + [np.nan] * 28
    assert not any(ax.lines for ax in pl.fractions_against(adata, "age"))


def test_wrong_variables_are_refused(adata):
    with pytest.raises(KeyError, match=r"Expected variable to be columns \['group', 'age'\].*found 'sex'"):
        pl.fractions_against(adata, "sex")
    with pytest.raises(TypeError, match=r"Expected numbers in adata.obs\['group'\], found category.*kind='box'"):
        pl.fractions_against(adata, "group")
    adata.obs["age"] = np.nan
    with pytest.raises(ValueError, match="found none of 30"):
        pl.fractions_against(adata, "age")
    assert not plt.get_fignums()
