from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import pp

SPIKE_INS = ["ERCC-00002", "ERCC-00130", "ERCC-00074"]
FORMATS = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix, "csr_array": sp.csr_array}


def dense(matrix):
    return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix)


def spiked(adata, seed=0, names=SPIKE_INS, as_format=None):
    """Add spike-ins at different positions of each table; also return them."""
    rng = np.random.default_rng(seed)
    added = rng.poisson(20, (adata.n_obs, len(names))) + 1
    values = np.hstack([dense(adata.X), added])
    order = rng.permutation(values.shape[1])
    as_format = as_format or (type(adata.X) if sp.issparse(adata.X) else np.asarray)
    more = AnnData(as_format(values), obs=adata.obs.copy(), obsm=dict(adata.obsm))
    more.var_names = [*adata.var_names, *names]
    return more[:, order].copy(), added


def expression(mdata, name, genes):
    return dense(mdata[name][:, genes].X)


@pytest.mark.parametrize("form", FORMATS)
def test_spike_ins_are_removed_from_cells_and_bulk(inputs, form):
    cells, bulk = inputs
    expected = pp.pair(cells, bulk)
    mdata = pp.pair(*(spiked(adata, seed, as_format=FORMATS[form])[0] for seed, adata in enumerate(inputs)))
    for name in ("bulk", "sc", "profiles", "pseudobulk"):
        assert set(mdata[name].var_names) == set(bulk.var_names)
        np.testing.assert_array_equal(
            expression(mdata, name, bulk.var_names), expression(expected, name, bulk.var_names)
        )
        pd.testing.assert_frame_equal(
            mdata[name].obs.drop(columns="rna_per_spike_in", errors="ignore"), expected[name].obs, check_dtype=False
        )
    assert mdata.uns["scdeconv"]["pair"]["n_genes"] == 40
    assert mdata.uns["scdeconv"]["pair"]["n_spike_ins"] == 3


def test_spike_ins_are_removed_from_profiles_and_pseudobulk(reference_inputs):
    expected = pp.pair(**reference_inputs)
    more = {name: spiked(adata, seed)[0] for seed, (name, adata) in enumerate(reference_inputs.items())}
    mdata = pp.pair(**more)
    genes = reference_inputs["bulk"].var_names
    for name in ("bulk", "profiles", "pseudobulk"):
        assert set(mdata[name].var_names) == set(genes)
        np.testing.assert_array_equal(expression(mdata, name, genes), expression(expected, name, genes))
    np.testing.assert_allclose(mdata["profiles"].obs["total"], reference_inputs["profiles"].X.sum(axis=1))
    np.testing.assert_allclose(mdata["profiles"].obs["cell_size_umi"], reference_inputs["profiles"].X.sum(axis=1))


@pytest.mark.parametrize("form", FORMATS)
def test_ratio_is_endogenous_over_spike_in_expression(inputs, form):
    cells, bulk = inputs
    more, added = spiked(bulk, as_format=FORMATS[form])
    ratio = pp.pair(cells, more)["bulk"].obs["rna_per_spike_in"]
    assert ratio.dtype == float
    for i, sample in enumerate(bulk.obs_names):
        assert ratio[sample] == pytest.approx(bulk.X[i].sum() / added[i].sum(), rel=1e-12)


def test_ratio_includes_genes_missing_from_cells(inputs):
    cells, bulk = inputs
    more, added = spiked(bulk)
    mdata = pp.pair(cells[:, :10].copy(), more)
    assert mdata["bulk"].n_vars == 10
    np.testing.assert_allclose(mdata["bulk"].obs["rna_per_spike_in"], bulk.X.sum(axis=1) / added.sum(axis=1))


def test_ratio_includes_spike_ins_missing_from_cells(inputs):
    cells, bulk = inputs
    more, added = spiked(bulk)
    few = spiked(cells, names=SPIKE_INS[:1])[0]
    np.testing.assert_allclose(
        pp.pair(few, more)["bulk"].obs["rna_per_spike_in"], bulk.X.sum(axis=1) / added.sum(axis=1)
    )


