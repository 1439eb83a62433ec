from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import zscore

from scdeconv import pl, pp


def make_signature(path, n_types, n_genes, name="type"):
    rng = np.random.default_rng(n_types * n_genes)
    values = rng.gamma(1, 100, (n_genes, n_types))
    values[np.arange(n_genes), rng.integers(0, n_types, n_genes)] += 500
    table = pd.DataFrame(values, [f"GENE{i}" for i in range(n_genes)], [f"{name} {i}" for i in range(n_types)])
    table.to_csv(path)
    return pp.read_signature(path)


@pytest.fixture
def signature(tmp_path):
    return make_signature(tmp_path / "signature.csv", 4, 30)


@pytest.mark.parametrize("scale", ["z-score", "linear"])
def test_colours_are_z_scores_or_shares(signature, scale):
    ax = pl.signature(signature, scale=scale)
    drawn = ax.images[0].get_array()
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert sorted(names) == sorted(signature.var_names)
    assert [label.get_text() for label in ax.get_yticklabels()] == signature.obs["cell_type"].tolist()
    # without cell sizes the values of the file are CPM
    cpm = signature[:, names].X
    expected = zscore(np.log2(cpm + 1)) if scale == "z-score" else cpm / cpm.max(axis=0)
    np.testing.assert_allclose(drawn, expected, atol=1e-12)
    low, high = ax.images[0].get_clim()
    assert (low, high) == (
        (0, 1) if scale == "linear" else pytest.approx((-np.abs(expected).max(), np.abs(expected).max()))
    )


def test_chosen_types_keep_their_colours(signature):
    everything = pl.signature(signature)
    names = [label.get_text() for label in everything.get_xticklabels()]
    ax = pl.signature(signature, cell_types=["type 2", "type 0"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["type 2", "type 0"]
    order = [names.index(label.get_text()) for label in ax.get_xticklabels()]
    np.testing.assert_allclose(ax.images[0].get_array(), everything.images[0].get_array()[[2, 0]][:, order])


def test_constant_genes_have_a_score_of_zero(signature):
    signature.X[:, 0] = 5.0
    assert np.isfinite(pl.signature(signature).images[0].get_array()).all()


def test_cell_size_does_not_affect_the_colours(signature):
    drawn = pl.signature(signature).images[0].get_array()
    factor = np.array([[1.0], [2.0], [3.0], [4.0]])
    signature.X, signature.obs["cell_size_umi"] = signature.X * factor, 1e6 * factor[:, 0]
    np.testing.assert_allclose(pl.signature(signature).images[0].get_array(), drawn)


def test_markers_are_grouped_with_the_best_first(signature):
    ax = pl.signature(signature)
    var = signature.var.loc[[label.get_text() for label in ax.get_xticklabels()]]
    codes = var["marker_of"].cat.codes.to_numpy()
    assert (np.diff(codes) >= 0).all()
    for _, of_type in var.groupby("marker_of", observed=True):
        assert of_type["score"].is_monotonic_decreasing
    assert ax.images[0].get_array().argmax(axis=0).tolist() == codes.tolist()
    edges = [segment[0][0] for segment in ax.collections[0].get_segments()]
    assert edges == [i + 0.5 for i in np.flatnonzero(np.diff(codes))]


def test_order_follows_the_selected_types(signature):
    part = signature[["type 2", "type 0"]]
    ax = pl.signature(part)
    names = [label.get_text() for label in ax.get_xticklabels()]
    order = signature.var.loc[names, "marker_of"].tolist()
    known = [name for name in order if name in ("type 2", "type 0")]
    assert known == sorted(known, reverse=True)
    assert order[-len(known) :] == known


def test_title_shows_genes_and_condition_number(signature):
    number = signature.uns["scdeconv"]["signature"]["condition_number"]
    assert pl.signature(signature).get_title() == f"30 genes, condition number {number:.3g}"


@pytest.mark.parametrize("n_types", [5, 25])
@pytest.mark.parametrize("n_genes", [30, 100, 2000])
@pytest.mark.filterwarnings("ignore:The condition number")
def test_labels_fit_for_every_size(tmp_path, n_types, n_genes):
    ax = pl.signature(make_signature(tmp_path / "s.csv", n_types, n_genes, name="a rather long cell type"))
    ax.figure.canvas.draw()
    assert ax.figure.get_figwidth() <= 7.5
    assert (len(ax.get_xticklabels()) == n_genes) == (n_genes <= 30)
    assert bool(ax.get_xlabel()) == (n_genes > 30)
    figure = ax.figure.get_window_extent()
    for labels, size in ((ax.get_yticklabels(), "height"), (ax.get_xticklabels(), "width")):
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) < 2 or max(getattr(box, size) for box in boxes) <= 1.05 * _pitch(boxes, size)
        assert all(box.x0 >= figure.x0 - 1 and box.y0 >= figure.y0 - 1 for box in boxes)


def _pitch(boxes, size):
    centres = [(box.y0 + box.y1) / 2 if size == "height" else (box.x0 + box.x1) / 2 for box in boxes]
    return np.abs(np.diff(centres)).min()


def test_given_ax_is_used(signature):
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    assert pl.signature(signature, ax=left) is left
    assert len(plt.get_fignums()) == 1
    assert not left.get_xticklabels()
    assert not right.images


def test_signature_is_not_changed(signature, unchanged):
    with unchanged(signature):
        pl.signature(signature)


def test_signature_of_cells_can_be_drawn(pairs):
    ax = pl.signature(pp.signature(pairs, 20))
    assert ax.images[0].get_array().shape == (4, 20)


def test_other_tables_are_refused_with_advice(pairs):
    with pytest.raises(KeyError, match=r"Expected var\['marker_of'\].*found var columns \[\].*pp\.signature"):
        pl.signature(pairs["profiles"])
    assert not plt.get_fignums()
