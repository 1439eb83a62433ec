from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from scdeconv import pl
from scdeconv.pl._style import OTHER, PALETTE


def bars(ax: Axes) -> dict[str, np.ndarray]:
    """Cell type -> bar heights from left to right, in stack order from the bottom."""
    return {bar.get_label(): np.array([patch.get_height() for patch in bar]) for bar in ax.containers}


def test_bars_are_sorted_by_most_abundant_type(adata):
    ax = pl.fractions(adata)
    table = adata.obsm["fractions"]
    first = table.mean().idxmax()
    ordered = table.sort_values(first, ascending=False)
    assert isinstance(ax, Axes)
    assert next(iter(bars(ax))) == first
    for cell_type, heights in bars(ax).items():
        np.testing.assert_allclose(heights, ordered[cell_type])
    assert [label.get_text() for label in ax.get_xticklabels()] == list(ordered.index)


def test_bars_are_stacked_up_to_one(adata):
    ax = pl.fractions(adata)
    top = [patch.get_y() + patch.get_height() for patch in ax.containers[-1]]
    np.testing.assert_allclose(top, 1)
    assert ax.get_ylim() == (0, 1)
    assert ax.get_ylabel() == "cell fraction"


def test_sort_by_type_is_at_the_bottom(adata):
    ax = pl.fractions(adata, sort_by="type 2")
    assert list(bars(ax)) == ["type 2", "type 0", "type 1"]
    assert (np.diff(bars(ax)["type 2"]) <= 0).all()


def test_legend_has_the_order_of_the_stack(adata):
    ax = pl.fractions(adata, sort_by="type 1")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["type 2", "type 0", "type 1"]


def test_groups_follow_their_category_order(adata):
    ax = pl.fractions(adata, groupby="group", sort_by="type 0")
    headings = [text.get_text().split()[0] for text in ax.texts]
    assert headings == ["young", "old"]
    centres = np.array([patch.get_x() + patch.get_width() / 2 for patch in ax.containers[0]])
    gaps = np.diff(centres)
    assert gaps.argmax() == 2
    assert gaps[2] > 1.5
    table = adata.obsm["fractions"]["type 0"]
    expected = [table[adata.obs["group"] == group].sort_values(ascending=False) for group in ("young", "old")]
    np.testing.assert_allclose(bars(ax)["type 0"], pd.concat(expected))


def test_samples_without_a_group_come_last(adata):
    adata.obs["batch"] = ["b", "b", None, "a", "a", "a"]
    ax = pl.fractions(adata, groupby="batch")
    assert [text.get_text().split("(")[0].replace("\n", " ").strip() for text in ax.texts] == ["a", "b", "not given"]


def test_long_group_names_are_wrapped_or_rotated(make_adata):
    adata = make_adata(60)
    adata.obs["group"] = adata.obs["group"].cat.rename_categories({"young": "idiopathic pulmonary " * 4})
    ax = pl.fractions(adata, groupby="group")
    assert "\n" in ax.texts[0].get_text()
    adata.obs["group"] = adata.obs["group"].cat.rename_categories({"old": "x" * 99})
    ax = pl.fractions(adata, groupby="group")
    assert {text.get_rotation() for text in ax.texts} == {30}


def test_samples_with_nan_fractions_are_excluded(adata):
    adata.obsm["measured_fractions"].loc["s1"] = np.nan
    ax = pl.fractions(adata, "measured_fractions", groupby="group", sort_by="type 0")
    table = adata.obsm["measured_fractions"]["type 0"].dropna()
    young, old = table[["s3", "s5"]], table[["s0", "s2", "s4"]]
    expected = pd.concat([young.sort_values(ascending=False), old.sort_values(ascending=False)])
    np.testing.assert_allclose(bars(ax)["type 0"], expected)
    adata.obsm["measured_fractions"][:] = np.nan
    with pytest.raises(ValueError, match="found 6 rows of NaN"):
        pl.fractions(adata, "measured_fractions")


def test_many_samples_have_bounded_width_without_labels(make_adata):
    ax = pl.fractions(make_adata(200))
    assert not ax.get_xticklabels()
    assert ax.get_xlabel() == "200 samples"
    assert {patch.get_linewidth() for patch in ax.patches} == {0}
    few, more = (pl.fractions(make_adata(n)).figure.get_figwidth() for n in (2, 14))
    assert few < more < ax.figure.get_figwidth() < 14


