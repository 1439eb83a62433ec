from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgba

from scdeconv import pl


def make_cells(n_clusters, n_cells=400, name="", seed=0):
    """Cells with random probabilities; each is in its most probable cluster, the first clusters are the largest."""
    rng = np.random.default_rng(seed)
    names = [f"{name}{k}" for k in range(n_clusters)]
    near = np.r_[np.arange(n_clusters), (n_clusters * rng.random(n_cells - n_clusters) ** 2).astype(int)]
    logits = rng.normal(0, 1, (n_cells, n_clusters)) + 4 * np.eye(n_clusters)[near]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    index = [f"c{i}" for i in range(n_cells)]
    labels = pd.Categorical.from_codes(p.argmax(axis=1), names)
    cells = AnnData(obs=pd.DataFrame({"desc": labels}, index=index))
    cells.obsm["desc_probabilities"] = pd.DataFrame(p, index, names)
    return cells


@pytest.fixture
def cells():
    return make_cells(4)


def texts(labels):
    return [label.get_text() for label in labels]


def test_rows_are_ordered_clusters_with_sizes(cells):
    left, right = pl.clusters(cells)
    sizes = cells.obs["desc"].value_counts(sort=False)
    assert texts(left.get_yticklabels()) == [f"{name} (n = {size})" for name, size in sizes.items()]
    assert left.yaxis_inverted()
    assert texts(right.get_xticklabels()) == list(sizes.index)
    assert left.get_ylim() == right.get_ylim()


def test_boxes_are_quantiles_of_the_highest_probability(cells):
    left, _ = pl.clusters(cells)
    highest = cells.obsm["desc_probabilities"].max(axis=1)
    for k, (name, values) in enumerate(highest.groupby(cells.obs["desc"], observed=True)):
        box = left.patches[k]
        low, first, median, third, high = np.percentile(values, [5, 25, 50, 75, 95])
        assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx((first, third))
        assert box.get_y() + box.get_height() / 2 == pytest.approx(k), name
        whiskers, *medians = (collection.get_segments()[k] for collection in left.collections)
        assert whiskers[:, 0] == pytest.approx([low, high])
        assert all(line[:, 0] == pytest.approx([median, median]) for line in medians)
    low, high = left.get_xlim()
    lowest = min(np.percentile(of, 5) for _, of in highest.groupby(cells.obs["desc"], observed=True))
    assert lowest - 0.1 < low < lowest
    assert 1 < high < 1.1


def test_clusters_of_few_cells_have_points():
    cells = make_cells(3, 40)
    few = cells[np.r_[np.flatnonzero(cells.obs["desc"] != "2"), np.flatnonzero(cells.obs["desc"] == "2")[:2]]].copy()
    left, _ = pl.clusters(few)
    assert len(left.patches) == 2
    assert len(left.collections[-1].get_offsets()) == 2


def test_heat_map_shows_mean_probabilities_per_cluster(cells):
    _, right = pl.clusters(cells)
    drawn = right.images[0].get_array()
    for i, row in enumerate("0123"):
        for j, column in enumerate("0123"):
            members = cells.obs["desc"] == row
            assert drawn[i, j] == pytest.approx(cells.obsm["desc_probabilities"].loc[members, column].mean())
    largest = drawn.max()
    assert right.images[0].get_clim() == (0, largest)
    shown = right.images[0].norm([0, 0.01 * largest, 0.25 * largest, largest])
    np.testing.assert_allclose(shown, [0, 0.1, 0.5, 1])


@pytest.mark.parametrize("stored", ["list", "dict"])
def test_colours_are_those_stored_for_the_clusters(cells, stored):
    colors = ["#ff0000", "#00ff00", "#0000ff", "#000000"]
    cells.uns["desc_colors"] = colors if stored == "list" else dict(zip("0123", colors, strict=True))
    cells.uns["cell_type_colors"] = ["#ffffff"]
    left, _ = pl.clusters(cells)
    assert [patch.get_facecolor() for patch in left.patches] == [to_rgba(color) for color in colors]
    del cells.uns["desc_colors"]
    left, _ = pl.clusters(cells)
    assert {patch.get_facecolor() for patch in left.patches} == {to_rgba(pl._style.PALETTE[0])}


