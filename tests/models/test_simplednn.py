from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.special import softmax
from sklearn.linear_model import Ridge

from scdeconv import datasets, metrics, pp, tl
from scdeconv.models import SimpleDNN, _simplednn
from scdeconv.models._ridge import PENALTIES
from scdeconv.models._simplednn import FLOOR, LEAST_SD, LEVEL, log_expression
from scdeconv.nn import LOSSES, BatchedLinear, centred_log_ratio

SMALL = {"hidden": (8,), "n_members": 2}


@pytest.fixture
def fits(monkeypatch):
    """Every call of the training loop: its data as they were, its arguments and its plan."""
    calls = []
    fit = _simplednn.fit

    def spy(module, data, loss, **arguments):
        plan = fit(module, data, loss, **arguments)
        calls.append({"module": module, "data": data, "loss": loss, "arguments": arguments, "plan": plan})
        return plan

    monkeypatch.setattr(_simplednn, "fit", spy)
    return calls


def several_samples_per_donor(pairs):
    """Donors with one, two and three samples: the bulk of a donor again at another depth, with other noise."""
    bulk = pairs["bulk"]
    rng = np.random.default_rng(0)
    repeats = 1 + np.arange(bulk.n_obs) % 3
    rows = np.repeat(np.arange(bulk.n_obs), repeats)
    names = pd.Index([f"sample{i}" for i in range(len(rows))])
    counts = rng.poisson(bulk.X[rows] * rng.uniform(0.3, 1, (len(rows), 1))).astype(np.int32)
    more = AnnData(counts, obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    return pp.make_mudata({**pairs.mod, "bulk": more})


# what the network reads


def test_log_expression_equals_its_formula():
    rng = np.random.default_rng(0)
    counts, reference = rng.poisson(20, (4, 30)).astype(float), rng.dirichlet(np.ones(30))
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * LEVEL * 30)
    np.testing.assert_allclose(log_expression(counts, reference), expected)


def test_depth_of_a_sample_changes_nothing():
    rng = np.random.default_rng(0)
    counts, reference = rng.poisson(20, (4, 30)).astype(float), rng.dirichlet(np.ones(30))
    np.testing.assert_allclose(log_expression(counts * 37, reference), log_expression(counts, reference))


def test_missing_genes_take_the_reference_and_leave_the_others_as_they_would_be():
    """A sample that is exactly like the reference is read the same whatever genes are missing."""
    reference = np.random.default_rng(0).dirichlet(np.ones(30))
    complete = log_expression(1e4 * reference[None], reference)
    partial = 1e4 * reference[None].repeat(3, axis=0)
    partial[0, :10], partial[1, 5], partial[2, 20:] = np.nan, np.nan, np.nan
    np.testing.assert_allclose(log_expression(partial, reference), complete.repeat(3, axis=0))


def test_sample_without_any_count_in_the_genes_is_survived(pairs):
    pp.select_genes(pairs, 20)
    x = pairs["bulk"].X.copy()
    x[0, pairs["bulk"].var["selected"]] = 0
    pairs["bulk"].X = x
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fractions = tl.train(pairs, max_epochs=2, **SMALL).predict(pairs["bulk"])
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)


# the starting point


def closed_form(expression, fractions, donors, new):
    """The ridge solution in scikit-learn, its penalty by explicit refits without each donor."""
    expression, new = np.asarray(expression, dtype=float), np.asarray(new, dtype=float)
    scaled = [np.log1p(10 * x.shape[1] * x / x.sum(axis=1, keepdims=True)) for x in (expression, new)]
    x, x_new = ((values - scaled[0].mean(axis=0)) / (scaled[0].std(axis=0) + 0.1) for values in scaled)
    logs = np.log(np.maximum(fractions, 0.01))
    y = logs - logs.mean(axis=1, keepdims=True)
    unit = ((x - x.mean(axis=0)) ** 2).sum() / len(x)

    def error(penalty):
        predicted = np.empty_like(y)
        for donor in np.unique(donors):
            out = donors == donor
            predicted[out] = Ridge(alpha=penalty * unit).fit(x[~out], y[~out]).predict(x[out])
        return np.mean((softmax(predicted, axis=1) - fractions) ** 2)

    best = min(PENALTIES, key=error)
    return softmax(Ridge(alpha=best * unit).fit(x, y).predict(x_new), axis=1)


