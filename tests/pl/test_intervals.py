from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from scdeconv import pl, pp, tl


def with_bounds(adata):
    for side, sign in (("lower", -1), ("upper", 1)):
        adata.obsm[f"fractions_{side}"] = (adata.obsm["fractions"] + sign * 0.2).clip(0, 1)
    adata.uns["scdeconv"] = {"fractions": {"coverage": 0.8}}
    return adata


@pytest.fixture
def adata(make_adata):
    return with_bounds(make_adata(12))


def points(ax, label):
    return np.asarray(next(c for c in ax.collections if c.get_label() == label).get_offsets())


@pytest.mark.parametrize("n_samples", [12, 200])
def test_samples_are_sorted_by_estimate_with_intervals(make_adata, n_samples):
    adata = with_bounds(make_adata(n_samples))
    by = adata.obsm["fractions"].mean().idxmax()
    for ax, cell_type in zip(pl.intervals(adata), adata.obsm["fractions"], strict=True):
        order = adata.obsm["fractions"][by if n_samples == 12 else cell_type].sort_values().index
        estimate = adata.obsm["fractions"].loc[order, cell_type]
        assert ax.get_title() == cell_type
        first = ax.get_subplotspec().is_first_col()
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == (list(estimate.index) if n_samples == 12 and first else [])
        np.testing.assert_allclose(points(ax, "estimate"), np.c_[estimate, range(n_samples)])
        lines = next(c for c in ax.collections if isinstance(c, LineCollection))
        assert lines.get_label() == "80% interval"
        for at, (name, segment) in enumerate(zip(estimate.index, lines.get_segments(), strict=True)):
            low, high = (adata.obsm[f"fractions_{side}"].loc[name, cell_type] for side in ("lower", "upper"))
            np.testing.assert_allclose(segment, [(low, at), (high, at)])


def test_sample_names_are_written_once_per_row(make_adata):
    axes = pl.intervals(with_bounds(make_adata(6, 6)))
    axes[0].figure.canvas.draw()
    shown = [any(label.get_visible() for label in ax.get_yticklabels()) for ax in axes]
    assert shown == [True, False, False, False, True, False]


def test_measured_fractions_inside_intervals_are_counted(adata):
    adata.obsm["measured_fractions"].iloc[:2] = np.nan
    measured = adata.obsm["measured_fractions"].dropna()
    for ax, cell_type in zip(pl.intervals(adata), measured, strict=True):
        low, high = (adata.obsm[f"fractions_{side}"].loc[measured.index, cell_type] for side in ("lower", "upper"))
        inside = measured[cell_type].between(low, high)
        for label, which in (("measured", inside), ("measured, outside", ~inside)):
            np.testing.assert_allclose(np.sort(points(ax, label)[:, 0]), np.sort(measured[cell_type][which]))
        assert ax.texts[0].get_text() == f"{inside.sum()} of 10 measured inside"


def test_without_measured_fractions_only_the_estimates_are_shown(adata):
    del adata.obsm["measured_fractions"]
    for ax in pl.intervals(adata):
        assert [c.get_label() for c in ax.collections] == ["80% interval", "estimate"]
        assert ax.texts[0].get_text() == "n = 12"


def test_panels_show_the_chosen_cell_types(adata):
    everything = {ax.get_title(): ax.collections[1].get_facecolor()[0] for ax in pl.intervals(adata)}
    axes = pl.intervals(adata, cell_types=["type 2", "type 0"])
    assert [ax.get_title() for ax in axes] == ["type 2", "type 0"]
    for ax in axes:
        np.testing.assert_array_equal(ax.collections[1].get_facecolor()[0], everything[ax.get_title()])


def test_samples_with_nan_fractions_are_excluded(adata):
    for key in ("fractions", "fractions_lower", "fractions_upper"):
        adata.obsm[key].iloc[0] = np.nan
    assert {len(points(ax, "estimate")) for ax in pl.intervals(adata)} == {11}


def test_many_samples_are_drawn_without_names(make_adata):
    adata = make_adata(200)
    adata.obsm["fractions_lower"] = adata.obsm["fractions_upper"] = adata.obsm["fractions"]
    assert not any(ax.get_yticklabels() for ax in pl.intervals(adata))


def test_given_axes_are_used(adata):
    _, grid = plt.subplots(1, 3)
    assert list(pl.intervals(adata, axes=grid)) == list(grid)
    assert len(plt.get_fignums()) == 1
    with pytest.raises(ValueError, match="Expected 3 axes, one per cell type, found 2"):
        pl.intervals(adata, axes=grid[:2])


def test_output_of_predict_can_be_drawn(cohort, capsys):
    mdata = pp.pair(*cohort)
    bulk = mdata["bulk"]
    tl.predict(bulk, tl.train(mdata, method="ridge"), coverage=0.6)
    axes = pl.intervals(bulk)
    assert axes[0].collections[0].get_label() == "60% interval"
    assert [ax.get_title() for ax in axes] == list(bulk.obsm["fractions"])


def test_errors_list_the_available_choices(adata):
    with pytest.raises(KeyError, match=r"Expected columns \['B'\] in adata.obsm\['fractions'\]"):
        pl.intervals(adata, cell_types=["B"])
    del adata.obsm["fractions_upper"]
    with pytest.raises(KeyError, match=r"Expected \['fractions_upper'\] in adata.obsm.*coverage"):
        pl.intervals(adata)
    assert not plt.get_fignums()
