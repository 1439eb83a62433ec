"""Batched non-negative and robust least squares against SciPy and MASS::rlm, one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from scdeconv._stats import least_squares as _least_squares
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import (
    normal_equations,
    solve_huber,
    solve_least_squares,
    solve_nonnegative,
    solve_weighted,
    weighted_gram,
)

SEEDS = range(25)
N_SAMPLES = 12


def independent(rng, n_types, n_genes):
    return rng.gamma(1, 1, (n_types, n_genes)), rng.gamma(1, 1, (N_SAMPLES, n_genes))


def correlated(rng, n_types, n_genes):
    """Profiles that differ by 5 percent, as those of similar cell types."""
    signature, bulk = independent(rng, n_types, n_genes)
    return rng.gamma(1, 1, n_genes) + 0.05 * signature, bulk


def signed(rng, n_types, n_genes):
    return rng.normal(size=(n_types, n_genes)), rng.normal(size=(N_SAMPLES, n_genes))


def of_any_scale(rng, n_types, n_genes):
    signature, bulk = independent(rng, n_types, n_genes)
    return signature * 10 ** rng.uniform(-6, 6, (n_types, 1)), bulk * 10 ** rng.uniform(-8, 8, (N_SAMPLES, 1))


def mostly_absent(rng, n_types, n_genes):
    """Noise-free mixtures of one or two of the types."""
    signature, _ = independent(rng, n_types, n_genes)
    present = rng.gamma(1, 1, (N_SAMPLES, n_types)) * (rng.random((N_SAMPLES, n_types)) < 1.5 / n_types)
    return signature, present @ signature


KINDS = [independent, correlated, signed, of_any_scale, mostly_absent]


def problems(kind):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        n_types = int(rng.integers(1, 20))
        yield kind(rng, n_types, n_types + int(rng.integers(5, 40)))


def solve(signature, bulk):
    return solve_nonnegative(signature @ signature.T, bulk @ signature.T)


def one_by_one(signature, bulk):
    return np.array([nnls(signature.T, sample, maxiter=10_000)[0] for sample in bulk])


def in_units_of_bulk(weights, signature, bulk):
    """Contribution of each weight to its sample, which has the same scale for all samples."""
    size = np.linalg.norm(bulk, axis=1, keepdims=True)
    return weights * np.linalg.norm(signature, axis=1) / np.where(size > 0, size, 1)


@pytest.fixture
def no_rescue(monkeypatch):
    """Fail if the solver falls back to scipy."""
    monkeypatch.setattr(_least_squares, "nnls", lambda *_: pytest.fail("the exchange did not end"))


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_equal_those_of_scipy_for_each_sample(kind, no_rescue):
    for signature, bulk in problems(kind):
        found, expected = solve(signature, bulk), one_by_one(signature, bulk)
        np.testing.assert_allclose(
            in_units_of_bulk(found, signature, bulk), in_units_of_bulk(expected, signature, bulk), atol=1e-7
        )
        assert (found >= 0).all()


def test_solutions_equal_lsq_linear():
    signature, bulk = correlated(np.random.default_rng(3), 6, 40)
    for found, sample in zip(solve(signature, bulk), bulk, strict=True):
        expected = lsq_linear(signature.T, sample, bounds=(0, np.inf), tol=1e-14).x
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_fulfil_the_conditions_of_optimality(kind):
    """The gradient is zero where a weight is positive and points outwards where it is zero (Karush-Kuhn-Tucker)."""
    n_positive = n_zero = 0
    for signature, bulk in problems(kind):
        weights = solve(signature, bulk)
        sizes = np.linalg.norm(bulk, axis=1, keepdims=True) * np.linalg.norm(signature, axis=1)
        gradient = (weights @ signature - bulk) @ signature.T / np.maximum(sizes, np.finfo(float).tiny)
        assert (np.abs(gradient[weights > 0]) < 1e-8).all()
        assert (gradient[weights == 0] > -1e-8).all()
        n_positive, n_zero = n_positive + (weights > 0).sum(), n_zero + (weights == 0).sum()
    assert min(n_positive, n_zero) > 100


def test_underdetermined_fits_are_as_good_as_scipy():
    """The solution is not unique, but its residual is."""
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        n_types = int(rng.integers(3, 20))
        signature, bulk = independent(rng, n_types, int(rng.integers(1, n_types)))
        found, expected = solve(signature, bulk), one_by_one(signature, bulk)
        assert (found >= 0).all()
        left = [np.linalg.norm(weights @ signature - bulk, axis=1) for weights in (found, expected)]
        assert (left[0] <= left[1] + 1e-6 * np.linalg.norm(bulk, axis=1)).all()


@pytest.mark.filterwarnings("error")
def test_type_without_a_profile_is_ignored():
    signature, bulk = independent(np.random.default_rng(0), 6, 30)
    others = np.array([0, 1, 3, 4, 5])
    expected = solve(signature[others], bulk)
    signature[2] = 0
    found = solve(signature, bulk)
    assert (found[:, 2] == 0).all()
    np.testing.assert_allclose(found[:, others], expected, atol=1e-10)
    assert (solve(np.zeros((6, 30)), bulk) == 0).all()


@pytest.mark.filterwarnings("error")
def test_sample_without_signal_is_zero():
    signature, bulk = independent(np.random.default_rng(1), 5, 30)
    expected = solve(signature, bulk)
    bulk[[0, 7]] = 0
    found = solve(signature, bulk)
    assert (found[[0, 7]] == 0).all()
    others = np.delete(np.arange(N_SAMPLES), [0, 7])
    np.testing.assert_allclose(found[others], expected[others], atol=1e-12)


def test_sample_opposed_to_all_profiles_is_zero():
    signature, bulk = independent(np.random.default_rng(2), 5, 30)
    assert (solve(signature, -bulk) == 0).all()


def test_no_samples_give_no_solutions():
    assert solve(np.ones((3, 4)), np.ones((0, 4))).shape == (0, 3)


@pytest.mark.filterwarnings("error")
def test_identical_profiles_share_their_weight():
    signature, bulk = independent(np.random.default_rng(4), 5, 30)
    expected = solve(signature, bulk)
    found = solve(signature[[0, 1, 2, 3, 4, 1, 1]], bulk)
    same = found[:, [1, 5, 6]]
    np.testing.assert_allclose(same.sum(axis=1), expected[:, 1], atol=1e-8)
    np.testing.assert_allclose(same, np.repeat(expected[:, [1]] / 3, 3, axis=1), atol=0.01)
    np.testing.assert_allclose(found[:, [0, 2, 3, 4]], expected[:, [0, 2, 3, 4]], atol=1e-8)
    assert (expected[:, 1] > 0.01).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("difference", [0, 1e-12, 1e-9, 1e-7, 1e-5])
def test_near_identical_profiles_fit_as_scipy(difference):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        distinct, bulk = independent(rng, 4, 25)
        signature = distinct[rng.integers(4, size=12)] * (1 + difference * rng.normal(size=(12, 25)))
        left = [
            np.linalg.norm(weights @ signature - bulk, axis=1)
            for weights in (solve(signature, bulk), one_by_one(signature, bulk))
        ]
        np.testing.assert_allclose(left[0], left[1], rtol=1e-8)


def test_cycling_pivots_reach_the_solution(no_rescue):
    """Exchanging all infeasible variables at once never ends for 212 of these 4,000 samples."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        signature = rng.normal(size=(5, 3)) @ rng.normal(size=(3, 10)) + 0.1 * rng.normal(size=(5, 10))
        bulk = rng.normal(size=(200, 10))
        np.testing.assert_allclose(solve(signature, bulk), one_by_one(signature, bulk), atol=1e-8)


