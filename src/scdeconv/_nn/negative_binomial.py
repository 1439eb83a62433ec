"""Negative log-likelihood of negative binomial counts with gradients in closed form, for counts that are mostly 0."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


class _MeanNLL(torch.autograd.Function):
    """Special functions are evaluated for positive counts only; for counts of 0 their terms cancel."""

    @staticmethod
    def forward(ctx: Any, log_mean: torch.Tensor, dispersion: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        ratio = log_mean.exp().div_(dispersion)
        log_ratio = ratio.log1p()
        at = counts.nonzero(as_tuple=True)
        x, theta = counts[at], dispersion[at]
        coefficients = (x + theta).lgamma() - theta.lgamma() - (x + 1).lgamma()
        loss = (dispersion * log_ratio).sum() + (x * (log_ratio[at] + theta.log() - log_mean[at]) - coefficients).sum()
        # mean / (mean + dispersion)
        share = ratio.div_(ratio + 1)
        failures = share[at] - 1
        by_log_mean = dispersion * share
        by_log_mean[at] += x * failures
        by_dispersion = log_ratio.sub_(share)
        by_dispersion[at] += theta.digamma() - (x + theta).digamma() - x * failures / theta
        ctx.save_for_backward(by_log_mean, by_dispersion)
        return loss / counts.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        by_log_mean, by_dispersion = ctx.saved_tensors
        factor = gradient / by_log_mean.numel()
        return by_log_mean * factor, by_dispersion * factor, None


def negative_binomial_nll(log_mean: torch.Tensor, dispersion: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood, mean over entries.

    Parameters
    ----------
    log_mean
        Log of the mean of each count.
    dispersion
        Inverse dispersion of each count; the variance is ``mean + mean² / dispersion``.
    counts
        Observed counts.
    """
    loss: torch.Tensor = _MeanNLL.apply(log_mean, dispersion, counts)
    return loss
