"""The paper's network on pairs: held-out donors, refit, learning and Ctrl-C."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scdeconv import datasets, metrics, pp, tl
from scdeconv._nn import LOSSES, BatchedLinear
from scdeconv.models import SimpleDNN

SMALL = {"hidden": (8,), "n_members": 2}
# this seed learns for about 20 epochs, whatever the release of torch
LEARNS = {"loss": "cross_entropy", "learning_rate": 0.001, "seed": 2, "max_epochs": 60, "patience": 10, **SMALL}


@pytest.mark.parametrize("n_members", [1, 3, 7])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("simplednn", {}),
        ("residual_dnn", {"simulate": None, "base": "ridge"}),
        ("residual_dnn", {"simulate": 20}),
    ],
)
def test_members_never_train_on_their_validation_donors(
    repeated_pairs, fits, donors_of_rows, n_members, refit, method, arguments
):
    donors = donors_of_rows(repeated_pairs)
    settings = {"max_epochs": 1, "learning_rate": 1e-2, "refit": refit, "hidden": (4,), **arguments}
    pp.select_genes(repeated_pairs, 60)
    tl.train(repeated_pairs, method, n_members=n_members, **settings)
    training, validation = fits[0]["data"].weights.numpy()[:, : len(donors)], fits[0]["validation"].weights.numpy()
    # the networks of ResidualDNN hold out one fold each, those of SimpleDNN share 5 folds
    with_refit = 5 * min(2, n_members) if method == "simplednn" else max(5, n_members)
    assert training.shape == validation.shape == (with_refit if refit else n_members, len(donors))
    for member in range(len(training)):
        trained, validated = set(donors[training[member] > 0]), set(donors[validation[member] > 0])
        assert trained
        assert validated
        assert not trained & validated
        assert trained | validated == set(donors)
    if refit or n_members >= 5:
        assert (validation > 0).any(axis=0).all()


def test_donors_have_equal_weight_despite_repeats(repeated_pairs, fits, donors_of_rows):
    donors = donors_of_rows(repeated_pairs)
    tl.train(repeated_pairs, "simplednn", max_epochs=1, **SMALL)
    total = pd.DataFrame((fits[0]["data"].weights + fits[0]["validation"].weights).numpy().T).groupby(donors).sum()
    np.testing.assert_allclose(total, total.iloc[0, 0], rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_kept_weights_have_the_lowest_validation_loss(pairs, fits, loss):
    settings = {"max_epochs": 150, "learning_rate": 0.01, "patience": 30}
    model = tl.train(pairs, "simplednn", refit=False, loss=loss, **settings)
    history = model.history["validation_loss"]["validation_loss"]
    assert 0 < model.best_epoch_ < history.index[-1]
    validation = fits[0]["validation"]
    with torch.no_grad():
        losses = LOSSES[loss](model.module(validation.x), validation.targets.mean(dim=1))
    kept = float((losses * validation.weights).sum() / validation.weights.sum())
    assert kept == pytest.approx(history.min(), rel=1e-6)
    assert history.idxmin() == model.best_epoch_


@pytest.mark.parametrize(("mix", "n_epochs"), [(None, 40), (0, 200)])
def test_only_mixtures_are_trained_without_early_stopping(pairs, fits, mix, n_epochs):
    model = tl.train(pairs, "simplednn", mix=mix, **SMALL)
    assert fits[0]["arguments"]["max_steps"] == n_epochs * (10 if mix is None else 1)
    assert fits[0]["arguments"]["patience"] == (None if mix is None else 10)
    if mix is None:
        assert model.best_epoch_ == n_epochs == len(fits[1]["plan"].train_losses)


def test_refit_takes_all_donors_and_the_best_epochs(pairs, fits):
    model = tl.train(pairs, "simplednn", **LEARNS)
    assert model.best_epoch_ > 0
    assert len(fits) == 2
    assert (fits[1]["data"].weights > 0).all()
    assert fits[1]["data"].weights.shape[0] == 2
    assert fits[1]["validation"] is None
    assert len(fits[1]["plan"].train_losses) == model.best_epoch_
    assert list(model.history) == ["train_loss", "validation_loss", "best_epoch"]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("simplednn", {}),
        ("residual_dnn", {"simulate": None, "base": "ridge"}),
        ("residual_dnn", {"simulate": 20}),
    ],
)
def test_held_out_error_is_that_of_validation_donors(pairs, fits, donors_of_rows, method, arguments):
    pp.select_genes(pairs, 60)
    model = tl.train(pairs, method, max_epochs=3, refit=False, hidden=(4,), n_members=5, **arguments)
    validation, donors = fits[0]["validation"], donors_of_rows(pairs)
    held = validation.weights.numpy() > 0
    # the training loop restores the best weights: the starting weights if the gain is not confirmed
    predicted = torch.softmax(validation.logits(fits[0]["module"], slice(None)), dim=-1).detach().numpy()
    truth = validation.targets.mean(dim=1).numpy()
    kept = pd.DataFrame(model.held_out_.predicted, index=model.held_out_.donors)
    measured = pd.DataFrame(model.held_out_.measured, index=model.held_out_.donors)
    assert sorted(kept.index) == sorted(donors)
    for member, rows in enumerate(held):
        np.testing.assert_allclose(kept.loc[donors[rows]], predicted[member, rows], atol=1e-6)
        np.testing.assert_allclose(measured.loc[donors[rows]], truth[rows], atol=1e-6)
    errors = [((predicted[member] - truth)[rows] ** 2).ravel() for member, rows in enumerate(held)]
    constant = [truth[donors != donor].mean(axis=0) - truth[donors == donor] for donor in donors]
    rmse, baseline = np.sqrt(np.concatenate(errors).mean()), np.sqrt((np.array(constant) ** 2).mean())
    assert f"out-of-fold RMSE {rmse:.4f} (mean composition {baseline:.4f})" in model.summary_


# learning


def test_network_learns_more_than_the_mean(pairs):
    """The paper's network: one multi-layer perceptron, mean squared error, no linear path."""
    model = tl.train(
        *(pairs, "simplednn"), hidden=(32, 16), dropout=0.05, n_members=3, loss="mse", refit=False,
        learning_rate=1e-2, weight_decay=0.0, max_epochs=100
    )  # fmt: skip
    assert model.module.linear is None
    widths = [tuple(layer.weight.shape[1:]) for layer in model.module.perceptrons if isinstance(layer, BatchedLinear)]
    assert widths == [(len(model.genes_), 32), (32, 16), (16, 4)]
    assert [layer.p for layer in model.module.perceptrons if isinstance(layer, torch.nn.Dropout)] == [0.05, 0.05]
    truth = pairs["bulk"].obsm["measured_fractions"].dropna()
    error = metrics.rmse(truth, model.predict(pairs["bulk"], in_sample=True).loc[truth.index])
    assert error < 0.8 * metrics.rmse(truth.to_numpy(), np.tile(truth.mean(), (len(truth), 1)))


