"""Plots of the comparison of groups: values that are drawn, and refusals."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from scdeconv import pl, tl


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    adata = AnnData(obs=pd.DataFrame({"state": ["a", "b", "c"] * 10}, index=[f"s{i}" for i in range(30)]))
    adata.obs["age"] = rng.uniform(20, 60, 30)
    logs = rng.normal(0, 0.2, (30, 4)) + [2, 1, 0, 0]
    logs[1::3, 1] += 1.5
    shares = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
    adata.obsm["fractions"] = pd.DataFrame(shares, adata.obs_names, ["A", "B", "C", "D"])
    return adata


def test_effects_are_those_of_the_table(adata):
    table = tl.compare_fractions(adata, "state")
    ax = pl.compare_fractions(adata)
    for points, lines, (_, rows) in zip(
        ax.collections[1::2], ax.collections[::2], table.groupby("contrast", sort=False), strict=True
    ):
        np.testing.assert_allclose(2 ** points.get_offsets()[:, 0], rows["ratio"])
        drawn = 2 ** np.array([segment[:, 0] for segment in lines.get_segments()])
        np.testing.assert_allclose(drawn, rows[["ratio_lower", "ratio_upper"]])
        is_filled = [to_hex(color) != "#ffffff" for color in points.get_facecolor()]
        assert is_filled == (rows["q_value"] < 0.05).tolist()
    assert [label.get_text() for label in ax.get_legend().get_texts()] == ["b - a", "c - a"]


def test_types_outside_the_reference_have_a_star(adata):
    tl.compare_fractions(adata, "state")
    ax = pl.compare_fractions(adata, cell_types=["B", "D"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["B *", "D"]
    assert "types without *" in ax.get_xlabel()


def test_ratios_are_written_as_factors(adata):
    tl.compare_fractions(adata, "age")
    ax = pl.compare_fractions(adata)
    ax.set_xlim(-2, 2)
    assert ax.xaxis.get_major_formatter()(-1) == "0.5"
    assert ax.get_xlabel() == "ratio: age"


def test_boxes_have_false_discovery_rates(adata):
    table = tl.compare_fractions(adata, "state").drop_duplicates("cell_type")
    ax = pl.compare_fractions(adata, kind="boxes")
    names = [label.get_text().split("\n") for label in ax.get_yticklabels()]
    assert [name for name, _ in names] == ["A", "B", "C", "D"]
    assert names[1][1] == "q < 0.001"
    assert names[2][1] == f"q = {table['q_overall'].iloc[2]:.3f}"


def test_boxes_of_continuous_variables_are_refused(adata):
    tl.compare_fractions(adata, "age")
    with pytest.raises(ValueError, match="pl.fractions_against"):
        pl.compare_fractions(adata, kind="boxes")


def colors_of_effects(ax):
    return [to_hex(lines.get_color()[0]) for lines in ax.collections[::2]]


def colors_of_boxes(ax):
    return [to_hex(patch.get_facecolor()) for patch in ax.get_legend().get_patches()]


@pytest.mark.parametrize("palette", [None, {"c": "red"}, ["red", "green", "blue", "black"], "tab10"])
def test_effects_have_the_colours_of_the_boxes(adata, palette):
    adata.obs["state"] = pd.Categorical(adata.obs["state"], ["b", "a", "unused", "c"])
    tl.compare_fractions(adata, "state")
    boxes = colors_of_boxes(pl.compare_fractions(adata, kind="boxes", palette=palette))
    effects = colors_of_effects(pl.compare_fractions(adata, palette=palette))
    assert effects == boxes[1:]
    if isinstance(palette, dict):
        assert effects[1] == to_hex("red")
    # stored, as in the other plots
    assert colors_of_effects(pl.compare_fractions(adata)) == effects


def test_colour_of_a_continuous_variable_is_given(adata):
    tl.compare_fractions(adata, "age")
    for palette in (["red"], {"age": "red"}):
        assert colors_of_effects(pl.compare_fractions(adata, palette=palette)) == [to_hex("red")]


def test_effects_need_no_samples(adata):
    tl.compare_fractions(adata, "state")
    del adata.obs["state"], adata.obsm["fractions"]
    assert len(set(colors_of_effects(pl.compare_fractions(adata)))) == 2


def test_boxes_of_other_samples_are_warned_about(adata):
    tl.compare_fractions(adata, "state")
    with pytest.warns(UserWarning, match=r"\{'a': 10, 'b': 10, 'c': 10\}, found \{'a': 2, 'b': 2, 'c': 2\}"):
        pl.compare_fractions(adata[:6], kind="boxes")


def test_unknown_rates_are_written_as_nan(adata):
    adata.obs["state"] = [f"{i % 15}" for i in range(30)]
    with pytest.warns(UserWarning, match="joint test"):
        tl.compare_fractions(adata, "state")
    ax = pl.compare_fractions(adata, kind="boxes")
    assert ax.get_yticklabels()[0].get_text() == "A\nq = NaN"


def test_missing_comparison_is_refused(adata):
    genes = {"table": pd.DataFrame({"cell_type": ["A"], "gene": ["G"]}), "group": "state"}
    adata.uns["scdeconv"] = {"other": {"method": "nnls"}, "genes": genes}
    for key in ("compare_fractions", "other", "genes"):
        with pytest.raises(KeyError, match="Call tl.compare_fractions first"):
            pl.compare_fractions(adata, key)


def test_figure_of_many_types_is_saved(adata, tmp_path):
    shares = np.random.default_rng(0).dirichlet(np.full(25, 3.0), 30)
    adata.obsm["fractions"] = pd.DataFrame(shares, adata.obs_names, [f"type {i}" for i in range(25)])
    tl.compare_fractions(adata, "state", key_added="many")
    ax = pl.compare_fractions(adata, "many", save=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    height = ax.figure.get_figheight() * mpl.rcParams["figure.dpi"]
    # sizes of texts are those of the last drawing, the file with its resolution
    ax.figure.canvas.draw()
    texts = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(first.y0 > second.y1 - 1 for first, second in zip(texts, texts[1:], strict=False))
    assert height < 1100
