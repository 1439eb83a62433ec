"""The solver of RobustNNLS against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from robust_nnls_data import make_bulk, solve
from scipy.optimize import nnls

from scdeconv._stats.solvers import platform_shift as _platform_shift
from scdeconv._stats.solvers.platform_shift import PlatformShift, learn_shift


def one_iteration_by_loops(signature, bulk, *, counts, sd, trust):
    """Solutions that start the iterations and that follow from them, gene by gene and sample by sample, without any of the code."""
    n_types, n_genes = signature.shape
    scale = sum(float(signature[k].sum()) for k in range(n_types)) / n_types
    faint = 1 / (10 * n_genes)

    def fit(sample, variance):
        rows, right = np.zeros((n_genes, n_types)), np.zeros(n_genes)
        for g in range(n_genes):
            root = 1 / variance[g] ** 0.5
            right[g] = root * sample[g] / sum(sample)
            for k in range(n_types):
                rows[g, k] = root * signature[k, g] / scale
        return nnls(rows, right)[0]

    first, second = [], []
    for sample in bulk:
        typical = [sum(signature[k, g] for k in range(n_types)) / n_types / scale + faint for g in range(n_genes)]
        first.append(fit(sample, [typical[g] ** 2 / trust[g] for g in range(n_genes)]))
        level = [sum(first[-1][k] * signature[k, g] for k in range(n_types)) / scale + faint for g in range(n_genes)]
        noise = [counts * value / max(sum(sample), 1) for value in level]
        second.append(fit(sample, [((sd * level[g]) ** 2 + noise[g]) / trust[g] for g in range(n_genes)]))
    return np.array(first), np.array(second)


def shift_by_loops(signature, bulk, weights):
    n_types, n_genes = signature.shape
    scale, faint = signature.sum() / n_types, 1 / (10 * n_genes)
    logs = []
    for g in range(n_genes):
        observed = sum(sample[g] / sum(sample) for sample in bulk) / len(bulk)
        fitted = sum(x[k] * signature[k, g] / scale for x in weights for k in range(n_types)) / len(bulk)
        logs.append(np.log((observed + faint) / (fitted + faint)))
    middle = np.median(logs)
    sd = max(0.1, 1.4826 * np.median([abs(value - middle) for value in logs]))
    return sd, [3 / (2 + ((value - middle) / sd) ** 2) for value in logs]


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_one_iteration_equals_plain_loops(seed, counts, monkeypatch):
    rng = np.random.default_rng(seed)
    signature, shares, _, _ = make_bulk(seed, 4, shift_sd=0.4, n_far=2, n_genes=50)
    bulk = rng.poisson(shares * [[200], [2000], [20000], [200000]]).astype(float)
    monkeypatch.setattr(_platform_shift, "MAX_ITERATIONS", 1)

    given = PlatformShift(0.25, rng.uniform(0.1, 1.5, 50))
    first, second = one_iteration_by_loops(signature, bulk, counts=counts, sd=given.sd, trust=given.trust)
    np.testing.assert_allclose(solve(signature, bulk, counts=counts, shift=given)[0], (first + second) / 2, atol=1e-8)
    assert np.abs(second - first).max() > 1e-3

    first, second = one_iteration_by_loops(signature, bulk, counts=counts, sd=1.0, trust=np.ones(50))
    sd, trust = shift_by_loops(signature, bulk, (first + second) / 2)
    shift = learn_shift(signature, bulk, counts=counts)
    assert shift.sd == pytest.approx(sd, rel=1e-6)
    np.testing.assert_allclose(shift.trust, trust, rtol=1e-6)


@pytest.mark.parametrize("counts", [False, True])
def test_solution_agrees_with_its_weights(counts):
    rng = np.random.default_rng(0)
    signature, shares, _, _ = make_bulk(0, 5, shift_sd=0.4, n_far=3, n_genes=80)
    bulk = rng.poisson(shares * 5000).astype(float)
    weights, shift = solve(signature, bulk, counts=counts)
    unit = signature / signature.sum(axis=1).mean()
    for sample, found in zip(bulk, weights, strict=True):
        level = found @ unit + 1 / (10 * 80)
        variance = (shift.sd * level) ** 2 + counts * level / sample.sum()
        root = np.sqrt(shift.trust / variance)
        expected = nnls((unit * root).T, sample / sample.sum() * root)[0]
        np.testing.assert_allclose(found, expected, atol=1e-3)
