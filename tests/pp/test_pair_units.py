"""Units through pair, train and predict: arrays, normalised cells, data changed after pairing."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc

from scdeconv import datasets, models, pp, tl
from scdeconv._data import keys

METHODS = tl.methods()
COHORT = {"n_donors": 8, "n_genes": 300, "cells_per_donor": (40, 60)}


@pytest.fixture(scope="module")
def inputs():
    return datasets.paired_cohort(**COHORT)


@pytest.fixture
def mdata(inputs):
    return pp.pair(*inputs)


def percent(mdata):
    mdata["bulk"].obsm["measured_fractions"] *= 100


def missing(mdata):
    values = mdata["bulk"].X.astype(float)
    values[0, 0] = np.nan
    mdata["bulk"].X = values


CHANGES = {
    "bulk normalised": (lambda mdata: sc.pp.normalize_total(mdata["bulk"]), r"layer=\"counts\""),
    "bulk logged": (lambda mdata: sc.pp.log1p(mdata["bulk"]), "log-transformed"),
    "bulk scaled": (lambda mdata: sc.pp.scale(mdata["bulk"]), "z-scores"),
    "cells normalised": (lambda mdata: sc.pp.normalize_total(mdata["sc"]), r"mdata\['sc'\]"),
    "cells logged": (lambda mdata: sc.pp.log1p(mdata["sc"]), r"mdata\['sc'\]"),
    "percent": (percent, "measured_fractions"),
    "missing value": (missing, "finite values"),
}
# every function that takes paired data
ENTRIES = {
    **{f"train {key}": (lambda mdata, key=key: tl.train(mdata, key)) for key in METHODS.index},
    "train": tl.train,
    "benchmark": lambda mdata: tl.benchmark(mdata, ["nnls"]),
    "cross_validate": lambda mdata: tl.cross_validate(mdata, "nnls"),
    "tune": lambda mdata: tl.tune(mdata, "ridge", {"n_genes": [20, 30]}, n_trials=2),
    "hold_out": lambda mdata: pp.hold_out(mdata, list(mdata["bulk"].obs["donor"][:1])),
    "calibrate": pp.calibrate,
    "augment": pp.augment,
    "simulate": lambda mdata: pp.simulate(mdata, 5),
    "select_genes": lambda mdata: pp.select_genes(mdata, 20),
    "signature": lambda mdata: pp.signature(mdata, 20),
    **{
        f"{name}.setup_mudata": getattr(models, name).setup_mudata
        for name in ("Ridge", "NNLS", "MuSiC", "CalibratedMAP", "SimpleDNN", "ResidualDNN", "BayesPrism")
    },
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_data_changed_after_pairing_are_refused(mdata, entry, change):
    apply, shown = CHANGES[change]
    apply(mdata)
    with pytest.raises(ValueError, match=shown):
        ENTRIES[entry](mdata)


NETWORKS = [key for key in METHODS.index if hasattr(models.resolve(key)[0], "setup_anndata")]


@pytest.mark.parametrize("change", [change for change in CHANGES if not change.startswith("cells")])
@pytest.mark.parametrize("network", NETWORKS)
def test_changed_samples_are_refused_by_registration(mdata, network, change):
    apply, shown = CHANGES[change]
    apply(mdata)
    with pytest.raises(ValueError, match=shown):
        models.resolve(network)[0].setup_anndata(mdata["bulk"])


@pytest.mark.parametrize("network", NETWORKS)
def test_logged_samples_without_pairing_are_refused(inputs, network):
    bulk = inputs[1].copy()
    bulk.obsm["measured_fractions"] = bulk.obsm["true_fractions"]
    bulk.X = np.log1p(bulk.X)
    with pytest.raises(ValueError, match="Expected values on a linear scale in adata.X"):
        models.resolve(network)[0].setup_anndata(bulk)


def test_subsets_and_other_order_are_no_change(mdata):
    rng = np.random.default_rng(0)
    for name in ("bulk", "sc"):
        order = rng.permutation(mdata[name].n_obs)[: mdata[name].n_obs - 2]
        genes = rng.permutation(mdata[name].n_vars)
        mdata.mod[name] = mdata[name][order][:, genes].copy()
    pp.select_genes(mdata, 20)


@pytest.fixture(scope="module")
def normalised(inputs):
    cells, bulk = inputs
    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    cells = cells.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    return cells, bulk, totals


@pytest.mark.parametrize("key", [key for key in METHODS.index if METHODS.loc[key, "family"] != "paired"])
def test_methods_that_use_sizes_refuse_normalised_cells(normalised, key):
    cells, bulk, _ = normalised
    with pytest.warns(UserWarning, match="RNA content is unknown"):
        mdata = pp.pair(cells, bulk)
    record = models.resolve(key)[0].record
    if record.uses_cell_sizes:
        with pytest.raises(ValueError, match="Expected the RNA content of the cells"):
            tl.train(mdata, key)
    else:
        assert tl.train(mdata, key).is_trained_


def test_genes_selected_after_normalisation_are_noticed(normalised):
    cells, bulk, _ = normalised
    with pytest.warns(UserWarning, match="RNA content is unknown"):
        pp.pair(cells[:, :200].copy(), bulk)


@pytest.mark.parametrize("column", ["total_counts", "nCount_RNA", "n_counts"])
def test_total_counts_restore_the_sizes(inputs, normalised, column, capsys):
    cells, bulk, totals = normalised
    cells = cells.copy()
    cells.obs[column] = totals
    mdata = pp.pair(cells, bulk)
    assert f"sizes from {column}" in capsys.readouterr().out
    expected = pp.pair(*inputs)
    sizes = [data["profiles"].obs["cell_size_umi"].to_numpy() for data in (mdata, expected)]
    np.testing.assert_allclose(*sizes, rtol=1e-4)
    first, second = (tl.train(data, "nnls").predict(bulk) for data in (mdata, expected))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_given_sizes_scale_the_profiles(normalised):
    cells, bulk, _ = normalised
    sizes = {name: 1000.0 * (number + 1) for number, name in enumerate(cells.obs["cell_type"].unique())}
    mdata = pp.pair(cells, bulk, cell_sizes=sizes)
    assert mdata["profiles"].obs["cell_size_umi"].to_dict() == pytest.approx(sizes, rel=1e-4)
    assert tl.train(mdata, "nnls").is_trained_


@pytest.mark.parametrize("sizes", [{"T": 1.0}, {}, "negative", "nan"])
def test_wrong_sizes_are_refused(normalised, sizes):
    cells, bulk, _ = normalised
    if isinstance(sizes, str):
        sizes = dict.fromkeys(cells.obs["cell_type"].unique(), -1.0 if sizes == "negative" else np.nan)
    with pytest.raises(ValueError, match="Expected a positive size of every cell type in cell_sizes"):
        pp.pair(cells, bulk, cell_sizes=sizes)


def test_sizes_of_counts_are_refused(inputs):
    with pytest.raises(ValueError, match="Omit cell_sizes"):
        pp.pair(*inputs, cell_sizes={"T": 1.0})


@pytest.mark.parametrize("method", ["calibrated_map", "ridge", "cibersort", "robust_nnls"])
def test_log2_arrays_equal_linear_arrays(inputs, method, capsys):
    cells, bulk = inputs
    linear, logged = bulk.copy(), bulk.copy()
    linear.X = np.asarray(bulk.X, dtype=float) + 30.5
    logged.X = np.log2(linear.X)
    results = []
    for table in (linear, logged):
        model = tl.train(pp.pair(cells, table, unit="array"), method)
        assert model.training_.bulk_unit == "array intensities"
        results += [model.predict(linear), model.predict(logged)]
    assert capsys.readouterr().out.count("log2 values exponentiated") == 1
    for result in results[1:]:
        # the support vector solver stops at a tolerance of 1e-3
        np.testing.assert_allclose(result, results[0], atol=1e-3)


def test_arrays_have_no_counting_noise(inputs):
    cells, bulk = inputs
    counts, array = (pp.pair(cells, bulk, unit=unit) for unit in (None, "array"))
    assert counts.uns[keys.UNS]["pair"]["bulk_unit"] == "counts"
    noise = [pp.calibrate(data).genes for data in (counts, array)]
    assert not noise[0].equals(noise[1])


def test_logged_arrays_without_unit_are_refused_with_advice(inputs):
    cells, bulk = inputs
    bulk = bulk.copy()
    bulk.X = np.log2(np.asarray(bulk.X, dtype=float) + 30.5)
    with pytest.raises(ValueError, match="pass unit='array'"):
        pp.pair(cells, bulk)
