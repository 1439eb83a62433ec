"""The scale on which samples are compared: log of the share of each gene."""

from __future__ import annotations

import numpy as np

# mean of a gene after normalisation, which sets where log1p turns from linear to logarithmic
LEVEL = 10.0


def to_shares(expression: np.ndarray) -> np.ndarray:
    """Return the share of each gene in its sample, samples × genes; a sample without counts has zeros."""
    return expression / np.maximum(expression.sum(axis=-1, keepdims=True), np.finfo(float).tiny)


def log_shares(expression: np.ndarray) -> np.ndarray:
    """Return ``log(1 + LEVEL * G * share)`` of linear expression, samples × G genes, whatever the depth."""
    return np.log1p(to_shares(expression) * (LEVEL * expression.shape[-1]))


def log_cpm(expression: np.ndarray) -> np.ndarray:
    """Return log1p of counts per million, samples × genes."""
    return np.log1p(expression / expression.sum(axis=1, keepdims=True) * 1e6)


def fill_missing(expression: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give missing genes the share that they have in a reference.

    Parameters
    ----------
    expression
        Samples × genes, linear; NaN where a gene is missing.
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
