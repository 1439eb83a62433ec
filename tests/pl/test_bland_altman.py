from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from scdeconv import pl


def test_plot_shows_differences_bias_and_limits(make_adata):
    adata = make_adata(12)
    measured, predicted = adata.obsm["measured_fractions"], adata.obsm["fractions"]
    for ax, cell_type in zip(pl.bland_altman(adata), measured, strict=True):
        difference = predicted[cell_type] - measured[cell_type]
        mean = (predicted[cell_type] + measured[cell_type]) / 2
        assert ax.get_title() == cell_type
        np.testing.assert_allclose(ax.collections[0].get_offsets(), np.c_[mean, difference])
        zero, bias, low, high = (line.get_ydata()[0] for line in ax.lines)
        variance = sum((value - difference.mean()) ** 2 for value in difference) / 11
        assert zero == 0
        assert bias == pytest.approx(difference.mean())
        assert [low, high] == pytest.approx([bias - 1.96 * variance**0.5, bias + 1.96 * variance**0.5])
        text = " ".join(ax.texts[0].get_text().split())
        assert text == f"bias {bias:+.3f} n = 12 limits of agreement ±{high - bias:.3f}".replace("-", "−")


def test_limits_contain_95_percent_of_normal_differences(make_adata):
    adata = make_adata(2000, 2)
    noise = np.random.default_rng(0).normal(0.02, 0.05, 2000)
    adata.obsm["measured_fractions"].iloc[:] = 0.5
    adata.obsm["fractions"].iloc[:] = np.c_[0.5 + noise, 0.5 - noise]
    ax = pl.bland_altman(adata)[0]
    low, high = (line.get_ydata()[0] for line in ax.lines[2:])
    difference = np.asarray(ax.collections[0].get_offsets())[:, 1]
    assert np.mean((difference > low) & (difference < high)) == pytest.approx(0.95, abs=0.015)


def test_all_points_and_limits_are_inside_the_panels(make_adata):
    for ax in pl.bland_altman(make_adata(8, 5)):
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        x, y = np.asarray(ax.collections[0].get_offsets()).T
        assert left < x.min() < x.max() < right
        lines = [line.get_ydata()[0] for line in ax.lines]
        assert bottom < min(y.min(), *lines) < max(y.max(), *lines) < top
        assert bottom == -top


def test_samples_without_truth_are_excluded(adata):
    adata.obsm["measured_fractions"].iloc[1:] = np.nan
    for ax in pl.bland_altman(adata):
        assert len(ax.collections[0].get_offsets()) == 1
        assert "±" not in ax.texts[0].get_text()
        assert ax.texts[0].get_text().endswith("n = 1")
    adata.obsm["measured_fractions"][:] = np.nan
    with pytest.raises(ValueError, match="found 6 rows of NaN"):
        pl.bland_altman(adata)


def test_columns_are_matched_by_name(adata):
    adata.obsm["fractions"] = adata.obsm["measured_fractions"].iloc[:, ::-1]
    for ax in pl.bland_altman(adata):
        np.testing.assert_array_equal(np.asarray(ax.collections[0].get_offsets())[:, 1], 0)


def test_given_axes_are_used_and_labelled(adata):
    _, grid = plt.subplots(1, 3)
    assert list(pl.bland_altman(adata, axes=grid)) == list(grid)
    assert len(plt.get_fignums()) == 1
    assert {ax.get_ylabel() for ax in grid} == {"predicted − measured"}
    with pytest.raises(ValueError, match="Expected 3 axes, one per cell type, found 2"):
        pl.bland_altman(adata, axes=grid[:2])


def test_errors_list_the_available_choices(adata):
    with pytest.raises(KeyError, match=r"Expected 'flow' in adata.obsm"):
        pl.bland_altman(adata, measured_key="flow")
    assert not plt.get_fignums()
