from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

import scdeconv
from scdeconv import clustering, pp, tl

SMALL = {
    "n_clusters": 3,
    "n_latent": 8,
    "hidden": (32, 16),
    "noise": 1.0,
    "likelihood": "nb",
    "pretrain_epochs": 15,
    "max_epochs": 5,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "accelerator": "cpu",
}
UNTRAINED = SMALL | {"pretrain_epochs": 1, "max_epochs": 1}


def generate(n_cells=240, n_genes=120, seed=0):
    """Counts of three groups that differ in 25 genes each."""
    rng = np.random.default_rng(seed)
    profiles = np.tile(rng.gamma(0.7, 1.0, n_genes), (3, 1))
    for group in range(3):
        profiles[group, 25 * group : 25 * (group + 1)] *= 6
    groups = rng.permutation(np.arange(n_cells) % 3)
    counts = rng.poisson(profiles[groups] * rng.lognormal(0, 0.3, (n_cells, 1)) + 0.05).astype(np.float32)
    return AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame({"group": pd.Categorical(groups.astype(str))}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame({"length": np.arange(n_genes)}, index=[f"gene{i}" for i in range(n_genes)]),
        uns={"title": "mine"},
    )


@pytest.fixture
def cells():
    return generate()


@pytest.fixture
def no_training(monkeypatch):
    """All problems are found before computing."""

    def train(self, **kwargs):
        pytest.fail("training began")

    for name in ("DESC", "ScDeepCluster", "ScDCC"):
        monkeypatch.setattr(getattr(clustering, name), "train", train)


# output


def test_clusters_embedding_and_probabilities_are_written(cells, capsys):
    before = cells.copy()
    model = tl.cluster(cells, "scdeepcluster", **SMALL, seed=3)
    labels, probabilities = cells.obs["scdeepcluster"], cells.obsm["scdeepcluster_probabilities"]
    assert adjusted_rand_score(cells.obs["group"], labels) > 0.9
    assert isinstance(labels.dtype, pd.CategoricalDtype)
    assert list(labels.cat.categories) == list(probabilities) == ["0", "1", "2"]
    assert labels.value_counts(sort=False).is_monotonic_decreasing
    assert isinstance(probabilities, pd.DataFrame)
    assert list(probabilities.index) == list(cells.obs_names)
    assert set(probabilities.dtypes) == {np.dtype(float)}
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert list(probabilities.idxmax(axis=1)) == list(labels)
    assert cells.obsm["X_scdeepcluster"].shape == (240, 8)
    assert cells.obsm["X_scdeepcluster"].dtype == np.float32
    record = cells.uns["scdeconv"]["scdeepcluster"]
    assert record["parameters"] == model.parameters_
    assert {key: value for key, value in record.items() if key != "parameters"} == {
        "method": "scdeepcluster",
        "version": scdeconv.__version__,
        "n_genes": 120,
        "seed": 3,
    }
    assert capsys.readouterr().out == f"scdeepcluster: {model.summary_}\n"
    # no other keys
    del cells.obs["scdeepcluster"], cells.obsm["X_scdeepcluster"], cells.obsm["scdeepcluster_probabilities"]
    del cells.uns["scdeconv"]
    assert (cells.X != before.X).nnz == 0
    assert cells.X.dtype == before.X.dtype
    assert cells.obs.equals(before.obs)
    assert cells.var.equals(before.var)
    assert dict(cells.uns) == dict(before.uns)
    assert not any((cells.obsm, cells.layers, cells.varm, cells.obsp, cells.varp))


def test_returned_model_reproduces_results_on_new_cells(cells, tmp_path):
    model = tl.cluster(cells, "scdeepcluster", **UNTRAINED)
    assert isinstance(model, clustering.ScDeepCluster)
    assert model.get_clusters().equals(cells.obs["scdeepcluster"])
    assert model.get_soft_assignments(cells).equals(cells.obsm["scdeepcluster_probabilities"])
    model.save(tmp_path / "model")
    loaded = clustering.ScDeepCluster.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.get_latent_representation(cells), cells.obsm["X_scdeepcluster"])


def test_key_added_keeps_earlier_results(cells):
    tl.cluster(cells, "scdeepcluster", **UNTRAINED)
    first = cells.obs["scdeepcluster"].copy()
    tl.cluster(cells, "scdeepcluster", key_added="mine", **{**UNTRAINED, "n_clusters": 2})
    assert list(cells.obs) == ["group", "scdeepcluster", "mine"]
    assert list(cells.obsm) == ["X_scdeepcluster", "scdeepcluster_probabilities", "X_mine", "mine_probabilities"]
    assert list(cells.uns["scdeconv"]) == ["scdeepcluster", "mine"]
    assert cells.obs["scdeepcluster"].equals(first)
    assert cells.uns["scdeconv"]["mine"]["parameters"]["n_clusters"] == 2


def test_second_run_replaces_the_first(cells):
    tl.cluster(cells, "scdeepcluster", **UNTRAINED)
    tl.cluster(cells, "scdeepcluster", **{**UNTRAINED, "n_clusters": 2}, seed=1)
    assert cells.obs["scdeepcluster"].nunique() == cells.obsm["scdeepcluster_probabilities"].shape[1] == 2
    assert cells.uns["scdeconv"]["scdeepcluster"]["seed"] == 1


