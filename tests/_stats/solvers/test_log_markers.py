"""Marker genes and proportions on the log scale, against loops over genes and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import differential_evolution

from scdeconv._stats.solvers.log_markers import (
    choose_markers,
    log2_cpm,
    mean_by_type,
    score_markers,
    solve_log_residuals,
    solve_marker_logs,
)

TYPES = np.array([0, 0, 0, 1, 1, 2, 2])


@pytest.fixture
def logs():
    """Reference samples of three types, log2 scale; each type has more of some genes."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(2, 50, (3, 120))
    for code in range(3):
        profiles[code, code::3] *= 5
    return log2_cpm(rng.poisson(profiles[TYPES]).astype(float))


def markers_by_loops(logs):
    """The ratio of a type's mean CPM to the sum of the others' means; the best tenth of each type's genes."""
    means = [
        np.mean([2**row for row, code in zip(logs, TYPES, strict=True) if code == kind], axis=0) for kind in range(3)
    ]
    candidates = {kind: [] for kind in range(3)}
    for gene in range(logs.shape[1]):
        ratios = [
            means[kind][gene] / sum(means[other][gene] for other in range(3) if other != kind) for kind in range(3)
        ]
        best = int(np.argmax(ratios))
        candidates[best].append((-ratios[best], gene))
    return [{gene for _, gene in sorted(found)[: max(1, len(found) // 10)]} for found in candidates.values()]


def test_log_cpm_equals_its_formula():
    np.testing.assert_allclose(log2_cpm(np.array([[1.0, 3.0, 0.0]])), [[np.log2(250_001), np.log2(750_001), 0]])


def test_markers_equal_loops_over_genes(logs):
    markers = choose_markers(*score_markers(logs, TYPES, 3), 3)
    assert [set(np.flatnonzero(mine)) for mine in markers] == markers_by_loops(logs)
    assert markers.sum(axis=0).max() == 1


def test_ties_and_empty_types_have_no_markers(logs):
    logs[:, 7] = 3.0
    logs[TYPES == 2] = 0
    cell_type, score = score_markers(logs, TYPES, 4)
    # type 2 has no expression, type 3 no samples
    assert set(cell_type) == {-1, 0, 1}
    assert np.isfinite(score[cell_type >= 0]).all()
    assert not choose_markers(cell_type, score, 4)[2:].any()
    assert not mean_by_type(logs, TYPES, 4)[3].any()


def test_proportions_equal_the_formula(logs):
    profiles = mean_by_type(logs, TYPES, 3)
    markers = choose_markers(*score_markers(logs, TYPES, 3), 3)
    found = solve_marker_logs(logs[:2], profiles, markers, 0.8)
    for sample, proportions in zip(logs[:2], found, strict=True):
        amounts = [
            2 ** (np.mean(sample[mine] - profile[mine]) / 0.8) for mine, profile in zip(markers, profiles, strict=True)
        ]
        np.testing.assert_allclose(proportions, np.array(amounts) / sum(amounts))


def test_pure_specific_types_are_recovered():
    """Markers that no other type expresses: dtangle is exact for gamma 1, apart from the 1 added to CPM."""
    profiles = np.kron(np.eye(3), np.full(40, 1e4))
    truth = np.array([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])
    logs, bulk = np.log2(profiles + 1), truth @ profiles
    markers = choose_markers(*score_markers(logs, np.arange(3), 3), 3)
    np.testing.assert_allclose(solve_marker_logs(np.log2(bulk + 1), logs, markers, 1.0), truth, atol=1e-3)
    used = markers.any(axis=0)
    np.testing.assert_allclose(solve_log_residuals(bulk[:, used] + 1, 2 ** logs[:, used]), truth, atol=1e-3)


def test_types_without_markers_get_proportion_zero(logs):
    markers = choose_markers(*score_markers(logs, TYPES, 3), 3)
    markers[1] = False
    assert not solve_marker_logs(logs, mean_by_type(logs, TYPES, 3), markers, 0.9)[:, 1].any()


def test_log_residuals_reach_the_global_minimum():
    """Differential evolution, the search of the original, with loops over genes."""
    rng = np.random.default_rng(3)
    profiles = rng.gamma(1, 100, (4, 30)) + 1
    bulk = rng.dirichlet(np.ones(4), 2) @ profiles * np.exp(rng.normal(0, 0.5, (2, 30)))

    def variance(x, sample):
        logs = [np.log(value) - np.log(sum(x[k] * profiles[k, g] for k in range(4))) for g, value in enumerate(sample)]
        return np.var(logs, ddof=1)

    for sample, found in zip(bulk, solve_log_residuals(bulk, profiles), strict=True):
        best = differential_evolution(variance, [(1e-9, 1)] * 4, args=(sample,), seed=0, tol=1e-10, maxiter=300)
        assert variance(found, sample) <= best.fun * (1 + 1e-9)
        np.testing.assert_allclose(found, best.x / best.x.sum(), atol=1e-4)
    doubled = solve_log_residuals(2 * bulk, profiles)
    np.testing.assert_allclose(doubled, solve_log_residuals(bulk, profiles), atol=1e-6)
