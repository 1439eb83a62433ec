"""Normalisation of expression: shares, log shares, log CPM and quantiles."""

from __future__ import annotations

import numpy as np

# mean expression per gene before log1p: log1p is linear well below 1 / LEVEL of the mean (set by hand)
LEVEL = 10.0


def to_shares(expression: np.ndarray) -> np.ndarray:
    """Return the share of each gene in its sample, samples × genes; samples without expression have zeros."""
    return expression / np.maximum(expression.sum(axis=-1, keepdims=True), np.finfo(float).tiny)


def log_shares(expression: np.ndarray) -> np.ndarray:
    """Return ``log(1 + LEVEL * G * share)`` of linear expression, samples × G genes, for any library size."""
    return np.log1p(to_shares(expression) * (LEVEL * expression.shape[-1]))


def log_cpm(expression: np.ndarray) -> np.ndarray:
    """Return log1p of counts per million (CPM), samples × genes."""
    return np.log1p(expression / expression.sum(axis=1, keepdims=True) * 1e6)


def fill_missing(expression: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Impute missing genes with their share in a reference.

    Parameters
    ----------
    expression
        Samples × genes, linear scale; NaN for missing genes.
    reference
        Share of each gene in the training samples, length genes, sums to 1.

    Returns
    -------
    Shares, samples × genes; rows sum to 1.
    """
    present = ~np.isnan(expression)
    if present.all():
        return to_shares(expression)
    covered = (present * reference).sum(axis=1, keepdims=True)
    totals = np.where(present, expression, 0).sum(axis=1, keepdims=True)
    return np.where(present, expression / np.maximum(totals, np.finfo(float).tiny) * covered, reference)


def quantile_normalise(values: np.ndarray, samples: np.ndarray, target: np.ndarray | None = None) -> np.ndarray:
    """Quantile-normalise samples; ties get their mean rank.

    Parameters
    ----------
    values
        Samples × selected genes. Values must occur in ``samples``; NaN stays NaN.
    samples
        The same samples × all genes.
    target
        Sorted values of the common distribution, length all genes. Default: the mean distribution of the samples.

    Returns
    -------
    Normalised values, samples × selected genes.
    """
    ordered = np.sort(samples, axis=1)
    if target is None:
        target = ordered.mean(axis=0)
    ranks = [
        (np.searchsorted(mine, row, "left") + np.searchsorted(mine, row, "right") - 1) / 2
        for mine, row in zip(ordered, values, strict=True)
    ]
    return np.where(np.isnan(values), np.nan, np.interp(ranks, np.arange(samples.shape[1]), target))