def test_empty_clusters_have_a_column_only(cells):
    cells.uns["desc_colors"] = ["#ff0000", "#00ff00", "#0000ff", "#000000"]
    part = cells[cells.obs["desc"] != "1"].copy()
    assert "1" not in part.obs["desc"].cat.categories
    part.obs["desc"] = part.obs["desc"].cat.set_categories(list("0123"))
    part.uns["desc_colors"] = cells.uns["desc_colors"]
    left, right = pl.clusters(part)
    assert [text.split()[0] for text in texts(left.get_yticklabels())] == ["0", "2", "3"]
    assert texts(right.get_xticklabels()) == ["0", "2", "3", "1"]
    assert left.patches[1].get_facecolor() == to_rgba("#0000ff")


def test_numeric_and_missing_clusters_are_accepted(cells):
    numbers = cells.obs["desc"].astype(str).astype(float)
    cells.obs["desc"] = pd.Categorical.from_codes(np.where(np.arange(400) < 10, -1, numbers).astype(int), [0, 1, 2, 3])
    cells.obsm["desc_probabilities"].columns = [0, 1, 2, 3]
    left, _ = pl.clusters(cells)
    sizes = numbers[10:].value_counts().sort_index().astype(int)
    assert texts(left.get_yticklabels()) == [f"{int(name)} (n = {size})" for name, size in sizes.items()]


@pytest.mark.parametrize("name", ["", "a rather long cell type "])
@pytest.mark.parametrize("n_clusters", [2, 3, 12, 40])
def test_labels_fit_for_every_number_of_clusters(n_clusters, name):
    left, right = pl.clusters(make_cells(n_clusters, 2000, name))
    figure = left.figure
    figure.canvas.draw()
    assert figure.get_figwidth() < 12
    assert figure.get_figheight() < 13
    window = figure.get_window_extent()
    for labels, side in ((left.get_yticklabels(), "y"), (right.get_xticklabels(), "x")):
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: getattr(box, f"{side}0"))
        assert len(boxes) == n_clusters
        assert all(getattr(a, f"{side}1") <= getattr(b, f"{side}0") for a, b in zip(boxes[:-1], boxes[1:], strict=True))
        assert all(window.x0 <= box.x0 and box.x1 <= window.x1 and window.y0 <= box.y0 for box in boxes)
    for ax in (left, right):
        box = ax.get_tightbbox()
        assert window.x0 - 1 <= box.x0
        assert box.x1 <= window.x1 + 1
    # rows of both panels are at the same height
    assert left.get_window_extent().y0 == pytest.approx(right.get_window_extent().y0)
    assert left.get_window_extent().y1 == pytest.approx(right.get_window_extent().y1)


def test_given_axes_are_used(cells):
    _, axes = plt.subplots(2, 1)
    found = pl.clusters(cells, axes=axes)
    assert list(found) == list(axes)
    assert len(plt.get_fignums()) == 1
    assert texts(axes[1].get_yticklabels()) == list("0123")
    with pytest.raises(ValueError, match="Expected two axes, .* found 1"):
        pl.clusters(cells, axes=axes[:1])


def test_cells_are_not_changed(cells, unchanged):
    with unchanged(cells):
        pl.clusters(cells)


def test_missing_input_error_says_what_to_do(cells):
    with pytest.raises(KeyError, match=r"Expected 'leiden' in cells.obs, found \['desc'\]. Call tl.cluster"):
        pl.clusters(cells, "leiden")
    cells.obs["leiden"] = cells.obs["desc"]
    with pytest.raises(
        KeyError, match=r"Expected 'leiden_probabilities' in cells.obsm, found \['desc_probabilities'\]"
    ):
        pl.clusters(cells, "leiden")
    cells.obsm["leiden_probabilities"] = cells.obsm["desc_probabilities"].to_numpy()
    with pytest.raises(TypeError, match="Expected a DataFrame of cells × clusters.*found ndarray"):
        pl.clusters(cells, "leiden")
    cells.obsm["leiden_probabilities"] = cells.obsm["desc_probabilities"].drop(columns="2")
    with pytest.raises(ValueError, match="Expected a column for each cluster.*found none for '2'"):
        pl.clusters(cells, "leiden")
    assert not plt.get_fignums()