def test_ratio_of_small_integers_does_not_overflow(inputs):
    cells, bulk = inputs
    bulk.X = np.full(bulk.shape, 200, dtype=np.uint8)
    more, _ = spiked(bulk)
    more.X[:, more.var_names.isin(SPIKE_INS)] = 250
    for form in (np.asarray, sp.csr_matrix):
        few = more.copy()
        few.X = form(more.X.astype(np.uint8))
        np.testing.assert_allclose(pp.pair(cells, few)["bulk"].obs["rna_per_spike_in"], 40 * 200 / (3 * 250))


def test_ratio_uses_the_given_layer(inputs):
    cells, bulk = inputs
    more, added = spiked(bulk)
    more.layers["counts"] = more.X.copy()
    more.X = np.log1p(more.X)
    ratio = pp.pair(cells, more, layer="counts")["bulk"].obs["rna_per_spike_in"]
    np.testing.assert_allclose(ratio, bulk.X.sum(axis=1) / added.sum(axis=1))


@pytest.mark.parametrize("form", FORMATS)
def test_ratio_without_spike_ins_is_nan(inputs, form):
    cells, bulk = inputs
    more, added = spiked(bulk)
    more.X[np.ix_([1, 4], np.flatnonzero(more.var_names.isin(SPIKE_INS)))] = 0
    more.X = FORMATS[form](more.X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning, module="mudata")
        ratio = pp.pair(cells, more)["bulk"].obs["rna_per_spike_in"].to_numpy()
    assert np.isnan(ratio).tolist() == [False, True, False, False, True, False]
    known = ~np.isnan(ratio)
    np.testing.assert_allclose(ratio[known], (bulk.X.sum(axis=1) / added.sum(axis=1))[known])


@pytest.mark.parametrize("in_cells", [False, True])
def test_bulk_without_spike_ins_has_no_ratio(inputs, in_cells, capsys):
    cells, bulk = inputs
    expected = pp.pair(cells, bulk)
    plain = capsys.readouterr().out
    assert "spike-ins" not in plain
    mdata = pp.pair(spiked(cells)[0] if in_cells else cells, bulk)
    pd.testing.assert_frame_equal(mdata["bulk"].obs, expected["bulk"].obs)
    assert "rna_per_spike_in" not in mdata["sc"].obs
    assert mdata.uns["scdeconv"]["pair"]["n_spike_ins"] == 3 * in_cells


def test_human_genes_with_similar_names_are_kept(inputs):
    genes = ["ERCC1", "ERCC2", "ERCC6L", "ERCC6L2", "ercc-1", "XERCC-00002", "ERCC"]
    for adata in inputs:
        adata.var_names = [*genes, *adata.var_names[len(genes) :]]
    mdata = pp.pair(*inputs)
    assert list(mdata.var_names) == list(inputs[1].var_names)
    assert "rna_per_spike_in" not in mdata["bulk"].obs


def test_total_and_cell_size_exclude_spike_ins(inputs):
    cells, bulk = inputs
    more, added = spiked(cells)
    mdata = pp.pair(more, bulk)
    own = cells.X.toarray().sum(axis=1)
    assert (added.sum(axis=1) > 30).all()
    np.testing.assert_allclose(mdata["sc"].obs["total"], own)
    expected = pd.Series(own, cells.obs_names).groupby(cells.obs["cell_type"], observed=True).mean()
    np.testing.assert_allclose(mdata["profiles"].obs["cell_size_umi"], expected)


def test_given_totals_and_cell_sizes_are_kept(reference_inputs):
    profiles = spiked(reference_inputs["profiles"])[0]
    profiles.obs["total"], profiles.obs["cell_size_umi"] = [10.0, 20.0, 30.0], [1000.0, 2000.0, 3000.0]
    obs = pp.pair(**(reference_inputs | {"profiles": profiles}))["profiles"].obs
    assert obs["total"].tolist() == [10, 20, 30]
    assert obs["cell_size_umi"].tolist() == [1000, 2000, 3000]


