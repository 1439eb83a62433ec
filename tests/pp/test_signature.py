from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import pp
from scdeconv._data.reference import Reference
from scdeconv.pp._fold_change import fold_change_scores

CRITERIA = ["ratio", "fold_change", "moderated"]
TYPES = ["B", "NK", "T"]
PLANTED = {name: [f"G{8 * kind + i}" for i in range(8)] for kind, name in enumerate(TYPES)}


def planted_cells(*, types=TYPES, n_donors=4, n_genes=120, cells=12, seed=0):
    """Cells of every type in every donor; type k expresses the genes from 8 k to 8 k + 7 ten times more than others."""
    rng = np.random.default_rng(seed)
    profiles = np.tile(rng.gamma(2, 2, n_genes) + 0.5, (len(types), 1))
    for kind in range(len(types)):
        profiles[kind, 8 * kind : 8 * kind + 8] *= 10
    profiles *= np.linspace(1, 2, len(types))[:, None]
    donor, kind = (codes.repeat(cells) for codes in np.divmod(np.arange(n_donors * len(types)), len(types)))
    own = np.exp(rng.normal(0, 0.1, (n_donors, n_genes)))
    obs = pd.DataFrame(
        {"donor": [f"D{d}" for d in donor], "cell_type": pd.Categorical.from_codes(kind, types)},
        index=[f"cell{i}" for i in range(len(donor))],
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    return AnnData(sp.csr_matrix(rng.poisson(profiles[kind] * own[donor]).astype(np.int32)), obs=obs, var=var)


def pair_with_bulk(cells, n_genes=None, donors=("D0", "D1", "D2", "D3")):
    bulk = AnnData(
        np.random.default_rng(1).poisson(400, (len(donors), cells.n_vars)),
        obs=pd.DataFrame({"donor": donors}, index=[f"bulk{i}" for i in range(len(donors))]),
        var=pd.DataFrame(index=cells.var_names),
    )
    return pp.pair(cells, bulk[:, :n_genes].copy())


@pytest.fixture
def planted():
    return pair_with_bulk(planted_cells())


def markers(signature):
    of_type = signature.var_names.groupby(signature.var["marker_of"].astype(str))
    return {name: set(genes) for name, genes in of_type.items()}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_planted_markers_are_found(planted, criterion):
    signature = pp.signature(planted, 24, criterion=criterion)
    assert markers(signature) == {name: set(genes) for name, genes in PLANTED.items()}
    assert (signature.var["score"] > 0).all()


def test_only_the_moderated_test_uses_donor_variance(planted):
    expected = {gene for genes in PLANTED.values() for gene in genes}
    found = {name: set(pp.signature(planted, criterion=name).var_names) for name in ("fold_change", "moderated")}
    assert expected <= found["moderated"] <= found["fold_change"]
    assert len(found["moderated"]) <= 30 < len(found["fold_change"])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_signature_is_in_counts_per_cell(criterion):
    cells = planted_cells()
    mdata = pair_with_bulk(cells, n_genes=60)
    signature = pp.signature(mdata, 24, criterion=criterion)
    assert signature.obs_names.tolist() == signature.obs["cell_type"].tolist() == TYPES
    for name in TYPES:
        mine = cells[cells.obs["cell_type"] == name].to_df()
        np.testing.assert_allclose(signature.to_df().loc[name], mine[signature.var_names].mean(), rtol=1e-12)
        assert signature.obs.loc[name, "cell_size_umi"] == pytest.approx(mine.sum(axis=1).mean())
        assert signature.obs.loc[name, "n_cells"] == len(mine)
    assert signature.obs["total"].tolist() == signature.obs["cell_size_umi"].tolist()
    assert signature.var["marker_of"].dtype == "category"
    assert signature.var["marker_of"].cat.categories.tolist() == TYPES
    # the genes are in the order of the data
    assert signature.var_names.tolist() == [gene for gene in mdata.var_names if gene in signature.var_names]
    record = signature.uns["scdeconv"]["signature"]
    assert record["criterion"] == criterion
    assert record["n_genes"] == signature.n_vars == 24
    per_rna = signature.X / signature.obs["cell_size_umi"].to_numpy()[:, None]
    singular = np.linalg.svd(per_rna, compute_uv=False)
    assert record["condition_number"] == pytest.approx(singular[0] / singular[-1])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_signature_is_reproducible_and_keeps_its_input(planted, criterion, unchanged):
    with unchanged(planted):
        first, second = (pp.signature(planted, criterion=criterion, seed=5) for _ in range(2))
    pd.testing.assert_frame_equal(first.var, second.var)
    np.testing.assert_array_equal(first.X, second.X)
    assert first.uns == second.uns


@pytest.mark.parametrize("criterion", CRITERIA)
def test_file_round_trip_keeps_everything(planted, criterion, tmp_path):
    signature = pp.signature(planted, criterion=criterion)
    signature.write_h5ad(tmp_path / "signature.h5ad")
    read = anndata.read_h5ad(tmp_path / "signature.h5ad")
    np.testing.assert_array_equal(read.X, signature.X)
    pd.testing.assert_frame_equal(read.var, signature.var)
    np.testing.assert_array_equal(read.obs["total"], signature.obs["total"])
    found, expected = (adata.uns["scdeconv"]["signature"] for adata in (read, signature))
    assert dict(found) == expected


def test_ratio_selects_fifty_genes_per_type(make_inputs):
    mdata = pp.pair(*make_inputs(n_genes=400))
    signature = pp.signature(mdata)
    assert signature.var["marker_of"].value_counts().tolist() == [50, 50, 50]
    pp.select_genes(mdata)
    assert set(signature.var_names) == set(mdata.var_names[mdata["bulk"].var["selected"]])


def test_unexpressed_genes_are_not_markers():
    cells = planted_cells()
    cells.X = sp.csr_matrix(cells.X.toarray() * (np.arange(120) < 30))
    assert pp.signature(pair_with_bulk(cells), 100).n_vars == 30


def test_profiles_in_any_unit_become_counts_per_cell(reference_inputs):
    profiles = reference_inputs["profiles"]
    profiles.obs["cell_size_umi"] = [100.0, 300.0, 200.0]
    signature = pp.signature(pp.pair(**reference_inputs), 12)
    expected = profiles.to_df() * ([100, 300, 200] / profiles.X.sum(axis=1))[:, None]
    np.testing.assert_allclose(signature.X, expected[signature.var_names], rtol=1e-12)
    assert signature.obs["cell_size_umi"].tolist() == [100, 300, 200]
    assert "n_cells" not in signature.obs


def test_fold_change_minimises_the_condition_number(planted):
    signature = pp.signature(planted, criterion="fold_change", genes_per_type=(3, 20), seed=2)
    cells, profiles = planted["sc"], planted["profiles"]
    scores = fold_change_scores(
        *(cells.X, cells.obs["total"].to_numpy(), cells.obs["cell_type"]),
        **{"replicates": 5, "sampling": 0.5, "fraction": 0.0, "q_value": 0.01, "seed": 2},
    )
    per_rna = profiles.X / profiles.obs["cell_size_umi"].to_numpy()[:, None]
    numbers = {}
    for depth in range(3, 21):
        union = {gene for row in scores for gene in np.argsort(-row)[:depth] if np.isfinite(row[gene])}
        numbers[depth] = np.linalg.cond(per_rna[:, sorted(union)]), {f"G{gene}" for gene in union}
    record = signature.uns["scdeconv"]["signature"]
    assert record["condition_number"] == pytest.approx(min(number for number, _ in numbers.values()), rel=1e-5)
    assert set(signature.var_names) == numbers[record["genes_per_type"]][1]
    seen = scores[:, [int(gene[1:]) for gene in signature.var_names]]
    assert signature.var["marker_of"].tolist() == [TYPES[kind] for kind in seen.argmax(axis=0)]


@pytest.mark.filterwarnings("ignore:Expected at least 3 paired donors")
def test_shared_donors_are_blocks_of_the_test(planted):
    assert pp.signature(planted, criterion="moderated").uns["scdeconv"]["signature"]["donor_effects"] is True
    cells = planted_cells()
    cells.obs["donor"] = [f"{d}{k}" for d, k in zip(cells.obs["donor"], cells.obs["cell_type"], strict=True)]
    signature = pp.signature(pair_with_bulk(cells, donors=("x", "y")), 24, criterion="moderated")
    assert signature.uns["scdeconv"]["signature"]["donor_effects"] is False
    assert markers(signature) == {name: set(genes) for name, genes in PLANTED.items()}


def test_small_pseudobulks_are_excluded_from_testing_only():
    cells = planted_cells(cells=12)
    # donor D3 has three cells of T, and they express a marker of B
    keep = np.ones(cells.n_obs, dtype=bool)
    few = np.flatnonzero((cells.obs["donor"] == "D3") & (cells.obs["cell_type"] == "T"))
    keep[few[3:]] = False
    values = cells.X.toarray()
    values[few, 0] = 500
    cells.X = sp.csr_matrix(values)
    mdata = pair_with_bulk(cells[keep].copy())
    with_all, without = (pp.signature(mdata, criterion="moderated", min_cells=n) for n in (3, 10))
    assert "G0" not in with_all.var_names
    assert "G0" in without.var_names
    assert without.to_df().loc["T", "G1"] == with_all.to_df().loc["T", "G1"]


def test_signature_replaces_profiles_without_scaling(planted):
    signature = pp.signature(planted, 24)
    with pytest.warns(UserWarning, match="no donor is paired|at least 3 paired donors"):
        mdata = pp.pair(bulk=AnnData(planted["bulk"].X, var=planted["bulk"].var), profiles=signature)
    assert mdata.shape[1] == 24
    profiles, size = Reference(mdata, signature.var_names).profiles()
    np.testing.assert_allclose(profiles, signature.X, rtol=1e-12)
    np.testing.assert_array_equal(size, signature.obs["cell_size_umi"])
    again = pp.signature(mdata, 24)
    np.testing.assert_allclose(again.X, signature.X, rtol=1e-12)
    assert again.obs["total"].tolist() == signature.obs["total"].tolist()


def test_user_column_named_total_is_ignored(make_inputs):
    cells, bulk = make_inputs()
    cells.obs["total"] = 1.0
    np.testing.assert_array_equal(pp.pair(cells, bulk)["sc"].obs["total"], np.asarray(cells.X.sum(axis=1)).ravel())


def test_large_condition_number_warns(planted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pp.signature(planted, 24)
    # T and NK differ slightly in two genes
    cells = planted_cells()
    values = cells.X.toarray().astype(float)
    t_cells = (cells.obs["cell_type"] == "T").to_numpy()
    values[t_cells] = values[(cells.obs["cell_type"] == "NK").to_numpy()]
    values[t_cells, 16] += 1
    cells.X = sp.csr_matrix(values.astype(int))
    with pytest.warns(
        UserWarning, match=r"condition number of the signature .*found \d+.*Merge similar cell types"
    ) as caught:
        pp.signature(pair_with_bulk(cells))
    assert [item.filename for item in caught if item.category is UserWarning] == [__file__]


def test_fewer_genes_than_types_are_refused(planted):
    with pytest.raises(ValueError, match="n_genes of at least 1 for each cell type, found 2"):
        pp.signature(planted, 2)


def test_all_wrong_arguments_are_reported_at_once(planted):
    wrong = {"criterion": "best", "replicates": 1, "sampling": 1.0, "fraction": 2, "min_cells": 0}
    with pytest.raises(ValueError, match="Expected") as caught:
        pp.signature(planted, 2, genes_per_type=(5, 4), **wrong)
    for name in (*wrong, "genes_per_type"):
        assert f"Expected {name} to be " in str(caught.value)


@pytest.mark.parametrize("criterion", ["fold_change", "moderated"])
def test_criteria_without_their_cells_are_refused(reference_inputs, criterion):
    with pytest.raises(ValueError, match=rf"Expected cells for criterion='{criterion}', found profiles only.*'ratio'"):
        pp.signature(pp.pair(**reference_inputs), criterion=criterion)


def test_identical_profiles_are_named_with_the_condition_number(reference_inputs):
    profiles = reference_inputs["profiles"]
    profiles.X[2] = 3 * profiles.X[0]
    message = r"found the same profile of 'B cell' and 'T cell' \(condition number .*Merge the two"
    with pytest.raises(ValueError, match=message):
        pp.signature(pp.pair(**reference_inputs))


def test_types_without_cells_or_alone_are_reported(planted, reference_inputs):
    planted["profiles"].X[1] = 0
    with pytest.raises(ValueError, match="Expected expression of every cell type, found none of 'NK'"):
        pp.signature(planted)
    reference_inputs["profiles"] = reference_inputs["profiles"][:1].copy()
    del reference_inputs["bulk"].obsm["measured_fractions"]
    with pytest.warns(UserWarning, match="no donor is paired|at least 3 paired donors"):
        mdata = pp.pair(**reference_inputs)
    with pytest.raises(ValueError, match=r"at least 2 cell types, found \['B cell'\]"):
        pp.signature(mdata)


def test_types_with_too_little_data_are_named():
    cells = planted_cells(cells=12)
    kind, donor = cells.obs["cell_type"], cells.obs["donor"]
    few = np.flatnonzero(kind == "NK")[2:]
    mdata = pair_with_bulk(cells[np.setdiff1d(np.arange(cells.n_obs), few)].copy())
    with pytest.raises(ValueError, match="at least 3 cells of every type.*found fewer of 'NK'"):
        pp.signature(mdata, criterion="fold_change")
    alone = pair_with_bulk(cells[(donor == "D0") | (kind != "T")].copy())
    with pytest.raises(
        ValueError, match="at least 2 donors with 10 cells of every type.*found fewer of 'T'.*min_cells"
    ):
        pp.signature(alone, criterion="moderated")
    with pytest.raises(ValueError, match="found fewer of 'B', 'NK', 'T'"):
        pp.signature(pair_with_bulk(cells), criterion="moderated", min_cells=13)


def test_types_without_any_marker_are_named():
    cells = planted_cells()
    values, kind = cells.X.toarray(), cells.obs["cell_type"]
    # T is between the two others in every gene
    values[kind == "T"] = values[kind == "B"] + values[kind == "NK"]
    mdata = pair_with_bulk(AnnData(sp.csr_matrix(values), obs=cells.obs, var=cells.var))
    with pytest.raises(
        ValueError, match=r"marker of every cell type by criterion='moderated', found none of 'T'\. Merge"
    ):
        pp.signature(mdata, criterion="moderated")


def test_mdata_without_profiles_is_refused(planted):
    del planted.mod["profiles"]
    with pytest.raises(ValueError, match=r"Expected a reference for pp\.signature.*pp\.pair"):
        pp.signature(planted)
