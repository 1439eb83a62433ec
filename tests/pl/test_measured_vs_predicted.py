from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from scdeconv import metrics, pl


def text_of(ax) -> str:
    return " ".join(text.get_text() for text in ax.texts)


def test_each_panel_shows_one_type_with_metrics(adata):
    axes = pl.measured_vs_predicted(adata)
    measured, predicted = adata.obsm["measured_fractions"], adata.obsm["fractions"]
    assert [ax.get_title() for ax in axes] == list(measured)
    for ax, cell_type in zip(axes, measured, strict=True):
        np.testing.assert_allclose(
            ax.collections[0].get_offsets(), np.c_[measured[cell_type], predicted[cell_type]], atol=1e-12
        )
        assert f"CCC {metrics.ccc(measured, predicted, per_type=True)[cell_type]:.2f}" in text_of(ax)
        assert f"RMSE {metrics.rmse(measured, predicted, per_type=True)[cell_type]:.3f}" in text_of(ax)
        assert "n = 6" in text_of(ax)


def test_panels_have_equal_limits_identity_and_mean_line(adata):
    for ax, cell_type in zip(pl.measured_vs_predicted(adata), adata.obsm["measured_fractions"], strict=True):
        assert ax.get_xlim() == ax.get_ylim()
        lines = {line.get_label(): line for line in ax.lines}
        assert lines["identity"].get_slope() == 1
        mean = adata.obsm["measured_fractions"][cell_type].mean()
        assert lines["mean measured composition"].get_ydata() == pytest.approx([mean, mean])


def test_samples_without_truth_do_not_count(adata):
    adata.obsm["measured_fractions"].iloc[:2] = np.nan
    for ax in pl.measured_vs_predicted(adata):
        assert "n = 4" in text_of(ax)
        assert len(ax.collections[0].get_offsets()) == 4
    adata.obsm["measured_fractions"][:] = np.nan
    with pytest.raises(
        ValueError, match=r"Expected samples with measured fractions in adata.obsm\['measured_fractions'\]"
    ):
        pl.measured_vs_predicted(adata)


def test_columns_are_matched_by_name(adata):
    adata.obsm["fractions"] = adata.obsm["measured_fractions"].iloc[:, ::-1]
    assert all("CCC 1.00" in text_of(ax) for ax in pl.measured_vs_predicted(adata))


def test_undefined_ccc_is_labelled(adata):
    for key in ("measured_fractions", "fractions"):
        adata.obsm[key]["type 0"] = 0.0
    axes = pl.measured_vs_predicted(adata)
    assert "CCC undefined" in text_of(axes[0])


@pytest.mark.parametrize("n_types", [1, 7, 15])
def test_figure_has_no_empty_panel(make_adata, n_types):
    axes = pl.measured_vs_predicted(make_adata(4, n_types))
    assert axes.shape == (n_types,)
    assert axes[0].figure.axes == list(axes)


def test_given_axes_are_used_and_labelled(adata):
    _, grid = plt.subplots(1, 3)
    axes = pl.measured_vs_predicted(adata, axes=grid)
    assert list(axes) == list(grid)
    assert len(plt.get_fignums()) == 1
    assert {(ax.get_xlabel(), ax.get_ylabel()) for ax in axes} == {
        ("measured cell fraction", "predicted cell fraction")
    }
    with pytest.raises(ValueError, match="Expected 3 axes, one per cell type, found 2"):
        pl.measured_vs_predicted(adata, axes=grid[:2])


def test_panels_have_the_colours_of_the_bars(adata):
    adata.obsm["fractions"] = adata.obsm["fractions"].iloc[:, ::-1]
    adata.uns["fractions_colors"] = ["red", "lime", "blue"]
    panels = pl.measured_vs_predicted(adata)
    bars = {bar.get_label(): bar[0].get_facecolor()[:3] for bar in pl.fractions(adata).containers}
    assert {ax.get_title(): tuple(ax.collections[0].get_facecolor()[0][:3]) for ax in panels} == bars


def test_errors_list_the_available_choices(adata):
    with pytest.raises(KeyError, match=r"Expected 'flow' in adata.obsm, found \['fractions', 'measured_fractions'\]"):
        pl.measured_vs_predicted(adata, measured_key="flow")
    assert not plt.get_fignums()
