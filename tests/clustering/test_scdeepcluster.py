from __future__ import annotations

import os
import signal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

from scdeconv._nn import CountAutoencoder, clustering_loss, target_distribution
from scdeconv.clustering import DESC, ScDCC, ScDeepCluster, _scdeepcluster

SMALL = {"n_latent": 8, "hidden": (32, 16), "noise": 1.0, "likelihood": "nb", "scale": "pareto"}
BRIEF = {
    "pretrain_epochs": 20,
    "max_epochs": 10,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "patience": None,
    "accelerator": "cpu",
}
# short training for tests that need no good fit
UNTRAINED = {"pretrain_epochs": 1, "max_epochs": 1}


def trained(cells, batch_key=None, training=None, **architecture):
    ScDeepCluster.setup_anndata(cells, batch_key=batch_key)
    model = ScDeepCluster(cells, **{**SMALL, "n_clusters": 4, **architecture})
    model.train(**{**BRIEF, **(training or {})})
    return model


@pytest.fixture(scope="module")
def cells(make_cells):
    """Do not change."""
    return make_cells()


@pytest.fixture(scope="module")
def model(cells):
    """Do not change."""
    return trained(cells)


@pytest.fixture
def fits(monkeypatch):
    """Calls of the training loop: its arguments, and the optimiser that they make."""
    calls = []
    fit = _scdeepcluster.fit_cells

    def record(module, **arguments):
        calls.append({**arguments, "made": arguments["optimizer"](module.parameters())})
        return fit(module, **arguments)

    monkeypatch.setattr(_scdeepcluster, "fit_cells", record)
    return calls


# learning


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_known_groups_are_found(cells, likelihood):
    model = trained(cells, likelihood=likelihood)
    assert adjusted_rand_score(cells.obs["group"], model.get_clusters()) > 0.9
    assert model.summary_.startswith("4 clusters of 300 cells, 200 genes, 20 + ")


def test_number_of_groups_is_found_by_leiden(cells):
    model = trained(cells, n_clusters=None, resolution=0.3)
    assert model.get_clusters().nunique() == 4
    assert adjusted_rand_score(cells.obs["group"], model.get_clusters()) > 0.9


def test_clusters_are_named_by_size(cells, model):
    clusters, assignments = model.get_clusters(), model.get_soft_assignments()
    assert list(clusters.cat.categories) == list(assignments.columns) == ["0", "1", "2", "3"]
    assert clusters.value_counts(sort=False).is_monotonic_decreasing
    assert list(clusters.index) == list(assignments.index) == list(cells.obs_names)
    assert list(clusters) == list(assignments.idxmax(axis=1))
    np.testing.assert_allclose(assignments.sum(axis=1), 1, rtol=1e-12)
    assert (assignments > 0).all(axis=None)
    latent = model.get_latent_representation()
    assert latent.shape == (300, 8)
    assert latent.dtype == np.float32
    assert repr(model) == f"ScDeepCluster: {model.summary_}"


def test_joint_training_sharpens_assignments(cells, model):
    start = trained(cells, training={"max_epochs": 0})
    end = trained(cells, training={"max_epochs": 25, "tolerance": 0})
    before, after = (1 - which.get_soft_assignments().max(axis=1).mean() for which in (start, end))
    assert after < before / 2
    assert list(end.history["train_loss"].index) == list(range(1, 26))
    assert list(end.history["label_change"].index) == list(range(1, 25))
    # with any tolerance training ends when labels are stable
    assert len(model.history["train_loss"]) < 10
    assert model.history["label_change"].iloc[-1, 0] < 1e-3


def test_reconstruction_improves_during_both_phases(cells):
    model = trained(cells, training={"tolerance": 0, "max_epochs": 15})
    loss = model.history["pretraining_train_loss"].iloc[:, 0]
    assert loss.iloc[-1] < loss.iloc[0] - 0.05
    # the second phase adds a divergence, which is small
    assert model.history["train_loss"].iloc[-1, 0] < loss.iloc[0]


# the parts are put together as in the original