def test_unsolved_samples_fall_back_to_scipy(monkeypatch):
    signature, bulk = independent(np.random.default_rng(5), 4, 30)
    expected, solve_free = one_by_one(signature, bulk), _least_squares._solve_free
    first = (bulk @ signature[0] / np.linalg.norm(signature[0]))[[2, 9]]

    def fail_for_two(gram, moment, free):
        solution = solve_free(gram, moment, free)
        solution[np.isclose(moment[:, :1], first, rtol=1e-12).any(axis=1)] = -1
        return solution

    monkeypatch.setattr(_least_squares, "_solve_free", fail_for_two)
    rescued = []
    monkeypatch.setattr(_least_squares, "nnls", lambda *args: (rescued.append(1), nnls(*args))[1])
    np.testing.assert_allclose(solve(signature, bulk), expected, atol=1e-7)
    assert len(rescued) == 2


def test_solutions_do_not_depend_on_the_batch():
    signature, bulk = correlated(np.random.default_rng(6), 8, 30)
    expected = solve(signature, bulk)
    order = np.random.default_rng(7).permutation(N_SAMPLES)
    np.testing.assert_allclose(solve(signature, bulk[order]), expected[order], atol=1e-12)
    for sample, alone in zip(bulk, expected, strict=True):
        np.testing.assert_allclose(solve(signature, sample[None])[0], alone, atol=1e-12)


