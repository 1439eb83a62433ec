"""MAP compositions under the calibrated model, compared with dense matrices and a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from scdeconv._stats.calibration.logistic_normal import GaussNewton, LogisticNormalModel, counting_variance
from scdeconv._stats.expression import LEVEL
from scdeconv._stats.known_parts import KnownParts


def make_model(n_types=4, n_genes=25, n_factors=3, *, spread=0.6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, 0.4, n_types)
    root = rng.normal(size=(n_types, n_types))
    projection = np.eye(n_types) - 1 / n_types
    return LogisticNormalModel(
        mean=mean - mean.mean(),
        covariance=spread**2 * projection @ (0.5 * root @ root.T / n_types + 0.5 * np.eye(n_types)) @ projection,
        profiles=rng.gamma(1, 1, (n_types, n_genes)) * rng.uniform(0.5, 2, (n_types, 1)),
        shift=rng.normal(0, 0.3, n_genes),
        variance=noise * rng.uniform(0.02, 0.2, n_genes),
        factors=np.sqrt(noise) * 0.3 * rng.normal(size=(n_factors, n_genes)),
        counted=np.array(False),
    )


def solve(model, x):
    return model.solve(x, np.ones(len(x)))


def noise_covariance(model):
    return model.factors.T @ model.factors + np.diag(model.variance)


def draw(model, n, seed=1, noise=1.0):
    rng = np.random.default_rng(seed)
    z = rng.multivariate_normal(model.mean, model.covariance, n, method="eigh")
    errors = rng.multivariate_normal(np.zeros(len(model.shift)), noise_covariance(model), n)
    return z, model.expected(z) + noise * errors


def expression_by_hand(model, z):
    fractions = [np.exp(value) for value in z]
    mixed = sum(f / sum(fractions) * profile for f, profile in zip(fractions, model.profiles, strict=True))
    return np.log(1 + LEVEL * len(mixed) * mixed / mixed.sum()) + model.shift


def test_expected_is_the_shifted_log_profile_mixture():
    model = make_model()
    z, _ = draw(model, 5)
    for row, ratios in zip(model.expected(z), z, strict=True):
        np.testing.assert_allclose(row, expression_by_hand(model, ratios))


@pytest.mark.parametrize("n_factors", [0, 1, 6])
@pytest.mark.parametrize("counted", [False, True])
def test_step_equals_dense_gauss_newton(n_factors, counted):
    """Derivatives by finite differences, the inverse of the whole noise covariance, one sample at a time."""
    model = make_model(n_factors=n_factors)
    model.counted = np.array(counted)
    depths = np.array([50.0, 500.0, 1e9])
    z, x = draw(model, 3)
    x = x + 0.1
    steps = GaussNewton(model).step(x, depths, z)
    precision = np.linalg.pinv(model.covariance) + 1 / 4
    for sample in range(3):
        expected = expression_by_hand(model, z[sample])
        shifts = 1e-5 * np.eye(4)
        up, down = (np.stack([expression_by_hand(model, z[sample] + sign * s) for s in shifts]) for sign in (1, -1))
        slope = (up - down) / 2e-5
        noise = noise_covariance(model)
        if counted:
            noise = noise + np.diag(counting_variance(expected, depths[sample]))
        weighted = slope @ np.linalg.inv(noise)
        gradient = weighted @ (x[sample] - expected) - precision @ (z[sample] - model.mean)
        found = np.linalg.solve(precision + weighted @ slope.T, gradient)
        np.testing.assert_allclose(steps[sample], found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spread", [0.6, 2.5])
def test_absent_types_converge_despite_oscillating_steps(spread):
    model = make_model(7, 300, 12, spread=spread, seed=3)
    rng = np.random.default_rng(0)
    z = np.log(rng.dirichlet(np.full(7, 0.3), 300) + 1e-6)
    x = model.expected(z) + rng.multivariate_normal(np.zeros(300), noise_covariance(model), 300)
    steps, undamped = GaussNewton(model), np.tile(model.mean, (len(x), 1))
    for _ in range(30):
        undamped += np.clip(steps.step(x, np.ones(len(x)), undamped), -2, 2)
    left, left_undamped = (np.abs(steps.step(x, np.ones(len(x)), z)).max(axis=1) for z in (solve(model, x), undamped))
    assert (left_undamped > 0.1).mean() > 0.1
    assert left.max() < 0.05


def test_low_counts_shrink_towards_the_mean_composition():
    model = make_model(n_genes=60)
    model.counted = np.array(True)
    z, x = draw(model, 50)
    shallow, deep = (np.abs(model.solve(x, np.full(50, depth)) - model.mean).mean() for depth in (30.0, 1e6))
    assert shallow < 0.8 * deep


@pytest.mark.parametrize(("n_types", "n_genes"), [(2, 10), (4, 25), (7, 5)])
def test_linear_model_gives_the_gaussian_conditional_mean(n_types, n_genes):
    """With compositions near their mean: E[z | x] = mean + S_zx S_xx^-1 (x - centre), the covariances written out."""
    model = make_model(n_types, n_genes, spread=1e-3, noise=1e-6)
    z, x = draw(model, 20)
    centre = expression_by_hand(model, model.mean)
    steps = 1e-5 * np.eye(n_types)
    slope = np.stack(
        [(expression_by_hand(model, model.mean + s) - expression_by_hand(model, model.mean - s)) / 2e-5 for s in steps]
    )
    s_zx = model.covariance @ slope
    s_xx = slope.T @ model.covariance @ slope + noise_covariance(model)
    expected = (x - centre) @ np.linalg.solve(s_xx, s_zx.T)
    np.testing.assert_allclose(solve(model, x) - model.mean, expected, atol=1e-5)
    # the prior and the data both have influence
    explained = np.corrcoef(expected.ravel(), (z - model.mean).ravel())[0, 1]
    assert 0.2 < explained < 0.9999


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_solution_is_the_most_probable_composition(seed):
    """A general optimiser over a basis of the log-ratios that sum to zero finds the same solution."""
    model = make_model(seed=seed)
    _, x = draw(model, 4, seed=seed)
    basis = np.linalg.svd(np.eye(4) - 1 / 4)[0][:, :3]
    of_noise = np.linalg.inv(noise_covariance(model))
    of_ratios = np.linalg.inv(basis.T @ model.covariance @ basis)

    def surprise(coordinates, sample):
        noise = sample - expression_by_hand(model, model.mean + basis @ coordinates)
        return noise @ of_noise @ noise + coordinates @ of_ratios @ coordinates

    for ratios, sample in zip(solve(model, x), x, strict=True):
        best = minimize(surprise, np.zeros(3), args=(sample,), tol=1e-10)
        # Gauss-Newton converges where the gradient of the same sum of squares is zero
        np.testing.assert_allclose(softmax(ratios), softmax(model.mean + basis @ best.x), atol=2e-3)


def test_solution_recovers_compositions_and_beats_the_mean():
    model = make_model(n_genes=200)
    z, x = draw(model, 300)
    truth, found = softmax(z, axis=1), softmax(solve(model, x), axis=1)
    usual = softmax(model.mean)
    assert ((found - truth) ** 2).mean() < 0.2 * ((usual - truth) ** 2).mean()
    np.testing.assert_allclose(solve(model, x).sum(axis=1), 0, atol=1e-6)


def test_low_noise_recovers_atypical_samples():
    model = make_model(n_genes=60, noise=1e-6, spread=2.0)
    fractions = np.array([[0.9, 0.05, 0.03, 0.02], [0.02, 0.48, 0.48, 0.02], [0.25, 0.25, 0.25, 0.25]])
    logs = np.log(fractions)
    found = softmax(solve(model, model.expected(logs)), axis=1)
    np.testing.assert_allclose(found, fractions, atol=1e-3)


def test_solutions_do_not_depend_on_the_batch():
    model = make_model()
    _, x = draw(model, 600)
    together = solve(model, x)
    alone = np.concatenate([solve(model, row[None]) for row in x[::100]])
    np.testing.assert_allclose(softmax(alone, axis=1), softmax(together[::100], axis=1), atol=1e-3)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_noise_level_is_one_under_the_model(factor):
    model = make_model(n_genes=200)
    _, x = draw(model, 500, noise=factor)
    level = model.noise_level(x, np.ones(len(x)), solve(model, x))
    assert level.shape == (500,)
    assert np.sqrt((level**2).mean()) == pytest.approx(factor, rel=0.05)


def test_noise_level_is_the_whitened_residual():
    model = make_model()
    _, x = draw(model, 5)
    inverse = np.linalg.inv(noise_covariance(model))
    for level, sample in zip(model.noise_level(x, np.ones(len(x)), solve(model, x)), x, strict=True):
        rest = sample - expression_by_hand(model, solve(model, sample[None])[0])
        assert level == pytest.approx(np.sqrt(rest @ inverse @ rest / 25), rel=1e-3)


@pytest.mark.parametrize("depth", [2e4, 1e6])
def test_counting_variance_equals_simulated_poisson_counts(depth):
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 1, 1, 2, 5, 10, 20, 60]) / 99.5
    log = np.log1p(LEVEL * 8 * shares)
    counts = rng.poisson(shares * depth, (100_000, 8))
    observed = np.log1p(LEVEL * 8 * counts / depth).var(axis=0)
    np.testing.assert_allclose(counting_variance(log, np.array(depth)), observed, rtol=0.03)


def test_counting_variance_falls_with_depth():
    log = np.array([[-1.0, 0.0, 1.0, 3.0]])
    variance = counting_variance(log, np.array([[10.0], [1000.0]]))
    np.testing.assert_allclose(variance[0], 100 * variance[1])
    assert not variance[:, :2].any()


@pytest.mark.parametrize("of", [np.eye(4)[:, :1], np.eye(4)[:, 1:3], np.array([[1.0], [1.0], [0.0], [0.0]])])
def test_known_parts_agree_with_constrained_optimiser(of):
    model = make_model()
    z, x = draw(model, 4)
    values = np.clip(softmax(z, axis=1) @ of + np.array([[0.1], [-0.1], [0.0], [0.05]]), 0.02, 0.45)
    values[3, 1:] = np.nan
    known = KnownParts(values, np.zeros_like(values), of, np.full(of.shape[1], np.inf))
    found = softmax(model.solve(x, np.ones(4), known), axis=1)
    precision = np.linalg.pinv(model.covariance) + 1 / 4
    noise = np.linalg.inv(noise_covariance(model))
    for row, value, fractions in zip(x, values, found, strict=True):

        def loss(ratios, row=row):
            away, residual = ratios - model.mean, row - expression_by_hand(model, ratios)
            return (away @ precision @ away + residual @ noise @ residual) / 2

        here = ~np.isnan(value)
        limits = {"type": "eq", "fun": lambda z, here=here, value=value: (softmax(z) @ of - value)[here]}
        expected = minimize(
            loss, model.mean, constraints=limits, method="SLSQP", options={"ftol": 1e-12, "maxiter": 500}
        )
        np.testing.assert_allclose((fractions @ of)[here], value[here], atol=1e-4)
        np.testing.assert_allclose(fractions, softmax(expected.x), atol=5e-3)


@pytest.mark.parametrize("value", [0.0, 0.001, 0.999, 1.0])
def test_extreme_known_parts_are_reached(value):
    model = make_model()
    _, x = draw(model, 5)
    known = KnownParts(np.full((5, 1), value), np.zeros((5, 1)), np.eye(4)[:, :1], np.array([np.inf]))
    np.testing.assert_allclose(softmax(model.solve(x, np.ones(5), known), axis=1)[:, 0], value, atol=1e-3)