@pytest.mark.parametrize("several", [False, True])
def test_epoch_0_equals_the_closed_form_ridge_solution(pairs, several):
    pp.select_genes(pairs, 60)
    data = several_samples_per_donor(pairs) if several else pairs
    bulk = data["bulk"]
    genes = bulk.var["selected"].to_numpy()
    known = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    expected = closed_form(
        bulk.X[known][:, genes],
        bulk.obsm["measured_fractions"].to_numpy()[known],
        bulk.obs["donor"].to_numpy()[known],
        bulk.X[:, genes],
    )
    model = tl.train(data, "simplednn", max_epochs=0)
    assert model.best_epoch_ == 0
    np.testing.assert_allclose(model.predict(bulk), expected, atol=2e-5)
    assert (FLOOR, LEVEL, LEAST_SD) == (0.01, 10, 0.1)


def test_each_member_starts_from_the_ridge_without_its_held_out_donors(pairs, fits):
    model = tl.train(pairs, "simplednn", max_epochs=0, refit=False)
    bulk = pairs["bulk"][:, model.genes_]
    known = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    x = log_expression(bulk.X.astype(float), model.module.reference.numpy().astype(float))
    x = (x - model.module.centre.numpy()) / model.module.scale.numpy()
    y = centred_log_ratio(bulk.obsm["measured_fractions"].to_numpy(), FLOOR)
    for member, held in enumerate(fits[0]["data"].validation.numpy() > 0):
        kept = np.flatnonzero(known)[~held]
        weight = model.module.linear.weight[member].detach().numpy()
        errors = []
        for penalty in PENALTIES:
            unit = ((x[kept] - x[kept].mean(axis=0)) ** 2).sum() / len(kept)
            ridge = Ridge(alpha=penalty * unit).fit(x[kept], y[kept])
            errors.append(np.abs(ridge.coef_.T - weight).max())
        assert min(errors) < 1e-5


# donors held out


@pytest.mark.parametrize("n_members", [1, 3, 7])
@pytest.mark.parametrize("refit", [True, False])
def test_validation_donors_are_never_in_the_training_of_a_member(pairs, fits, n_members, refit):
    data = several_samples_per_donor(pairs)
    measured = data["bulk"].obsm["measured_fractions"]
    donors = data["bulk"].obs["donor"].to_numpy()[measured.notna().all(axis=1)]
    tl.train(data, "simplednn", max_epochs=1, learning_rate=1e-2, refit=refit, hidden=(4,), n_members=n_members)
    training, validation = fits[0]["data"].weights.numpy(), fits[0]["data"].validation.numpy()
    assert training.shape == validation.shape == (max(5, n_members) if refit else n_members, len(donors))
    for member in range(len(training)):
        trained, validated = set(donors[training[member] > 0]), set(donors[validation[member] > 0])
        assert trained
        assert validated
        assert not trained & validated
        assert trained | validated == set(donors)
    if refit or n_members >= 5:
        assert (validation > 0).any(axis=0).all()


def test_ridge_of_a_member_sees_only_the_rows_it_trains_on(pairs, fits, monkeypatch):
    seen = []
    fit_ridge = _simplednn.fit_ridge
    monkeypatch.setattr(
        *(_simplednn, "fit_ridge"), lambda x, y, groups, error: (seen.append(groups), fit_ridge(x, y, groups, error))[1]
    )
    data = several_samples_per_donor(pairs)
    donors = data["bulk"].obs["donor"].to_numpy()[data["bulk"].obsm["measured_fractions"].notna().all(axis=1)]
    tl.train(data, "simplednn", max_epochs=1, refit=False, **SMALL)
    for groups, weights in zip(seen, fits[0]["data"].weights.numpy(), strict=True):
        assert list(groups) == list(donors[weights > 0])


def test_donors_weigh_the_same_however_many_samples_they_have(pairs, fits):
    data = several_samples_per_donor(pairs)
    donors = data["bulk"].obs["donor"].to_numpy()[data["bulk"].obsm["measured_fractions"].notna().all(axis=1)]
    tl.train(data, "simplednn", max_epochs=1, **SMALL)
    total = pd.DataFrame((fits[0]["data"].weights + fits[0]["data"].validation).numpy().T).groupby(donors).sum()
    np.testing.assert_allclose(total, total.iloc[0, 0], rtol=1e-6)


def test_validation_loss_of_the_kept_weights_is_the_lowest_in_history(pairs, fits):
    model = tl.train(pairs, "simplednn", refit=False, linear_start=False, max_epochs=150, learning_rate=0.01, patience=30)
    history = model.history["validation_loss"]["validation_loss"]
    assert 0 < model.best_epoch_ < history.index[-1]
    data = fits[0]["data"]
    with torch.no_grad():
        losses = LOSSES["cross_entropy"](model.module(data.x), data.targets.mean(dim=1))
    kept = float((losses * data.validation).sum() / data.validation.sum())
    assert kept == pytest.approx(history.min(), rel=1e-6)
    assert history.idxmin() == model.best_epoch_