def test_common_and_repeated_gram_agree():
    signature, bulk = correlated(np.random.default_rng(8), 7, 30)
    gram = signature @ signature.T
    each = np.repeat(gram[None], N_SAMPLES, axis=0)
    moment = bulk @ signature.T
    np.testing.assert_array_equal(solve_nonnegative(each, moment), solve_nonnegative(gram, moment))


def test_arguments_are_not_changed():
    signature, bulk = independent(np.random.default_rng(9), 4, 20)
    gram, moment = signature @ signature.T, bulk @ signature.T
    before = gram.copy(), moment.copy()
    solve_nonnegative(gram, moment)
    np.testing.assert_array_equal(gram, before[0])
    np.testing.assert_array_equal(moment, before[1])


@pytest.mark.parametrize("kind", KINDS)
def test_sample_weights_equal_a_plain_loop(kind, no_rescue):
    for seed, (signature, bulk) in enumerate(problems(kind)):
        weights = np.random.default_rng(seed).gamma(1, 1, bulk.shape)
        root = np.sqrt(weights)
        expected = np.array(
            [nnls((signature * r).T, sample * r, maxiter=10_000)[0] for sample, r in zip(bulk, root, strict=True)]
        )
        found = solve_weighted(signature, bulk, weights)
        np.testing.assert_allclose(
            in_units_of_bulk(found, signature, bulk), in_units_of_bulk(expected, signature, bulk), atol=1e-6
        )


