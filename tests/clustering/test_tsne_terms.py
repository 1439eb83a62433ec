from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import entropy

from scdeconv.clustering._tsne_terms import map_divergence, neighbour_probabilities


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    far = np.repeat([[0.0], [0.0], [0.0], [5.0]], 30, axis=0)
    return torch.as_tensor(np.hstack([rng.normal(size=(120, 6)) * 0.2, far]), dtype=torch.float32)


@pytest.mark.parametrize("perplexity", [2.0, 10.0, 27.7, 60.0])
def test_every_row_has_the_requested_perplexity(x, perplexity):
    p = neighbour_probabilities(x, perplexity).double()
    np.testing.assert_allclose(np.exp(entropy(p, axis=1)), perplexity, rtol=2e-4)
    np.testing.assert_allclose(p.sum(dim=1), 1, rtol=1e-5)
    assert not p.diagonal().any()


@pytest.mark.parametrize("perplexity", [5.0, 30.0])
def test_neighbour_probabilities_equal_those_by_brents_method(x, perplexity):
    points = x.double().numpy()
    expected = np.zeros((len(points), len(points)))
    for i in range(len(points)):
        others = np.arange(len(points)) != i
        squared = ((points[others] - points[i]) ** 2).sum(axis=1)
        row = lambda log_precision, squared=squared: softmax(-np.exp(log_precision) * squared)
        best = brentq(lambda value, row=row: entropy(row(value)) - np.log(perplexity), -10, 15, xtol=1e-12)
        expected[i, others] = row(best)
    np.testing.assert_allclose(neighbour_probabilities(x, perplexity), expected, atol=2e-4)


def test_equidistant_neighbours_are_equally_probable():
    """Corners of a simplex: all neighbours have equal probability for any bandwidth."""
    p = neighbour_probabilities(torch.eye(7), 3.0)
    np.testing.assert_allclose(p, (1 - np.eye(7)) / 6, rtol=1e-6)


@pytest.mark.parametrize("n_cells", [1, 2, 8])
def test_small_batches_have_uniform_neighbour_probabilities(n_cells):
    p = neighbour_probabilities(torch.as_tensor(np.random.default_rng(0).normal(size=(n_cells, 3))), 10.0)
    np.testing.assert_allclose(p, (1 - np.eye(n_cells)) / max(n_cells - 1, 1), atol=1e-4)


def test_identical_cells_share_the_probability():
    p = neighbour_probabilities(torch.cat([torch.zeros(12, 4), torch.ones(12, 4)]), 5.0)
    np.testing.assert_allclose(p[:12, :12], (1 - np.eye(12)) / 11, atol=1e-4)
    assert torch.isfinite(p).all()


def test_scale_of_the_input_does_not_matter(x):
    np.testing.assert_allclose(neighbour_probabilities(x, 10.0), neighbour_probabilities(100 * x, 10.0), atol=2e-4)


def slow_divergence(p, z, smoothing):
    """A double loop over the definition, for any number of dimensions."""
    n, dof = len(z), z.shape[1] - 1
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        kernel = {j: (1 + sum((z[i] - z[j]) ** 2) / dof) ** (-(dof + 1) / 2) for j in others}
        smoothed = {j: p[i, j] + smoothing / n for j in others}
        for j in others:
            share = smoothed[j] / sum(smoothed.values())
            total += share * np.log(share / (kernel[j] / sum(kernel.values()))) if share > 0 else 0
    return total / n


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n_dimensions", [2, 3])
def test_divergence_equals_its_definition(x, smoothing, n_dimensions):
    z = np.random.default_rng(1).normal(size=(30, n_dimensions))
    p = neighbour_probabilities(x[::4].double(), 5.0)
    value = map_divergence(p, torch.as_tensor(z), smoothing=smoothing)
    assert float(value) == pytest.approx(slow_divergence(p.numpy(), z, smoothing), rel=1e-6)


def test_divergence_is_zero_for_identical_neighbours():
    z = torch.as_tensor(np.random.default_rng(0).normal(size=(20, 2)))
    kernel = 1 / (1 + torch.cdist(z, z).square())
    kernel.fill_diagonal_(0)
    q = kernel / kernel.sum(dim=1, keepdim=True)
    assert float(map_divergence(q, z, smoothing=0.0)) == pytest.approx(0, abs=1e-9)
    assert float(map_divergence(q, z.flip(0), smoothing=0.0)) > 0.1


def test_gradient_is_finite_for_coinciding_and_single_cells():
    for z in (torch.zeros(5, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)):
        map_divergence(neighbour_probabilities(torch.rand(len(z), 3), 2.0), z, smoothing=0.1).backward()
        assert torch.isfinite(z.grad).all()