def test_refit_takes_all_donors_and_as_many_epochs_as_were_best(pairs, fits):
    model = tl.train(pairs, "simplednn", linear_start=False, max_epochs=12, learning_rate=0.01, **SMALL)
    assert model.best_epoch_ > 0
    assert len(fits) == 2
    assert (fits[1]["data"].weights > 0).all()
    assert fits[1]["data"].weights.shape[0] == 2
    assert fits[1]["data"].validation is None
    assert len(fits[1]["plan"].train_losses) == model.best_epoch_
    assert list(model.history) == ["train_loss", "validation_loss"]


def test_held_out_error_is_that_of_the_members_on_the_donors_they_left_out(pairs, fits):
    model = tl.train(pairs, "simplednn", max_epochs=3, refit=False, hidden=(4,), n_members=5)
    data = fits[0]["data"]
    held = data.validation.numpy() > 0
    predicted = torch.softmax(model.module(data.x), dim=-1).detach().numpy()
    truth = data.targets.mean(dim=1).numpy()
    errors = [((predicted[member] - truth)[rows] ** 2).ravel() for member, rows in enumerate(held)]
    assert model.held_out_["rmse"] == pytest.approx(np.sqrt(np.concatenate(errors).mean()), rel=1e-4)
    constant = [((truth[~rows].mean(axis=0) - truth[rows]) ** 2).ravel() for rows in held]
    assert model.held_out_["rmse_mean_composition"] == pytest.approx(np.sqrt(np.concatenate(constant).mean()), rel=1e-4)
    assert f"{model.held_out_['rmse']:.4f}" in model.summary_


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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beats_the_mean_composition_by_a_quarter_on_held_out_donors(default_cohort, seed):
    mdata = pp.pair(*default_cohort)
    truth = mdata["bulk"].obsm["measured_fractions"].dropna()
    error, baseline = (
        metrics.rmse(truth, tl.cross_validate(mdata, method, cv=6, seed=seed))
        for method in ("simplednn", "mean_composition")
    )
    assert error < 0.75 * baseline


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_does_no_better_than_the_mean_composition_on_bulk_that_is_pure_noise(default_cohort, seed):
    cells, bulk = default_cohort
    rng = np.random.default_rng(seed)
    noise = AnnData(rng.poisson(rng.lognormal(4, 1, bulk.shape)), obs=bulk.obs, var=bulk.var)
    mdata = pp.pair(cells, noise)
    truth = mdata["bulk"].obsm["measured_fractions"].dropna()
    error, baseline = (
        metrics.rmse(truth, tl.cross_validate(mdata, method, cv=6, seed=seed))
        for method in ("simplednn", "mean_composition")
    )
    assert 0.98 * baseline < error < 1.2 * baseline


