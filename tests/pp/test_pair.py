from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import pp
from scdeconv._data.modalities import read_mudata, write_mudata

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"prepared public data are not at {SHARED}")

# AnnData warns when it is given such names
pytestmark = pytest.mark.filterwarnings("ignore:Variable names are not unique")

FORMATS = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix, "csr_array": sp.csr_array}


def dense(matrix):
    return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix)


def test_donors_are_counted_by_available_data(inputs, capsys):
    pp.pair(*inputs)
    assert capsys.readouterr().out == (
        "paired 4 donors (6 bulk samples, 125 cells, 3 cell types); 2 donors with bulk only, 1 with cells only; "
        "40 shared genes (bulk 40, cells 40); bulk in counts\n"
    )


def test_fractions_equal_the_crosstab_of_cells(inputs):
    cells, bulk = inputs
    paired = pp.pair(cells, bulk)["bulk"]
    counts = pd.crosstab(cells.obs["donor"], cells.obs["cell_type"])
    for sample, donor in bulk.obs["donor"].items():
        if donor not in counts.index:
            assert paired.obsm["measured_fractions"].loc[sample].isna().all()
            assert (paired.obsm["measured_cells"].loc[sample] == 0).all()
            continue
        assert paired.obsm["measured_cells"].loc[sample].tolist() == counts.loc[donor].tolist()
        expected = counts.loc[donor] / counts.loc[donor].sum()
        np.testing.assert_allclose(paired.obsm["measured_fractions"].loc[sample], expected, rtol=1e-15)
    assert list(paired.obsm["measured_fractions"].columns) == list(cells.obs["cell_type"].cat.categories)
    assert set(paired.obsm["measured_cells"].dtypes) == {np.dtype(int)}
    assert pp.paired_donors(pp.pair(cells, bulk)) == ["D1", "D2", "D3", "D4"]


def test_cell_types_follow_the_category_order(inputs):
    cells, bulk = inputs
    order = ["T cell", "B cell", "NK cell"]
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.reorder_categories(order)
    mdata = pp.pair(cells, bulk)
    assert list(mdata["profiles"].obs_names) == order
    assert list(mdata["bulk"].obsm["measured_fractions"].columns) == order


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("form", FORMATS)
def test_profiles_and_pseudobulk_equal_a_loop_over_cells(inputs, form, dtype):
    cells, bulk = inputs
    counts = cells.X.toarray()
    cells.X = FORMATS[form](counts.astype(dtype))
    bulk.X = FORMATS[form](bulk.X.astype(dtype))
    mdata = pp.pair(cells, bulk)
    for cell_type in cells.obs["cell_type"].cat.categories:
        total, n_cells = np.zeros(cells.n_vars), 0
        for row in range(cells.n_obs):
            if cells.obs["cell_type"].iloc[row] == cell_type:
                total, n_cells = total + counts[row], n_cells + 1
        found = mdata["profiles"][cell_type]
        np.testing.assert_allclose(dense(found.X)[0], total / n_cells, rtol=1e-6)
        assert found.obs["n_cells"].item() == n_cells
        assert found.obs["cell_size_umi"].item() == pytest.approx(total.sum() / n_cells)
    for donor in cells.obs["donor"].unique():
        total = np.zeros(cells.n_vars)
        for row in range(cells.n_obs):
            if cells.obs["donor"].iloc[row] == donor:
                total += counts[row]
        np.testing.assert_array_equal(dense(mdata["pseudobulk"][donor].X)[0], total)
    np.testing.assert_array_equal(dense(mdata["sc"].X), counts)
    np.testing.assert_array_equal(dense(mdata["bulk"].X), dense(bulk.X))


def test_samples_of_one_donor_share_its_fractions(make_inputs, capsys):
    cells, bulk = make_inputs(bulk_donors=("D1", "D2", "D1", "D3", "D1", "B1", "B1"))
    mdata = pp.pair(cells, bulk)
    assert capsys.readouterr().out.startswith(
        "paired 3 donors (7 bulk samples, 125 cells, 3 cell types); 1 donors with"
    )
    fractions = mdata["bulk"].obsm["measured_fractions"]
    for sample in ("bulk2", "bulk4"):
        assert fractions.loc[sample].tolist() == fractions.loc["bulk0"].tolist()
    assert fractions.loc[["bulk5", "bulk6"]].isna().all(axis=None)