def test_desc_resolutions_have_separate_keys(cells):
    model = tl.cluster(cells, "desc", resolution=[0.3, 2], max_epochs=5, accelerator="cpu")
    assert list(cells.obs) == ["group", "desc_0.3", "desc_2"]
    assert list(cells.obsm) == ["X_desc_0.3", "desc_0.3_probabilities", "X_desc_2", "desc_2_probabilities"]
    assert adjusted_rand_score(cells.obs["group"], cells.obs["desc_0.3"]) > 0.9
    assert cells.obs["desc_2"].nunique() > cells.obs["desc_0.3"].nunique() == 3
    for resolution in (0.3, 2.0):
        name = f"desc_{resolution:g}"
        assert cells.uns["scdeconv"][name]["parameters"]["resolution"] == resolution
        assert cells.obs[name].equals(model.get_clusters(resolution=resolution).rename(name))
        latent = model.get_latent_representation(resolution=resolution)
        np.testing.assert_array_equal(cells.obsm[f"X_{name}"], latent)


def test_single_desc_resolution_has_the_plain_key(cells):
    tl.cluster(cells, resolution=[0.3], max_epochs=1, key_added="list", accelerator="cpu")
    tl.cluster(cells, "desc", resolution=0.3, max_epochs=1, accelerator="cpu")
    assert list(cells.obs) == ["group", "list", "desc"]
    assert cells.obs["desc"].equals(cells.obs["list"].rename("desc"))


def test_constraints_reach_scdcc(cells):
    cells.obs["known"] = cells.obs["group"].where(np.arange(240) < 60)
    constraints = pp.constraints(cells, labels_key="known", n_pairs=200)
    model = tl.cluster(cells, "scdcc", constraints=constraints, must_link_weight=2.0, **UNTRAINED)
    assert isinstance(model, clustering.ScDCC)
    assert sum(len(pairs) for pairs in model.pairs.values()) == 200
    assert cells.uns["scdeconv"]["scdcc"]["parameters"]["must_link_weight"] == 2
    assert "scdcc" in cells.obs


# use of the output


@pytest.mark.slow
def test_scanpy_reads_the_embedding_as_it_is(cells):
    import matplotlib.pyplot as plt
    import scanpy as sc

    tl.cluster(cells, "scdeepcluster", **SMALL)
    sc.pp.neighbors(cells, use_rep="X_scdeepcluster")
    sc.tl.umap(cells)
    axis = sc.pl.umap(cells, color="scdeepcluster", show=False)
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {"0", "1", "2"}
    plt.close("all")


@pytest.mark.parametrize("method", ["desc", "scdeepcluster"])
def test_result_survives_h5ad(cells, tmp_path, method):
    short = UNTRAINED if method == "scdeepcluster" else {"max_epochs": 1, "resolution": 0.3, "accelerator": "cpu"}
    tl.cluster(cells, method, **short)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_series_equal(read.obs[method], cells.obs[method])
    pd.testing.assert_frame_equal(read.obsm[f"{method}_probabilities"], cells.obsm[f"{method}_probabilities"])
    np.testing.assert_array_equal(read.obsm[f"X_{method}"], cells.obsm[f"X_{method}"])
    record = read.uns["scdeconv"][method]
    assert (record["method"], record["n_genes"], record["seed"]) == (method, 120, 0)


def test_clusters_can_be_cell_types_of_pairs(cohort):
    cells, bulk = cohort[0].copy(), cohort[1]
    tl.cluster(cells, "scdeepcluster", **UNTRAINED)
    mdata = pp.pair(cells, bulk, cell_type_key="scdeepcluster")
    assert list(mdata["bulk"].obsm["measured_fractions"]) == ["0", "1", "2"]


# which genes, layer, batch


def test_genes_marked_highly_variable_are_used(cells):
    cells.var["highly_variable"] = np.arange(120) % 2 == 0
    model = tl.cluster(cells, "scdeepcluster", n_top_genes=10, **UNTRAINED)
    assert list(model.genes_) == list(cells.var_names[::2])
    assert cells.uns["scdeconv"]["scdeepcluster"]["n_genes"] == 60


def test_many_genes_are_reduced_by_scanpy(cells, unchanged):
    import scanpy as sc

    expected = AnnData(cells.X.copy(), var=cells.var[[]].copy())
    sc.pp.normalize_total(expected)
    sc.pp.log1p(expected)
    sc.pp.highly_variable_genes(expected, n_top_genes=50)
    cells.layers["counts"], cells.X = cells.X.copy(), cells.X.log1p()
    with unchanged(cells.var, cells.X, cells.layers["counts"]):
        model = tl.cluster(cells, "scdeepcluster", layer="counts", n_top_genes=50, **UNTRAINED)
    assert list(model.genes_) == list(cells.var_names[expected.var["highly_variable"]])


