"""Compositions with known parts, compared with loops and closed forms."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.known_parts import KnownParts, error_of_parts

NAN = np.nan


def parts(values, se=None, of=None, sd=np.inf, n_types=4):
    values = np.array(values, dtype=float)
    of = np.eye(n_types)[:, : values.shape[1]] if of is None else np.array(of, dtype=float)
    se = np.zeros_like(values) if se is None else np.array(se, dtype=float)
    return KnownParts(values, se, of, np.full(values.shape[1], sd))


@pytest.fixture
def estimates():
    return np.random.default_rng(0).dirichlet(np.ones(4), 30)


def test_rescaling_equals_a_loop_over_samples(estimates):
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 0.4, (30, 2))
    values[rng.random((30, 2)) < 0.4] = NAN
    found = parts(values).rescale(estimates)
    for row, value, estimate in zip(found, values, estimates, strict=True):
        known = [k for k in range(2) if not np.isnan(value[k])]
        expected = estimate * (1 - sum(value[k] for k in known)) / sum(estimate[k] for k in range(4) if k not in known)
        expected[known] = value[known]
        np.testing.assert_allclose(row, expected)


def test_types_of_a_sum_keep_their_ratios(estimates):
    found = parts(np.full((30, 1), 0.3), of=[[1], [1], [0], [0]]).rescale(estimates)
    np.testing.assert_allclose(found[:, :2].sum(axis=1), 0.3)
    for pair in ((0, 1), (2, 3)):
        np.testing.assert_allclose(found[:, pair[0]] / found[:, pair[1]], estimates[:, pair[0]] / estimates[:, pair[1]])


def test_types_without_estimate_share_the_rest_equally():
    given, estimate = parts([[0.4]]), np.array([[1.0, 0, 0, 0]])
    np.testing.assert_allclose(given.rescale(estimate), [[0.4, 0.2, 0.2, 0.2]])
    assert given.shared_equally(estimate, 0.01)[0]
    assert not given.shared_equally(np.full((1, 4), 0.25), 0.01)[0]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_values_are_kept(value, estimates):
    found = parts(np.full((30, 1), value)).rescale(estimates)
    np.testing.assert_allclose(found[:, 0], value)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_samples_without_known_values_are_unchanged(estimates):
    np.testing.assert_allclose(parts(np.full((30, 2), NAN)).rescale(estimates), estimates)
    assert np.isnan(parts([[0.5]]).rescale(np.full((1, 4), NAN))).all()


def test_compromise_is_the_precision_weighted_mean(estimates):
    given = parts(np.full((30, 1), 0.4), se=np.full((30, 1), 0.02), sd=0.05)
    expected = (0.4 / 0.02**2 + estimates[:, 0] / 0.05**2) / (1 / 0.02**2 + 1 / 0.05**2)
    np.testing.assert_allclose(given.compromise(estimates).rescale(estimates)[:, 0], expected)
    exact = parts(np.full((30, 1), 0.4), sd=0.05)
    np.testing.assert_allclose(exact.compromise(estimates).values, 0.4)


def test_without_error_the_known_value_replaces(estimates):
    given = parts(np.full((30, 1), 0.4), se=np.full((30, 1), 0.1))
    np.testing.assert_allclose(given.compromise(estimates).values, 0.4)


def test_bounds_of_known_parts_are_normal():
    given = parts([[0.4, 0.2]], se=[[0.02, 0.0]], sd=0.05)
    lower, upper, mine = given.bounds(np.array([[0.41, 0.2, 0.3, 0.09]]), np.eye(4), 0.9)
    assert mine.tolist() == [[True, True, False, False]]
    half = 1.6449 * np.sqrt(1 / (1 / 0.02**2 + 1 / 0.05**2))
    np.testing.assert_allclose(lower, [[0.41 - half, 0.2, NAN, NAN]], rtol=1e-4)
    np.testing.assert_allclose(upper, [[0.41 + half, 0.2, NAN, NAN]], rtol=1e-4)


def test_patterns_group_samples_with_equal_errors():
    given = parts(
        [[0.1, NAN], [0.2, 0.1], [0.3, NAN], [NAN, NAN], [0.1, NAN]], se=[[0], [0], [0], [0], [0.1]] * np.ones(2)
    )
    assert sorted(map(list, given.patterns())) == [[0, 2], [1], [3], [4]]


@pytest.fixture
def held_out():
    rng = np.random.default_rng(2)
    measured = rng.dirichlet(np.full(4, 3.0), 40)
    predicted = np.abs(measured + rng.normal(0, 0.05, measured.shape))
    return HeldOut(measured, predicted / predicted.sum(axis=1, keepdims=True), np.arange(40).astype(str))


def test_held_out_predictions_use_their_measured_values(held_out):
    found = parts([[0.9]]).given(held_out)
    np.testing.assert_allclose(found.predicted[:, 0], held_out.measured[:, 0])
    np.testing.assert_allclose(found.predicted, parts(held_out.measured[:, :1]).rescale(held_out.predicted))


def test_standard_errors_widen_held_out_errors(held_out):
    sizes = [
        np.abs((given := parts([[0.5]], se=[[se]]).given(held_out)).predicted - given.measured)[:, 1:].mean()
        for se in (0.0, 0.05, 0.2)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_error_of_a_sum_uses_summed_errors(held_out):
    of = np.array([[1.0], [1.0], [0.0], [0.0]])
    errors = (held_out.predicted - held_out.measured)[:, :2].sum(axis=1)
    np.testing.assert_allclose(error_of_parts(held_out, of), np.sqrt((errors**2).mean()))
    assert error_of_parts(None, of).tolist() == [np.inf]


def test_bounds_stay_within_what_is_left():
    """Against the extremes of all compositions on a grid that have the known values."""
    steps = np.arange(11) / 10
    grid = np.array([row for row in product(steps, repeat=4) if np.isclose(sum(row), 1)])
    of = np.array([[1, 0], [0, 1], [0, 1], [0, 0]], dtype=float)
    sums = np.column_stack([np.eye(4), [1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]])
    values = np.array([[0.3, np.nan], [0.3, 0.5], [1.0, 0.0], [np.nan, np.nan], [0.2, 0.6]])
    se = np.zeros_like(values)
    se[4, 1] = 0.1
    parts = KnownParts(values, se, of, np.full(2, np.inf))
    lower, upper = parts.limit(np.zeros((5, 8)), np.ones((5, 8)), sums)
    for row, low, high in zip(np.where(se > 0, np.nan, values), lower, upper, strict=True):
        possible = grid[(np.isnan(row) | np.isclose(grid @ of, row)).all(axis=1)] @ sums
        np.testing.assert_allclose(low, possible.min(axis=0), atol=1e-9)
        np.testing.assert_allclose(high, possible.max(axis=0), atol=1e-9)
