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
import pytest
from drawings import OTHERS, figure_of, make_samples
from matplotlib.legend import Legend
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Bbox

from scdeconv import pl

BASELINE = Path(__file__).parent / "baseline"
TOLERANCE = {"signature": 9.0}
DEFAULT_TOLERANCE = 0.3


def plots_of_samples(adata):
    yield "bars", lambda: pl.fractions(adata, kind="bars", groupby="group")
    yield "heatmap", lambda: pl.fractions(adata, kind="heatmap", groupby="group", tracks="age")
    yield "clustered", lambda: pl.fractions(adata, kind="heatmap", tracks=["group", "age"])
    yield "box", lambda: pl.fractions(adata, kind="box", groupby="group")
    yield "against", lambda: pl.fractions_against(adata, "age")
    yield "measured_vs_predicted", lambda: pl.measured_vs_predicted(adata)
    yield "bland_altman", lambda: pl.bland_altman(adata)
    yield "intervals", lambda: pl.intervals(adata)
    yield "intervals_of_one", lambda: pl.intervals(adata, cell_types=list(adata.obsm["fractions"])[1:2])


DRAW = {**dict(plots_of_samples(make_samples(15, 4))), **OTHERS}


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
    adata = make_samples(15, 4)
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


def too_small(figure) -> list[str]:
    """Texts of less than 8 pt."""
    texts = figure.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip()
    )
    return [text.get_text() for text in texts if text.get_fontsize() < 8]


SIZES = [make_samples(2, 2), make_samples(30, 8, long=True), make_samples(200, 25)]


@pytest.mark.parametrize("adata", SIZES, ids=len)
@pytest.mark.parametrize("name", [name for name, _ in plots_of_samples(make_samples(2, 2))])
def test_texts_are_readable_for_many_samples(adata, name):
    figure = figure_of(dict(plots_of_samples(adata))[name]())
    assert unreadable(figure) == []
    assert too_small(figure) == []
    # the text width of an A4 page, so that a print has the sizes of the fonts
    assert figure.get_figwidth() <= 7.51
    assert figure.get_figheight() < 11


@pytest.mark.parametrize("plot", [pl.measured_vs_predicted, pl.bland_altman, pl.intervals])
def test_texts_of_one_cell_type_are_readable(plot):
    adata = make_samples(12, 1)
    assert unreadable(figure_of(plot(adata))) == []


@pytest.mark.parametrize("name", OTHERS)
def test_texts_of_the_other_plots_are_readable(name):
    figure = figure_of(OTHERS[name]())
    assert unreadable(figure) == []
    assert too_small(figure) == []
    assert figure.get_figwidth() <= 7.51


def test_overlapping_texts_are_detected():
    figure, ax = plt.subplots()
    ax.set_title("title")
    assert unreadable(figure) == []
    figure.text(*figure.transFigure.inverted().transform(ax.title.get_window_extent().p0), "cover")
    assert unreadable(figure) == ["title | cover"] or unreadable(figure) == ["cover | title"]
