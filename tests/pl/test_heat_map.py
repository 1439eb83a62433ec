"""Order, dendrograms and tracks of the heat map of fractions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.legend import Legend
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from scdeconv import pl
from scdeconv.pl._style import PALETTE


def samples(ax) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def tree_of(inset) -> list[np.ndarray]:
    (lines,) = (collection for collection in inset.collections if isinstance(collection, LineCollection))
    return lines.get_segments()


def insets(ax) -> tuple[list, list]:
    """Axes of tracks, and those of dendrograms."""
    tracks = [inset for inset in ax.child_axes if inset.axison and inset.get_ylim() == (-0.5, 0.5)]
    return tracks, [inset for inset in ax.child_axes if not inset.axison]


def test_map_shows_the_values_of_its_labels(make_adata):
    adata = make_adata(20, 5)
    ax = pl.fractions(adata, kind="heatmap")
    types = [label.get_text() for label in ax.get_yticklabels()]
    shown = np.asarray(ax.collections[0].get_array())
    np.testing.assert_allclose(shown, adata.obsm["fractions"].loc[samples(ax), types].T)


def test_samples_have_the_order_of_scipy(make_adata):
    adata = make_adata(20, 5)
    ax = pl.fractions(adata, kind="heatmap")
    merges = linkage(np.sqrt(adata.obsm["fractions"]), "average", optimal_ordering=True)
    expected = dendrogram(merges, no_plot=True)
    assert samples(ax) == [f"s{i}" for i in expected["leaves"]]
    tree, _ = insets(ax)[1]
    drawn = sorted(np.round(line, 6).tolist() for line in tree_of(tree))
    # scipy places leaves at 5, 15, 25, ...
    lines = zip(expected["icoord"], expected["dcoord"], strict=True)
    assert drawn == sorted(np.round(np.c_[(np.array(x) - 5) / 10, y], 6).tolist() for x, y in lines)


def test_types_are_clustered_by_their_correlation(make_adata):
    adata = make_adata(20, 6)
    ax = pl.fractions(adata, kind="heatmap")
    roots = np.sqrt(adata.obsm["fractions"])
    distance = np.sqrt(np.clip(2 - 2 * np.corrcoef(roots.T), 0, None))
    merges = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown == [f"type {i}" for i in dendrogram(merges, no_plot=True)["leaves"]]


def test_samples_are_clustered_within_groups(make_adata):
    adata = make_adata(12, 4)
    ax = pl.fractions(adata, kind="heatmap", groupby="group")
    assert list(adata.obs["group"][samples(ax)]) == ["young"] * 6 + ["old"] * 6
    tree, _ = insets(ax)[1]
    assert len(tree_of(tree)) == 10
    centres = [line[:, 0].mean() for line in tree_of(tree)]
    gap = np.diff(ax.get_xticks()).argmax()
    assert not any(ax.get_xticks()[gap] + 0.5 < centre < ax.get_xticks()[gap + 1] - 0.5 for centre in centres)


def test_sorted_map_has_no_dendrogram(make_adata):
    ax = pl.fractions(make_adata(20, 5), kind="heatmap", sort_by="type 3")
    assert not insets(ax)[1]
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"type {i}" for i in range(5)]


def test_constant_types_and_equal_samples_can_be_clustered(make_adata):
    adata = make_adata(6, 4)
    adata.obsm["fractions"].iloc[:] = [0.5, 0.5, 0, 0]
    pl.fractions(adata, kind="heatmap").figure.canvas.draw()


@pytest.mark.parametrize("n_samples", [1, 2, 3])
def test_few_samples_can_be_drawn(make_adata, n_samples):
    adata = make_adata(4, 2)[:n_samples].copy()
    ax = pl.fractions(adata, kind="heatmap")
    assert len(samples(ax)) == n_samples
    assert len(insets(ax)[1]) == (n_samples == 3)


def test_tracks_show_columns_in_sample_order(make_adata):
    adata = make_adata(12, 4)
    adata.obs["age"] = [np.nan, *np.arange(11.0)]
    ax = pl.fractions(adata, kind="heatmap", tracks=["group", "age"])
    group, age = insets(ax)[0]
    assert [inset.get_yticklabels()[0].get_text() for inset in (group, age)] == ["group", "age (0–10)"]
    of_sample = dict(zip(samples(ax), group.collections[0].get_array()[0], strict=True))
    expected = {"young": PALETTE[2], "old": PALETTE[0]}
    assert {name: to_hex(color) for name, color in of_sample.items()} == {
        name: expected[value] for name, value in adata.obs["group"].items()
    }
    shades = pd.DataFrame(age.collections[0].get_array()[0], samples(ax)).loc[adata.obs_names]
    assert shades.iloc[0, 3] == 0
    assert (np.diff(shades.iloc[1:, 0]) < 0).all()
    (legend,) = (artist for artist in ax.get_children() if isinstance(artist, Legend))
    assert legend.get_title().get_text() == "group"
    assert adata.uns["group_colors"] == [PALETTE[2], PALETTE[0], PALETTE[1]]


def test_tracks_of_missing_groups_are_grey(adata):
    adata.obs.loc["s0", "group"] = None
    ax = pl.fractions(adata, tracks="group")
    (legend,) = (artist for artist in ax.get_children() if isinstance(artist, Legend))
    assert "not given" in [text.get_text() for text in legend.get_texts()]


def test_unknown_tracks_are_refused(adata):
    with pytest.raises(KeyError, match=r"Expected tracks to be columns \['group'\] of adata.obs, found 'age'"):
        pl.fractions(adata, kind="heatmap", tracks=["age", "group"])
    with pytest.raises(ValueError, match="Expected kind='heatmap' for tracks, found 'bars'"):
        pl.fractions(adata, kind="bars", tracks="group")
    assert not plt.get_fignums()