def test_second_phase_has_a_fifth_of_the_rate(cells, fits):
    trained(cells, training={"learning_rate": 0.002, "pretrain_epochs": 2, "max_epochs": 3})
    first, second = fits
    assert {type(call["made"]) for call in fits} == {torch.optim.Adam}
    assert all(call["made"].defaults["amsgrad"] for call in fits)
    assert first["made"].defaults["lr"] == 0.002
    assert second["made"].defaults["lr"] == pytest.approx(0.0004)
    assert (first["max_epochs"], second["max_epochs"]) == (2, 3)
    assert {call["batch_size"] for call in fits} == {64}
    # targets are refreshed in every epoch
    assert second["before_epoch"].update_interval == 1
    assert sum(group.numel() for group in second["made"].param_groups[0]["params"]) == (
        sum(group.numel() for group in first["made"].param_groups[0]["params"]) + 4 * 8
    )


def test_clusters_start_at_the_k_means_centroids(cells):
    model = trained(cells, training={"max_epochs": 0})
    latent = model.get_latent_representation()
    nearest = ((latent[:, None] - model.module.clusters.centroids.detach().numpy()) ** 2).sum(axis=2).argmin(axis=1)
    for cluster in range(4):
        expected = latent[nearest == cluster].mean(axis=0)
        np.testing.assert_allclose(model.module.clusters.centroids[cluster].detach(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_joint_loss_equals_its_formula(cells, gamma):
    model = trained(cells, training=UNTRAINED, gamma=gamma)
    data = model._cells()
    batch = data.batch(np.arange(50), torch.device("cpu"))
    with torch.no_grad():
        autoencoder, clusters = model.module.autoencoder, model.module.clusters
        targets = target_distribution(clusters(autoencoder.encode(batch.x)))
        nll = autoencoder.nll(batch.x, batch.counts, batch.size_factors)
        divergence = clustering_loss(targets, clusters(autoencoder.encode(batch.x)))
        assert divergence > 0
        assert model._joint_loss(model.module, batch, targets, data, 64).item() == pytest.approx(
            (nll + gamma * divergence).item()
        )


def test_targets_belong_to_the_cells_in_the_batch(cells, monkeypatch):
    """Each cell is trained towards its own target, however the cells are shuffled."""
    calls = []
    joint = ScDeepCluster._joint_loss

    def record(self, network, batch, targets, data, batch_size):
        expected = target_distribution(network.assign_cells(data))
        calls.append((batch.rows.numpy(), targets.numpy(), expected.numpy()))
        return joint(self, network, batch, targets, data, batch_size)

    monkeypatch.setattr(ScDeepCluster, "_joint_loss", record)
    trained(cells, training={"max_epochs": 1})
    rows, targets, expected = calls[0]
    assert len(rows) == 64
    assert not np.array_equal(rows, np.sort(rows))
    np.testing.assert_allclose(targets, expected[rows], rtol=1e-4, atol=1e-6)


def test_cells_are_held_out_with_patience_only(cells, fits):
    with_patience = trained(cells, training={"pretrain_epochs": 30, "patience": 2, "learning_rate": 0.03})
    assert len(fits[0]["rows"]) == 270
    assert sorted([*fits[0]["rows"], *fits[0]["validation_rows"]]) == list(range(300))
    assert len(fits[1]["rows"]) == 300
    watched = with_patience.history["pretraining_validation_loss"].iloc[:, 0]
    assert len(watched) < 30
    assert len(watched) == watched.idxmin() + 2
    assert "pretraining_validation_loss" not in trained(cells, training=UNTRAINED).history
    assert len(fits[2]["rows"]) == 300


# empty and single clusters


def test_empty_clusters_are_removed_and_reported(cells, monkeypatch, tmp_path):
    centroids = _scdeepcluster.centroids
    far = np.full((2, 8), 1e4, dtype=np.float32)
    monkeypatch.setattr(_scdeepcluster, "centroids", lambda *arguments: np.concatenate([far, centroids(*arguments)]))
    model = trained(cells)
    assert model.summary_.startswith("4 clusters (2 removed) of 300 cells")
    assert list(model.get_soft_assignments()) == ["0", "1", "2", "3"]
    assert adjusted_rand_score(cells.obs["group"], model.get_clusters()) > 0.9
    model.save(tmp_path / "model")
    assert ScDeepCluster.load(tmp_path / "model").get_clusters(cells).equals(model.get_clusters())


def test_single_cluster_is_an_error(make_cells):
    model = trained(make_cells(n_cells=60), n_clusters=None, resolution=0.5, training=UNTRAINED)
    expected = model.get_clusters()
    model.resolution = 1e-4
    with pytest.raises(ValueError, match=r"at least two clusters, found one at resolution=0.0001\. Raise resolution"):
        model.train(**{**BRIEF, **UNTRAINED})
    # the earlier model is kept
    assert model.get_clusters().equals(expected)


# bad input


def test_all_cell_problems_are_in_one_report(grouped_cells):
    logs = grouped_cells.X.log1p().toarray()
    logs[[7, 11]] = 0
    grouped_cells.X = sp.csr_matrix(logs)
    grouped_cells.var_names = ["gene1", *grouped_cells.var_names[1:]]
    with pytest.raises(ValueError, match="The cells cannot be read: 4 problems found") as error:
        ScDeepCluster.setup_anndata(grouped_cells, batch_key="plate")
    for expected in (
        "Expected unique gene names in adata, found 1 repeated: 'gene1'",
        "found log-transformed values",
        "found 2 rows of zeros: 'cell7', 'cell11'",
        "Expected obs['plate'] in adata, found ['group']",
    ):
        assert expected in str(error.value)
    assert not [key for key in grouped_cells.uns if key.startswith("_scvi")]


def test_fractional_values_are_refused_with_examples(grouped_cells):
    grouped_cells.layers["counts"] = grouped_cells.X.copy()
    grouped_cells.X = grouped_cells.X * 100.25
    with pytest.raises(
        ValueError, match=r"Expected counts in adata, found \d+ values that are not whole numbers, such"
    ):
        ScDeepCluster.setup_anndata(grouped_cells)
    ScDeepCluster.setup_anndata(grouped_cells, layer="counts")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "Expected finite values in adata, found 1 NaN and 0 infinite in 'gene5'"),
        (np.inf, "Expected finite values in adata, found 0 NaN and 1 infinite in 'gene5'"),
        (-1.0, "Expected non-negative values in adata, found 1 negative"),
    ],
)
def test_values_that_cannot_be_counts_are_refused(grouped_cells, value, message):
    grouped_cells.X = grouped_cells.X.toarray()
    grouped_cells.X[3, 5] = value
    with pytest.raises(ValueError, match=message):
        ScDeepCluster.setup_anndata(grouped_cells)


