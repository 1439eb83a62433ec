from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score
from torch import nn

from scdeconv.clustering import DESC, _desc, _desc_network
from scdeconv.clustering._cells import Cells, Scaling
from scdeconv.clustering._desc import default_hidden
from scdeconv.clustering._desc_network import StackedAutoencoder

N_GENES = 120


def generate(n_cells=360, n_groups=4, batch_shift=0.0, seed=0):
    """Negative binomial counts of groups of unequal size; every third cell is of batch b, whose log means are shifted."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(1.0, 2.0, N_GENES) * np.exp(rng.normal(0, 0.8, (n_groups, N_GENES)))
    groups = rng.permutation(np.arange(n_cells) % (n_groups + 1) % n_groups)
    batches = np.where(np.arange(n_cells) % 3 == 0, "b", "a")
    depth = rng.lognormal(0, 0.3, (n_cells, 1))
    shift = np.where(batches == "b", batch_shift, 0)[:, None] * rng.normal(size=N_GENES)
    mean = profiles[groups] * depth * np.exp(shift)
    counts = rng.negative_binomial(4, 4 / (4 + mean)).astype(np.float32)
    cells = AnnData(sp.csr_matrix(counts))
    cells.obs["group"], cells.obs["batch"] = groups.astype(str), batches
    cells.obs_names, cells.var_names = (
        [f"cell{i}" for i in range(n_cells)],
        [f"gene{i}" for i in range(N_GENES)],
    )
    return cells


def trained(cells, batch_key=None, training=None, **architecture):
    DESC.setup_anndata(cells, batch_key=batch_key)
    model = DESC(cells, **architecture)
    model.train(**(training or {}))
    return model


def agreement(model, cells, column="group", **which):
    return adjusted_rand_score(cells.obs[column], model.get_clusters(**which))


@pytest.fixture(scope="module")
def cells():
    """Do not change."""
    return generate()


@pytest.fixture(scope="module")
def model(cells):
    return trained(cells)


@pytest.fixture
def fits(monkeypatch):
    """Calls of the training loop, each cut short after one epoch: its arguments, learning rate and momentum."""
    calls = []
    fit = _desc.fit_cells

    def record(module, **arguments):
        (group,) = arguments["optimizer"](module.parameters()).param_groups
        calls.append({**arguments, "module": module, "lr": group["lr"], "momentum": group["momentum"]})
        return fit(module, **{**arguments, "max_epochs": 1})

    monkeypatch.setattr(_desc, "fit_cells", record)
    return calls


@pytest.fixture
def short(monkeypatch):
    """Pretraining of 3 epochs at each learning rate, for tests that need no good fit."""
    monkeypatch.setitem(_desc_network.PRETRAINING, "max_epochs", 3)


# the original's constants


@pytest.mark.parametrize(
    ("n_cells", "hidden"),
    [
        *[(10, [16]), (500, [16]), (501, [64]), (2_000, [64]), (2_001, [128]), (5_000, [128])],
        *[(5_001, [32, 16]), (10_000, [32, 16]), (10_001, [64, 32]), (20_000, [64, 32]), (20_001, [128, 32])],
    ],
)
def test_widths_follow_the_original(n_cells, hidden):
    assert default_hidden(n_cells) == hidden


def test_autoencoder_ends_in_tanh():
    autoencoder = StackedAutoencoder([30, 8, 4])
    kinds = [nn.Linear, nn.ReLU, nn.Linear, nn.Tanh]
    assert [type(part) for part in autoencoder.encoder] == kinds
    assert [type(part) for part in autoencoder.decoder] == kinds
    shapes = [
        tuple(part.weight.shape) for part in [*autoencoder.encoder, *autoencoder.decoder] if hasattr(part, "weight")
    ]
    assert shapes == [(8, 30), (4, 8), (8, 4), (30, 8)]


def test_phases_have_the_original_rates_and_epochs(cells, fits):
    trained(cells, hidden=[12, 5], resolution=[0.5, 0.8])
    layer = [(0.1, 0.9), (0.01, 0.9), (0.001, 0.9)]
    fine_tuning = [(10.0**-power, 0) for power in range(6)]
    assert [(call["lr"], call["momentum"]) for call in fits] == [
        *layer,
        *layer,
        *(pytest.approx(pair) for pair in fine_tuning),
        *[(0.01, 0.9)] * 2,
    ]
    assert {call["batch_size"] for call in fits} == {256}
    assert {(call["max_epochs"], call["patience"], call["min_delta"]) for call in fits[:12]} == {(50, 10, 1e-4)}
    assert [call["before_epoch"].update_interval for call in fits[12:]] == [5, 5]
    # the decoder is not trained towards the clusters
    assert all(set(dict(call["module"].named_children())) == {"encoder", "clusters"} for call in fits[12:])


def test_input_is_standardised_within_6(short):
    counts = generate().X.toarray()
    counts[0, 3] = 1e5
    model = trained(AnnData(counts), training={"max_epochs": 0})
    x, _ = model.scaling_.apply(counts, np.zeros(len(counts), dtype=int))
    totals = counts.sum(axis=1, keepdims=True)
    logs = np.log1p(counts / totals * np.median(totals))
    np.testing.assert_allclose(x, np.clip((logs - logs.mean(axis=0)) / logs.std(axis=0), -6, 6), rtol=1e-3, atol=1e-4)
    assert x.max() == 6


# pretraining


def batch_of(cells):
    counts, together = cells.X, np.zeros(len(cells), dtype=int)
    scaling = Scaling.learn(counts, together, scale="unit", clip=6)
    return Cells(counts, together, scaling, np.ones(N_GENES, dtype=bool)).batch(np.arange(40), torch.device("cpu"))


def test_layer_is_trained_alone_on_preceding_output(cells):
    autoencoder, batch = StackedAutoencoder([N_GENES, 10, 7, 4]).eval(), batch_of(cells)
    weights = {name: tensor.detach().numpy() for name, tensor in autoencoder.named_parameters()}

    def apply(half, number, x):
        linear = x @ weights[f"{half}.{number}.weight"].T + weights[f"{half}.{number}.bias"]
        return np.tanh(linear) if number == 4 else np.maximum(linear, 0)

    first = apply("encoder", 0, batch.x.numpy())
    second = apply("encoder", 2, first)
    inputs = {0: batch.x.numpy(), 1: first, 2: second}
    for layer, x in inputs.items():
        expected = ((apply("decoder", 4 - 2 * layer, apply("encoder", 2 * layer, x)) - x) ** 2).mean()
        loss = autoencoder.layer_loss(layer, batch)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        autoencoder.zero_grad()
        loss.backward()
        touched = {name.rsplit(".", 1)[0] for name, tensor in autoencoder.named_parameters() if tensor.grad is not None}
        assert touched == {f"encoder.{2 * layer}", f"decoder.{4 - 2 * layer}"}


def test_layer_input_has_dropout_in_training_only(cells, monkeypatch):
    rates = []
    dropout = nn.functional.dropout
    monkeypatch.setattr(
        *(nn.functional, "dropout"),
        lambda x, rate, training: (rates.append((rate, training)), dropout(x, rate, training))[1],
    )
    autoencoder, batch = StackedAutoencoder([N_GENES, 10, 4]), batch_of(cells)
    autoencoder.layer_loss(0, batch)
    autoencoder.eval().layer_loss(1, batch)
    autoencoder.train().reconstruction_loss(batch)
    assert rates == [(0.2, True)] * 2 + [(0.2, False)] * 2


def test_pretraining_lowers_the_reconstruction_error(cells, monkeypatch):
    errors = []
    pretrain = _desc.pretrain

    def measured(autoencoder, fit):
        errors.append(autoencoder.eval().reconstruction_loss(batch_of(cells)).item())
        result = pretrain(autoencoder, fit)
        errors.append(autoencoder.reconstruction_loss(batch_of(cells)).item())
        return result

    monkeypatch.setattr(_desc, "pretrain", measured)
    model = trained(cells, training={"max_epochs": 0})
    before, after = errors
    # an all-zero reconstruction has an error of about 1
    assert after < 0.7 < 1 < before
    assert list(model.history) == ["layer_1_train_loss", "autoencoder_train_loss", "label_change"]


# clusters


def test_known_groups_are_found(cells, model):
    assert agreement(model, cells) > 0.9
    sizes = model.get_clusters().value_counts(sort=False)
    assert list(sizes.index) == [str(number) for number in range(len(sizes))]
    assert sizes.is_monotonic_decreasing
    assignments = model.get_soft_assignments()
    np.testing.assert_allclose(assignments.sum(axis=1), 1)
    assert list(assignments.index) == list(cells.obs_names)
    assert model.get_latent_representation().shape == (360, 16)
    assert repr(model) == (f"DESC: {len(sizes)} clusters at resolution 0.8; 360 cells, 120 genes, 16 latent dimensions")


def test_cluster_training_sharpens_assignments(cells, model):
    start = trained(cells, training={"max_epochs": 0})
    trained_on = trained(cells, training={"max_epochs": 100, "tolerance": 0})
    surest = [which.get_soft_assignments().max(axis=1).mean() for which in (start, trained_on)]
    assert surest[1] > surest[0] + 0.1
    assert trained_on.history["train_loss"].index.to_list() == list(range(1, 101))
    assert trained_on.history["label_change"].index.to_list() == list(range(5, 100, 5))
    assert len(model.history["train_loss"]) < 100
    assert model.history["label_change"].iloc[-1, 0] < 0.005


def test_scaling_by_batch_removes_a_shift_between_batches():
    cells = generate(batch_shift=1.0)
    together = trained(cells, batch_key="batch")
    apart = trained(cells, batch_key="batch", scale_by_batch=True)
    assert agreement(together, cells) < 0.7
    assert agreement(apart, cells) > 0.9
    assert abs(agreement(apart, cells, "batch")) < 0.05


def test_each_resolution_starts_from_the_same_autoencoder(cells, model):
    several = trained(cells, resolution=(0.8, 3))
    assert several.get_soft_assignments().equals(model.get_soft_assignments())
    fine, default = several.get_clusters(resolution=3), several.get_clusters(resolution=0.8)
    assert fine.nunique() > default.nunique() == several.get_clusters().nunique()
    assert several.get_soft_assignments(resolution=3).shape[1] == fine.nunique()
    default_latent, fine_latent = (several.get_latent_representation(resolution=value) for value in (0.8, 3))
    # trained separately, but close to the starting weights
    assert not np.array_equal(default_latent, fine_latent)
    assert np.corrcoef(default_latent.ravel(), fine_latent.ravel())[0, 1] > 0.8
    assert {"train_loss", "label_change", "train_loss_3", "label_change_3"} <= set(several.history)
    assert f"at resolution 0.8, {fine.nunique()} clusters at resolution 3; 360 cells" in several.summary_
    with pytest.raises(ValueError, match=r"Expected resolution to be one of \[0.8, 3.0\], found 1."):
        several.get_clusters(resolution=1)


def test_single_cluster_is_an_error(short, cells):
    DESC.setup_anndata(cells)
    model = DESC(cells, resolution=[0.8, 0.001])
    with pytest.raises(ValueError, match="Expected at least two clusters, found one at resolution=0.001. Raise resol"):
        model.train()
    with pytest.raises(RuntimeError, match="Expected a trained model"):
        model.get_clusters()


def test_empty_clusters_are_removed_and_counted(cells, model, monkeypatch, tmp_path):
    far = np.full((2, 16), 30.0, dtype=np.float32)
    centroids = _desc.centroids
    monkeypatch.setattr(_desc, "centroids", lambda *arguments: np.concatenate([far, centroids(*arguments)]))
    shrunk = trained(cells)
    n_clusters = model.get_clusters().nunique()
    assert shrunk.summary_.startswith(f"{n_clusters} clusters (2 removed) at resolution 0.8")
    assert shrunk.get_soft_assignments().shape[1] == n_clusters
    assert agreement(shrunk, cells) > 0.9
    shrunk.save(tmp_path / "model")
    assert DESC.load(tmp_path / "model").get_clusters(cells).equals(shrunk.get_clusters())


# Ctrl-C


@pytest.mark.parametrize("phase", ["layer 1", "autoencoder", "resolution 0.8", "resolution 2"])
def test_ctrl_c_keeps_weights_and_finds_clusters(cells, monkeypatch, tmp_path, phase):
    fit = _desc.fit_cells
    fits = []

    def interrupted(module, *, loss, description, **arguments):
        def loss_and_signal(batch):
            if description.endswith(phase) and not any(stopped for *_, stopped in fits):
                os.kill(os.getpid(), signal.SIGINT)
            return loss(batch)

        plan = fit(module, loss=loss_and_signal, description=description, **arguments)
        fits.append((description, len(plan.train_losses), plan.stop))
        return plan

    monkeypatch.setattr(_desc, "fit_cells", interrupted)
    model = trained(cells, resolution=[0.8, 2])
    assert model.interrupted_
    stopped = [stop for *_, stop in fits].index(True)
    assert fits[stopped][0].endswith(phase)
    assert all(n_epochs == 0 for _, n_epochs, _ in fits[stopped + 1 :])
    assert model.get_clusters().nunique() > 1
    assert model.get_clusters(resolution=2).nunique() > 1
    model.save(tmp_path / "model")
    loaded = DESC.load(tmp_path / "model")
    assert loaded.get_soft_assignments(cells, resolution=2).equals(model.get_soft_assignments(resolution=2))


# files, new cells, repeatability


def test_loaded_model_assigns_as_the_saved_one(short, tmp_path):
    cells = generate()
    model = trained(
        cells, batch_key="batch", scale_by_batch=True, hidden=[20, 6], resolution=[0.6, 1.5], training={"max_epochs": 5}
    )
    model.save(tmp_path / "model")
    loaded = DESC.load(tmp_path / "model")
    for resolution in (None, 0.6, 1.5):
        expected = model.get_soft_assignments(resolution=resolution)
        assert loaded.get_soft_assignments(cells, resolution=resolution).equals(expected)
    assert loaded.get_latent_representation(cells).shape == (360, 6)
    assert repr(loaded) == repr(model)
    for name, curve in model.history.items():
        assert curve.equals(loaded.history[name])


def test_order_of_cells_and_genes_does_not_matter(cells, model):
    other = cells[::-1, np.random.default_rng(0).permutation(N_GENES)].copy()
    other.layers["counts"] = other.X.toarray()
    other.X = sp.csr_matrix(np.ones(other.shape))
    clusters = model.get_clusters(other, layer="counts")
    assert clusters.equals(model.get_clusters()[::-1])


def test_new_cells_are_assigned_to_their_groups():
    cells = generate(n_cells=600)
    seen, unseen = cells[:400].copy(), cells[400:].copy()
    model = trained(seen, resolution=0.4)
    assert adjusted_rand_score(unseen.obs["group"], model.get_clusters(unseen)) > 0.9


def test_new_cells_need_batches_if_scaled_by_batch(short):
    cells = generate(n_cells=150)
    few = {"training": {"max_epochs": 0}}
    together = trained(cells, batch_key="batch", **few)
    apart = trained(cells, batch_key="batch", scale_by_batch=True, **few)
    new = AnnData(cells.X, var=cells.var[[]])
    assert list(together.get_clusters(new)) == list(together.get_clusters())
    with pytest.raises(KeyError, match="Expected obs\\['batch'\\] in adata"):
        apart.get_clusters(new)


def test_same_seed_gives_the_same_result(cells, model, global_state_untouched):
    DESC.setup_anndata(cells)
    again, other = DESC(cells), DESC(cells)
    with global_state_untouched():
        again.train(seed=0)
    other.train(seed=1, max_epochs=0)
    assert again.get_soft_assignments().equals(model.get_soft_assignments())
    assert not np.allclose(other.get_latent_representation(), model.get_latent_representation())


def test_sparse_and_dense_cells_give_the_same_result(cells, model):
    dense = cells.copy()
    dense.X = cells.X.toarray()
    assert trained(dense).get_soft_assignments().equals(model.get_soft_assignments())


def test_training_and_assigning_leave_the_cells_unchanged(short, unchanged):
    cells = generate(n_cells=150)
    DESC.setup_anndata(cells, batch_key="batch")
    with unchanged(cells):
        model = DESC(cells, scale_by_batch=True)
        model.train()
        model.get_clusters()
        model.get_soft_assignments(cells)


# wrong arguments


def test_all_wrong_arguments_are_reported_at_once(cells):
    DESC.setup_anndata(cells)
    with pytest.raises(ValueError, match=r"resolution .*found \[0.8, 0\](.|\n)*hidden .*found \[32, 0\]"):
        DESC(cells, resolution=[0.8, 0], hidden=[32, 0])
    with pytest.raises(ValueError, match="2 problems found") as error:
        DESC(cells, resolution=[0.8, 0.8], scale_by_batch=True)
    for found in ("found [0.8, 0.8]", "Expected a batch_key for scale_by_batch=True, found none"):
        assert found in str(error.value)


@pytest.mark.parametrize("resolution", [[], -1])
def test_resolutions_must_be_positive(resolution):
    with pytest.raises(ValueError, match="Expected resolution to be a list of numbers or a number above 0"):
        DESC(resolution=resolution)


def test_untrained_model_is_refused(cells):
    DESC.setup_anndata(cells)
    with pytest.raises(RuntimeError, match="Expected a trained model, found an untrained DESC"):
        DESC(cells, resolution=[0.8, 1]).get_clusters(resolution=1)
