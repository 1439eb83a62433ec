"""Averaging of repeated samples, so that all donors have the same weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, eq=False)
class AveragedSamples:
    """Paired samples, one row per donor and batch.

    Attributes
    ----------
    log
        Log expression, rows × genes (see :func:`scdeconv._stats.expression.log_shares`).
    fractions
        Measured fractions, rows × cell types.
    counting
        Poisson variance of log expression, rows × genes; zeros if bulk is not counts.
    donors
        Donor code of each row, from 0.
    batches
        Batch code of each row, from 0; None without batches.
    """

    log: np.ndarray
    fractions: np.ndarray
    counting: np.ndarray
    donors: np.ndarray
    batches: np.ndarray | None

    @property
    def n_donors(self) -> int:
        """Number of donors."""
        return int(self.donors.max()) + 1

    @property
    def weights(self) -> np.ndarray:
        """Weight of each row: the rows of a donor sum to 1."""
        return 1 / np.bincount(self.donors)[self.donors]


def average_by_code(codes: np.ndarray) -> sp.csr_matrix:
    """Return the sparse averaging matrix codes × samples."""
    samples = np.arange(len(codes))
    shares = 1 / np.bincount(codes)[codes]
    return sp.csr_matrix((shares, (codes, samples)), shape=(codes.max() + 1, len(codes)))


def average_repeats(
    log: np.ndarray,
    fractions: np.ndarray,
    counting: np.ndarray,
    donors: np.ndarray,
    batches: np.ndarray | None = None,
) -> AveragedSamples:
    """Average the samples of each donor and batch; rows keep the order of first appearance.

    Parameters
    ----------
    log, counting
        Log expression and its Poisson variance, samples × genes.
    fractions
        Measured fractions, samples × cell types.
    donors, batches
        Donor label and batch label of each sample.

    Returns
    -------
    The averages. Donor and batch codes follow the sorted labels.
    """
    donor = np.unique(donors, return_inverse=True)[1]
    batch = np.zeros_like(donor) if batches is None else np.unique(batches, return_inverse=True)[1]
    _, first, code = np.unique(donor * (batch.max() + 1) + batch, return_index=True, return_inverse=True)
    order = np.argsort(first)
    average = average_by_code(np.argsort(order)[code])
    first = first[order]
    return AveragedSamples(
        log=average @ log,
        fractions=average @ fractions,
        counting=average @ counting,
        donors=donor[first],
        batches=None if batches is None else batch[first],
    )
