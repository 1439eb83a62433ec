"""Shares of cells into shares of RNA, and back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import tl

TYPES = ["B", "T", "NK"]
SIZES = {"B": 3.0, "T": 1.0, "NK": 0.5}


@pytest.fixture
def bulk():
    names = [f"s{i}" for i in range(6)]
    adata = AnnData(np.ones((6, 2), dtype=np.float32), obs=pd.DataFrame(index=names))
    values = np.vstack([np.random.default_rng(0).dirichlet([1.0, 2.0, 0.3], 5), [[0, 1, 0]]])
    adata.obsm["fractions"] = pd.DataFrame(values, names, TYPES)
    adata.uns["scdeconv"] = {
        "fractions": {"method": "nnls", "seed": 3, "fraction_kind": "cell"},
        "pair": {"n_genes": 2},
    }
    return adata


@pytest.mark.parametrize("sizes", [SIZES, pd.Series(SIZES), {"unused": 9.0, **dict(reversed(SIZES.items()))}])
def test_shares_of_rna_equal_the_closed_form(bulk, sizes):
    assert tl.convert_fractions(bulk, sizes, to="rna") is None
    found, cells = bulk.obsm["rna_fractions"], bulk.obsm["fractions"]
    for sample in cells.index:
        total = sum(cells.loc[sample, name] * SIZES[name] for name in TYPES)
        for name in TYPES:
            assert found.loc[sample, name] == pytest.approx(cells.loc[sample, name] * SIZES[name] / total)
    assert list(found.columns) == TYPES


def test_converting_back_gives_cell_fractions(bulk):
    tl.convert_fractions(bulk, SIZES, to="rna")
    tl.convert_fractions(bulk, SIZES, to="cell", key="rna_fractions")
    pd.testing.assert_frame_equal(bulk.obsm["cell_rna_fractions"], bulk.obsm["fractions"])
    assert not np.allclose(bulk.obsm["rna_fractions"], bulk.obsm["fractions"])


def test_unit_of_the_sizes_does_not_matter(bulk):
    tl.convert_fractions(bulk, SIZES, to="rna")
    tl.convert_fractions(bulk, {name: 7e3 * size for name, size in SIZES.items()}, to="rna", key_added="other")
    pd.testing.assert_frame_equal(bulk.obsm["other"], bulk.obsm["rna_fractions"])


def test_nan_rows_stay_nan(bulk):
    bulk.obsm["fractions"].iloc[1] = np.nan
    tl.convert_fractions(bulk, SIZES, to="rna")
    assert bulk.obsm["rna_fractions"].isna().all(axis=1).tolist() == [False, True, False, False, False, False]


def test_record_has_the_new_kind(bulk):
    tl.convert_fractions(bulk, SIZES, to="rna", key_added="mine")
    records = bulk.uns["scdeconv"]
    assert records["mine"] == {"method": "nnls", "seed": 3, "fraction_kind": "rna", "converted_from": "fractions"}
    assert records["fractions"] == {"method": "nnls", "seed": 3, "fraction_kind": "cell"}


def test_fractions_without_a_record_are_shares_of_cells(bulk):
    del bulk.uns["scdeconv"]
    tl.convert_fractions(bulk, SIZES, to="rna")
    assert bulk.uns["scdeconv"] == {"rna_fractions": {"fraction_kind": "rna", "converted_from": "fractions"}}


def test_nothing_else_of_the_object_is_changed(bulk, unchanged):
    with unchanged(bulk):
        tl.convert_fractions(bulk, SIZES, to="rna")
        del bulk.obsm["rna_fractions"], bulk.uns["scdeconv"]["rna_fractions"]


def test_sizes_from_pairing_are_accepted(pairs):
    bulk = pairs["bulk"]
    tl.convert_fractions(bulk, pairs["profiles"].obs["cell_size_umi"], to="rna", key="measured_fractions")
    known = bulk.obsm["measured_fractions"].notna().all(axis=1)
    np.testing.assert_allclose(bulk.obsm["rna_measured_fractions"][known].sum(axis=1), 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"to": "rna", "key": "other"}, KeyError, r"Expected adata.obsm\['other'\], found keys \['fractions'\]"),
        ({"to": "RNA"}, ValueError, "found 'RNA'. Did you mean 'rna'?"),
        ({"to": "cell"}, ValueError, r"other kind in adata.obsm\['fractions'\], found shares of cell"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_written(bulk, arguments, error, message, unchanged):
    with unchanged(bulk), pytest.raises(error, match=message):
        tl.convert_fractions(bulk, SIZES, **arguments)


def test_shares_of_rna_are_not_converted_twice(bulk, unchanged):
    tl.convert_fractions(bulk, SIZES, to="rna")
    with unchanged(bulk), pytest.raises(ValueError, match=r"obsm\['rna_fractions'\], found shares of rna"):
        tl.convert_fractions(bulk, SIZES, to="rna", key="rna_fractions")


@pytest.mark.parametrize("size", [None, 0.0, -1.0, np.nan, np.inf])
def test_missing_or_nonpositive_cell_sizes_are_refused(bulk, size, unchanged):
    sizes = {name: value for name, value in {**SIZES, "T": size}.items() if value is not None}
    message = r"Expected a positive cell_size for every cell type, found none for .*\bT\b.*Add them to cell_size"
    with unchanged(bulk), pytest.raises(ValueError, match=message) as caught:
        tl.convert_fractions(bulk, sizes, to="rna")
    assert "NK" not in str(caught.value)
