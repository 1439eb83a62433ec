"""Plots of faulty or unusual fractions and columns of obs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawings import make_samples
from matplotlib.colors import to_hex

from scdeconv import pl

TABLES = {
    "fractions": pl.fractions,
    "fractions_against": lambda adata: pl.fractions_against(adata, "age"),
    "bland_altman": pl.bland_altman,
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.set_axis(["type 0", "type 1", "type 1"], axis=1), "found 'type 1' repeated"),
        (lambda table: table.astype(str), "found 3 non-numeric columns"),
        (lambda table: table.replace(table.iloc[0, 0], np.inf), "found infinite values of 1 samples"),
    ],
)
def test_faulty_fractions_are_refused(name, change, message):
    adata = make_samples(6, 3)
    adata.obsm["fractions"] = change(adata.obsm["fractions"])
    with pytest.raises(ValueError, match=message):
        TABLES[name](adata)


@pytest.mark.parametrize("kind", ["bars", "heatmap", "box"])
def test_nullable_numbers_are_drawn(kind):
    adata = make_samples(6, 3)
    adata.obsm["fractions"] = adata.obsm["fractions"].astype("Float64")
    adata.obsm["fractions"].iloc[0] = pd.NA
    pl.fractions(adata, kind=kind)


def test_groups_are_those_of_the_comparison():
    adata = make_samples(6, 3)
    adata.obs["batch"] = pd.Series([1, "1", 1.0, "b ", "b", None], adata.obs_names, dtype=object)
    legend = pl.fractions(adata, kind="box", groupby="batch").get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["1 (n = 3)", "b (n = 2)", "not given (n = 1)"]


def test_group_of_the_name_not_given_is_drawn():
    adata = make_samples(6, 3)
    adata.obs["batch"] = pd.Categorical(["not given", None, "b"] * 2)
    legend = pl.fractions(adata, kind="box", groupby="batch").get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["b (n = 2)", "not given (n = 4)"]


def test_repeated_columns_are_refused():
    adata = make_samples(6, 3)
    adata.obs.insert(0, "age", "a", allow_duplicates=True)
    for draw in (
        lambda: pl.fractions(adata, groupby="age"),
        lambda: pl.fractions(adata, tracks="age"),
        lambda: pl.fractions_against(adata, "age"),
    ):
        with pytest.raises(ValueError, match="one column 'age' in adata.obs"):
            draw()


def test_series_of_colours_is_read_by_name():
    adata = make_samples(6, 3)
    pl.fractions(adata, palette=pd.Series({"type 2": "red", "type 0": "blue"}))
    assert adata.uns["fractions_colors"][::2] == [to_hex("blue"), to_hex("red")]
