from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv.pl._style import PALETTE, category_colors, cell_type_colors, remember_colors


def make(**tables: list[str]) -> AnnData:
    adata = AnnData(obs=pd.DataFrame(index=["s1", "s2"]))
    for key, types in tables.items():
        share = np.arange(1, len(types) + 1) / np.arange(1, len(types) + 1).sum()
        adata.obsm[key] = pd.DataFrame([share, share], adata.obs_names, types)
    return adata


def draw(adata: AnnData, key: str, palette=None) -> dict[str, str]:
    """Colours of all types as a plot has them; written as it does."""
    types = adata.obsm[key].columns
    colors = cell_type_colors(adata, key, types, palette)
    remember_colors(adata, key, colors, types)
    return colors


def test_new_colours_follow_the_sorted_names():
    assert draw(make(fractions=["T", "B"]), "fractions") == {"T": PALETTE[1], "B": PALETTE[0]}


def test_written_list_is_aligned_as_in_scanpy():
    adata = make(fractions=["T", "B"])
    draw(adata, "fractions", {"T": "red"})
    assert adata.uns["fractions_colors"] == ["#ff0000", PALETTE[0]]


def test_reordered_columns_keep_their_colours(tmp_path):
    adata = make(fractions=["T", "B", "NK"])
    before = draw(adata, "fractions", ["red", "lime", "blue"])
    adata.obsm["fractions"] = adata.obsm["fractions"][["NK", "T", "B"]]
    adata.write_h5ad(tmp_path / "a.h5ad")
    for found in (adata, anndata.read_h5ad(tmp_path / "a.h5ad")):
        assert draw(found, "fractions") == before
        assert list(found.uns["fractions_colors"]) == ["#0000ff", "#ff0000", "#00ff00"]


def test_list_of_the_user_has_the_current_order():
    adata = make(fractions=["T", "B"])
    draw(adata, "fractions")
    adata.obsm["fractions"] = adata.obsm["fractions"][["B", "T"]]
    adata.uns["fractions_colors"] = ["red", "lime"]
    assert draw(adata, "fractions") == {"B": "#ff0000", "T": "#00ff00"}


def test_types_keep_colours_in_other_tables():
    adata = make(measured=["B", "T"], fractions=["A", "B", "C"], third=["A", "B", "C", "T"])
    measured, fractions = draw(adata, "measured"), draw(adata, "fractions")
    assert fractions["B"] == measured["B"]
    assert draw(adata, "third") == {**measured, **fractions}
    assert len({*measured.values(), *fractions.values()}) == 4


def test_added_types_have_unused_colours():
    adata = make(fractions=["B", "T"])
    before = draw(adata, "fractions")
    adata.obsm["fractions"] = make(fractions=["A", "B", "T"]).obsm["fractions"]
    after = draw(adata, "fractions")
    assert {name: after[name] for name in before} == before
    assert after["A"] not in before.values()


def test_black_goes_to_the_smallest_type():
    types = [f"type {i:02d}" for i in range(40)]
    colors = draw(make(fractions=types), "fractions")
    assert colors["type 00"] == "#000000"
    assert len(set(colors.values())) == 40


def test_palette_may_be_a_colour_map():
    adata = make(fractions=["B", "T"])
    assert draw(adata, "fractions", "tab10") == {"B": "#1f77b4", "T": "#ff7f0e"}
    assert draw(adata, "fractions", "gray") == {"B": "#000000", "T": "#ffffff"}


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        (["red"], "colour for each of 2 names, found 1"),
        ({"B": "reddish"}, "colours of matplotlib in palette, found 'reddish'"),
        ("viridos", "found 'viridos'. Did you mean 'viridis'?"),
    ],
)
def test_wrong_palettes_are_refused(palette, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        cell_type_colors(make(fractions=["B", "T"]), "fractions", pd.Index(["B", "T"]), palette)


def test_views_are_not_changed():
    adata = make(fractions=["B", "T"])
    view = adata[:1]
    draw(view, "fractions")
    assert view.is_view
    assert not adata.uns


def test_categories_of_scanpy_are_read():
    adata = make(fractions=["B"])
    adata.uns["group_colors"] = np.array(["red", "lime"])
    assert category_colors(adata, "group", pd.Index(["b", "a"])) == {"b": "#ff0000", "a": "#00ff00"}
