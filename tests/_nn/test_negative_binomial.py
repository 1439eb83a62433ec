from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from scdeconv._nn.negative_binomial import negative_binomial_nll


@pytest.fixture
def parameters():
    """Log means, dispersions and counts, about half of them 0, in double precision."""
    rng = np.random.default_rng(0)
    log_mean, dispersion = rng.normal(0, 2, (20, 30)), rng.lognormal(0, 2, (20, 30))
    counts = rng.poisson(rng.gamma(dispersion, np.exp(log_mean) / dispersion))
    counts[0], counts[1, 0] = 0, 5000
    return [torch.as_tensor(array, dtype=torch.float64) for array in (log_mean, dispersion, counts)]


def test_nll_equals_scipy(parameters):
    log_mean, dispersion, counts = (tensor.numpy() for tensor in parameters)
    expected = -nbinom.logpmf(counts, dispersion, dispersion / (dispersion + np.exp(log_mean))).mean()
    assert (counts == 0).mean() > 0.3
    assert negative_binomial_nll(*parameters).item() == pytest.approx(expected, rel=1e-10)


def test_gradients_equal_finite_differences(parameters):
    log_mean, dispersion, counts = parameters
    assert torch.autograd.gradcheck(
        lambda *arguments: 100 * negative_binomial_nll(*arguments, counts),
        (log_mean.requires_grad_(), dispersion.requires_grad_()),
    )


def test_counts_of_zero_only_are_accepted(parameters):
    log_mean, dispersion, counts = parameters
    zeros = torch.zeros_like(counts)
    expected = (dispersion * torch.log1p(log_mean.exp() / dispersion)).mean()
    assert negative_binomial_nll(log_mean, dispersion, zeros).item() == pytest.approx(expected.item())


def test_poisson_limit_is_exact_in_single_precision():
    """The variance equals the mean for large dispersion; the logarithm of a sum would lose all digits."""
    log_mean = torch.full((1, 4), -8.0, requires_grad=True)
    dispersion = torch.full((1, 4), 1e4)
    negative_binomial_nll(log_mean, dispersion, torch.zeros(1, 4)).backward()
    np.testing.assert_allclose(log_mean.grad, np.exp(-8) / 4, rtol=1e-5)