def test_cells_without_a_batch_are_refused(grouped_cells):
    grouped_cells.obs["plate"] = ["a"] * 298 + [None] * 2
    with pytest.raises(
        ValueError, match=r"Expected a batch for every row of adata\.obs\['plate'\], found 2 rows without"
    ):
        ScDeepCluster.setup_anndata(grouped_cells, batch_key="plate")


def test_all_wrong_arguments_are_in_one_report(cells):
    ScDeepCluster.setup_anndata(cells)
    with pytest.raises(ValueError, match="Expected") as error:
        ScDeepCluster(cells, n_clusters=1, likelihood="poisson", scale="robust", hidden=())
    for name in ("n_clusters", "likelihood", "scale", "hidden"):
        assert f"Expected {name} to be " in str(error.value)
    with pytest.raises(ValueError, match=r"at most as many clusters as cells \(300\), found n_clusters=301"):
        ScDeepCluster(cells, n_clusters=301)


def test_untrained_model_is_refused(cells, tmp_path):
    ScDeepCluster.setup_anndata(cells)
    model = ScDeepCluster(cells, **SMALL)
    assert repr(model) == "ScDeepCluster: not trained"
    for use in (model.get_clusters, model.get_latent_representation, lambda: model.save(tmp_path / "model")):
        with pytest.raises(RuntimeError, match="Expected a trained model, found an untrained ScDeepCluster"):
            use()


# unusual valid input


def test_constant_genes_and_few_cells_are_allowed(make_cells):
    cells = make_cells(n_cells=9)
    values = cells.X.toarray()
    values[:, 0], values[:, 1] = 0, 3
    cells.X = sp.csr_matrix(values)
    model = trained(cells, n_clusters=2, training={**UNTRAINED, "patience": 5, "batch_size": 256})
    assert np.isfinite(model.get_soft_assignments()).all(axis=None)


