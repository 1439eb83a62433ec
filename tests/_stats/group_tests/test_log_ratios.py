"""Tests of log-ratios: one type that rises is the only one that differs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scdeconv._stats.group_tests.cluster_robust import LinearModel
from scdeconv._stats.group_tests.log_ratios import (
    adjust_p_values,
    combine_p_values,
    compare_log_ratios,
    errors_of_logs,
    logs_of_fractions,
)

N_TYPES = 6


def model_of(n_samples):
    matrix = np.column_stack([np.ones(n_samples), np.arange(n_samples) % 2])
    return LinearModel(matrix, np.array([1]), np.arange(n_samples), has_intercepts=False)


def draw(rng, n_samples, rise=0.0):
    """Logarithms of amounts; in odd samples, those of the first type are larger."""
    logs = rng.normal(0, 0.4, (n_samples, N_TYPES))
    logs[1::2, 0] += rise
    return logs


def test_without_change_all_types_are_the_reference():
    logs = draw(np.random.default_rng(1), 20)
    found = compare_log_ratios(logs, np.zeros_like(logs), model_of(20))
    centred = logs - logs.mean(axis=1, keepdims=True)
    assert found.in_reference.all()
    expected = stats.ttest_ind(centred[1::2], centred[::2]).pvalue
    assert [test.p_value[0] for test in found.tests] == pytest.approx(expected)


def test_the_rise_of_one_type_changes_no_other():
    calls = np.zeros(N_TYPES)
    for seed in range(40):
        logs = draw(np.random.default_rng(seed), 60, rise=2.0)
        found = compare_log_ratios(logs, np.zeros_like(logs), model_of(60))
        assert found.tests[0].effect[0] == pytest.approx(2.0, abs=0.5)
        calls += adjust_p_values(np.array([test.joint_p_value for test in found.tests])) <= 0.05
    assert calls[0] == 40
    assert calls[1:].mean() < 4
    # fractions and plain centred log-ratios of all types differ
    shares = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
    assert (stats.ttest_ind(shares[1::2], shares[::2]).pvalue < 0.05).sum() >= 5


def test_two_types_stay_in_the_reference():
    logs = draw(np.random.default_rng(0), 30, rise=3.0)[:, :2]
    found = compare_log_ratios(logs, np.zeros_like(logs), model_of(30))
    assert found.in_reference.all()
    assert found.tests[0].effect == pytest.approx(-found.tests[1].effect)


def test_error_share_is_that_of_generated_errors():
    rng = np.random.default_rng(0)
    logs = rng.normal(0, 0.5, (400, N_TYPES)) + rng.normal(0, 1, (400, N_TYPES))
    found = compare_log_ratios(logs, np.ones_like(logs), model_of(400))
    assert found.error_share.mean() == pytest.approx(0.8, abs=0.04)


def test_zeros_count_as_half_a_cell_of_1000():
    counts = np.array([[0, 250, 750], [10, 0, 990]])
    expected = np.log((counts + 0.5) / (1000 + 1.5))
    np.testing.assert_allclose(logs_of_fractions(counts / 1000), expected)


def test_errors_of_logs_equal_simulated_counts():
    rng, mean = np.random.default_rng(0), np.array([0.1, 0.3, 0.6])
    fractions = rng.multinomial(2000, mean, 20000) / 2000
    expected = logs_of_fractions(fractions).var(axis=0)
    found = errors_of_logs(fractions, np.tile(mean * (1 - mean) / 2000, (20000, 1)))
    np.testing.assert_allclose(found[0], expected, rtol=0.03)


def test_false_discovery_rates_ignore_nan():
    p_values = np.array([0.01, np.nan, 0.04, 0.5])
    expected = stats.false_discovery_control(p_values[[0, 2, 3]])
    np.testing.assert_allclose(adjust_p_values(p_values)[[0, 2, 3]], expected)
    assert np.isnan(adjust_p_values(p_values)[1])


def test_combined_p_values_keep_their_level():
    p_values = np.random.default_rng(0).uniform(size=(4000, 5))
    combined = np.array([combine_p_values(row) for row in p_values])
    assert stats.kstest(combined, "uniform").pvalue > 0.01
    assert combine_p_values(np.array([0.03, 0.03])) == pytest.approx(0.03)
    assert combine_p_values(np.array([1e-20, 0.5])) == pytest.approx(2e-20, rel=1e-3)
