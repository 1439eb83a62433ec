from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scdeconv._nn import SoftClusters, cannot_link_loss, clustering_loss, must_link_loss, target_distribution
from scdeconv._nn.soft_assignment import PAIR_EPSILON


@pytest.fixture
def latent():
    return torch.as_tensor(np.random.default_rng(0).normal(size=(9, 4)), dtype=torch.float64)


@pytest.fixture
def centroids():
    return torch.as_tensor(np.random.default_rng(1).normal(size=(3, 4)), dtype=torch.float64)


@pytest.fixture
def assignments():
    """Soft assignments of 9 cells to 3 clusters."""
    return torch.as_tensor(np.random.default_rng(2).dirichlet(np.ones(3), 9))


def slow_q(latent, centroids, alpha):
    q = np.zeros((len(latent), len(centroids)))
    for i in range(len(latent)):
        for j in range(len(centroids)):
            squared = sum((float(a) - float(b)) ** 2 for a, b in zip(latent[i], centroids[j], strict=True))
            q[i, j] = (1 + squared / alpha) ** (-(alpha + 1) / 2)
        q[i] /= sum(q[i])
    return q


@pytest.mark.parametrize("alpha", [1.0, 3.5])
def test_assignments_equal_students_t_kernel(latent, centroids, alpha):
    q = SoftClusters(centroids, alpha)(latent).detach()
    np.testing.assert_allclose(q, slow_q(latent, centroids, alpha), rtol=1e-12)
    np.testing.assert_allclose(q.sum(dim=1), 1)


def test_assignments_at_and_between_centroids():
    """At one centroid, at distance 2 of the other: 1 to 1 / (1 + 4). Halfway: one half each."""
    clusters = SoftClusters(torch.tensor([[0.0], [2.0]]))
    q = clusters(torch.tensor([[0.0], [1.0], [2.0]])).detach()
    np.testing.assert_allclose(q, [[5 / 6, 1 / 6], [1 / 2, 1 / 2], [1 / 6, 5 / 6]], rtol=1e-6)


def test_centroids_are_trained_without_changing_the_input(latent, centroids):
    before = centroids.clone()
    clusters = SoftClusters(centroids)
    assert [name for name, _ in clusters.named_parameters()] == ["centroids"]
    with torch.no_grad():
        clusters.centroids += 1
    assert torch.equal(centroids, before)


def test_cells_far_from_all_centroids_are_assigned():
    clusters = SoftClusters(torch.tensor([[0.0], [1.0]]))
    q = clusters(torch.tensor([[1e15], [-1e15]]))
    np.testing.assert_allclose(q.detach(), 0.5, rtol=1e-4)
    q.log().sum().backward()
    assert torch.isfinite(clusters.centroids.grad).all()


def test_targets_equal_the_formula(assignments):
    q = assignments.numpy()
    expected = np.zeros_like(q)
    for i in range(len(q)):
        for j in range(q.shape[1]):
            expected[i, j] = q[i, j] ** 2 / sum(q[k, j] for k in range(len(q)))
        expected[i] /= sum(expected[i])
    np.testing.assert_allclose(target_distribution(assignments), expected, rtol=1e-12)


def test_targets_sharpen_assignments_and_downweight_large_clusters():
    even = torch.tensor([[0.7, 0.3], [0.3, 0.7]])
    np.testing.assert_allclose(target_distribution(even), [[49 / 58, 9 / 58], [9 / 58, 49 / 58]], rtol=1e-6)
    # the ambiguous cell is moved to the smaller cluster
    uneven = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    assert target_distribution(uneven)[2, 1] == pytest.approx(2.3 / (2.3 + 0.7))


def test_targets_of_hard_assignments_are_unchanged():
    sure = torch.eye(3)[[0, 1, 1, 2]]
    assert torch.equal(target_distribution(sure), sure)


def test_divergence_is_the_mean_over_cells(assignments):
    p, q = target_distribution(assignments).numpy(), assignments.numpy()
    expected = 0.0
    for i in range(len(q)):
        for j in range(q.shape[1]):
            expected += p[i, j] * math.log(p[i, j] / q[i, j])
    assert clustering_loss(torch.as_tensor(p), assignments).item() == pytest.approx(expected / len(q), rel=1e-12)


def test_divergence_is_zero_for_equal_distributions_only(assignments):
    assert clustering_loss(assignments, assignments).item() == pytest.approx(0, abs=1e-15)
    assert clustering_loss(target_distribution(assignments), assignments) > 0
    # one-hot against uniform over two: log 2
    halves = torch.full((4, 2), 0.5)
    assert clustering_loss(torch.eye(2)[[0, 1, 0, 1]], halves).item() == pytest.approx(math.log(2))


def test_empty_cluster_gives_no_nan():
    q = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]], requires_grad=True)
    p = target_distribution(q.detach())
    assert torch.isfinite(p).all()
    assert not p[:, 2].any()
    np.testing.assert_allclose(p[:, :2], target_distribution(q.detach()[:, :2]))
    loss = clustering_loss(p, q)
    loss.backward()
    assert loss.item() == pytest.approx(clustering_loss(p[:, :2], q.detach()[:, :2]).item())
    assert torch.isfinite(q.grad).all()


def test_pair_losses_equal_the_formula(assignments):
    first, second = assignments[:4], assignments[4:8]
    must = cannot = 0.0
    for a, b in zip(first.numpy(), second.numpy(), strict=True):
        together = sum(a[j] * b[j] for j in range(3))
        must -= math.log(together) / 4
        cannot -= math.log(1 - together) / 4
    assert must_link_loss(first, second).item() == pytest.approx(must, rel=1e-12)
    assert cannot_link_loss(first, second).item() == pytest.approx(cannot, rel=1e-12)
    assert must_link_loss(second, first).item() == pytest.approx(must, rel=1e-12)


def test_violated_pairs_have_a_finite_loss():
    sure = torch.eye(3)
    apart = sure[[1, 2, 0]]
    most = -math.log(PAIR_EPSILON)
    assert must_link_loss(sure, sure).item() == cannot_link_loss(sure, apart).item() == 0
    assert must_link_loss(sure, apart).item() == pytest.approx(most, rel=1e-5)
    assert cannot_link_loss(sure, sure).item() == pytest.approx(most, rel=1e-5)


@pytest.mark.parametrize("loss", [must_link_loss, cannot_link_loss])
@pytest.mark.parametrize("ends", [([[1.0, 0.0]], [[0.0, 1.0]]), ([[1.0, 0.0]], [[1.0, 0.0]]), ([[0.5, 0.5]],) * 2])
def test_gradients_of_pairs_are_finite(loss, ends):
    first, second = (torch.tensor(end, requires_grad=True) for end in ends)
    loss(first, second).backward()
    assert torch.isfinite(first.grad).all()
    assert torch.isfinite(second.grad).all()
