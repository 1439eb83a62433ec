"""Repeated samples of a donor, averaged so that each donor counts once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, eq=False)
class AveragedSamples:
    """Paired samples, one row for each donor and batch.

    Attributes
    ----------
    log
        Log expression, rows × genes (see :func:`scdeconv._stats.expression.log_shares`).
    fractions
        Measured fractions, rows × cell types.
    counting
        Variance of log expression from counting, rows × genes; zeros where bulk is not counts.
    donors
        Code of each row's donor, from 0.
    batches
        Code of each row's batch, from 0; None where there are no batches.
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
    """Return the sparse matrix codes × samples that averages the samples of each code."""
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
        Log expression and its variance from counting, samples × genes.
    fractions
        Measured fractions, samples × cell types.
    donors, batches
        Label of each sample's donor and batch.

    Returns
    -------
    The averages. Codes of donors and batches follow the sorted labels.
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