@pytest.mark.filterwarnings("ignore:Training will be faster when sparse matrix is formatted as CSR")
@pytest.mark.parametrize("convert", [sp.csc_matrix, sp.csr_array, lambda x: x.toarray(), lambda x: x.astype(np.int64)])
def test_storage_of_the_counts_does_not_matter(cells, convert):
    expected = trained(cells, training=UNTRAINED).get_soft_assignments()
    other = AnnData(convert(cells.X), obs=cells.obs[[]].copy(), var=cells.var.copy())
    np.testing.assert_allclose(trained(other, training=UNTRAINED).get_soft_assignments(), expected, rtol=1e-3)


def test_counts_are_read_from_the_layer(cells):
    other = AnnData(cells.X.log1p(), obs=cells.obs[[]].copy(), var=cells.var.copy(), layers={"counts": cells.X.copy()})
    ScDeepCluster.setup_anndata(other, layer="counts")
    model = ScDeepCluster(other, n_clusters=4, **SMALL)
    model.train(**{**BRIEF, **UNTRAINED})
    expected = trained(cells, training=UNTRAINED).get_soft_assignments()
    assert model.get_soft_assignments().equals(expected)
    assert model.get_soft_assignments(other, layer="counts").equals(expected)


# new cells


def test_new_cells_are_assigned_by_gene_name(cells, model, unchanged):
    new = cells[::-1, np.random.default_rng(0).permutation(200)].copy()
    new.layers["counts"], new.X = new.X, new.X.log1p()
    with unchanged(new):
        assignments = model.get_soft_assignments(new, layer="counts")
    np.testing.assert_allclose(assignments, model.get_soft_assignments()[::-1], rtol=1e-4)
    assert model.get_clusters(new, layer="counts").equals(model.get_clusters()[::-1])


def test_unseen_cells_are_assigned_to_their_groups(make_cells):
    cells = make_cells(n_cells=500)
    seen, unseen = cells[:350].copy(), cells[350:].copy()
    assert adjusted_rand_score(unseen.obs["group"], trained(seen).get_clusters(unseen)) > 0.9


def test_missing_genes_are_the_mean_with_warning(cells, model):
    kept = np.random.default_rng(0).permutation(200)[:140]
    with pytest.warns(UserWarning, match=r"60 of the model's 200 genes \(30%\) are not in adata") as record:
        assignments = model.get_soft_assignments(cells[:, kept].copy())
    assert adjusted_rand_score(cells.obs["group"], assignments.idxmax(axis=1)) > 0.8
    assert record[0].filename == __file__


def test_too_few_genes_are_refused(cells, model):
    with pytest.raises(ValueError, match="Expected at least half of the model's 200 genes in adata, found 99"):
        model.get_clusters(cells[:, :99].copy())


@pytest.mark.filterwarnings("ignore:.*genes .* are not in adata")
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("storage", [sp.csr_matrix, np.asarray])
def test_new_cell_without_known_genes_is_refused(cells, model, storage):
    """The cell has counts only of genes unknown to the model."""
    counts = cells[:4, 20:].X.toarray()
    counts[1] = 0
    counts = np.hstack([np.full((4, 1), 9.0, dtype=np.float32), counts])
    new = AnnData(storage(counts), var=pd.DataFrame(index=["other", *cells.var_names[20:]]))
    with pytest.raises(ValueError, match="Expected counts in every cell in the genes of the model"):
        model.get_soft_assignments(new)


def test_new_cells_need_no_batch(make_cells):
    cells = make_cells(n_cells=60)
    cells.obs["plate"] = np.where(np.arange(60) < 30, "a", "b")
    model = trained(cells, batch_key="plate", training=UNTRAINED)
    new = AnnData(cells.X, obs=cells.obs[[]].copy(), var=cells.var.copy())
    assert model.get_soft_assignments(new).equals(model.get_soft_assignments())


# files


def test_loaded_model_assigns_as_the_saved_one(cells, model, tmp_path):
    model.save(tmp_path / "model")
    loaded = ScDeepCluster.load(tmp_path / "model")
    assert loaded.get_soft_assignments(cells).equals(model.get_soft_assignments())
    np.testing.assert_array_equal(loaded.get_latent_representation(cells), model.get_latent_representation())
    assert repr(loaded) == repr(model)
    assert (loaded.seed_, loaded.parameters_) == (model.seed_, {**model.parameters_, "hidden": [32, 16]})
    assert list(loaded.history) == list(model.history)
    for name, curve in model.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], curve, check_index_type=False)
    with pytest.raises(RuntimeError, match="Expected training cells, found a loaded model"):
        loaded.train()