def test_mixing_learns_composition_of_unseen_donors():
    """Out-of-fold, from bulk alone: at least 25 % below the mean composition, and below a network without mixtures."""
    _, bulk = datasets.paired_cohort(n_donors=20, n_bulk_only=0, n_genes=300, cells_per_donor=(20, 40), n_cell_types=4)
    bulk.obsm["measured_fractions"] = bulk.obsm["true_fractions"]
    mdata = pp.pair(bulk=bulk)
    errors = [
        tl.train(mdata, "simplednn", n_members=2, hidden=(32,), mix=mix, max_epochs=epochs).held_out_.errors()
        for mix, epochs in ((1, 30), (0, 300))
    ]
    assert errors[0][0] < 0.75 * errors[0][1]
    assert errors[0][0] < errors[1][0]


@pytest.mark.parametrize("across_donors", [True, False])
def test_learns_from_simulated_bulk(pairs, across_donors):
    pp.simulate(pairs, 80, across_donors=across_donors)
    settings = {"hidden": (16,), "n_members": 2, "learning_rate": 0.01, "max_epochs": 60}
    model = tl.train(pairs, "simplednn", train_on="simulated", **settings)
    measured, predicted = model.held_out_.measured, model.held_out_.predicted
    constant = np.tile(measured.mean(axis=0), (len(measured), 1))
    assert metrics.rmse(measured, predicted) < 0.6 * metrics.rmse(measured, constant)


def test_mixtures_use_the_donors_of_a_fold(repeated_pairs, fits, donors_of_rows):
    """Recorded by pp.augment; the weights of the donors' compositions and cell sizes are those of the fold."""
    donors = donors_of_rows(repeated_pairs)
    pp.augment(repeated_pairs, n_aug=3, mix=2)
    tl.train(repeated_pairs, "simplednn", max_epochs=1, **SMALL)
    mixing, held = fits[0]["data"].mixing, fits[0]["validation"].weights.numpy()[::2] > 0
    shape = mixing.concentrations.numpy()
    np.testing.assert_array_equal(shape == 0, held)
    for fold, out in zip(shape, held, strict=True):
        np.testing.assert_allclose(
            pd.Series(fold[~out]).groupby(donors[~out]).sum(), 2 / len(set(donors[~out])), rtol=1e-6
        )
    assert not mixing.noise.numpy().transpose(0, 2, 1)[held].any()
    assert fits[1]["data"].mixing.concentrations.shape == (1, len(donors))


# Ctrl-C


def test_ctrl_c_in_refit_keeps_held_out_networks(pairs, interrupt_fit):
    """An interrupted refit from random weights is not yet trained."""
    modules = interrupt_fit(refit_only=True)
    model = tl.train(pairs, "simplednn", **LEARNS)
    assert model.interrupted_
    assert len(modules) == 2
    kept = modules[0].state_dict()
    assert set(model.state_.networks.weights) == set(kept)
    for name, array in model.state_.networks.weights.items():
        np.testing.assert_array_equal(array, kept[name])
    np.testing.assert_allclose(model.predict(pairs["bulk"], in_sample=True).sum(axis=1), 1, rtol=1e-6)


def test_interrupted_model_can_be_saved_and_loaded(pairs, interrupt_fit, tmp_path):
    interrupt_fit()
    model = tl.train(pairs, "simplednn", **SMALL)
    assert model.interrupted_
    model.save(tmp_path / "model")
    loaded = SimpleDNN.load(tmp_path / "model")
    assert loaded.interrupted_
    assert loaded.predict(pairs["bulk"], in_sample=True).equals(model.predict(pairs["bulk"], in_sample=True))
