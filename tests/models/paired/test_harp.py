"""Harp: the steps of the paper from the functions of its numerics; penalties, estimates and held-out donors."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv import tl
from scdeconv._stats.solvers import harmonised_profiles as numerics
from scdeconv.models import Harp


def known_rows(mdata):
    return mdata["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()


def trained(mdata, **options):
    model = Harp(mdata, **options)
    model.train(held_out=False)
    return model


@pytest.fixture
def tables(pairs):
    """Measured fractions, bulk with mean 1 and profiles with mean 1 of the small cohort."""
    known = known_rows(pairs)
    bulk = pairs["bulk"].X[known] / pairs["bulk"].X[known].mean(axis=1, keepdims=True)
    reference = pairs["profiles"].X.astype(float)
    return pairs["bulk"].obsm["measured_fractions"].to_numpy()[known], bulk, reference / reference.mean()


def weighted_solutions(profiles, bulk, weights):
    root = np.sqrt(weights)
    return np.linalg.lstsq((profiles * root).T, (bulk * root).T, rcond=None)[0].T


def test_two_rounds_equal_the_steps_of_the_paper(pairs, tables):
    measured, bulk, reference = tables
    first = np.maximum(numerics.fit_profiles(measured, bulk, reference, 1.0), 0)
    first = np.array([profile / profile.mean() for profile in first])
    weights = numerics.correlation_weights(first, bulk, measured)
    solved = np.maximum(weighted_solutions(first, bulk, weights), 0)
    slopes = [np.polyfit(measured[:, k], solved[:, k], 1)[0] for k in range(measured.shape[1])]
    state = trained(pairs, penalty=1.0).state_
    np.testing.assert_allclose(state.recovery, [slope if slope > 0 else 1 for slope in slopes], rtol=1e-4)
    corrected = measured * state.recovery
    expected = np.maximum(numerics.fit_profiles(corrected, bulk, reference, 1.0), 0)
    np.testing.assert_allclose(state.profiles, expected, atol=1e-3)
    weights = numerics.correlation_weights(state.profiles, bulk, corrected)
    np.testing.assert_allclose(state.weights, weights, rtol=1e-4)
    loss = numerics.CorrelationLoss(state.profiles, bulk, corrected)
    assert loss(state.weights)[0] < loss(np.ones(bulk.shape[1]))[0]


def test_estimates_are_clipped_weighted_least_squares(pairs, tables):
    model = trained(pairs, penalty=1.0)
    amounts = np.maximum(weighted_solutions(model.state_.profiles, tables[1], model.state_.weights), 0)
    found = model.predict(pairs["bulk"], in_sample=True)[known_rows(pairs)]
    np.testing.assert_allclose(found, amounts / amounts.sum(axis=1, keepdims=True), atol=1e-7)


def test_library_size_does_not_matter(pairs):
    before = trained(pairs, penalty=1.0)
    bulk = pairs["bulk"].copy()
    bulk.X = bulk.X * 3
    np.testing.assert_allclose(before.predict(bulk, in_sample=True), before.predict(pairs["bulk"], in_sample=True))


def test_penalty_is_chosen_from_the_pairs(pairs, tables):
    measured, bulk, reference = tables
    donors = pairs["bulk"].obs["donor"].astype(str)[known_rows(pairs)].to_numpy()
    names = sorted(set(donors))
    folds = [np.isin(donors, names[fold::5]) for fold in range(5)]
    chosen = numerics.choose_penalty(measured, bulk, reference, folds)
    assert f"penalties {chosen:g} and " in trained(pairs).summary_


def test_large_penalty_keeps_the_reference(pairs, tables):
    np.testing.assert_allclose(trained(pairs, penalty=1e6).state_.profiles, tables[2], atol=1e-3)


def test_negative_penalty_is_refused(pairs):
    with pytest.raises(ValueError, match=r"Expected penalty to be .*, found -1"):
        Harp(pairs, penalty=-1)


def test_error_is_below_the_mean_composition(pairs):
    """The penalty is given, because its choice takes most of the time."""
    error, of_mean = tl.train(pairs, "harp", penalty=1.0, n_genes=40).held_out_.errors()
    assert error < 0.9 * of_mean
