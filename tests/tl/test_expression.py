"""Layers with the expression of each cell type."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import datasets, pp, tl
from scdeconv._stats.solvers.read_mixtures import lift
from scdeconv.datasets import _cohort


@pytest.fixture
def model(pairs):
    return tl.train(pairs, "bayesprism")


@pytest.fixture
def bulk(cohort):
    return cohort[1].copy()


def layers_of(adata):
    """Return the layers; anndata 0.13 lists X among them, under None."""
    return {name: values for name, values in adata.layers.items() if name is not None}


def layer_names(model):
    return [f"expression_{name}" for name in model.cell_types_]


def test_layers_sum_to_the_bulk(model, bulk):
    assert tl.expression(bulk, model) is None
    assert list(layers_of(bulk)) == layer_names(model)
    used = bulk.var_names.isin(model.genes_)
    assert 0 < used.sum() < bulk.n_vars
    total = sum(layers_of(bulk).values())
    np.testing.assert_allclose(total[:, used], bulk.X[:, used], rtol=1e-5)
    for values in layers_of(bulk).values():
        assert values.dtype == np.float32
        assert (values[:, used] >= 0).all()
        assert np.isnan(values[:, ~used]).all()


def test_layers_follow_the_closed_form(model, bulk):
    tl.expression(bulk, model)
    phi, theta = lift(model.state_.profiles), model.predict(bulk).to_numpy()
    for k, name in enumerate(layer_names(model)):
        for n in range(bulk.n_obs):
            for g in range(0, len(model.genes_), 11):
                column = bulk.var_names.get_loc(model.genes_[g])
                expected = bulk.X[n, column] * phi[k, g] * theta[n, k] / sum(theta[n] * phi[:, g])
                assert bulk.layers[name][n, column] == pytest.approx(expected, rel=1e-5, abs=1e-30)


def test_layer_totals_are_shares_of_rna(pairs, bulk):
    model = tl.train(pairs, "bayesprism", n_iterations=2000)
    tl.expression(bulk, model)
    shares = pd.DataFrame({name: np.nansum(bulk.layers[f"expression_{name}"], axis=1) for name in model.cell_types_})
    found = shares.div(shares.sum(axis=1), axis=0).set_axis(bulk.obs_names)
    pd.testing.assert_frame_equal(found, model.predict(bulk), atol=1e-3, check_dtype=False)


def test_upregulated_markers_are_assigned_to_their_type():
    """Markers of one type are upregulated fourfold in half of the samples: this type gets nearly all additional reads."""
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.full(300, 0.3), 4) + 1e-5
    phi /= phi.sum(axis=1, keepdims=True)
    markers = np.argsort(phi[0] / phi[1:].max(axis=0))[-10:]
    up = phi.copy()
    up[0, markers] *= 4
    up /= up.sum(axis=1, keepdims=True)
    theta = rng.dirichlet(np.ones(4), 30)
    names = [f"type {k}" for k in range(4)]
    genes = pd.DataFrame(index=[f"G{i}" for i in range(300)])
    reference = AnnData(5000 * phi, obs=pd.DataFrame({"cell_type": names}, index=names), var=genes)
    reads = rng.poisson(1e6 * np.vstack([theta @ phi, theta @ up]))
    bulk = AnnData(reads, obs=pd.DataFrame(index=[f"s{i}" for i in range(60)]), var=genes)
    with pytest.warns(UserWarning, match="paired"):
        mdata = pp.pair(bulk=bulk, profiles=reference)
    tl.expression(bulk, tl.train(mdata, "bayesprism", outlier_share=1))
    of_markers = {name: values[:, markers].sum(axis=1) for name, values in layers_of(bulk).items()}
    gain = {name: values[30:].sum() - values[:30].sum() for name, values in of_markers.items()}
    assert gain["expression_type 0"] > 0.95 * sum(gain.values())
    share = of_markers["expression_type 0"] / bulk.layers["expression_type 0"].sum(axis=1)
    planted = up[0, markers].sum() / phi[0, markers].sum()
    assert (share[30:] / share[:30]).mean() == pytest.approx(planted, rel=0.3)


def test_named_types_are_written_under_the_named_key(model, bulk):
    tl.expression(bulk, model, cell_types=model.cell_types_[2:0:-1], key_added="bp")
    assert list(layers_of(bulk)) == [f"bp_{name}" for name in model.cell_types_[2:0:-1]]
    assert list(bulk.uns["scdeconv"]) == ["bp"]


def test_layers_of_an_earlier_call_are_replaced(model, bulk, tmp_path):
    bulk.layers["mine"] = bulk.X.copy()
    tl.expression(bulk, model, key_added="bp")
    tl.expression(bulk, model)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    again = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    tl.expression(again, model, cell_types=model.cell_types_[:1])
    assert set(layers_of(again)) == {"mine", layer_names(model)[0], *(f"bp_{name}" for name in model.cell_types_)}


def test_record_survives_a_file(model, bulk, tmp_path):
    bulk.layers["counts"] = bulk.X.copy()
    tl.expression(bulk, model, layer="counts")
    record = bulk.uns["scdeconv"]["expression"]
    assert {"method": "bayesprism", "layer": "counts", "n_genes": len(model.genes_)}.items() <= record.items()
    assert record["parameters"] == model.parameters_
    assert record["cell_types"] == model.cell_types_
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    again = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    assert list(again.uns["scdeconv"]["expression"]["cell_types"]) == model.cell_types_
    for name in layer_names(model):
        np.testing.assert_array_equal(again.layers[name], bulk.layers[name])


def test_gene_order_and_extra_genes_do_not_matter(model, bulk):
    tl.expression(bulk, model)
    order = np.random.default_rng(0).permutation(bulk.n_vars)
    further = AnnData(np.full((bulk.n_obs, 3), 50), obs=bulk.obs[[]], var=pd.DataFrame(index=["x", "y", "z"]))
    wide = anndata.concat([bulk[:, order], further], axis=1, merge="first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.expression(wide, model)
    for name in layer_names(model):
        np.testing.assert_allclose(wide.layers[name][:, :-3], bulk.layers[name][:, order], rtol=1e-5)
        assert np.isnan(wide.layers[name][:, -3:]).all()


def test_missing_genes_are_excluded(model, bulk):
    fewer = bulk[:, ~bulk.var_names.isin(model.genes_[:20])].copy()
    with pytest.warns(UserWarning, match=rf"20 of the model's {len(model.genes_)} genes"):
        tl.expression(fewer, model)
    used = fewer.var_names.isin(model.genes_)
    np.testing.assert_allclose(sum(layers_of(fewer).values())[:, used], fewer.X[:, used], rtol=1e-5)


def test_loaded_model_gives_the_same_layers(model, bulk, tmp_path):
    model.save(tmp_path / "model")
    tl.expression(bulk, model, key_added="one")
    tl.expression(bulk, type(model).load(tmp_path / "model"), key_added="two")
    for name in model.cell_types_:
        np.testing.assert_array_equal(bulk.layers[f"one_{name}"], bulk.layers[f"two_{name}"])


def test_failed_call_writes_nothing(pairs, model, bulk, unchanged):
    tl.expression(bulk, model)
    logged = bulk.copy()
    logged.X = np.log1p(logged.X)
    estimated = bulk.copy()
    estimated.uns["scdeconv"]["fractions"] = {"coverage": 0.9}
    for adata, arguments, error, message in (
        (bulk, {"cell_types": ["nobody"]}, ValueError, "Expected cell_types of .*found 'nobody'"),
        (bulk, {"layer": "nowhere"}, KeyError, "Expected layer 'nowhere'"),
        (logged, {}, ValueError, "log-transformed"),
        (bulk[:, :5].copy(), {}, ValueError, "at least half of the model's"),
        (estimated, {"key_added": "fractions"}, ValueError, "found 'fractions', whose record would be lost"),
    ):
        with unchanged(adata), pytest.raises(error, match=message):
            tl.expression(adata, model, **arguments)
    with unchanged(bulk), pytest.raises(TypeError, match="Expected a model that estimates expression, found NNLS"):
        tl.expression(bulk, tl.train(pairs, "nnls"))


def test_nothing_else_of_the_object_is_changed(model, bulk, unchanged):
    bulk.uns["scdeconv"] = {"fractions": {"method": "nnls"}}
    with unchanged(bulk):
        tl.expression(bulk, model)
        for name in layer_names(model):
            del bulk.layers[name]
        del bulk.uns["scdeconv"]["expression"]


@pytest.fixture(scope="module")
def known():
    """A cohort with the expression of each type in each bulk sample, and a model of its pairs."""
    parts = {}
    sequence = _cohort._sequence_bulk

    def keep(rng, rna, profiles):
        parts["rna"] = rna
        return sequence(rng, rna, profiles)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cohort, "_sequence_bulk", keep)
        cells, bulk = datasets.paired_cohort(n_donors=16, n_bulk_only=20, n_genes=400, cells_per_donor=(200, 400))
    new = ~bulk.obs["donor"].isin(cells.obs["donor"]).to_numpy()
    mdata = pp.pair(cells, bulk[~new].copy())
    truth = dict(zip(bulk.uns["cohort"]["cell_types"], parts["rna"][new].transpose(1, 0, 2), strict=True))
    return mdata, tl.train(mdata, "calibrated_map"), bulk[new].copy(), truth


def score(bulk, model, truth):
    """Return correlation and SD of the error over samples of log expression in the most frequent type, median of genes."""
    tl.expression(bulk, model)
    genes = bulk.var_names.get_indexer(model.genes_)
    estimate, true = (values[:, genes] for values in (bulk.layers["expression_Macrophage"], truth["Macrophage"]))
    estimate, true = (np.log(values / values.sum(axis=1, keepdims=True)) for values in (estimate, true))
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(estimate.T, true.T, strict=True)]
    return np.median(correlations), np.median((estimate - true).std(axis=0))


def test_calibrated_expression_follows_the_true_expression(known):
    mdata, model, bulk, truth = known
    correlation, error = score(bulk.copy(), model, truth)
    of_other, error_of_other = score(bulk.copy(), tl.train(mdata, "bayesprism", outlier_share=1), truth)
    assert correlation > max(0.35, of_other + 0.02)
    assert error < 0.75 * error_of_other


def test_calibrated_layers_are_parts_of_the_bulk(known):
    _, model, bulk, _ = known
    tl.expression(bulk, model)
    layers = layers_of(bulk)
    used = bulk.var_names.isin(model.genes_)
    total = sum(layers.values())[:, used]
    assert all((values[:, used] >= 0).all() for values in layers.values())
    correlations = [np.corrcoef(np.log1p(a), np.log1p(b))[0, 1] for a, b in zip(total, bulk.X[:, used], strict=True)]
    assert min(correlations) > 0.9
    assert bulk.uns["scdeconv"]["expression"]["method"] == "calibrated_map"


def test_missing_genes_do_not_change_calibrated_expression_much(known, tmp_path):
    _, model, bulk, _ = known
    model.save(tmp_path / "model")
    fewer = bulk[:, ~bulk.var_names.isin(model.genes_[:20])].copy()
    with pytest.warns(UserWarning, match="20 of the model's"):
        tl.expression(fewer, type(model).load(tmp_path / "model"), cell_types=["Macrophage"])
    tl.expression(bulk, model, cell_types=["Macrophage"])
    used = fewer.var_names.isin(model.genes_)
    expected = bulk[:, fewer.var_names].layers["expression_Macrophage"][:, used]
    found = fewer.layers["expression_Macrophage"][:, used]
    assert np.median(np.abs(np.log(found / expected))) < 0.1


def test_pairs_without_cells_give_no_expression(known):
    mdata, _, bulk, _ = known
    profiles_only = pp.pair(bulk=mdata["bulk"].copy(), profiles=mdata["profiles"], fractions_key="measured_fractions")
    with pytest.raises(TypeError, match="CalibratedMAP, which does not, or has no cells of the paired donors"):
        tl.expression(bulk, tl.train(profiles_only, "calibrated_map"))