def test_given_ax_is_used(adata):
    _, ax = plt.subplots()
    assert pl.fractions(adata, groupby="group", ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def colors(ax: Axes) -> dict[str, str]:
    return {bar.get_label(): to_hex(bar[0].get_facecolor()) for bar in ax.containers}


def test_colours_are_read_from_uns(adata):
    adata.uns["cell_type_colors"] = {"type 2": "red", "type 0": "lime", "type 1": "blue"}
    assert colors(pl.fractions(adata)) == {"type 0": "#00ff00", "type 1": "#0000ff", "type 2": "#ff0000"}
    adata.uns["fractions_colors"] = np.array(["#111111", "#222222", "#333333"])
    assert colors(pl.fractions(adata)) == {"type 0": "#111111", "type 1": "#222222", "type 2": "#333333"}


def test_too_few_colours_in_uns_are_an_error(adata):
    adata.uns["cell_type_colors"] = ["red", "blue"]
    with pytest.raises(ValueError, match=r"colour for each of 3 names in adata.uns\['cell_type_colors'\]"):
        pl.fractions(adata)


@pytest.mark.parametrize("n_types", [8, 25, 30])
def test_default_colours_start_with_okabe_ito(make_adata, n_types):
    found = colors(pl.fractions(make_adata(2, n_types)))
    assert len(set(found.values())) == n_types
    if n_types <= len(PALETTE):
        assert [found[name] for name in sorted(found)[:3]] == ["#0072b2", "#e69f00", "#009e73"]


def test_cell_type_colour_does_not_depend_on_order(adata):
    expected = colors(pl.fractions(adata))
    adata.obsm["fractions"] = adata.obsm["fractions"].iloc[:, ::-1]
    assert colors(pl.fractions(adata)) == expected
    for plot in (pl.measured_vs_predicted, pl.bland_altman):
        assert {ax.get_title(): to_hex(ax.collections[-1].get_facecolor()[0]) for ax in plot(adata)} == expected


def test_rna_fractions_are_labelled(adata):
    adata.uns["scdeconv"] = {"fractions": {"fraction_kind": "rna"}}
    assert pl.fractions(adata).get_ylabel() == "RNA fraction"


@pytest.mark.parametrize(
    ("kind", "written"),
    [("bars", {"fractions_colors"}), ("box", {"group_colors"}), ("heatmap", {"fractions_colors", "group_colors"})],
)
def test_only_drawn_colours_are_written(adata, kind, written):
    before = adata.copy()
    pl.fractions(adata, kind=kind, groupby="group", tracks="group" if kind == "heatmap" else ())
    assert adata.uns.keys() == written | {"scdeconv"}
    pd.testing.assert_frame_equal(adata.obsm["fractions"], before.obsm["fractions"])
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_failed_call_writes_no_colours(adata):
    for wrong in (
        {"cell_types": ["X"]},
        {"palette": ["red"]},
        {"palette": "x"},
        {"kind": "bars", "tracks": "group"},
        {"sort_by": "X"},
    ):
        with pytest.raises((KeyError, ValueError)):
            pl.fractions(adata, **wrong)
    assert not adata.uns
    assert not plt.get_fignums()


def test_errors_list_the_available_choices(adata):
    with pytest.raises(KeyError, match=r"Expected 'nnls' in adata.obsm, found \['fractions', 'measured_fractions'\]"):
        pl.fractions(adata, "nnls")
    with pytest.raises(KeyError, match=r"columns \['group'\] of adata.obs, found 'sex'"):
        pl.fractions(adata, groupby="sex")
    with pytest.raises(KeyError, match=r"sort_by to be one of \['type 0', 'type 1', 'type 2'\], found 'B'"):
        pl.fractions(adata, sort_by="B")
    adata.obsm["X_pca"] = np.zeros((6, 2))
    with pytest.raises(TypeError, match="found ndarray"):
        pl.fractions(adata, "X_pca")
    assert not plt.get_fignums()


def test_heat_map_and_bars_have_equal_order(adata):
    ax = pl.fractions(adata, kind="heatmap", groupby="group", sort_by="type 0")
    shown = np.concatenate([mesh.get_array() for mesh in ax.collections], axis=1)
    by_bars = bars(pl.fractions(adata, groupby="group", sort_by="type 0"))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(adata.obsm["fractions"])
    np.testing.assert_allclose(shown, [by_bars[cell_type] for cell_type in adata.obsm["fractions"]])
    assert len({mesh.norm.vmax for mesh in ax.collections}) == 1
    assert [text.get_text().split()[0] for text in ax.texts] == ["young", "old"]


def test_box_plot_points_are_the_samples(make_adata):
    adata = make_adata(20)
    ax = pl.fractions(adata, kind="box", groupby="group")
    points = np.asarray(ax.collections[-2].get_offsets())
    rows = np.array([patch.get_y() + patch.get_height() / 2 for patch in ax.patches])
    nearest = np.abs(points[:, 1, None] - rows).argmin(axis=1)
    expected = [
        adata.obsm["fractions"].loc[adata.obs["group"] == group, cell_type]
        for cell_type in adata.obsm["fractions"]
        for group in ("young", "old")
    ]
    for row, values in enumerate(expected):
        np.testing.assert_allclose(np.sort(points[nearest == row, 0]), np.sort(values))
        first, third = np.percentile(values, [25, 75])
        np.testing.assert_allclose([ax.patches[row].get_x(), ax.patches[row].get_width()], [first, third - first])
    assert [label.get_text() for label in ax.get_yticklabels()] == list(adata.obsm["fractions"])
    assert ax.yaxis_inverted()


def test_box_plot_groups_have_their_own_colours(adata):
    adata.obs.loc["s0", "group"] = None
    adata.uns["group_colors"] = ["red", "lime", "blue"]  # young, old, unused
    legend = pl.fractions(adata, kind="box", groupby="group").get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["young (n = 3)", "old (n = 2)", "not given (n = 1)"]
    assert [to_hex(patch.get_facecolor()) for patch in legend.get_patches()] == ["#ff0000", "#00ff00", "#595959"]


def test_box_plot_without_groups_has_no_legend(adata):
    ax = pl.fractions(adata, kind="box")
    assert len(ax.patches) == 3
    assert ax.get_legend() is None


def test_box_plot_axis_leaves_room_for_rare_types(make_adata):
    ax = pl.fractions(make_adata(), kind="box")
    one, hundred, all_ = (
        ax.transData.transform((x, 0))[0] - ax.transData.transform((0, 0))[0] for x in (0.0001, 0.01, 1)
    )
    np.testing.assert_allclose([one / all_, hundred / all_], [0.01, 0.1])


@pytest.mark.parametrize("kind", ["heatmap", "box"])
def test_other_kinds_use_the_given_ax(adata, kind):
    _, ax = plt.subplots()
    assert pl.fractions(adata, kind=kind, groupby="group", ax=ax) is ax
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(("n_samples", "n_types", "is_map"), [(100, 10, False), (40, 25, False), (102, 10, True)])
def test_many_values_have_a_heat_map(make_adata, n_samples, n_types, is_map):
    ax = pl.fractions(make_adata(n_samples, n_types))
    assert bool(ax.collections) == is_map
    assert bool(ax.containers) != is_map


def test_chosen_types_are_shown_as_they_are(adata):
    table = adata.obsm["fractions"]
    ax = pl.fractions(adata, cell_types=["type 2", "type 0"], sort_by="type 0")
    assert list(bars(ax)) == ["type 0", "type 2"]
    np.testing.assert_allclose(np.sort(bars(ax)["type 2"]), np.sort(table["type 2"]))
    assert colors(ax)["type 2"] == PALETTE[2]


def test_small_types_are_summed_as_other(make_adata):
    adata = make_adata(6, 20)
    table = adata.obsm["fractions"]
    largest = set(table.mean().nlargest(4).index)
    shown = bars(pl.fractions(adata, n_types=4))
    assert set(shown) == largest | {"other (16 types)"}
    assert list(shown)[-1] == "other (16 types)"
    first = table.mean().idxmax()
    np.testing.assert_allclose(
        shown["other (16 types)"],
        table[table.columns.difference(largest)].sum(axis=1).iloc[table[first].to_numpy().argsort()[::-1]],
    )
    assert colors(pl.fractions(adata, n_types=4))["other (16 types)"] == OTHER
    assert len(bars(pl.fractions(adata, n_types=20))) == 20
    smallest = table.mean().idxmin()
    assert smallest in bars(pl.fractions(adata, n_types=4, sort_by=smallest))


def test_palette_colours_some_types_and_is_kept(adata):
    expected = {"type 0": PALETTE[0], "type 1": "#ff0000", "type 2": PALETTE[1]}
    assert colors(pl.fractions(adata, palette={"type 1": "red"})) == expected
    assert colors(pl.fractions(adata, "measured_fractions")) == expected
    assert adata.uns["fractions_colors"] == list(expected.values())


def test_given_size_and_axes_are_exclusive(adata):
    assert list(pl.fractions(adata, figsize=(3, 2)).figure.get_size_inches()) == [3, 2]
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="Expected figsize or ax, found both"):
        pl.fractions(adata, figsize=(3, 2), ax=ax)


def test_small_groups_have_points_without_boxes(make_adata):
    adata = make_adata(10)
    adata.obs["group"] = ["a"] * 6 + ["b"] * 4
    ax = pl.fractions(adata, kind="box", groupby="group")
    assert len(ax.patches) == 3
    assert len(ax.collections[-2].get_offsets()) == 30
