"""Several references of one tissue as one."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv import datasets, pp, tl


@pytest.fixture(scope="module")
def cohort():
    return datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))


@pytest.fixture
def halves(cohort):
    """Cells of the same study in two references, the second one on another platform."""
    cells = cohort[0]
    first = cells.obs["donor"].isin(["D001", "D002", "D003"]).to_numpy()
    a, b = cells[first].copy(), cells[~first].copy()
    b.X = b.X.multiply(np.where(np.arange(b.n_vars) % 2, 4, 1)).tocsr() if hasattr(b.X, "multiply") else b.X
    for part in (a, b):
        part.obs["cell_type"] = part.obs["cell_type"].astype(str)
    return a, b


@pytest.fixture
def profiles(cohort):
    mdata = pp.pair(*cohort)
    return mdata["profiles"].copy()


def distance(a, b):
    """Mean absolute log ratio of the genes between two references, over all cells."""
    shares = [np.asarray(part.X.sum(axis=0)).ravel() + 1 for part in (a, b)]
    logs = [np.log(share / share.sum()) for share in shares]
    return np.abs(logs[0] - logs[1]).mean()


def test_gene_shifts_between_references_are_removed(halves):
    parts = [pp.combine_references({"a": halves[0], "b": halves[1]}, by_gene=flag) for flag in (False, True)]
    split = [[both[(both.obs["reference"] == name).to_numpy()] for name in "ab"] for both in parts]
    assert distance(*split[1]) < 0.6 * distance(*split[0])


def test_first_reference_is_not_changed(halves):
    before = halves[0].copy(), halves[1].copy()
    both = pp.combine_references(halves)
    kept = both[: halves[0].n_obs, halves[0].var_names]
    np.testing.assert_allclose(np.asarray(kept.X.todense()), np.asarray(before[0].X.todense()))
    np.testing.assert_array_equal(halves[1].X.todense(), before[1].X.todense())


def test_donors_of_further_references_get_a_prefix(halves):
    both = pp.combine_references({"a": halves[0], "b": halves[0]})
    donors = set(halves[0].obs["donor"])
    assert set(both.obs["donor"]) == donors | {f"b: {donor}" for donor in donors}


def test_result_is_accepted_by_pair(halves, cohort, profiles):
    bulk = cohort[1]
    for references, name in (([*halves], "cells"), ([profiles, halves[1]], "profiles"), ([profiles] * 2, "profiles")):
        mdata = pp.pair(bulk=bulk, **{name: pp.combine_references(references)})
        assert tl.train(mdata, "nnls").predict(bulk).shape == (bulk.n_obs, 7)


def test_equal_profiles_combine_to_themselves(profiles):
    both = pp.combine_references([profiles, profiles])
    np.testing.assert_allclose(both.X, np.asarray(profiles.X, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(both.obs["cell_size_umi"], profiles.obs["cell_size_umi"], rtol=1e-6)


def test_types_of_one_reference_are_kept(halves):
    halves[1].obs["cell_type"] = halves[1].obs["cell_type"].replace({"Mast cell": "Neutrophil"})
    both = pp.combine_references(halves)
    assert {"Mast cell", "Neutrophil"} <= set(both.obs["cell_type"])
    matched = pp.combine_references(halves, types={"Neutrophil": "Mast cell"})
    assert "Neutrophil" not in set(matched.obs["cell_type"])


def test_cell_sizes_include_genes_of_one_reference(halves, cohort):
    few = halves[1][:, 100:].copy()
    both = pp.combine_references([halves[0], few])
    assert both.n_vars == 200
    mdata = pp.pair(both, cohort[1])
    first = mdata["sc"].obs["total"].to_numpy()[: halves[0].n_obs]
    np.testing.assert_allclose(first, np.asarray(halves[0].X.sum(axis=1)).ravel())


BAD = {
    "one": (lambda a, b: [a], {}, "at least 2 references"),
    "no column": (lambda a, b: [a, b], {"cell_type_key": "kind"}, "ref1: .*Name the column with cell_type_key="),
    "no donors": (lambda a, b: [a, b], {"donor_key": "person"}, "ref1: .*Name the column with donor_key="),
    "unknown type": (lambda a, b: [a, b], {"types": {"Basophil": "x"}}, "in types, found 'Basophil'"),
    "unknown reference": (lambda a, b: [a, b], {"types": {"c": {"B": "x"}}}, "found 'c'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_references_are_refused(name, halves):
    references, options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        pp.combine_references(references(*halves), **options)


@pytest.mark.parametrize("references", ["a.h5ad", [1, 2], None])
def test_other_objects_are_refused(references):
    with pytest.raises((TypeError, ValueError), match="Expected references to be a dictionary of AnnData"):
        pp.combine_references(references)


def test_near_names_of_types_are_refused(halves):
    halves[1].obs["cell_type"] = halves[1].obs["cell_type"].replace({"Mast cell": "mast cells"})
    with pytest.raises(
        ValueError, match=r"nearly match: 'mast cells = Mast cell'.*types=\{'mast cells': 'Mast cell'\}"
    ):
        pp.combine_references(halves)
    assert "mast cells" in set(pp.combine_references(halves, types={"mast cells": "mast cells"}).obs["cell_type"])


def test_references_without_common_types_are_refused(halves):
    halves[1].obs["cell_type"] = [f"x{name}x" for name in halves[1].obs["cell_type"].astype("category").cat.codes]
    with pytest.raises(ValueError, match="Expected a cell type of ref2 that an earlier reference has"):
        pp.combine_references(halves)
