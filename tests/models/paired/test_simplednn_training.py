from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from scdeconv import datasets, metrics, pp, tl
from scdeconv._nn import LOSSES, BatchedLinear
from scdeconv.models import SimpleDNN
from scdeconv.models.paired import simplednn as _simplednn

SMALL = {"hidden": (8,), "n_members": 2, "simulate": None}


# donors held out


def donors_of_rows(mdata):
    """The donor of every row that can be trained on."""
    bulk = mdata["bulk"]
    return bulk.obs["donor"].to_numpy()[bulk.obsm["measured_fractions"].notna().all(axis=1)].astype(str)


@pytest.mark.parametrize("n_members", [1, 3, 7])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("simulate", [None, 20])
def test_validation_donors_are_never_in_the_training_of_a_member(repeated_pairs, fits, n_members, refit, simulate):
    donors = donors_of_rows(repeated_pairs)
    settings = {"max_epochs": 1, "learning_rate": 1e-2, "refit": refit, "hidden": (4,), "simulate": simulate}
    tl.train(repeated_pairs, "simplednn", n_members=n_members, **settings)
    training, validation = fits[0]["data"].weights.numpy()[:, : len(donors)], fits[0]["validation"].weights.numpy()
    assert training.shape == validation.shape == (max(5, n_members) if refit else n_members, len(donors))
    for member in range(len(training)):
        trained, validated = set(donors[training[member] > 0]), set(donors[validation[member] > 0])
        assert trained
        assert validated
        assert not trained & validated
        assert trained | validated == set(donors)
    if refit or n_members >= 5:
        assert (validation > 0).any(axis=0).all()


def test_ridge_of_a_member_sees_only_the_rows_it_trains_on(repeated_pairs, fits, monkeypatch):
    seen = []
    fit_log_ratios = _simplednn.fit_log_ratios
    monkeypatch.setattr(
        *(_simplednn, "fit_log_ratios"),
        lambda x, fractions, groups: (seen.append(groups), fit_log_ratios(x, fractions, groups))[1],
    )
    donors = donors_of_rows(repeated_pairs)
    tl.train(repeated_pairs, "simplednn", max_epochs=1, refit=False, **SMALL)
    n_members = len(fits[0]["data"].weights)
    for groups, weights in zip(seen[:n_members], fits[0]["data"].weights.numpy(), strict=True):
        assert list(groups) == list(donors[weights > 0])


