"""The weighted mean of several methods: the weights, and that nothing is lost on the way."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from scdeconv import datasets, pp, tl
from scdeconv.models import SimpleDNN, WeightedEnsemble
from scdeconv.models.paired import ensemble as _weighted_ensemble
from scdeconv.models.paired.ensemble import MEMBERS, stack

N_DONORS, N_TYPES = 9, 4


def draw(seed, sds, n_donors=N_DONORS):
    """True fractions and members that miss them by so much."""
    rng = np.random.default_rng(seed)
    measured = rng.dirichlet([4, 2, 1, 1], n_donors)
    noisy = np.maximum(measured + rng.normal(size=(len(sds), *measured.shape)) * np.reshape(sds, (-1, 1, 1)), 0.001)
    return measured, noisy / noisy.sum(axis=2, keepdims=True)


def slsqp(measured, predicted, n_donors):
    """The rule of the docstring, by a general solver."""
    n_members = len(predicted)
    per_donor = np.mean([((member - measured) ** 2).sum() for member in predicted]) / n_donors

    def loss(weights):
        average = sum(weight * member for weight, member in zip(weights, predicted, strict=True))
        return ((average - measured) ** 2).sum() + per_donor * ((weights - 1 / n_members) ** 2).sum()

    return minimize(
        lambda weights: 1e3 * loss(weights),
        np.full(n_members, 1 / n_members),
        method="SLSQP",
        bounds=[(0, 1)] * n_members,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    ).x


# the weights


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sds", [(0.05, 0.05), (0.02, 0.05, 0.1), (0.01, 0.05, 0.1, 0.5), (0.3, 0.3, 0.3, 0.3)])
def test_weights_equal_those_of_a_general_solver(seed, sds):
    measured, predicted = draw(seed, sds)
    weights = stack(measured, predicted, N_DONORS)
    np.testing.assert_allclose(weights, slsqp(measured, predicted, N_DONORS), atol=2e-4)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)


def test_member_that_errs_as_another_only_more_gets_no_weight():
    """Without bounds it would be subtracted."""
    measured, predicted = draw(0, (0.02, 0.02))
    predicted[1] = measured + 3 * (predicted[0] - measured)
    weights = stack(measured, predicted, N_DONORS)
    np.testing.assert_allclose(weights, [1, 0], atol=1e-9)
    np.testing.assert_allclose(weights, slsqp(measured, predicted, N_DONORS), atol=2e-4)


@pytest.mark.parametrize("seed", range(5))
def test_useless_member_gets_little_weight(seed):
    measured, predicted = draw(seed, (0.03, 0.03, 0.03, 0.03), n_donors=20)
    predicted[2] = np.random.default_rng(seed).dirichlet(np.ones(N_TYPES), 20)
    weights = stack(measured, predicted, 20)
    assert weights[2] < 0.1
    assert weights[[0, 1, 3]].min() > 0.15


def test_members_alike_share_the_weight():
    measured, predicted = draw(0, (0.1,))
    np.testing.assert_allclose(stack(measured, np.repeat(predicted, 4, axis=0), N_DONORS), 0.25, atol=1e-6)


def test_fewer_donors_keep_the_weights_closer_to_equal():
    measured, predicted = draw(1, (0.02, 0.05, 0.1, 0.3))
    departure = [np.abs(stack(measured, predicted, n) - 0.25).max() for n in (1, 4, 9, 1000)]
    assert departure == sorted(departure)
    assert departure[0] < departure[-1]


def test_order_of_members_only_orders_the_weights():
    measured, predicted = draw(2, (0.02, 0.05, 0.1))
    expected = stack(measured, predicted, N_DONORS)
    for order in permutations(range(3)):
        np.testing.assert_allclose(stack(measured, predicted[list(order)], N_DONORS), expected[list(order)], atol=1e-6)


# the model


class SmallDNN(SimpleDNN):
    """SimpleDNN that a test can wait for."""

    def __init__(self, data=None):
        super().__init__(data, hidden=(4,), n_members=2, simulate=50)

    def train(self, *, seed=0):
        super().train(max_epochs=2, seed=seed)


@pytest.fixture(scope="module")
def small_members():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_weighted_ensemble.MEMBERS, "simplednn", SmallDNN)
        yield


@pytest.fixture(scope="module")
def trained(cohort, small_members):
    with redirect_stdout(StringIO()) as printed:
        model = tl.train(pp.pair(*cohort), "ensemble", seed=3)
    return model, printed.getvalue()


@pytest.fixture
def model(trained):
    return trained[0]


def test_weights_are_those_of_the_held_out_predictions(model):
    held_out = [member.held_out_ for member in model.members_.values()]
    predicted = np.stack([table.predicted for table in held_out])
    np.testing.assert_allclose(model.weights_, slsqp(held_out[0].measured, predicted, 10), atol=2e-4)
    assert (model.weights_ >= 0).all()
    assert model.weights_.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        model.held_out_.predicted, sum(w * p for w, p in zip(model.weights_, predicted, strict=True))
    )
    np.testing.assert_array_equal(model.held_out_.measured, held_out[0].measured)


def test_held_out_samples_of_all_members_are_the_same(model):
    first, *others = (member.held_out_ for member in model.members_.values())
    assert len(first.donors) == 10
    for other in others:
        np.testing.assert_array_equal(other.donors, first.donors)
        np.testing.assert_allclose(other.measured, first.measured)


@pytest.mark.usefixtures("small_members")
def test_held_out_samples_are_the_same_where_donors_have_several(repeated_pairs):
    model = tl.train(repeated_pairs, "ensemble")
    first, *others = (member.held_out_ for member in model.members_.values())
    assert len(first.donors) > len(np.unique(first.donors)) == 10
    for other in others:
        np.testing.assert_array_equal(other.donors, first.donors)
        np.testing.assert_allclose(other.measured, first.measured)
    np.testing.assert_allclose(
        model.weights_,
        slsqp(first.measured, np.stack([m.held_out_.predicted for m in model.members_.values()]), 10),
        atol=2e-4,
    )


def test_prediction_is_the_weighted_mean_of_the_members_predictions(model, cohort):
    bulk = cohort[1]
    assert list(model.members_) == ["simplednn", "calibrated_nnls", "ridge", "bisque"]
    expected = sum(
        weight * member.predict(bulk) for weight, member in zip(model.weights_, model.members_.values(), strict=True)
    )
    pd.testing.assert_frame_equal(model.predict(bulk), expected)
    np.testing.assert_allclose(model.predict(bulk).sum(axis=1), 1)
    assert model.predict(bulk).columns.tolist() == model.cell_types_


def test_one_line_says_the_weights(trained):
    model, printed = trained
    shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(MEMBERS, model.weights_, strict=True))
    assert printed.splitlines()[-1] == f"ensemble: 10 donors, 240 genes; weights {shown}"
    assert model.seed_ == 3
    assert model.members_["simplednn"].seed_ == 3


def test_saved_model_is_the_same_model(model, cohort, tmp_path):
    model.save(tmp_path / "model")
    loaded = WeightedEnsemble.load(tmp_path / "model")
    bulk = cohort[1]
    pd.testing.assert_frame_equal(loaded.predict(bulk), model.predict(bulk))
    pd.testing.assert_frame_equal(loaded.quality(bulk), model.quality(bulk))
    for bound, again in zip(model.predict_interval(bulk, 0.9), loaded.predict_interval(bulk, 0.9), strict=True):
        pd.testing.assert_frame_equal(again, bound)
    np.testing.assert_array_equal(loaded.weights_, model.weights_)
    assert repr(loaded) == repr(model)
    loaded.save(tmp_path / "again")
    pd.testing.assert_frame_equal(WeightedEnsemble.load(tmp_path / "again").predict(bulk), model.predict(bulk))
    with pytest.raises(RuntimeError, match="Expected data to train on, found none"):
        loaded.train()


def test_bounds_hold_the_estimate(model, cohort):
    fractions = model.predict(cohort[1])
    lower, upper = model.predict_interval(cohort[1], 0.9)
    assert ((lower <= fractions + 1e-12) & (fractions <= upper + 1e-12)).all(axis=None)


@pytest.mark.usefixtures("small_members")
def test_same_seed_gives_the_same_model(model, pairs, cohort):
    pd.testing.assert_frame_equal(tl.train(pairs, "ensemble", seed=3).predict(cohort[1]), model.predict(cohort[1]))


@pytest.mark.usefixtures("small_members")
def test_data_and_global_state_are_left_alone(pairs, unchanged, global_state_untouched):
    with unchanged(pairs), global_state_untouched():
        tl.train(pairs, "ensemble")


@pytest.mark.usefixtures("small_members")
def test_three_pairs_are_too_few_and_the_error_says_what_to_do():
    pairs = pp.pair(*datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(50, 100)))
    with pytest.raises(ValueError, match=r"Expected at least 4 paired donors .*Use method='simplednn'"):
        tl.train(pairs, "ensemble")


@pytest.mark.usefixtures("small_members")
def test_four_pairs_are_enough():
    cells, bulk = datasets.paired_cohort(n_donors=4, n_genes=300, cells_per_donor=(50, 100))
    model = tl.train(pp.pair(cells, bulk), "ensemble")
    np.testing.assert_allclose(model.predict(bulk).sum(axis=1), 1)