def test_donors_default_to_obs_names(inputs):
    cells, bulk = inputs
    expected = pp.pair(cells, bulk)["bulk"].obsm["measured_fractions"]
    bulk.obs_names = bulk.obs.pop("donor").to_numpy()
    paired = pp.pair(cells, bulk)["bulk"]
    assert paired.obs["donor"].tolist() == list(bulk.obs_names)
    np.testing.assert_array_equal(paired.obsm["measured_fractions"], expected)


def test_column_names_and_numeric_labels_are_accepted(inputs, assert_same):
    cells, bulk = inputs
    expected = pp.pair(cells, bulk)
    number = {donor: i for i, donor in enumerate(["D1", "D2", "D3", "D4", "C1", "B1", "B2"])}
    for adata in (cells, bulk):
        adata.obs["patient"] = adata.obs.pop("donor").map(number)
    cells.obs["label"] = cells.obs.pop("cell_type").cat.codes.astype(int)
    mdata = pp.pair(cells, bulk, donor_key="patient", cell_type_key="label")
    assert list(mdata["profiles"].obs["cell_type"]) == ["0", "1", "2"]
    assert pp.paired_donors(mdata) == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(mdata["profiles"].X, expected["profiles"].X)
    np.testing.assert_array_equal(mdata["bulk"].obsm["measured_fractions"], expected["bulk"].obsm["measured_fractions"])


def test_genes_follow_the_bulk_order(inputs):
    cells, bulk = inputs
    shuffled = cells[:, np.random.default_rng(0).permutation(40)[:30]].copy()
    bulk = bulk[:, 5:].copy()
    mdata = pp.pair(shuffled, bulk)
    shared = [gene for gene in bulk.var_names if gene in set(shuffled.var_names)]
    assert 0 < len(shared) < 30
    for name in mdata.mod:
        assert list(mdata[name].var_names) == shared
    np.testing.assert_array_equal(dense(mdata["sc"].X), cells[:, shared].X.toarray())
    np.testing.assert_array_equal(mdata["bulk"].X, bulk[:, shared].X)


def test_cell_size_counts_the_genes_that_bulk_lacks(inputs):
    cells, bulk = inputs
    mdata = pp.pair(cells, bulk[:, :10].copy())
    totals = pd.Series(cells.X.toarray().sum(axis=1), cells.obs_names)
    expected = totals.groupby(cells.obs["cell_type"], observed=True).mean()
    np.testing.assert_allclose(mdata["profiles"].obs["cell_size_umi"], expected)


def test_given_fractions_and_profiles_replace_cells(reference_inputs, capsys):
    bulk, given = reference_inputs["bulk"], reference_inputs["bulk"].obsm["measured_fractions"]
    bulk.obsm["measured_fractions"] = given[["T cell", "B cell", "NK cell"]]
    mdata = pp.pair(**reference_inputs)
    assert set(mdata.mod) == {"bulk", "profiles", "pseudobulk"}
    assert capsys.readouterr().out == (
        "paired 4 donors (6 bulk samples, 3 cell types); 2 donors with bulk only, 0 with cells only; "
        "40 shared genes (bulk 40, profiles 40, pseudobulk 40); bulk in counts\n"
    )
    pd.testing.assert_frame_equal(mdata["bulk"].obsm["measured_fractions"], given, rtol=1e-12)
    assert "measured_cells" not in mdata["bulk"].obsm
    profiles = reference_inputs["profiles"]
    assert list(mdata["profiles"].obs_names) == ["B cell", "NK cell", "T cell"]
    np.testing.assert_array_equal(mdata["profiles"].X, profiles.X)
    np.testing.assert_allclose(mdata["profiles"].obs["cell_size_umi"], profiles.X.sum(axis=1))
    assert list(mdata["pseudobulk"].obs["donor"]) == list(reference_inputs["pseudobulk"].obs_names)
    np.testing.assert_array_equal(mdata["pseudobulk"].X, reference_inputs["pseudobulk"].X)