def test_donors_weigh_the_same_however_many_samples_they_have(repeated_pairs, fits):
    donors = donors_of_rows(repeated_pairs)
    tl.train(repeated_pairs, "simplednn", max_epochs=1, **SMALL)
    total = pd.DataFrame((fits[0]["data"].weights + fits[0]["validation"].weights).numpy().T).groupby(donors).sum()
    np.testing.assert_allclose(total, total.iloc[0, 0], rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_validation_loss_of_the_kept_weights_is_the_lowest_in_history(pairs, fits, loss):
    settings = {
        "simulate": None,
        "start_from_solution": False,
        "max_epochs": 150,
        "learning_rate": 0.01,
        "patience": 30,
    }
    model = tl.train(pairs, "simplednn", refit=False, loss=loss, **settings)
    history = model.history["validation_loss"]["validation_loss"]
    assert 0 < model.best_epoch_ < history.index[-1]
    validation = fits[0]["validation"]
    with torch.no_grad():
        losses = LOSSES[loss](model.module(validation.x), validation.targets.mean(dim=1))
    kept = float((losses * validation.weights).sum() / validation.weights.sum())
    assert kept == pytest.approx(history.min(), rel=1e-6)
    assert history.idxmin() == model.best_epoch_


def test_refit_takes_all_donors_and_as_many_epochs_as_were_best(pairs, fits):
    # this seed learns for about 20 epochs, whatever the release of torch
    settings = {"start_from_solution": False, "loss": "cross_entropy", "learning_rate": 0.001, "seed": 2}
    model = tl.train(pairs, "simplednn", max_epochs=60, **settings, **SMALL)
    assert model.best_epoch_ > 0
    assert len(fits) == 2
    assert (fits[1]["data"].weights > 0).all()
    assert fits[1]["data"].weights.shape[0] == 2
    assert fits[1]["validation"] is None
    assert len(fits[1]["plan"].train_losses) == model.best_epoch_
    assert list(model.history) == ["train_loss", "validation_loss", "best_epoch"]


@pytest.mark.parametrize("simulate", [None, 20])
def test_held_out_error_is_that_of_the_members_on_the_donors_they_left_out(pairs, fits, simulate):
    model = tl.train(pairs, "simplednn", max_epochs=3, refit=False, hidden=(4,), n_members=5, simulate=simulate)
    validation, donors = fits[0]["validation"], donors_of_rows(pairs)
    held = validation.weights.numpy() > 0
    predicted = torch.softmax(validation.logits(model.module, slice(None)), dim=-1).detach().numpy()
    truth = validation.targets.mean(dim=1).numpy()
    kept = pd.DataFrame(model.held_out_.predicted, index=model.held_out_.donors)
    measured = pd.DataFrame(model.held_out_.measured, index=model.held_out_.donors)
    assert sorted(kept.index) == sorted(donors)
    for member, rows in enumerate(held):
        np.testing.assert_allclose(kept.loc[donors[rows]], predicted[member, rows], atol=1e-6)
        np.testing.assert_allclose(measured.loc[donors[rows]], truth[rows], atol=1e-6)
    errors = [((predicted[member] - truth)[rows] ** 2).ravel() for member, rows in enumerate(held)]
    constant = [((truth[~rows].mean(axis=0) - truth[rows]) ** 2).ravel() for rows in held]
    rmse, baseline = (np.sqrt(np.concatenate(squares).mean()) for squares in (errors, constant))
    assert f"held-out RMSE {rmse:.4f} (mean composition {baseline:.4f})" in model.summary_


# augmentation


def test_augmented_fractions_are_the_choices_of_a_row(pairs, fits):
    pp.augment(pairs, n_aug=7, aug_ratio=0.5)
    tl.train(pairs, "simplednn", max_epochs=1, **SMALL)
    known = pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    np.testing.assert_allclose(fits[0]["data"].targets, pairs["bulk"].obsm["augmented_fractions"][known], rtol=1e-6)


def test_sample_whose_cells_were_not_counted_keeps_its_measured_fractions(pairs, fits):
    pp.augment(pairs, n_aug=7)
    row = int(np.flatnonzero(pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1))[0])
    pairs["bulk"].obsm["augmented_fractions"][row] = np.nan
    tl.train(pairs, "simplednn", max_epochs=1, **SMALL)
    measured = pairs["bulk"].obsm["measured_fractions"].iloc[row]
    np.testing.assert_allclose(fits[0]["data"].targets[0], np.tile(measured, (7, 1)), rtol=1e-6)


# learning


@pytest.fixture(scope="module")
def default_cohort():
    return datasets.paired_cohort()


@pytest.mark.parametrize(("simulate", "seed"), [(100, 0), (100, 1), (None, 0), (None, 1)])
def test_beats_the_mean_composition_by_a_quarter_on_held_out_donors(default_cohort, seed, simulate):
    mdata = pp.pair(*default_cohort)
    truth = mdata["bulk"].obsm["measured_fractions"].dropna()
    error, baseline = (
        metrics.rmse(truth, tl.cross_validate(mdata, method, cv=6, seed=seed, **arguments))
        for method, arguments in (("simplednn", {"simulate": simulate}), ("mean_composition", {}))
    )
    assert error < 0.75 * baseline


@pytest.mark.parametrize(("simulate", "seed"), [(100, 0), (100, 1), (None, 0), (None, 1)])
def test_does_no_better_than_the_mean_composition_on_bulk_that_is_pure_noise(default_cohort, seed, simulate):
    cells, bulk = default_cohort
    rng = np.random.default_rng(seed)
    noise = AnnData(rng.poisson(rng.lognormal(4, 1, bulk.shape)), obs=bulk.obs, var=bulk.var)
    mdata = pp.pair(cells, noise)
    truth = mdata["bulk"].obsm["measured_fractions"].dropna()
    error, baseline = (
        metrics.rmse(truth, tl.cross_validate(mdata, method, cv=6, seed=seed, **arguments))
        for method, arguments in (("simplednn", {"simulate": simulate}), ("mean_composition", {}))
    )
    assert 0.98 * baseline < error < 1.2 * baseline


