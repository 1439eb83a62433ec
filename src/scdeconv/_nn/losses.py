"""Losses between predicted logits and fractions, one value per member and sample."""

from __future__ import annotations

from collections.abc import Callable

import torch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Return ``-sum_k p_k log q_k``, the multinomial negative log-likelihood per cell."""
    return -(fractions * torch.log_softmax(logits, dim=-1)).sum(dim=-1)


def mse(logits: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference over cell types."""
    return (torch.softmax(logits, dim=-1) - fractions).square().mean(dim=-1)


def l1(logits: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference over cell types."""
    return (torch.softmax(logits, dim=-1) - fractions).abs().mean(dim=-1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse, "l1": l1}