def test_given_cell_sizes_are_kept(reference_inputs):
    reference_inputs["profiles"].obs["cell_size_umi"] = [1000, 2000, 3000]
    assert pp.pair(**reference_inputs)["profiles"].obs["cell_size_umi"].tolist() == [1000.0, 2000.0, 3000.0]


def test_given_fractions_are_completed_and_renormalised(reference_inputs):
    bulk = reference_inputs["bulk"]
    bulk.obsm["flow"] = pd.DataFrame({"T cell": 0.333, "B cell": 0.666}, index=bulk.obs_names)
    fractions = pp.pair(**reference_inputs, fractions_key="flow")["bulk"].obsm["measured_fractions"]
    assert list(fractions.columns) == ["B cell", "NK cell", "T cell"]
    np.testing.assert_allclose(fractions.to_numpy(), [[2 / 3, 0, 1 / 3]] * 6)


def test_cells_take_precedence_over_given_fractions(inputs):
    cells, bulk = inputs
    counted = pp.pair(cells, bulk)["bulk"].obsm["measured_fractions"]
    given = pd.DataFrame([[0.2, 0.3, 0.5]] * 6, index=bulk.obs_names, columns=counted.columns)
    given.loc["bulk5"] = np.nan
    bulk.obsm["measured_fractions"] = given.copy()
    fractions = pp.pair(cells, bulk)["bulk"].obsm["measured_fractions"]
    pd.testing.assert_frame_equal(fractions.drop(["bulk2", "bulk5"]), counted.drop(["bulk2", "bulk5"]))
    np.testing.assert_allclose(fractions.loc["bulk2"], [0.2, 0.3, 0.5])
    assert fractions.loc["bulk5"].isna().all()
    pd.testing.assert_frame_equal(bulk.obsm["measured_fractions"], given)


@pytest.mark.parametrize(
    ("change", "unit"),
    [
        (lambda counts: counts, "counts"),
        (lambda counts: counts.astype(float), "counts"),
        (lambda counts: counts / counts.sum(axis=1, keepdims=True) * 1e6, "TPM"),
        (lambda counts: sp.csr_matrix(counts / counts.sum(axis=1, keepdims=True) * 0.9e6), "TPM"),
        (lambda counts: counts + 0.25, "estimated counts (not whole numbers)"),
        (lambda counts: counts * 1000.5, "estimated counts (not whole numbers)"),
    ],
)
def test_bulk_unit_is_detected_and_printed(inputs, change, unit, capsys):
    cells, bulk = inputs
    bulk.X = change(bulk.X)
    mdata = pp.pair(cells, bulk)
    assert capsys.readouterr().out.endswith(f"bulk in {unit}\n")
    assert mdata.uns["scdeconv"]["pair"] == {
        "bulk_unit": unit,
        "cell_sizes": "counts",
        "exponentiated": False,
        "n_genes": 40,
        "n_spike_ins": 0,
    }


def test_ensembl_versions_are_ignored_in_matching(inputs):
    cells, bulk = inputs
    identifiers = [f"ENSG{i:011d}" for i in range(40)]
    cells.var_names = [f"{gene}.{i % 7 + 1}" for i, gene in enumerate(identifiers)]
    bulk.var_names = identifiers
    assert list(pp.pair(cells, bulk).var_names) == identifiers


@pytest.mark.parametrize("form", FORMATS)
def test_duplicate_genes_are_summed_only_on_request(inputs, form):
    cells, bulk = inputs
    counts = cells.X.toarray()
    names = [f"G{i}" for i in range(40)]
    names[3], names[7], names[39] = "G1", "G1", "G0"
    cells.X, cells.var_names = FORMATS[form](counts), names
    with pytest.raises(ValueError, match=r"unique gene names in cells, found 2 repeated: 'G1', 'G0'\. .*\"sum\""):
        pp.pair(cells, bulk)
    mdata = pp.pair(cells, bulk, duplicates="sum")
    assert mdata.n_vars == 37
    found = pd.DataFrame(dense(mdata["sc"].X), columns=mdata["sc"].var_names)
    np.testing.assert_array_equal(found["G1"], counts[:, 1] + counts[:, 3] + counts[:, 7])
    np.testing.assert_array_equal(found["G0"], counts[:, 0] + counts[:, 39])
    np.testing.assert_array_equal(found["G5"], counts[:, 5])


