from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.linear_model import Ridge

from scdeconv import pp, tl
from scdeconv._data.reference import Reference
from scdeconv._nn import LOSSES, BatchedLinear
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.ridge import FLOOR, LEAST_SD, PENALTIES
from scdeconv.models import SimpleDNN
from scdeconv.models.paired import simplednn as _simplednn
from scdeconv.pp import centred_log_ratio, fit_calibration

SMALL = {"hidden": (8,), "n_members": 2, "simulate": None}


# the starting point


@pytest.mark.parametrize("simulate", [None, 20])
def test_sample_without_any_count_in_the_genes_is_survived(pairs, simulate):
    pp.select_genes(pairs, 20)
    x = pairs["bulk"].X.copy()
    x[0, pairs["bulk"].var["selected"]] = 0
    pairs["bulk"].X = x
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fractions = tl.train(pairs, max_epochs=2, **{**SMALL, "simulate": simulate}).predict(pairs["bulk"])
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)


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
@pytest.mark.parametrize(("name", "arguments"), [("simplednn", {"max_epochs": 0, "simulate": None}), ("ridge", {})])
def test_epoch_0_on_pairs_alone_and_ridge_equal_the_closed_form(pairs, repeated_pairs, several, name, arguments):
    data = repeated_pairs if several else pairs
    pp.select_genes(data, 60)
    bulk = data["bulk"]
    genes = bulk.var["selected"].to_numpy()
    known = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    expected = closed_form(
        bulk.X[known][:, genes],
        bulk.obsm["measured_fractions"].to_numpy()[known],
        bulk.obs["donor"].to_numpy()[known],
        bulk.X[:, genes],
    )
    model = tl.train(data, name, **arguments)
    assert getattr(model, "best_epoch_", 0) == 0
    np.testing.assert_allclose(model.predict(bulk), expected, atol=2e-5)
    assert (FLOOR, LEVEL, LEAST_SD) == (0.01, 10, 0.1)


def test_each_member_starts_from_the_ridge_without_its_held_out_donors(pairs, fits):
    model = tl.train(pairs, "simplednn", max_epochs=0, refit=False, simulate=None)
    bulk = pairs["bulk"][:, model.genes_]
    known = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    x = log_shares(bulk.X.astype(float))
    scale = x[known].std(axis=0) + LEAST_SD
    np.testing.assert_allclose(model.module.scale, scale, rtol=1e-6)
    x = (x - x[known].mean(axis=0)) / scale
    y = centred_log_ratio(bulk.obsm["measured_fractions"].to_numpy(), FLOOR)
    for member, held in enumerate(fits[0]["validation"].weights.numpy() > 0):
        kept = np.flatnonzero(known)[~held]
        weight = model.starts_[member].coefficients * scale[:, None]
        errors = []
        for penalty in PENALTIES:
            unit = ((x[kept] - x[kept].mean(axis=0)) ** 2).sum() / len(kept)
            ridge = Ridge(alpha=penalty * unit).fit(x[kept], y[kept])
            errors.append(np.abs(ridge.coef_.T - weight).max())
        assert min(errors) < 1e-5


def donors_of_rows(mdata):
    """The donor of every row that can be trained on."""
    bulk = mdata["bulk"]
    return bulk.obs["donor"].to_numpy()[bulk.obsm["measured_fractions"].notna().all(axis=1)].astype(str)


def test_epoch_0_with_simulation_equals_the_solution_of_the_calibration(pairs):
    model = tl.train(pairs, "simplednn", max_epochs=0, simulate=20)
    calibration = fit_calibration(pairs, Reference(pairs, model.genes_), model.genes_)
    counts = pairs["bulk"][:, model.genes_].X.astype(float)
    expected = softmax(calibration.model().solve(log_shares(counts), counts.sum(axis=1)), axis=1)
    assert model.best_epoch_ == 0
    np.testing.assert_allclose(model.predict(pairs["bulk"]), expected, atol=2e-5)