def test_network_without_linear_start_learns_more_than_the_mean_of_what_it_was_shown(pairs):
    """The paper's network: one multi-layer perceptron, mean squared error, no linear path."""
    model = tl.train(
        *(pairs, "simplednn"), hidden=(32, 16), dropout=0.05, n_members=1, linear_start=False, loss="mse", refit=False,
        learning_rate=1e-2, weight_decay=0.0, max_epochs=100
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
    pp.simulate(pairs, 150, across_donors=across_donors)
    model = tl.train(pairs, "simplednn", train_on="simulated", max_epochs=20, **SMALL)
    assert model.held_out_["rmse"] < 0.6 * model.held_out_["rmse_mean_composition"]


# randomness


def test_same_seed_same_fractions_and_another_seed_others(pairs, global_state_untouched):
    settings = {"linear_start": False, "max_epochs": 8, "learning_rate": 0.01, **SMALL}
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
    model = tl.train(pairs, "simplednn", seed=np.int64(3), n_members=np.int64(2), hidden=np.array([4]), max_epochs=1)
    model.save(tmp_path / "model")
    assert SimpleDNN.load(tmp_path / "model").predict(pairs["bulk"]).equals(model.predict(pairs["bulk"]))


# Ctrl-C


def test_ctrl_c_during_the_refit_keeps_the_members_trained_with_held_out_donors(pairs, monkeypatch):
    """Half a refit of a network without linear start would know next to nothing."""
    fit = _simplednn.fit
    kept = []

    def interrupted_in_the_refit(module, data, loss, **arguments):
        if data.validation is None:
            plan = fit(module, data, loss, **{**arguments, "max_steps": 1})
            plan.stop = True
            return plan
        kept.append(module)
        return fit(module, data, loss, **arguments)

    monkeypatch.setattr(_simplednn, "fit", interrupted_in_the_refit)
    model = tl.train(pairs, "simplednn", linear_start=False, max_epochs=30, learning_rate=0.01, **SMALL)
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


# doors and arguments


def bulk_with_truth(pairs):
    bulk = pairs["bulk"]
    return bulk[bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()].copy()


def test_model_of_an_anndata_equals_the_model_of_the_mudata(pairs):
    bulk = bulk_with_truth(pairs)
    SimpleDNN.setup_anndata(bulk)
    single = SimpleDNN(bulk, **SMALL)
    single.train(max_epochs=3)
    SimpleDNN.setup_mudata(pairs)
    joint = SimpleDNN(pairs, **SMALL)
    joint.train(max_epochs=3)
    pd.testing.assert_frame_equal(single.predict(bulk), joint.predict(bulk), check_exact=True)


def test_model_of_an_anndata_with_ensembl_versions_predicts_bulk_with_others(pairs):
    bulk = bulk_with_truth(pairs)
    bulk.var_names = [f"ENSG{i:011d}.3" for i in range(bulk.n_vars)]
    SimpleDNN.setup_anndata(bulk)
    model = SimpleDNN(bulk, **SMALL)
    model.train(max_epochs=1)
    expected = model.predict(bulk)
    bulk.var_names = [f"ENSG{i:011d}.7" for i in range(bulk.n_vars)]
    pd.testing.assert_frame_equal(model.predict(bulk), expected, check_exact=True)


@pytest.mark.parametrize(("container", "key"), [("obs", "donor"), ("obsm", "measured_fractions")])
def test_anndata_without_donors_or_truth_is_refused_by_name(pairs, container, key):
    bulk = bulk_with_truth(pairs)
    del getattr(bulk, container)[key]
    with pytest.raises(KeyError, match=rf"Expected {container}\['{key}'\] in adata"):
        SimpleDNN.setup_anndata(bulk)


def test_simulated_bulk_that_is_not_there_is_named(pairs):
    with pytest.raises(KeyError, match=r"Expected modality 'simulated' to train on, .*Call pp.simulate"):
        SimpleDNN.setup_mudata(pairs, train_on="simulated")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "kl"}, r"Expected loss to be one of \['cross_entropy', 'l1', 'mse'\], found 'kl'"),
        ({"dropout": (0.1, 0.2, 0.3)}, "Expected a dropout rate for each of 2 hidden layers, found 3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimpleDNN(**arguments)


def test_one_donor_is_refused(pairs):
    bulk = bulk_with_truth(pairs)
    bulk.obs["donor"] = "the same"
    SimpleDNN.setup_anndata(bulk)
    with pytest.raises(ValueError, match="Expected samples of at least 2 donors to train on, found 1"):
        SimpleDNN(bulk, **SMALL).train()


@pytest.mark.parametrize("n_donors", [2, 3, 4])
@pytest.mark.parametrize("refit", [True, False])
def test_few_donors_are_enough(pairs, n_donors, refit):
    bulk = bulk_with_truth(pairs)[:n_donors].copy()
    SimpleDNN.setup_anndata(bulk)
    model = SimpleDNN(bulk, hidden=(4,), n_members=5)
    model.train(max_epochs=3, refit=refit)
    np.testing.assert_allclose(model.predict(bulk).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_one_that_is_minimised(pairs, fits, loss):
    tl.train(pairs, "simplednn", loss=loss, max_epochs=2, **SMALL)
    assert fits[0]["loss"] is LOSSES[loss]


def test_training_arguments_reach_the_training_loop(pairs, fits):
    arguments = {"learning_rate": 0.02, "weight_decay": 0.3, "patience": 4, "batch_size": 5}
    tl.train(pairs, "simplednn", max_epochs=6, **arguments, **SMALL)
    assert {name: fits[0]["arguments"][name] for name in arguments} == arguments
    # 10 rows in batches of 5 are two steps an epoch
    assert fits[0]["arguments"]["max_steps"] == 12


def test_no_hidden_layer_is_a_linear_model(pairs):
    model = tl.train(pairs, "simplednn", hidden=(), n_members=2, max_epochs=2)
    assert sum(isinstance(layer, BatchedLinear) for layer in model.module.perceptrons) == 1