def test_versions_of_one_ensembl_gene_are_duplicates(inputs):
    cells, bulk = inputs
    identifiers = [f"ENSG{i:011d}" for i in range(40)]
    bulk.var_names = identifiers
    cells.var_names = [f"{gene}.1" for gene in identifiers[:39]] + [f"{identifiers[0]}.2"]
    with pytest.raises(ValueError, match="found 1 repeated: 'ENSG00000000000'"):
        pp.pair(cells, bulk)
    summed = pp.pair(cells, bulk, duplicates="sum")["sc"][:, identifiers[0]].X
    np.testing.assert_array_equal(dense(summed)[:, 0], cells.X[:, [0, 39]].toarray().sum(axis=1))


def test_sums_of_duplicates_do_not_overflow_small_integers(inputs):
    cells, bulk = inputs
    cells.X = np.full(cells.shape, 200, dtype=np.uint8)
    cells.var_names = ["G0", "G0", *(f"G{i}" for i in range(1, 39))]
    assert set(dense(pp.pair(cells, bulk, duplicates="sum")["sc"][:, "G0"].X).ravel()) == {400}


def test_layer_is_read_where_it_exists(inputs, assert_same):
    cells, bulk = inputs
    expected = pp.pair(cells, bulk)
    cells.layers["counts"] = cells.X
    cells.X = sp.csr_matrix(np.full(cells.shape, -1.0))
    cells.uns["log1p"] = {"base": None}
    assert_same(pp.pair(cells, bulk, layer="counts"), expected)
    bulk.layers["counts"] = bulk.X
    bulk.X = np.full(bulk.shape, np.nan)
    assert_same(pp.pair(cells, bulk, layer="counts"), expected)


def test_count_layer_beside_logged_x_is_accepted(inputs):
    cells, bulk = inputs
    cells.layers["corrected"] = cells.X * 7.25
    cells.X = np.log1p(cells.X.toarray())
    cells.uns["log1p"] = {"base": None}
    np.testing.assert_array_equal(
        dense(pp.pair(cells, bulk, layer="corrected")["sc"].X), dense(cells.layers["corrected"])
    )


def test_views_are_accepted(inputs, assert_same):
    cells, bulk = inputs
    cells_view, bulk_view = cells[cells.obs["donor"] != "C1", 3:], bulk[:5, ::-1]
    assert cells_view.is_view
    assert_same(pp.pair(cells_view, bulk_view), pp.pair(cells_view.copy(), bulk_view.copy()))


@pytest.mark.parametrize("form", FORMATS)
def test_pairing_does_not_change_its_inputs(inputs, form, assert_same):
    for adata in inputs:
        adata.X = FORMATS[form](dense(adata.X))
        adata.uns["scdeconv"] = {"kept": {"number": 1}}
        adata.obsm["X_pca"] = np.arange(2.0 * adata.n_obs).reshape(-1, 2)
        adata.layers["other"] = adata.X.copy()
        adata.var["total"] = np.arange(adata.n_vars)
        adata.obs["total"] = 5
    before = [adata.copy() for adata in inputs]
    mdata = pp.pair(*inputs)
    pp.augment(mdata, 3)
    pp.select_genes(mdata, 5)
    pp.simulate(mdata, 8)
    for name in ("bulk", "sc"):
        matrix = mdata[name].X
        (matrix.data if sp.issparse(matrix) else matrix)[:] = 0
        mdata[name].obs["donor"] = "nobody"
    for adata, copy in zip(inputs, before, strict=True):
        assert_same(adata, copy)
        if sp.issparse(adata.X):
            for part in ("data", "indices", "indptr"):
                assert getattr(adata.X, part).tobytes() == getattr(copy.X, part).tobytes()


def test_reference_inputs_are_unchanged(reference_inputs, assert_same):
    before = {name: adata.copy() for name, adata in reference_inputs.items()}
    mdata = pp.pair(**reference_inputs)
    pp.simulate(mdata, 8)
    for name in before:
        mdata[name].X[:] = 0
        mdata[name].obs["donor"] = "nobody"
    mdata["bulk"].obsm["measured_fractions"].iloc[:] = 0
    for name, copy in before.items():
        assert_same(reference_inputs[name], copy)