def test_each_member_starts_from_the_calibration_without_its_held_out_donors(repeated_pairs, fits):
    model = tl.train(repeated_pairs, "simplednn", max_epochs=0, refit=False, simulate=20)
    bulk, reference = repeated_pairs["bulk"], Reference(repeated_pairs, model.genes_)
    donors = donors_of_rows(repeated_pairs)
    counts = bulk[:, model.genes_].X.astype(float)
    x = log_shares(counts), counts.sum(axis=1)
    for member, held in enumerate(fits[0]["validation"].weights.numpy() > 0):
        calibration = fit_calibration(repeated_pairs, reference, model.genes_, without=set(donors[held]))
        np.testing.assert_allclose(model.starts_[member].solve(*x), calibration.model().solve(*x), rtol=1e-6)
    mean = np.mean([softmax(start.solve(*x), axis=1) for start in model.starts_], axis=0)
    np.testing.assert_allclose(model.predict(bulk), mean, atol=1e-6)


def test_each_member_is_shown_bulk_simulated_without_its_held_out_donors(repeated_pairs, fits, monkeypatch):
    """All donors are behind the bulk of the refit, where nobody is held out and the members share it."""
    drawn = {}

    def recording(*args, without, **kwargs):
        calibration = fit_calibration(*args, without=without, **kwargs)

        def draw_bulk(fractions, rng):
            expression = type(calibration).draw_bulk(calibration, fractions, rng)
            drawn.setdefault(frozenset(without), []).append((log_shares(expression), fractions))
            return expression

        object.__setattr__(calibration, "draw_bulk", draw_bulk)
        return calibration

    monkeypatch.setattr(_simplednn, "fit_calibration", recording)
    donors = donors_of_rows(repeated_pairs)
    pp.select_genes(repeated_pairs, 60)
    settings = {**SMALL, "simulate": 20, "start_from_solution": False, "loss": "cross_entropy", "learning_rate": 0.01}
    model = tl.train(repeated_pairs, "simplednn", max_epochs=5, **settings)
    assert model.best_epoch_ > 0
    first, refit = fits
    for member, held in enumerate(first["validation"].weights.numpy() > 0):
        ((x, fractions),) = drawn[frozenset(donors[held])]
        np.testing.assert_allclose(first["data"].x[member, len(donors) :], x, rtol=1e-6)
        np.testing.assert_allclose(first["data"].targets[member, len(donors) :, 0], fractions, rtol=1e-6)
    ((x, _),) = drawn[frozenset()]
    for member in range(2):
        np.testing.assert_allclose(refit["data"].x[member, len(donors) :], x, rtol=1e-6)


def test_a_pair_weighs_as_ten_simulated_samples_and_held_out_pairs_nothing(repeated_pairs, fits):
    donors = donors_of_rows(repeated_pairs)
    tl.train(repeated_pairs, "simplednn", max_epochs=1, **{**SMALL, "simulate": 20})
    data, held = fits[0]["data"], fits[0]["validation"].weights > 0
    assert data.x.shape[:2] == data.weights.shape == (5, len(donors) + 20)
    real, simulated = data.weights[:, : len(donors)], data.weights[:, len(donors) :]
    assert (simulated == 1).all()
    assert not real[held].any()
    of_rows = real.max(dim=0).values
    assert of_rows.mean().item() == pytest.approx(10, rel=1e-6)
    assert (real[~held] == of_rows.expand(5, -1)[~held]).all()
    for member in range(5):
        np.testing.assert_array_equal(data.x[member, : len(donors)], fits[0]["validation"].x)


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
    tl.train(pairs, "simplednn", max_epochs=6, **arguments, **{**SMALL, "simulate": 20})
    # and 20 simulated samples beside them six
    assert fits[-1]["arguments"]["max_steps"] == 36


def test_no_hidden_layer_is_a_linear_model(pairs):
    model = tl.train(pairs, "simplednn", hidden=(), n_members=2, max_epochs=2, simulate=None)
    assert sum(isinstance(layer, BatchedLinear) for layer in model.module.perceptrons) == 1
