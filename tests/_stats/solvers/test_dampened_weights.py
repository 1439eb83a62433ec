"""Dampened weighted least squares against plain loops over samples, caps and halves."""

from __future__ import annotations

import numpy as np
import pytest
from dwls_data import noisy_mixtures
from scipy.optimize import nnls

from scdeconv._stats.expression import to_shares
from scdeconv._stats.solvers import dampened_weights
from scdeconv._stats.solvers.dampened_weights import Halves, choose_caps, solve_dwls


def plain_cap(signature, sample, start, halves):
    weights = 1 / (start @ signature) ** 2
    weights = weights / weights.min()
    variances = []
    for power in range(int(np.ceil(np.log2(weights[np.isfinite(weights)].max())))):
        root = np.sqrt(np.minimum(weights, 2.0**power))
        solutions = []
        for half in halves:
            found = np.linalg.lstsq((signature * root)[:, half].T, (sample * root)[half], rcond=None)[0]
            solutions.append(found * start.sum() / found.sum())
        variances.append(np.std(solutions, axis=0, ddof=1) ** 2)
    return 2.0 ** np.argmin(np.mean(variances, axis=1))


def plain_dwls(signature, sample, halves):
    """The original's loop for one sample, by other solvers; its change in percent of the first solution."""
    solution = nnls(signature.T, sample)[0]
    cap, unit = plain_cap(signature, sample, solution, halves), solution.sum() / 100
    for _ in range(1000):
        with np.errstate(divide="ignore"):
            weights = 1 / (solution @ signature) ** 2
        root = np.sqrt(np.minimum(weights / weights.min(), cap))
        new = nnls((signature * root).T, sample * root)[0]
        average = (new + 4 * solution) / 5
        change, solution = np.abs(average - solution).sum(), average
        if change <= 0.01 * unit:
            break
    return solution


def same_halves(n_genes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n_genes)[: n_genes // 2] for _ in range(100)]


@pytest.fixture
def one_batch(monkeypatch):
    """Use 100 halves for all caps, as the original."""
    monkeypatch.setattr(dampened_weights, "MOST_HALVES", 100)


def test_caps_equal_a_plain_loop(one_batch):
    signature, bulk, start = noisy_mixtures(n_samples=3)
    caps = choose_caps(signature, bulk, start)
    halves = same_halves(60)
    assert caps.tolist() == [plain_cap(signature, *pair, halves) for pair in zip(bulk, start, strict=True)]
    assert (caps > 1).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_solutions_equal_a_plain_loop(seed, one_batch):
    signature, bulk, _ = noisy_mixtures(seed)
    solutions = solve_dwls(signature, bulk)
    halves = same_halves(60)
    np.testing.assert_allclose(solutions, [plain_dwls(signature, sample, halves) for sample in bulk], atol=1e-7)


def test_dropping_caps_early_changes_fractions_little(monkeypatch):
    signature, bulk, _ = noisy_mixtures(n_samples=6)
    fractions = to_shares(solve_dwls(signature, bulk))
    monkeypatch.setattr(dampened_weights, "MAX_Z", 1e9)
    monkeypatch.setattr(dampened_weights, "SAME_FRACTIONS", 0)
    np.testing.assert_allclose(to_shares(solve_dwls(signature, bulk)), fractions, atol=0.02)


def test_caps_do_not_depend_on_the_other_samples():
    signature, bulk, start = noisy_mixtures(n_samples=3)
    caps = choose_caps(signature, bulk, start)
    assert choose_caps(signature, bulk[[2]], start[[2]]).tolist() == [caps[2]]


def test_all_iterations_use_the_same_gene_halves():
    halves = Halves(60, seed=0)
    batches = list(halves)
    assert [len(batch) for batch in batches] == [100, 100, 200, 400, 800, 1600, 3200]
    assert all(first is second for first, second in zip(batches, halves, strict=True))
    assert (np.vstack(batches).sum(axis=1) == 30).all()


def test_genes_fitted_as_zero_get_the_capped_weight():
    signature = np.kron(np.eye(3), np.ones(20)) * np.linspace(1, 2, 60)
    bulk = np.array([[2.0, 1.0, 0.0]]) @ signature
    np.testing.assert_allclose(solve_dwls(signature, bulk), [[2, 1, 0]], atol=1e-12)


def test_low_markers_of_rare_types_have_influence():
    rng = np.random.default_rng(0)
    signature = np.hstack([rng.gamma(9, 100, (3, 20)), np.kron(np.eye(3), rng.gamma(4, 0.3, 30))])
    truth = np.tile([0.6, 0.37, 0.03], (30, 1))
    bulk = truth @ signature * rng.lognormal(0, 0.2, (30, 110))
    errors = [
        np.abs(to_shares(solution) - truth)[:, 2].mean()
        for solution in (solve_dwls(signature, bulk), np.array([nnls(signature.T, sample)[0] for sample in bulk]))
    ]
    assert errors[0] < errors[1] / 2