def test_few_genes_are_all_used(cells):
    assert len(tl.cluster(cells, "scdeepcluster", n_top_genes=120, **UNTRAINED).genes_) == 120


def test_layer_and_storage_do_not_matter(cells):
    tl.cluster(cells, "scdeepcluster", **UNTRAINED)
    other = AnnData(np.asarray(cells.X.log1p().toarray()), obs=cells.obs[[]].copy(), var=cells.var.copy())
    other.layers["counts"] = cells.X.toarray()
    tl.cluster(other, "scdeepcluster", layer="counts", **UNTRAINED)
    np.testing.assert_allclose(other.obsm["X_scdeepcluster"], cells.obsm["X_scdeepcluster"], rtol=1e-3, atol=1e-4)


def test_batch_key_reaches_the_model(cells):
    cells.obs["plate"] = np.where(np.arange(240) % 3 == 0, "a", "b")
    short = {"max_epochs": 1, "resolution": 0.5, "accelerator": "cpu"}
    model = tl.cluster(cells, "desc", batch_key="plate", scale_by_batch=True, **short)
    assert model.batches_ == ["a", "b"]
    assert model.scaling_.mean.shape == (2, 120)


def test_clustering_is_reproducible_without_global_changes(cells, global_state_untouched):
    other = cells.copy()
    with global_state_untouched():
        tl.cluster(cells, "scdeepcluster", **UNTRAINED, seed=5)
    tl.cluster(other, "scdeepcluster", **UNTRAINED, seed=5)
    np.testing.assert_array_equal(cells.obsm["X_scdeepcluster"], other.obsm["X_scdeepcluster"])
    assert cells.obs["scdeepcluster"].equals(other.obs["scdeepcluster"])


def test_no_registered_copy_of_cells_is_kept(cells):
    stored = clustering.ScDeepCluster._setup_adata_manager_store
    before = len(stored)
    model = tl.cluster(cells, "scdeepcluster", **UNTRAINED)
    assert len(stored) == before
    assert len(model.get_clusters()) == 240


# errors: before computing, without changes


def test_unknown_method_is_refused_with_known_names(cells, no_training, unchanged):
    message = r"Expected method to be one of \['desc', .*'scdcc'.*\], found 'kmeans'"
    with unchanged(cells), pytest.raises(ValueError, match=message):
        tl.cluster(cells, "kmeans")


@pytest.mark.parametrize(("method", "name"), [("desc", "n_clusters"), ("scdeepcluster", "constraints")])
def test_unknown_argument_is_refused(cells, no_training, unchanged, method, name):
    with unchanged(cells), pytest.raises(TypeError, match=rf"Expected arguments of .*found \['{name}'\]"):
        tl.cluster(cells, method, **{name: 3})


def test_cell_problems_are_reported_together(cells, no_training, unchanged):
    logs = cells.X.log1p().toarray()
    logs[[3, 8]] = 0
    cells.X = sp.csr_matrix(logs)
    with unchanged(cells), pytest.raises(ValueError, match="3 problems found") as error:
        tl.cluster(cells, "desc", batch_key="plate")
    for expected in ("log-transformed", "rows of zeros: 'cell3', 'cell8'", "Expected obs['plate']"):
        assert expected in str(error.value)


def test_count_models_refuse_fractional_values(cells, no_training, unchanged):
    cells.X = cells.X * 100.25
    with unchanged(cells), pytest.raises(ValueError, match="Expected counts in adata"):
        tl.cluster(cells, "scdeepcluster", n_clusters=3)
    with pytest.raises(pytest.fail.Exception, match="training began"):
        tl.cluster(cells, "desc")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "raw"}, KeyError, "Expected layer 'raw' in adata, found layers"),
        ({"n_clusters": 241}, ValueError, r"at most as many clusters as cells \(240\)"),
        ({"likelihood": "poisson"}, ValueError, "found 'poisson'"),
    ],
)
def test_wrong_values_are_refused_before_computing(cells, no_training, unchanged, arguments, error, message):
    with unchanged(cells), pytest.raises(error, match=message):
        tl.cluster(cells, "scdeepcluster", **arguments)


def test_cells_without_variable_gene_expression_are_named(cells, no_training, unchanged):
    cells.var["highly_variable"] = np.arange(120) < 20
    cells.X = cells.X.toarray()
    cells.X[7, :20] = 0
    with (
        unchanged(cells),
        pytest.raises(ValueError, match="in the 20 used genes, found none in 1 cells: 'cell7'"),
    ):
        tl.cluster(cells, "scdeepcluster", n_clusters=3)


def test_no_variable_genes_are_an_error(cells, no_training, unchanged):
    cells.var["highly_variable"] = False
    with unchanged(cells), pytest.raises(ValueError, match="in the 0 used genes, found none in 240 cells"):
        tl.cluster(cells, "scdeepcluster", n_clusters=3)


def test_nothing_is_written_when_training_fails(cells, unchanged):
    with unchanged(cells), pytest.raises(ValueError, match="found one at resolution=0.0001. Raise resolution"):
        tl.cluster(cells, "scdeepcluster", **{**UNTRAINED, "n_clusters": None, "resolution": 1e-4, "noise": 0.0})
