"""t-SNE loss within a mini-batch: neighbour probabilities, and their divergence from the embedding."""

from __future__ import annotations

import torch
from torch import nn

# in nats; set by hand
ENTROPY_TOLERANCE = 1e-4
MAX_STEPS = 50
# bounds of the log inverse squared bandwidth, for distances divided by their mean; set by hand
LOG_PRECISION_BOUNDS = (-20.0, 20.0)


def neighbour_probabilities(x: torch.Tensor, perplexity: float) -> torch.Tensor:
    """Return ``p``, cells × cells: proportional to ``exp(-d² / bandwidth²)``; rows sum to 1, the diagonal is 0.

    The bandwidth of each cell is chosen so that the entropy of its row is the logarithm of the perplexity, which is about
    its number of neighbours. In batches of fewer cells, all others have the same probability.
    """
    squared = _without_diagonal(torch.cdist(x, x).square())
    squared = squared / squared.mean(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    target = torch.tensor(perplexity).log().item()
    # Newton's method on the log precision; bisection if a step leaves the bracket
    low, high = (torch.full_like(x[:, :1], bound) for bound in LOG_PRECISION_BOUNDS)
    log_precision = torch.full_like(low, target)
    for _ in range(MAX_STEPS):
        log_p = torch.log_softmax(-log_precision.exp() * squared, dim=1)
        p = log_p.exp()
        information = p * log_p
        entropy = -information.sum(dim=1, keepdim=True)
        excess = entropy - target
        settled = excess.abs() < ENTROPY_TOLERANCE
        if settled.all():
            break
        low = torch.where(excess > 0, log_precision, low)
        high = torch.where(excess > 0, high, log_precision)
        # the entropy falls by the variance of the information
        slope = (information * log_p).sum(dim=1, keepdim=True) - entropy.square()
        newton = log_precision + excess / slope
        other = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        log_precision = torch.where(settled, log_precision, other)
    return _with_zero_diagonal(p)


def map_divergence(p: torch.Tensor, z: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Return KL(p‖q), mean over cells, where ``q`` is proportional to Student's t of the distances in the embedding.

    The t has ν = dimensions - 1 degrees of freedom: ``q`` is proportional to ``(1 + d² / ν) ** (-(ν + 1) / 2)``.

    Parameters
    ----------
    p
        Cells × cells, rows sum to 1.
    z
        Cells × dimensions of the embedding.
    smoothing
        Probability that is added to each row of ``p`` in equal parts, before the row is divided by its sum.
    """
    dof = z.shape[1] - 1
    # not cdist: its gradient is not smooth for identical cells
    squared = _without_diagonal((z[:, None] - z).square().sum(dim=-1))
    log_q = torch.log_softmax(-(dof + 1) / 2 * torch.log1p(squared / dof), dim=1)
    p = _without_diagonal(p) + smoothing / len(p)
    return nn.functional.kl_div(log_q, p / p.sum(dim=1, keepdim=True), reduction="batchmean")


def _without_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    n = len(matrix)
    return matrix.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def _with_zero_diagonal(others: torch.Tensor) -> torch.Tensor:
    n = len(others)
    matrix = others.new_zeros(n, n)
    matrix.view(-1)[1:].view(n - 1, n + 1)[:, :-1] = others.view(n - 1, n)
    return matrix