def test_files_of_another_class_are_refused(model, tmp_path):
    model.save(tmp_path / "model")
    for cls in (ScDCC, DESC):
        with pytest.raises(ValueError, match=f"Expected a saved {cls.__name__} in .*, found ScDeepCluster"):
            cls.load(tmp_path / "model")


def test_saved_model_is_replaced_only_on_request(cells, model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        model.save(tmp_path / "model")
    other = trained(cells, n_clusters=2, training=UNTRAINED)
    other.save(tmp_path / "model", overwrite=True)
    loaded = ScDeepCluster.load(tmp_path / "model")
    assert loaded.get_soft_assignments(cells).equals(other.get_soft_assignments())
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="Expected only a saved model in .*, found other files: 'notes.txt'"):
        other.save(tmp_path / "model", overwrite=True)


# Ctrl-C


@pytest.mark.parametrize(("phase", "n_epochs"), [(0, (3, 0)), (1, (20, 3))])
def test_ctrl_c_gives_a_complete_model(cells, monkeypatch, tmp_path, phase, n_epochs):
    owner, name = [(CountAutoencoder, "nll"), (ScDeepCluster, "_joint_loss")][phase]
    method, calls = getattr(owner, name), []

    def interrupted(self, *arguments):
        calls.append(1)
        # 5 steps in an epoch
        if len(calls) == 12:
            os.kill(os.getpid(), signal.SIGINT)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, interrupted)
    model = trained(cells, training={"tolerance": 0})
    assert model.interrupted_
    assert f", {n_epochs[0]} + {n_epochs[1]} epochs" in model.summary_
    assert model.get_clusters().nunique() == 4
    model.save(tmp_path / "model")
    loaded = ScDeepCluster.load(tmp_path / "model")
    assert loaded.get_soft_assignments(cells).equals(model.get_soft_assignments())


# repeatability and side effects


@pytest.mark.parametrize("n_clusters", [4, None])
def test_result_depends_on_the_seed_only(cells, n_clusters, global_state_untouched):
    ScDeepCluster.setup_anndata(cells)
    first, again, other = (ScDeepCluster(cells, n_clusters=n_clusters, **SMALL) for _ in range(3))
    settings = {**BRIEF, "pretrain_epochs": 3, "max_epochs": 2}
    with global_state_untouched():
        first.train(**settings, seed=1)
    torch.rand(3)
    again.train(**settings, seed=1)
    other.train(**settings, seed=2)
    assert again.get_soft_assignments().equals(first.get_soft_assignments())
    assert not np.allclose(other.get_latent_representation(), first.get_latent_representation())


def test_training_again_starts_from_scratch(cells):
    model = trained(cells, training=UNTRAINED)
    expected = model.get_soft_assignments()
    model.train(**{**BRIEF, **UNTRAINED})
    assert model.get_soft_assignments().equals(expected)


def test_cells_are_unchanged_except_registration_keys(grouped_cells, unchanged):
    grouped_cells.obs["plate"] = pd.Categorical(np.where(np.arange(300) < 100, "a", "b"))
    before = grouped_cells.copy()
    ScDeepCluster.setup_anndata(grouped_cells, batch_key="plate")
    with unchanged(grouped_cells):
        model = ScDeepCluster(grouped_cells, n_clusters=4, **SMALL)
        model.train(**{**BRIEF, **UNTRAINED})
        model.get_clusters()
        model.get_soft_assignments(grouped_cells)
        model.get_latent_representation(grouped_cells)
    assert {key for key in grouped_cells.uns if not key.startswith("_scvi")} == set()
    assert [column for column in grouped_cells.obs if not column.startswith("_scvi")] == ["group", "plate"]
    for slot in ("obsm", "layers", "varm", "obsp"):
        assert not getattr(grouped_cells, slot)
    assert (grouped_cells.X != before.X).nnz == 0
    assert grouped_cells.obs[["group", "plate"]].equals(before.obs)
