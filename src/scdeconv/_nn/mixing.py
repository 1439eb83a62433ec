"""Mixtures of training donors, drawn anew for every batch."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch

from scdeconv._stats.expression import LEVEL

# batches in an epoch: mixtures are drawn without end (set by hand)
EPOCH_STEPS = 10


@dataclass
class Mixing:
    """Mixtures of bulk samples of several donors, with the noise of single samples.

    Bulk is additive: a convex combination of the linear expression of several donors is a valid bulk sample, and its
    composition is the same combination of theirs. A mixture averages the noise of its donors. Noise with the covariance
    of the samples at a given composition is therefore added on the log scale, as much as was averaged out.

    Parameters
    ----------
    bulk
        Linear expression, rows × genes, on a common library size.
    log
        Log expression of the same rows.
    concentrations
        Parameters of the Dirichlet distribution of the weights, inputs × rows; 0: the row is held out.
    rna
        Mean RNA per cell of each row, inputs × rows.
    noise
        Weights of the rows in each of the components of the noise, inputs × components × rows.
    """

    bulk: torch.Tensor
    log: torch.Tensor
    concentrations: torch.Tensor
    rna: torch.Tensor
    noise: torch.Tensor

    def to(self, device: torch.device) -> Mixing:
        """Return a copy with all tensors on a device."""
        moved = copy(self)
        for name, value in vars(self).items():
            setattr(moved, name, value.to(device))
        return moved

    def draw(self, n_samples: int) -> torch.Tensor:
        """Return the weights of the rows in each mixture, inputs × samples × rows; they sum to 1."""
        # on the CPU: all devices draw the same numbers
        shape = self.concentrations.cpu()[:, None].expand(-1, n_samples, -1).clamp_min(torch.finfo(torch.float32).tiny)
        # log of gamma variables, which underflow for small concentrations: G(a) = G(a + 1) U^(1 / a)
        log = torch._standard_gamma(shape + 1).log() + torch.rand(shape.shape).log() / shape
        held_out = self.concentrations.cpu()[:, None] == 0
        return torch.softmax(log.masked_fill(held_out, -torch.inf), dim=-1).to(self.bulk.device)

    def log_expression(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the log expression of mixtures with noise, inputs × samples × genes."""
        linear = (weights * self.rna[:, None]) @ self.bulk
        linear *= LEVEL * linear.shape[-1] / linear.sum(dim=-1, keepdim=True)
        n_inputs, n_samples, _ = weights.shape
        normal = torch.randn(n_inputs, n_samples, self.noise.shape[1]).to(self.noise.device)
        # a mixture has this share of the noise variance of a single sample
        averaged = weights.square().sum(dim=-1, keepdim=True)
        normal *= (1 - averaged).clamp_min(0).sqrt()
        return linear.log1p_() + (normal @ self.noise) @ self.log
