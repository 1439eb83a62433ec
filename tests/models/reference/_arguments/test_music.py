"""Arguments of MuSiC that do not fit the data are refused before anything is computed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv import pp, tl
from scdeconv.models.reference import music
from scdeconv.models.reference._arguments.music import given_markers

GROUPS = {"lymphoid": ["B cell", "T cell"]}


def test_versions_of_marker_genes_are_ignored():
    genes = pd.Index([f"ENSG{i:011d}.{i}" for i in range(8)])
    mask = given_markers({"x": ["ENSG00000000003", "ENSG00000000005.7", "ELSE"]}, {"x": ["a", "b"]}, genes, 2)
    assert np.flatnonzero(mask[0]).tolist() == [3, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell_sizes": {"B cell": 1, "NK cell": 1}}, r"one positive number for each of .* for 'T cell'"),
        (
            {"cell_sizes": {"B cell": 1, "NK cell": 1, "T cell": np.nan}},
            r"one positive number for each of .* for 'T cell'",
        ),
        ({"groups": {"A": ["B cell", "A3"]}}, r"groups with cell types of .*found 'A3'"),
        (
            {"groups": {"A": ["B cell", "NK cell"], "D": ["NK cell", "T cell"]}},
            r"every cell type in one group of groups, found 'NK cell' in several",
        ),
        ({"groups": {"A": []}}, r"cell types in every group of groups, found none in 'A'"),
        (
            {"groups": GROUPS, "group_markers": {"Z": ["G1"]}},
            r"group_markers for groups of \['lymphoid'\], found 'Z'",
        ),
        (
            {"groups": GROUPS, "group_markers": {}},
            r"at least 2 group_markers of group 'lymphoid' among the model's 40 genes, found 0",
        ),
        (
            {"groups": GROUPS, "group_markers": {"lymphoid": [f"G{i}" for i in range(39)]}},
            r"at least 2 genes outside group_markers.*found 1\. Pass fewer",
        ),
        ({"group_markers": {"A": ["G1"]}}, r"Expected groups together with group_markers, found groups=None"),
    ],
)
def test_invalid_arguments_are_refused_before_computing(mdata, arguments, message, monkeypatch):
    monkeypatch.setattr(music, "subject_statistics", lambda *args, **kwargs: pytest.fail("computed"))
    with pytest.raises(ValueError, match=message):
        tl.train(mdata, "music", **arguments)


def test_types_of_a_single_donor_are_refused(inputs):
    cells, bulk = inputs
    donor, cell_type = cells.obs["donor"], cells.obs["cell_type"]
    fewer = cells[((donor == "D2") | ~cell_type.isin(["NK cell", "T cell"])).to_numpy()].copy()
    message = (
        r"cells of at least 2 donors for every type, found fewer for 'NK cell', 'T cell'\. Merge .*or use method='nnls'"
    )
    with pytest.raises(ValueError, match=message):
        tl.train(pp.pair(fewer, bulk), "music")


def test_covariance_needs_two_complete_donors(inputs):
    cells, bulk = inputs
    # D1 has no T cell
    gone = (cells.obs["donor"].isin(["D2", "D3", "D4"]) & (cells.obs["cell_type"] == "B cell")).to_numpy()
    with pytest.raises(ValueError, match=r"2 donors with cells of all types .*found 1\. Use covariance=False"):
        tl.train(pp.pair(cells[~gone].copy(), bulk), "music", covariance=True)
