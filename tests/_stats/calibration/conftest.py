"""Bulk drawn from the calibration model, with the planted parameters."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from scdeconv._stats.calibration.fit import fit_platform_calibration
from scdeconv._stats.expression import log_shares


@dataclasses.dataclass
class Planted:
    """One sample per donor, with the true parameters."""

    expression: np.ndarray
    fractions: np.ndarray
    profiles: np.ndarray
    batches: np.ndarray
    counts: bool
    shift: np.ndarray
    loadings: np.ndarray
    sizes: np.ndarray
    claimed: np.ndarray

    def fit(self, donors=None, batches=None):
        donors = np.arange(len(self.expression)) if donors is None else donors
        depths = self.expression.sum(axis=1) if self.counts else np.empty(0)
        return fit_platform_calibration(
            self.expression, self.fractions, donors, self.profiles, self.claimed, depths, batches
        )


def make_planted(
    n_donors=30, *, n_genes=300, seed=0, noise_sd=0.1, factor_sd=0.2, concentration=2.0, sizes=None, claimed=None,
    batch_shift=None, counts=True,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    sizes = np.ones(4) if sizes is None else sizes
    claimed = sizes if claimed is None else claimed
    shares = np.exp(rng.normal(0, 0.8, n_genes) + rng.normal(0, 0.8, (4, n_genes)))
    shares /= shares.sum(axis=1, keepdims=True)
    fractions = rng.dirichlet(np.full(4, concentration), n_donors)
    shift, loadings = rng.normal(0, 0.4, n_genes), factor_sd * rng.normal(size=(2, n_genes))
    log = log_shares(fractions @ (sizes[:, None] * shares)) + shift
    log += rng.normal(size=(n_donors, 2)) @ loadings + noise_sd * rng.normal(size=(n_donors, n_genes))
    batches = np.arange(n_donors) % 2
    if batch_shift is not None:
        log += batch_shift[batches]
    linear = np.maximum(np.expm1(log), 0)
    linear /= linear.sum(axis=1, keepdims=True)
    expression = rng.poisson(3e7 * linear).astype(float) if counts else linear * 1e6
    return Planted(
        expression, fractions, claimed[:, None] * 1000 * shares, batches, counts, shift, loadings, sizes, claimed
    )


@pytest.fixture
def plant():
    """Return the function that makes planted samples."""
    return make_planted