def test_weighted_gram_equals_plain_loops():
    rng = np.random.default_rng(12)
    signature, weights = rng.normal(size=(4, 7)), rng.gamma(1, 1, (3, 7))
    found = weighted_gram(signature, weights)
    assert found.shape == (3, 4, 4)
    for sample in range(3):
        for i in range(4):
            for j in range(4):
                expected = sum(weights[sample, g] * signature[i, g] * signature[j, g] for g in range(7))
                assert found[sample, i, j] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_genes_of_zero_weight_are_ignored():
    signature, bulk = independent(np.random.default_rng(10), 5, 40)
    weights = np.ones_like(bulk)
    weights[:6, 30:] = 0
    bulk[:6, 30:] = 1e6
    found = solve_weighted(signature, bulk, weights)
    np.testing.assert_allclose(found[:6], one_by_one(signature[:, :30], bulk[:6, :30]), atol=1e-9)
    np.testing.assert_allclose(found[6:], one_by_one(signature, bulk[6:]), atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_sample_of_zero_weight_is_zero():
    signature, bulk = independent(np.random.default_rng(11), 5, 20)
    weights = np.ones_like(bulk)
    weights[3] = 0
    found = solve_weighted(signature, bulk, weights)
    assert (found[3] == 0).all()
    np.testing.assert_allclose(np.delete(found, 3, 0), np.delete(one_by_one(signature, bulk), 3, 0), atol=1e-9)


@pytest.mark.slow
def test_ten_thousand_samples_equal_a_loop():
    rng = np.random.default_rng(0)
    signature = rng.gamma(0.5, 1, (20, 1000))
    bulk = rng.dirichlet(np.full(20, 0.3), 10_000) @ signature * rng.gamma(5, 0.2, (10_000, 1000))

    np.testing.assert_allclose(solve(signature, bulk), one_by_one(signature, bulk), atol=1e-9)


def plain_rlm(signature, sample, max_iterations=20, tolerance=1e-4):
    """The loop of MASS::rlm for one sample."""
    solution = np.linalg.lstsq(signature.T, sample, rcond=None)[0]
    residual = sample - solution @ signature
    for _ in range(max_iterations):
        before, scale = residual, np.median(np.abs(residual)) / 0.6745
        if scale == 0:
            break
        root = np.sqrt(np.minimum(1, 1.345 / np.abs(residual / scale)))
        solution = np.linalg.lstsq((signature * root).T, sample * root, rcond=None)[0]
        residual = sample - solution @ signature
        if np.sqrt(((before - residual) ** 2).sum() / max(1e-20, (before**2).sum())) <= tolerance:
            break
    return solution


@pytest.mark.parametrize("max_iterations", [1, 3, 20])
def test_huber_equals_a_plain_loop(mixed, max_iterations):
    signature, bulk, _ = mixed
    found = solve_huber(signature, bulk, max_iterations=max_iterations)
    np.testing.assert_allclose(found, [plain_rlm(signature, sample, max_iterations) for sample in bulk], atol=1e-9)


def test_converged_huber_equals_statsmodels(mixed):
    regression = pytest.importorskip("statsmodels.api")
    signature, bulk, _ = mixed
    norm = regression.robust.norms.HuberT(1.345)
    oracle = [regression.RLM(sample, signature.T, M=norm).fit(maxiter=1000, tol=1e-12).params for sample in bulk]
    found = solve_huber(signature, bulk, max_iterations=1000, tolerance=1e-12)
    np.testing.assert_allclose(found, oracle, atol=1e-5)


def test_outlier_genes_do_not_affect_huber(mixed):
    signature, bulk, truth = mixed
    plain = solve_least_squares(*normal_equations(signature, bulk, np.ones_like(bulk)))
    error, moved = (
        np.abs(to_shares(np.maximum(found, 0)) - truth).mean() for found in (solve_huber(signature, bulk), plain)
    )
    assert error < 0.05
    assert error < moved / 3


def test_influence_of_outlier_genes_is_bounded(mixed):
    signature, bulk, _ = mixed
    huge = bulk.copy()
    huge[:, :12] *= 1e4
    large, far = (solve_huber(signature, values, max_iterations=1000, tolerance=1e-10) for values in (bulk, huge))
    np.testing.assert_allclose(far, large, atol=0.02)


def test_normal_equations_are_those_of_each_sample(mixed):
    signature, bulk, _ = mixed
    weights = np.random.default_rng(3).random(bulk.shape)
    gram, moment = normal_equations(signature, bulk, weights)
    np.testing.assert_allclose(gram, [(signature * row) @ signature.T for row in weights])
    np.testing.assert_allclose(moment, [(signature * row) @ b for row, b in zip(weights, bulk, strict=True)])


def test_huber_divides_weight_between_identical_types():
    rng = np.random.default_rng(0)
    signature = rng.gamma(0.5, 1, (4, 100))
    signature[1], signature[3] = signature[0], 0
    bulk = rng.dirichlet(np.ones(4), 6) @ signature * rng.lognormal(0, 0.3, (6, 100))
    found = solve_huber(signature, bulk)
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-3)
    np.testing.assert_array_equal(found[:, 3], 0)
