"""Plots equal stored images, and no text is cut off or overlaps another.

Images are compared without text and layout, which change with the version of matplotlib; the texts are looked after by
the second half. The tolerance is a root mean square over pixels of 0 to 255. matplotlib 3.9.4 and 3.11.2 draw all images
alike, but for the edges of the signature's cells, which are off by a pixel (7.5). To store a new image, delete the old
one, run the test, look at what it wrote and commit it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.legend import Legend
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Bbox

from scdeconv import pl, tl
from scdeconv._data.modalities import make_mudata

BASELINE = Path(__file__).parent / "baseline"
TOLERANCE = {"signature": 9.0}
DEFAULT_TOLERANCE = 0.3
LONG = ["CD4-positive, alpha-beta T cell", "B", "plasmacytoid dendritic cell, human", "rod"]


def make_samples(n_samples: int, n_types: int, *, long: bool = False) -> AnnData:
    """Samples in three groups with measured and predicted fractions and intervals, from sines: equal on all platforms."""
    grid = np.arange(n_samples)[:, None] + 1.7 * np.arange(n_types) ** 2
    names = [f"GTEX-{i:04d}-liver-SM-48TDP" if long else f"s{i}" for i in range(n_samples)]
    types = [f"{LONG[k % len(LONG)]} {k}" if long else f"type {k}" for k in range(n_types)]
    groups = pd.Categorical([["young", "old", "idiopathic pulmonary fibrosis"][i % 3] for i in range(n_samples)])
    adata = AnnData(obs=pd.DataFrame({"group": groups}, index=names))
    abundance = np.exp(np.linspace(2, -2, n_types))
    measured, predicted = (abundance * np.exp(np.sin(3 * grid) + noise * np.cos(7 * grid)) for noise in (0, 0.3))
    for key, values in (("measured_fractions", measured), ("fractions", predicted)):
        adata.obsm[key] = pd.DataFrame(values / values.sum(axis=1, keepdims=True), names, types)
    for side, sign in (("lower", -1), ("upper", 1)):
        bound = adata.obsm["fractions"] + sign * (0.02 + 0.1 * adata.obsm["fractions"])
        adata.obsm[f"fractions_{side}"] = bound.clip(0, 1)
    adata.uns["scdeconv"] = {"fractions": {"coverage": 0.9}}
    return adata


def plots_of_samples(adata: AnnData):
    yield "bars", lambda: pl.fractions(adata, groupby="group")
    yield "heatmap", lambda: pl.fractions(adata, kind="heatmap", groupby="group")
    yield "box", lambda: pl.fractions(adata, kind="box", groupby="group")
    yield "measured_vs_predicted", lambda: pl.measured_vs_predicted(adata)
    yield "bland_altman", lambda: pl.bland_altman(adata)
    yield "intervals", lambda: pl.intervals(adata)
    yield "intervals_of_one", lambda: pl.intervals(adata, cell_types=list(adata.obsm["fractions"])[1:2])


def draw_benchmark():
    methods = {"ridge": 0.03, "mean_composition": 0.05, "nnls": 0.07}
    rows = [
        {"method": method, "seed": seed, "cell_type": cell_type, "rmse": rmse * (1 + 0.1 * seed) * factor}
        for method, rmse in methods.items()
        for seed in (0, 1)
        for cell_type, factor in (("B", 0.5), ("T", 1.6), ("all entries", 1.0))
    ]
    return pl.benchmark(pd.DataFrame(rows))


def draw_clusters():
    logits = 2 * np.sin(np.arange(120)[:, None] * (1 + np.arange(5)))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names, cells = [f"cluster {k}" for k in range(5)], [f"c{i}" for i in range(120)]
    labels = pd.Categorical.from_codes(p.argmax(axis=1), names)
    adata = AnnData(obs=pd.DataFrame({"desc": labels}, index=cells))
    adata.obsm["desc_probabilities"] = pd.DataFrame(p, cells, names)
    return pl.clusters(adata)


def draw_history():
    epochs = np.arange(40)
    curves = {"train_loss": np.exp(-epochs / 8) + 0.02, "validation_loss": np.exp(-epochs / 8) + 0.004 * epochs + 0.05}
    return pl.history({name: pd.DataFrame({name: values}) for name, values in curves.items()})


def draw_signature():
    values = 1.5 + np.sin(np.arange(4)[:, None] + np.arange(30) ** 2)
    marker_of = [f"type {k}" for k in values.argmax(axis=0)]
    signature = AnnData(
        values,
        obs=pd.DataFrame({"cell_type": [f"type {k}" for k in range(4)], "cell_size_umi": 1e6}, index=list("abcd")),
        var=pd.DataFrame({"marker_of": marker_of, "score": values.max(axis=0)}, [f"GENE{j}" for j in range(30)]),
    )
    signature.uns["scdeconv"] = {"signature": {"condition_number": 12.3}}
    return pl.signature(signature)


def draw_simulation():
    def make(n: int, shift: float) -> AnnData:
        rows = np.arange(n)[:, None] + shift
        values = np.exp(3 + np.sin(rows) * np.arange(8) / 8 + np.cos(5 * rows) * (np.arange(8) % 2) / 2)
        names = [f"{shift}-{i}" for i in range(n)]
        obs = pd.DataFrame({"donor": names}, index=names)
        return AnnData(values, obs=obs, obsm={"measured_fractions": pd.DataFrame({"T": 1.0}, index=names)})

    return pl.simulation(make_mudata({"bulk": make(8, 0.4), "simulated": make(80, 0)}))


def draw_tuning():
    trials = pd.DataFrame(
        {
            "state": ["complete"] * 3 + ["pruned"] + ["complete"] * 2,
            "rmse": [0.05, 0.06, 0.04, np.nan, 0.03, 0.045],
            "seconds": 1.0,
            "learning_rate": [1e-3, 1e-5, 1e-4, 1e-2, 3e-4, 1e-3],
            "loss": ["mse", "kl", "mse", "kl", "cross-entropy", "mse"],
        }
    ).rename_axis("trial")
    return pl.tuning(tl.Tuning("simplednn", trials, {}, None, 0.07))


OTHERS = {
    "benchmark": draw_benchmark,
    "clusters": draw_clusters,
    "history": draw_history,
    "signature": draw_signature,
    "simulation": draw_simulation,
    "tuning": draw_tuning,
}
DRAW = {**dict(plots_of_samples(make_samples(12, 4))), **OTHERS}


def figure_of(drawn):
    return np.ravel(drawn)[0].figure


def save_without_text(figure, path: Path) -> Path:
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(NullFormatter())
            axis.set_minor_formatter(NullFormatter())
    for artist in figure.findobj(lambda artist: isinstance(artist, (Text, Legend))):
        artist.set_visible(False)
    # the layout depends on the texts and on the version, and so does the rounding of parts of an inch
    figure.set_layout_engine("none")
    figure.set_size_inches(np.ceil(figure.get_size_inches()))
    for ax in figure.axes:
        # versions round the edges of heat maps differently
        pixels = figure.transFigure.transform(ax.get_position()) * 50 / figure.dpi
        ax.set_position(Bbox(figure.transFigure.inverted().transform(np.round(pixels) * figure.dpi / 50)))
    figure.savefig(path, dpi=50)
    return path


@pytest.mark.parametrize("name", DRAW)
def test_plots_equal_their_stored_images(name, tmp_path):
    with mpl.style.context("default"):
        drawn = save_without_text(figure_of(DRAW[name]()), tmp_path / f"{name}.png")
    stored = BASELINE / drawn.name
    if not stored.exists():
        shutil.copy(drawn, stored)
        pytest.fail(f"Expected {stored}, found none: wrote it. Look at it, then run the test again.")
    difference = compare_images(stored, drawn, tol=TOLERANCE.get(name, DEFAULT_TOLERANCE))
    assert difference is None, f"{difference}\nIf the new image is right, delete the stored one and run the test again."


def test_one_different_sample_is_detected(tmp_path):
    adata = make_samples(12, 4)
    adata.obsm["fractions"].iloc[0] = adata.obsm["fractions"].iloc[0, ::-1].to_numpy()
    for name, draw in plots_of_samples(adata):
        with mpl.style.context("default"):
            drawn = save_without_text(figure_of(draw()), tmp_path / f"{name}.png")
        assert compare_images(BASELINE / drawn.name, drawn, tol=DEFAULT_TOLERANCE) is not None, name


def unreadable(figure) -> list[str]:
    """Texts that leave the figure or cover another; slanted ones are left out: their boxes cover more than they do."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    # ticks beyond the limits of the axes are not drawn
    hidden = {
        label
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    texts = [text for text in texts if text.get_rotation() in (0, 90) and text not in hidden]
    boxes = np.array([text.get_window_extent().extents for text in texts])
    x0, y0, x1, y1 = boxes.T
    width, height = figure.canvas.get_width_height()
    outside = (x0 < -1) | (y0 < -1) | (x1 > width + 1) | (y1 > height + 1)
    # half of the letters' height may overlap at the corners: the box has room for letters with tails
    cover = np.minimum(x1, x1[:, None]) - np.maximum(x0, x0[:, None]) > 1
    cover &= np.minimum(y1, y1[:, None]) - np.maximum(y0, y0[:, None]) > 3
    pairs = np.argwhere(np.triu(cover, 1))
    return [texts[i].get_text() for i in np.flatnonzero(outside)] + [
        f"{texts[i].get_text()} | {texts[j].get_text()}" for i, j in pairs
    ]


@pytest.mark.parametrize("adata", [make_samples(2, 3), make_samples(12, 7, long=True), make_samples(200, 30)], ids=len)
@pytest.mark.parametrize("name", [name for name, _ in plots_of_samples(make_samples(2, 2))])
def test_texts_are_readable_for_many_samples(adata, name):
    figure = figure_of(dict(plots_of_samples(adata))[name]())
    assert unreadable(figure) == []
    assert figure.get_figwidth() < 14


@pytest.mark.parametrize("plot", [pl.measured_vs_predicted, pl.bland_altman, pl.intervals])
def test_texts_of_one_cell_type_are_readable(plot):
    adata = make_samples(12, 1)
    assert unreadable(figure_of(plot(adata))) == []


@pytest.mark.parametrize("name", OTHERS)
def test_texts_of_the_other_plots_are_readable(name):
    assert unreadable(figure_of(OTHERS[name]())) == []


def test_overlapping_texts_are_detected():
    figure, ax = plt.subplots()
    ax.set_title("title")
    assert unreadable(figure) == []
    figure.text(*figure.transFigure.inverted().transform(ax.title.get_window_extent().p0), "cover")
    assert unreadable(figure) == ["title | cover"] or unreadable(figure) == ["cover | title"]
