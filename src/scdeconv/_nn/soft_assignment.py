"""Soft cluster assignments by Student's t (Xie et al. 2016), for DESC, scDeepCluster and scDCC."""

from __future__ import annotations

import torch
from torch import nn

# avoids log(0), which occurs in the original program; set by hand
PAIR_EPSILON = 1e-6


class SoftClusters(nn.Module):
    """Centroids in latent space, and soft assignments of cells to them.

    Parameters
    ----------
    centroids
        Clusters × latent dimensions.
    alpha
        Degrees of freedom of Student's t.
    """

    def __init__(self, centroids: torch.Tensor, alpha: float = 1.0) -> None:
        super().__init__()
        self.centroids = nn.Parameter(centroids.clone())
        self.alpha = alpha

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Return ``q``, cells × clusters: proportional to ``(1 + d² / alpha) ** (-(alpha + 1) / 2)``; rows sum to 1."""
        squared = (latent[:, None, :] - self.centroids).square().sum(dim=-1)
        return torch.softmax(-(self.alpha + 1) / 2 * torch.log1p(squared / self.alpha), dim=1)


def target_distribution(assignments: torch.Tensor) -> torch.Tensor:
    """Return ``p``, proportional to ``q² / sum of q over cells``: sharper than ``q`` and balanced; rows sum to 1."""
    # the sum may underflow to 0 for a cluster far from all cells
    weights = assignments.square() / assignments.sum(dim=0).clamp_min(torch.finfo(assignments.dtype).tiny)
    return weights / weights.sum(dim=1, keepdim=True)


def clustering_loss(targets: torch.Tensor, assignments: torch.Tensor) -> torch.Tensor:
    """Return the divergence KL(p‖q), mean over cells."""
    tiny = torch.finfo(assignments.dtype).tiny
    return (torch.xlogy(targets, targets) - targets * assignments.clamp_min(tiny).log()).sum(dim=1).mean()


def together(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the probability that the two cells of each pair are in one cluster, from their soft assignments."""
    return (first * second).sum(dim=1)


def must_link_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return minus the log-probability that the cells of a pair are in one cluster, mean over pairs."""
    return -together(first, second).clamp_min(PAIR_EPSILON).log().mean()


def cannot_link_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return minus the log-probability that the cells of a pair are in different clusters, mean over pairs."""
    return -(1 - together(first, second)).clamp_min(PAIR_EPSILON).log().mean()