def test_network_that_starts_from_nothing_learns_more_than_the_mean_of_what_it_was_shown(pairs):
    """The paper's network: one multi-layer perceptron, mean squared error, no linear path."""
    model = tl.train(
        *(pairs, "simplednn"), hidden=(32, 16), dropout=0.05, n_members=3, simulate=None, start_from_solution=False, loss="mse",
        refit=False, learning_rate=1e-2, weight_decay=0.0, max_epochs=100
    )  # fmt: skip
    assert model.module.linear is None
    widths = [tuple(layer.weight.shape[1:]) for layer in model.module.perceptrons if isinstance(layer, BatchedLinear)]
    assert widths == [(len(model.genes_), 32), (32, 16), (16, 4)]
    assert [layer.p for layer in model.module.perceptrons if isinstance(layer, torch.nn.Dropout)] == [0.05, 0.05]
    truth = pairs["bulk"].obsm["measured_fractions"].dropna()
    error = metrics.rmse(truth, model.predict(pairs["bulk"]).loc[truth.index])
    assert error < 0.8 * metrics.rmse(truth.to_numpy(), np.tile(truth.mean(), (len(truth), 1)))


@pytest.mark.parametrize("across_donors", [True, False])
def test_learns_from_simulated_bulk_with_and_without_donors(pairs, across_donors):
    pp.simulate(pairs, 80, across_donors=across_donors)
    model = tl.train(pairs, "simplednn", train_on="simulated", max_epochs=5, **SMALL)
    measured, predicted = model.held_out_.measured, model.held_out_.predicted
    constant = np.tile(measured.mean(axis=0), (len(measured), 1))
    assert metrics.rmse(measured, predicted) < 0.6 * metrics.rmse(measured, constant)


# randomness


@pytest.mark.parametrize("simulate", [None, 20])
def test_same_seed_same_fractions_and_another_seed_others(pairs, global_state_untouched, simulate):
    settings = {"start_from_solution": False, "max_epochs": 8, "learning_rate": 0.01, **SMALL, "simulate": simulate}
    with global_state_untouched():
        first, again, other = (tl.train(pairs, "simplednn", seed=seed, **settings) for seed in (3, 3, 4))
    bulk = pairs["bulk"]
    pd.testing.assert_frame_equal(first.predict(bulk), again.predict(bulk), check_exact=True)
    assert not first.predict(bulk).equals(other.predict(bulk))
    assert (first.seed_, other.seed_) == (3, 4)


def test_global_random_state_does_not_matter(pairs):
    first = tl.train(pairs, "simplednn", max_epochs=5, **SMALL).predict(pairs["bulk"])
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = tl.train(pairs, "simplednn", max_epochs=5, **SMALL).predict(pairs["bulk"])
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_seed_and_sizes_may_be_numpy_integers(pairs, tmp_path):
    model = tl.train(
        pairs,
        "simplednn",
        seed=np.int64(3),
        n_members=np.int64(2),
        hidden=np.array([4]),
        simulate=np.int64(20),
        max_epochs=1,
    )
    model.save(tmp_path / "model")
    assert SimpleDNN.load(tmp_path / "model").predict(pairs["bulk"]).equals(model.predict(pairs["bulk"]))


# Ctrl-C


def test_ctrl_c_during_the_refit_keeps_the_members_trained_with_held_out_donors(pairs, monkeypatch):
    """Half a refit of a network that starts from nothing would know next to nothing."""
    fit = _simplednn.fit
    kept = []

    def interrupted_in_the_refit(module, data, loss, **arguments):
        if arguments.get("validation") is None:
            plan = fit(module, data, loss, **{**arguments, "max_steps": 1})
            plan.stop = True
            return plan
        kept.append(module)
        return fit(module, data, loss, **arguments)

    monkeypatch.setattr(_simplednn, "fit", interrupted_in_the_refit)
    # this seed learns for about 20 epochs, whatever the release of torch
    settings = {"start_from_solution": False, "loss": "cross_entropy", "learning_rate": 0.001, "seed": 2}
    model = tl.train(pairs, "simplednn", max_epochs=60, **settings, **SMALL)
    assert model.interrupted_
    assert model.module is kept[0]
    np.testing.assert_allclose(model.predict(pairs["bulk"]).sum(axis=1), 1, rtol=1e-6)


def test_model_that_was_interrupted_can_be_saved_and_loaded(pairs, monkeypatch, tmp_path):
    fit = _simplednn.fit

    def interrupted(module, data, loss, **arguments):
        plan = fit(module, data, loss, **{**arguments, "max_steps": 2})
        plan.stop = True
        return plan

    monkeypatch.setattr(_simplednn, "fit", interrupted)
    model = tl.train(pairs, "simplednn", **SMALL)
    assert model.interrupted_
    model.save(tmp_path / "model")
    assert SimpleDNN.load(tmp_path / "model").predict(pairs["bulk"]).equals(model.predict(pairs["bulk"]))
