"""Arguments that all plots share: axes, size, file, colours and cell types."""

from __future__ import annotations

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawings import OTHERS, figure_of, make_samples
from matplotlib.colors import to_hex

from scdeconv import pl

OF_SAMPLES = ("bland_altman", "fractions", "fractions_against", "intervals", "measured_vs_predicted")


def draw(name: str, **arguments):
    if name in OTHERS:
        return OTHERS[name](**arguments)
    adata = make_samples(6, 3)
    variable = ("age",) if name == "fractions_against" else ()
    return getattr(pl, name)(adata, *variable, **arguments)


each_plot = pytest.mark.parametrize("name", sorted({*OTHERS, *OF_SAMPLES}))


def test_every_plot_is_tested_here():
    # results of long computations have their own tests, the report is a page
    elsewhere = {"compare_fractions", "reference_fit", "report"}
    assert {*pl.__all__} == {*OTHERS, *OF_SAMPLES} | elsewhere


@pytest.mark.parametrize("name", sorted({*pl.__all__} - {"report"}))
def test_signatures_have_the_common_arguments(name):
    names = list(inspect.signature(getattr(pl, name)).parameters)
    assert names[-2:] == ["figsize", "save"]
    assert names[-3] in ("ax", "axes")


@each_plot
def test_size_and_file_are_those_given(name, tmp_path):
    path = tmp_path / "figure.pdf"
    figure = figure_of(draw(name, figsize=(9, 8), save=path))
    assert list(figure.get_size_inches()) == [9, 8]
    assert path.read_bytes().startswith(b"%PDF")


@each_plot
def test_size_of_given_axes_is_refused(name):
    _, grid = plt.subplots(1, 2 if name == "clusters" else 3)
    parameters = inspect.signature(getattr(pl, name)).parameters
    given = {"ax": grid[0]} if "ax" in parameters else {"axes": grid}
    with pytest.raises(ValueError, match="Expected figsize or axe?s?, found both"):
        draw(name, figsize=(3, 3), **given)
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("save", ["figure.txt", "missing/figure.png", ""])
def test_impossible_files_are_refused_before_drawing(save, tmp_path):
    with pytest.raises(ValueError, match="Expected save to be a path that ends with one of"):
        draw("fractions", save=str(tmp_path / save) if save else save)
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_types_keep_their_colours_in_all_plots(name):
    adata = make_samples(6, 3)
    pl.fractions(adata, palette={"type 1": "red"})
    stored = adata.uns["fractions_colors"]
    variable = ("age",) if name == "fractions_against" else ()
    drawn = getattr(pl, name)(adata, *variable, cell_types=["type 1"])
    figure = figure_of(drawn)
    artists = [*figure.findobj(lambda artist: hasattr(artist, "get_facecolor"))]
    assert "#ff0000" in {
        to_hex(color) for artist in artists for color in np.atleast_2d(artist.get_facecolor()) if len(color)
    }
    assert adata.uns["fractions_colors"] == stored


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_chosen_types_have_the_given_order(name):
    if name == "fractions":
        pytest.skip("one axes")
    assert [ax.get_title() for ax in draw(name, cell_types=["type 2", "type 0"])] == ["type 2", "type 0"]
    with pytest.raises(KeyError, match=r"Expected columns \['X'\] in adata.obsm"):
        draw(name, cell_types=["X"])