@pytest.mark.parametrize("form", FORMATS)
def test_input_objects_are_unchanged(inputs, unchanged, form):
    more = [spiked(adata, as_format=FORMATS[form])[0] for adata in inputs]
    with unchanged(*more):
        mdata = pp.pair(*more)
        mdata["bulk"].obs["rna_per_spike_in"] = 0.0
        for name in ("bulk", "sc"):
            matrix = mdata[name].X
            (matrix.data if sp.issparse(matrix) else matrix)[:] = 0
    assert "rna_per_spike_in" not in more[1].obs


def test_reference_objects_are_unchanged(reference_inputs, unchanged):
    more = {name: spiked(adata)[0] for name, adata in reference_inputs.items()}
    with unchanged(*more.values()):
        pp.pair(**more)


def test_number_of_removed_spike_ins_is_printed(inputs, capsys):
    cells, bulk = inputs
    pp.pair(spiked(cells, names=["ERCC-00002", "ERCC-00170"])[0], spiked(bulk)[0])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "; 40 shared genes (bulk 43, cells 42); bulk in counts; 4 spike-ins removed from the genes\n" in out


@pytest.mark.parametrize(("scale", "unit"), [(1e6, "TPM"), (None, "counts")])
def test_unit_is_detected_with_spike_ins(inputs, scale, unit):
    """Spike-ins can dominate a sample: TPM sum to a million only with them."""
    cells, bulk = inputs
    more, added = spiked(bulk)
    spikes = more.var_names.isin(SPIKE_INS)
    more.X[:, spikes] *= 5000
    if scale:
        more.X = more.X / more.X.sum(axis=1, keepdims=True) * scale
        assert (more.X[:, ~spikes].sum(axis=1) < 0.3e6).all()
    mdata = pp.pair(cells, more)
    assert mdata.uns["scdeconv"]["pair"]["bulk_unit"] == unit
    np.testing.assert_allclose(
        mdata["bulk"].obs["rna_per_spike_in"], bulk.X.sum(axis=1) / added.sum(axis=1) / 5000, rtol=1e-6
    )


def test_duplicate_spike_ins_are_summed_on_request(inputs):
    cells, bulk = inputs
    more, added = spiked(bulk)
    more.var_names = ["ERCC-00002" if name == "ERCC-00130" else name for name in more.var_names]
    mdata = pp.pair(cells, more, duplicates="sum")
    np.testing.assert_allclose(mdata["bulk"].obs["rna_per_spike_in"], bulk.X.sum(axis=1) / added.sum(axis=1))
    assert mdata.uns["scdeconv"]["pair"]["n_spike_ins"] == 2


def test_spike_ins_do_not_count_as_shared_genes(inputs):
    """Tables with symbols and with Ensembl identifiers share only the names of spike-ins."""
    cells, bulk = inputs
    cells.var_names = [f"ENSG{i:011d}" for i in range(cells.n_vars)]
    with pytest.raises(ValueError, match="symbols in bulk and Ensembl identifiers in cells"):
        pp.pair(cells, bulk)
    with pytest.raises(ValueError, match="symbols in bulk and Ensembl identifiers in cells"):
        pp.pair(spiked(cells)[0], spiked(bulk)[0])


def test_held_out_samples_keep_their_ratio(inputs):
    cells, bulk = inputs
    mdata = pp.pair(cells, spiked(bulk)[0])
    ratio = mdata["bulk"].obs["rna_per_spike_in"]
    training, held_out = pp.hold_out(mdata, ["D2"])
    assert held_out.obs["rna_per_spike_in"].tolist() == ratio[mdata["bulk"].obs["donor"] == "D2"].tolist()
    assert training["bulk"].obs["rna_per_spike_in"].tolist() == ratio[mdata["bulk"].obs["donor"] != "D2"].tolist()
