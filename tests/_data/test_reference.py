"""Profiles without the cells of some donors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp
from scdeconv._data.reference import Reference


def means_by_loops(mdata, genes, without):
    """Mean counts and mean total per cell of each type, one cell at a time."""
    cells = mdata["sc"]
    counts, names = cells.X.toarray(), list(cells.var_names)
    types = list(mdata["profiles"].obs["cell_type"])
    profiles, sizes = np.zeros((len(types), len(genes))), np.zeros(len(types))
    for row, name in enumerate(types):
        n = 0
        for i in range(cells.n_obs):
            if cells.obs["cell_type"].iloc[i] == name and cells.obs["donor"].iloc[i] not in without:
                n += 1
                profiles[row] += [counts[i, names.index(gene)] for gene in genes]
                sizes[row] += cells.obs["total"].iloc[i]
        if n:
            profiles[row] /= n
            sizes[row] /= n
    return profiles, sizes


@pytest.mark.parametrize("without", [(), ("D2",), ("D1", "C1"), ["nobody"]])
def test_profiles_are_means_over_remaining_cells(mdata, without):
    genes = mdata["bulk"].var_names[[7, 3, 30]]
    found = Reference(mdata, genes).profiles(without)
    expected = means_by_loops(mdata, genes, without)
    for first, second in zip(found, expected, strict=True):
        np.testing.assert_allclose(first, second)


def test_one_reference_is_used_for_all_folds(mdata):
    genes = mdata["bulk"].var_names
    reference = Reference(mdata, genes)
    before = reference.profiles()
    for donor in ("D1", "D2", "C1"):
        reference.profiles([donor])
    for first, second in zip(reference.profiles(), before, strict=True):
        np.testing.assert_array_equal(first, second)


def test_all_donors_give_the_profiles_of_the_pairs(mdata):
    profiles, sizes = Reference(mdata, mdata["bulk"].var_names).profiles()
    np.testing.assert_allclose(profiles, mdata["profiles"].X, rtol=1e-6)
    np.testing.assert_allclose(sizes, mdata["profiles"].obs["cell_size_umi"])
    assert Reference(mdata, mdata["bulk"].var_names).cell_types == list(mdata["profiles"].obs["cell_type"])


@pytest.mark.parametrize("donors", [["D2"], ["D1", "D4"]])
def test_excluding_donors_equals_hold_out(mdata, donors):
    rest, _ = pp.hold_out(mdata, donors)
    profiles, sizes = Reference(mdata, mdata["bulk"].var_names).profiles(donors)
    np.testing.assert_allclose(profiles, rest["profiles"].X, rtol=1e-6)
    np.testing.assert_allclose(sizes, rest["profiles"].obs["cell_size_umi"])


def test_cell_size_counts_all_genes(inputs):
    cells, bulk = inputs
    mdata = pp.pair(cells, bulk[:, :25].copy())
    profiles, sizes = Reference(mdata, mdata["bulk"].var_names).profiles()
    assert profiles.shape == (3, 25)
    for name, size in zip(mdata["profiles"].obs["cell_type"], sizes, strict=True):
        rows = (cells.obs["cell_type"] == name).to_numpy()
        assert size == pytest.approx(cells.X[rows].toarray().sum(axis=1).mean())
    assert (sizes > profiles.sum(axis=1)).all()


def test_types_of_the_excluded_donor_become_zero(make_inputs):
    cells, bulk = make_inputs()
    others = (cells.obs["donor"] != "D3").to_numpy()
    cells = cells[~(others & (cells.obs["cell_type"] == "NK cell").to_numpy())].copy()
    mdata = pp.pair(cells, bulk)
    with np.errstate(all="raise"):
        profiles, sizes = Reference(mdata, mdata["bulk"].var_names).profiles(["D3"])
    row = list(mdata["profiles"].obs["cell_type"]).index("NK cell")
    assert not profiles[row].any()
    assert sizes[row] == 0
    assert profiles[[i for i in range(3) if i != row]].any(axis=1).all()


def test_cells_of_one_donor_can_be_excluded(make_inputs):
    """Cells of one atlas donor and given fractions of the others: hold_out also leaves no cells."""
    cells, bulk = make_inputs(cell_donors=("D1",), bulk_donors=("D1", "D2", "D3", "D4", "D5"), cell_types=["A", "B"])
    shares = np.random.default_rng(0).dirichlet(np.ones(2), 5)
    bulk.obsm["measured_fractions"] = pd.DataFrame(shares, index=bulk.obs_names, columns=["A", "B"])
    mdata = pp.pair(cells, bulk)
    assert not pp.hold_out(mdata, ["D1"])[0]["profiles"].X.any()
    profiles, sizes = Reference(mdata, mdata["bulk"].var_names).profiles(["D1"])
    assert profiles.shape == (2, 40)
    assert not profiles.any()
    assert not sizes.any()


def given_profiles(size=None, unit=1.0):
    rng = np.random.default_rng(0)
    genes = pd.DataFrame(index=[f"G{i}" for i in range(40)])
    counts = rng.gamma(1, 2, (3, 40))
    obs = pd.DataFrame(index=["B", "NK", "T"])
    if size is not None:
        obs["cell_size_umi"] = size
    bulk = AnnData(rng.poisson(300, (2, 30)), obs=pd.DataFrame(index=["D1", "D2"]), var=genes.iloc[:30])
    with pytest.warns(UserWarning, match="paired"):
        return counts, pp.pair(bulk=bulk, profiles=AnnData(counts * unit, obs=obs, var=genes))


def test_excluding_donors_keeps_given_profiles():
    counts, mdata = given_profiles()
    genes = mdata["bulk"].var_names[[5, 2]]
    for without in ((), ["D1"]):
        profiles, sizes = Reference(mdata, genes).profiles(without)
        np.testing.assert_allclose(profiles, counts[:, [5, 2]], rtol=1e-6)
        np.testing.assert_allclose(sizes, counts.sum(axis=1), rtol=1e-6)


def test_cell_size_scales_profiles_to_counts_per_cell():
    """The total over all their genes, shared or not, becomes the cell size."""
    size = np.array([500.0, 1000.0, 4000.0])
    counts, mdata = given_profiles(size, unit=1e4)
    profiles, sizes = Reference(mdata, mdata["bulk"].var_names).profiles()
    np.testing.assert_allclose(sizes, size)
    np.testing.assert_allclose(
        profiles, (counts / counts.sum(axis=1, keepdims=True) * size[:, None])[:, :30], rtol=1e-6
    )
