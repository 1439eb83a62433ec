"""WeightedEnsemble: weights, out-of-fold predictions, intervals and files."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from scdeconv import datasets, pp, tl
from scdeconv.models import WeightedEnsemble
from scdeconv.models.paired.ensemble import MEMBERS, stack

N_DONORS, N_TYPES = 9, 4


def draw(seed, sds, n_donors=N_DONORS):
    """True fractions, and members with the given errors."""
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


def test_member_with_larger_shared_errors_gets_no_weight():
    """Without bounds its weight would be negative."""
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


def test_identical_members_share_the_weight():
    measured, predicted = draw(0, (0.1,))
    np.testing.assert_allclose(stack(measured, np.repeat(predicted, 4, axis=0), N_DONORS), 0.25, atol=1e-6)


def test_fewer_donors_keep_the_weights_closer_to_equal():
    measured, predicted = draw(1, (0.02, 0.05, 0.1, 0.3))
    departure = [np.abs(stack(measured, predicted, n) - 0.25).max() for n in (1, 4, 9, 1000)]
    assert departure == sorted(departure)
    assert departure[0] < departure[-1]


def test_member_order_does_not_change_weights():
    measured, predicted = draw(2, (0.02, 0.05, 0.1))
    expected = stack(measured, predicted, N_DONORS)
    for order in permutations(range(3)):
        np.testing.assert_allclose(stack(measured, predicted[list(order)], N_DONORS), expected[list(order)], atol=1e-6)


# the model


@pytest.fixture(scope="module")
def trained(cohort):
    with redirect_stdout(StringIO()) as printed:
        model = tl.train(pp.pair(*cohort), "ensemble", seed=3)
    return model, printed.getvalue()


@pytest.fixture(scope="module")
def held_out_of_members(cohort):
    """Out-of-fold predictions of each member, trained on its own."""
    with redirect_stdout(StringIO()):
        mdata = pp.pair(*cohort)
        # the ensemble's members share the genes; alone, bisque selects fewer
        pp.select_genes(mdata, 240)
        return [tl.train(mdata, name).held_out_ for name in MEMBERS]


@pytest.fixture
def model(trained):
    return trained[0]


def test_weights_fit_the_out_of_fold_predictions_best(model, held_out_of_members):
    weights = model.state_.weights
    predicted = np.stack([table.predicted for table in held_out_of_members])
    np.testing.assert_allclose(weights, slsqp(held_out_of_members[0].measured, predicted, 10), atol=2e-4)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(model.held_out_.predicted, np.tensordot(weights, predicted, axes=1))
    np.testing.assert_array_equal(model.held_out_.measured, held_out_of_members[0].measured)


def test_members_hold_out_the_same_samples(model, held_out_of_members):
    assert len(model.held_out_.donors) == 10
    for member in held_out_of_members:
        np.testing.assert_array_equal(member.donors, model.held_out_.donors)
        np.testing.assert_allclose(member.measured, model.held_out_.measured)


def test_members_hold_out_repeated_samples_together(repeated_pairs):
    pp.select_genes(repeated_pairs, 60)
    model = tl.train(repeated_pairs, "ensemble")
    first, *others = (tl.train(repeated_pairs, name).held_out_ for name in MEMBERS)
    assert len(first.donors) > len(np.unique(first.donors)) == 10
    for other in [*others, model.held_out_]:
        np.testing.assert_array_equal(other.donors, first.donors)
        np.testing.assert_allclose(other.measured, first.measured)
    predicted = np.stack([table.predicted for table in (first, *others)])
    np.testing.assert_allclose(model.state_.weights, slsqp(first.measured, predicted, 10), atol=2e-4)


def test_prediction_is_the_weighted_mean_of_members(model, cohort, pairs):
    bulk = cohort[1]
    assert list(MEMBERS) == ["calibrated_map", "calibrated_nnls", "ridge", "bisque"]
    pp.select_genes(pairs, 240)
    members = [tl.train(pairs, name, held_out=False).predict(bulk, in_sample=True) for name in MEMBERS]
    expected = sum(weight * member for weight, member in zip(model.state_.weights, members, strict=True))
    pd.testing.assert_frame_equal(model.predict(bulk, in_sample=True), expected)
    np.testing.assert_allclose(model.predict(bulk, in_sample=True).sum(axis=1), 1)
    assert model.predict(bulk, in_sample=True).columns.tolist() == model.cell_types_


def test_weights_are_printed_on_one_line(trained):
    model, printed = trained
    shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(MEMBERS, model.state_.weights, strict=True))
    line = f"ensemble: 10 donors, 240 genes; weights {shown}; {model.held_out_.describe()}"
    assert printed.splitlines()[-1] == line


def test_saved_model_gives_the_same_predictions(model, cohort, tmp_path):
    model.save(tmp_path / "model")
    loaded = WeightedEnsemble.load(tmp_path / "model")
    bulk = cohort[1]
    pd.testing.assert_frame_equal(loaded.predict(bulk, in_sample=True), model.predict(bulk, in_sample=True))
    pd.testing.assert_frame_equal(loaded.quality(bulk), model.quality(bulk))
    for bound, again in zip(
        model.predict_interval(bulk, 0.9, in_sample=True),
        loaded.predict_interval(bulk, 0.9, in_sample=True),
        strict=True,
    ):
        pd.testing.assert_frame_equal(again, bound)
    np.testing.assert_array_equal(loaded.state_.weights, model.state_.weights)
    assert repr(loaded) == repr(model)
    loaded.save(tmp_path / "again")
    pd.testing.assert_frame_equal(
        WeightedEnsemble.load(tmp_path / "again").predict(bulk, in_sample=True), model.predict(bulk, in_sample=True)
    )
    with pytest.raises(RuntimeError, match="Expected training data, found a loaded model"):
        loaded.train()


def test_bounds_contain_the_estimate(model, cohort):
    fractions = model.predict(cohort[1], in_sample=True)
    lower, upper = model.predict_interval(cohort[1], 0.9, in_sample=True)
    assert ((lower <= fractions + 1e-12) & (fractions <= upper + 1e-12)).all(axis=None)


def test_model_does_not_depend_on_the_seed(model, pairs, cohort):
    other = tl.train(pairs, "ensemble", seed=4)
    assert other.seed_ is None
    assert not WeightedEnsemble.record.stochastic
    pd.testing.assert_frame_equal(
        other.predict(cohort[1], in_sample=True), model.predict(cohort[1], in_sample=True), check_exact=True
    )


def test_data_and_global_state_are_unchanged(pairs, unchanged, global_state_untouched):
    with unchanged(pairs), global_state_untouched():
        tl.train(pairs, "ensemble")


def test_three_pairs_are_refused():
    pairs = pp.pair(*datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(50, 100)))
    with pytest.raises(ValueError, match=r"Expected at least 4 paired donors .*Use method='calibrated_map'"):
        tl.train(pairs, "ensemble")


def test_four_pairs_are_enough():
    cells, bulk = datasets.paired_cohort(n_donors=4, n_genes=300, cells_per_donor=(50, 100))
    model = tl.train(pp.pair(cells, bulk), "ensemble")
    np.testing.assert_allclose(model.predict(bulk, in_sample=True).sum(axis=1), 1)