def test_global_random_state_is_untouched(inputs):
    state = np.random.get_state()[1].copy()
    mdata = pp.pair(*inputs)
    pp.augment(mdata, 3)
    pp.simulate(mdata, 8)
    assert np.array_equal(state, np.random.get_state()[1])


def full_mdata(cells, bulk):
    mdata = pp.pair(cells, bulk)
    pp.augment(mdata, 4, seed=1)
    pp.select_genes(mdata)
    pp.simulate(mdata, 12, exact_labels=True, seed=2)
    return mdata


def written_and_read(mdata, path):
    write_mudata(mdata, path)
    return read_mudata(path)


def test_h5mu_round_trip_keeps_everything(inputs, tmp_path):
    mdata = full_mdata(*inputs)
    again = written_and_read(mdata, tmp_path / "pairs.h5mu")
    assert set(again.mod) == {"bulk", "sc", "sums", "profiles", "pseudobulk", "simulated"}
    assert set(again["bulk"].obsm) == {"measured_fractions", "measured_cells", "augmented_fractions"}
    assert again.uns["scdeconv"].keys() == mdata.uns["scdeconv"].keys()
    for name in ("bulk", "sc"):
        assert again[name].uns["scdeconv"]["values"] == mdata[name].uns["scdeconv"]["values"]
    for step, record in mdata.uns["scdeconv"].items():
        assert {key: value for key, value in again.uns["scdeconv"][step].items() if value is not None} == {
            key: value for key, value in record.items() if value is not None
        }
    for name in mdata.mod:
        first, second = mdata[name], again[name]
        np.testing.assert_array_equal(dense(first.X), dense(second.X))
        assert first.X.dtype == second.X.dtype
        assert sp.issparse(first.X) == sp.issparse(second.X)
        # text becomes categorical in the file
        assert first.obs.astype(str).equals(second.obs.astype(str))
        assert first.var.equals(second.var)
        assert set(first.obsm) - {name} == set(second.obsm) - {name}
        for key in set(first.obsm) - {name}:
            if isinstance(first.obsm[key], pd.DataFrame):
                pd.testing.assert_frame_equal(first.obsm[key], second.obsm[key])
            else:
                np.testing.assert_array_equal(first.obsm[key], second.obsm[key])


def test_later_steps_are_equal_after_reading_back(inputs, tmp_path, assert_same):
    mdata = full_mdata(*inputs)
    again = written_and_read(mdata, tmp_path / "pairs.h5mu")
    expected, _ = pp.hold_out(mdata, ["D2"])
    train, held_out = pp.hold_out(again, ["D2"])
    assert held_out.n_obs == 1
    for name in ("profiles", "pseudobulk", "simulated"):
        np.testing.assert_array_equal(train[name].X, expected[name].X)
    pp.augment(again, 4, seed=1)
    np.testing.assert_array_equal(again["bulk"].obsm["augmented_fractions"], mdata["bulk"].obsm["augmented_fractions"])
    for criterion in ("variance", "agreement"):
        for data in (again, mdata):
            pp.select_genes(data, 7, criterion=criterion)
        assert again["bulk"].var["selected"].equals(mdata["bulk"].var["selected"])


def test_no_shared_donor_gives_a_warning(make_inputs, capsys):
    cells, bulk = make_inputs(bulk_donors=("X", "Y", "Z", "W"))
    with pytest.warns(UserWarning, match=r"at least 3 paired donors .*found 0 paired .*reference-based") as caught:
        mdata = pp.pair(cells, bulk)
    assert caught[0].filename == __file__
    assert capsys.readouterr().out.startswith(
        "paired 0 donors (4 bulk samples, 125 cells, 3 cell types); 4 donors with"
    )
    assert mdata["bulk"].obsm["measured_fractions"].isna().all(axis=None)
    assert "measured_cells" not in mdata["bulk"].obsm
    assert pp.paired_donors(mdata) == []


