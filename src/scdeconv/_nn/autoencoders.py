"""Denoising autoencoder of the counts of single cells, and layers of autoencoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi.distributions import ZeroInflatedNegativeBinomial
from torch import nn

from .negative_binomial import negative_binomial_nll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# bounds of the outputs, from the programs of scDeepCluster and scDCC
MEAN_BOUNDS = (1e-5, 1e6)
DISPERSION_BOUNDS = (1e-4, 1e4)


def linear(n_in: int, n_out: int) -> nn.Linear:
    """Return a linear layer with Glorot-uniform weights and zero biases."""
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def layers(sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers of these sizes, each followed by the activation."""
    modules: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        modules += [linear(n_in, n_out), activation()]
    return nn.Sequential(*modules)


class CountAutoencoder(nn.Module):
    """Denoising autoencoder whose output is the distribution of each count (Eraslan et al. 2019; Tian et al. 2019).

    Parameters
    ----------
    n_genes, n_latent
        Number of genes, and of latent dimensions.
    hidden
        Widths of the hidden layers of the encoder. The decoder has the same widths in reverse order.
    noise
        Standard deviation of the noise on the standardised input, in training.
    zero_inflated
        Whether counts are zero-inflated negative binomial or negative binomial.
    """

    def __init__(
        self, n_genes: int, n_latent: int, hidden: Sequence[int], *, noise: float, zero_inflated: bool
    ) -> None:
        super().__init__()
        self.noise = noise
        self.encoder = nn.Sequential(*layers([n_genes, *hidden]), linear(hidden[-1], n_latent))
        self.decoder = layers([n_latent, *reversed(hidden)])
        self.log_mean = linear(hidden[0], n_genes)
        self.dispersion = linear(hidden[0], n_genes)
        self.zero_logits = linear(hidden[0], n_genes) if zero_inflated else None

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent representation of standardised expression, without noise."""
        latent: torch.Tensor = self.encoder(x)
        return latent

    def add_noise(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input, with noise in training mode."""
        return x + self.noise * torch.randn_like(x) if self.training and self.noise > 0 else x

    def nll(self, x: torch.Tensor, counts: torch.Tensor, size_factors: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihood of the counts, mean over entries; with noise on the input in training mode."""
        hidden = self.decoder(self.encoder(self.add_noise(x)))
        # clamp before exp: a clamped infinity has NaN gradients
        low, high = (torch.tensor(bound).log().item() for bound in MEAN_BOUNDS)
        log_mean = self.log_mean(hidden).clamp(low, high) + size_factors.log()[:, None]
        dispersion = nn.functional.softplus(self.dispersion(hidden)).clamp(*DISPERSION_BOUNDS)
        if self.zero_logits is None:
            return negative_binomial_nll(log_mean, dispersion, counts)
        zero_logits = self.zero_logits(hidden)
        distribution = ZeroInflatedNegativeBinomial(mu=log_mean.exp(), theta=dispersion, zi_logits=zero_logits)
        return -distribution.log_prob(counts).mean()
