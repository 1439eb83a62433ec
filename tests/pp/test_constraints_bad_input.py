"""What pp.constraints refuses."""

from __future__ import annotations

import re

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp
from scdeconv._data.modalities import columns_stay


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "Expected labels_key, markers, protein or pairs, found none of them."),
        ({"labels_key": "typ"}, "Expected obs['typ'] in cells, found columns ['donor', 'cell_type', 'known'"),
        ({"labels_key": "empty"}, "of at least two labels in cells.obs['empty'], found no labelled cell."),
        ({"labels_key": "single"}, "of at least two labels in cells.obs['single'], found only 'B' (3 cells)."),
        ({"markers": {"B": ["GENE0001"]}}, "Expected markers of at least two cell types, found 1 types."),
        (
            {"markers": {"B": ["CD19", "MS4A1"], "T": ["GENE0002"]}},
            "found none for 'B': missing 'CD19', 'MS4A1', the genes are 'GENE0001'",
        ),
        ({"markers": {"B": [], "T": ["GENE0002"]}}, "found none for 'B'"),
        (
            {"markers": {"B": ["GENE0001"], "T": ["GENE0002"]}, "layer": "raw"},
            "Expected layer 'raw' in cells, found layers []",
        ),
        ({"protein": "prot"}, "Expected cells as MuData with protein=, found AnnData. Join cells and proteins:"),
        (
            {"pairs": {"must_link": [("cell1", "x"), ("y", "z"), ("x", "v")]}},
            "Expected cells of cells in pairs, found 4 others: 'x', 'y', 'z' and 1 more.",
        ),
        ({"pairs": {"mustlink": [("cell1", "cell2")]}}, "'must_link' and 'cannot_link' in pairs, found 'mustlink'."),
        ({"pairs": {"must_link": []}}, "Expected tuples of two cells in pairs, found none."),
        (
            {"pairs": {"must_link": ["cell1", "cell2"]}},
            "Expected tuples of two cells in pairs, found 2 others: 'cell1'",
        ),
        ({"pairs": {"must_link": [("cell1", "cell1")]}}, "found 1 pairs with the same cell twice: 'cell1'."),
        ({"pairs": pd.DataFrame({"first": ["cell1"]})}, "found ['first']. Add 'second', 'link'."),
        (
            {"pairs": pd.DataFrame({"first": ["cell1"], "second": ["cell2"], "link": [None]})},
            "'must_link' and 'cannot_link' in pairs, found",
        ),
    ],
)
def test_invalid_input_is_described(cells, arguments, expected):
    cells = cells.copy()
    cells.obs["empty"] = np.nan
    cells.obs["single"] = ["B"] * 3 + [None] * (cells.n_obs - 3)
    with pytest.raises(ValueError, match=re.escape(expected)):
        pp.constraints(cells, **arguments)


def test_all_problems_are_reported_at_once(cells):
    with pytest.raises(ValueError, match="Constraints cannot be made: 4 problems found") as error:
        pp.constraints(
            cells,
            labels_key="typ",
            markers={"A": ["GENE0001"]},
            protein="prot",
            pairs={"must_link": [("cell1", "cell1")]},
        )
    for text in ("1. Expected two different", "2. Expected obs", "3. Expected markers", "4. Expected cells as MuData"):
        assert text in str(error.value)


def test_markers_need_counts(cells, markers):
    logged = cells.copy()
    logged.X = cells.X.log1p()
    with pytest.raises(ValueError, match="Expected values on a linear scale in cells, found log-transformed values"):
        pp.constraints(logged, markers=markers)
    # which labels do not
    assert len(pp.constraints(logged, labels_key="known").must_link)


def test_names_of_cells_must_be_unique():
    cells = AnnData(np.ones((3, 2)))
    cells.obs_names = ["a", "a", "b"]
    with pytest.raises(ValueError, match=r"Expected unique cells\.obs_names, found 1 repeated"):
        pp.constraints(cells, pairs={"must_link": [("a", "b")]})


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        (None, {"protein": "protein"}, "Expected modality 'protein' in cells, found 'rna', 'prot'. Pass the protein"),
        (
            None,
            {"protein": "prot", "rna": "gex"},
            "Expected modality 'gex' in cells, found 'rna', 'prot'. Pass the RNA",
        ),
        (lambda p: p[:, :1].copy(), {"protein": "prot"}, "Expected at least two proteins in cells['prot'], found 1."),
        (lambda p: AnnData(-p.X, p.obs, p.var), {"protein": "prot"}, "Expected non-negative values in cells['prot']"),
        (
            lambda p: AnnData(p.X, p.obs.set_axis(p.obs_names + "-1"), p.var),
            {"protein": "prot"},
            "Expected at least two cells with RNA and protein, found 0: cells['prot'] has",
        ),
        (
            lambda p: AnnData(np.ones(p.shape), p.obs, p.var),
            {"protein": "prot"},
            "Expected protein levels that differ between cells in cells['prot'], found the same distance",
        ),
    ],
)
def test_bad_proteins_are_described(multiome, change, arguments, expected):
    modalities = {"rna": multiome["rna"], "prot": change(multiome["prot"]) if change else multiome["prot"]}
    with columns_stay():
        mdata = mudata.MuData(modalities)
    with pytest.raises(ValueError, match=re.escape(expected)):
        pp.constraints(mdata, **arguments)