@pytest.mark.parametrize(("shared", "warned"), [(1, True), (2, True), (3, False)])
def test_fewer_than_three_pairs_warn(make_inputs, shared, warned):
    cells, bulk = make_inputs(bulk_donors=("D1", "D2", "D3")[:shared] + ("X", "Y"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pp.pair(cells, bulk)
    assert [f"to train on pairs, found {shared} paired donors" in str(item.message) for item in caught] == [
        True
    ] * warned


@pytest.mark.filterwarnings("ignore:Expected at least 3 paired donors")
def test_profiles_without_fractions_pair_no_donor_and_warn(reference_inputs):
    del reference_inputs["bulk"].obsm["measured_fractions"]
    with pytest.warns(UserWarning, match=r"in bulk\.obsm\['measured_fractions'\], found none") as caught:
        mdata = pp.pair(**reference_inputs)
    assert {item.filename for item in caught} == {__file__}
    assert pp.paired_donors(mdata) == []


@needs_shared
def test_retina_pairs_without_cells_are_paired_and_simulated():
    bulk, pseudobulk, profiles = (
        anndata.read_h5ad(SHARED / "retina_paired" / f"{name}.h5ad")
        for name in ("bulk", "pseudobulk", "reference_means_batch2")
    )
    mdata = pp.pair(bulk=bulk, profiles=profiles, pseudobulk=pseudobulk)
    assert len(pp.paired_donors(mdata)) == 14
    assert mdata.n_vars == len(bulk.var_names.intersection(profiles.var_names)) > 8000
    assert list(mdata["profiles"].obs["cell_size_umi"]) == list(profiles.obs["cell_size_umi"])
    given = bulk.obsm["measured_fractions"]
    np.testing.assert_allclose(
        mdata["bulk"].obsm["measured_fractions"][given.columns], given.div(given.sum(axis=1), axis=0), atol=1e-12
    )
    assert mdata.uns["scdeconv"]["pair"]["bulk_unit"] == "counts"
    pp.select_genes(mdata, 100, criterion="agreement")
    pp.simulate(mdata, 20)
    train, held_out = pp.hold_out(mdata, list(bulk.obs["donor"][:1]))
    assert (train["bulk"].n_obs, train["pseudobulk"].n_obs) == (13, 13)
    assert held_out.obs["donor"].tolist() == list(bulk.obs["donor"][:1])


@needs_shared
def test_cell_line_mixtures_keep_their_known_fractions():
    cells = anndata.read_h5ad(SHARED / "celllines_mixology" / "cells.h5ad")
    bulk = anndata.read_h5ad(SHARED / "celllines_mixology" / "mixtures_pooled.h5ad")
    mdata = pp.pair(cells, bulk)
    genes = bulk.var_names.intersection(cells.var_names)
    assert mdata.n_vars == (~genes.str.startswith("ERCC-")).sum() > 20_000
    fractions = mdata["bulk"].obsm["measured_fractions"]
    assert list(fractions.columns) == sorted(cells.obs["cell_type"].unique())
    known = bulk.obsm["measured_fractions"]
    np.testing.assert_allclose(fractions[known.columns], known, atol=1e-6)
    assert "measured_cells" not in mdata["bulk"].obsm
    a549 = (cells.obs["cell_type"] == "A549").to_numpy()
    expected = pd.Series(cells.X[a549].toarray().mean(axis=0), cells.var_names)[mdata.var_names]
    np.testing.assert_allclose(mdata["profiles"]["A549"].X[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(
        dense(mdata["pseudobulk"].X).sum(axis=0), np.asarray(mdata["sc"].X.sum(axis=0)).ravel()
    )


@needs_shared
def test_mixtures_without_truth_are_reference_only():
    cells = anndata.read_h5ad(SHARED / "celllines_mixology" / "cells.h5ad")
    bulk = anndata.read_h5ad(SHARED / "celllines_mixology" / "mixtures_pooled.h5ad")
    bulk = AnnData(bulk.X[:5], obs=bulk.obs[:5][["donor"]], var=bulk.var)
    with pytest.warns(UserWarning, match="reference-based"):
        mdata = pp.pair(cells, bulk)
    assert mdata["bulk"].obsm["measured_fractions"].isna().all(axis=None)
