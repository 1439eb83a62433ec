"""Multinomial mixture model of bulk counts (BayesPrism): fixed-point solution and update of the profiles."""

from __future__ import annotations

import numpy as np
from scipy.special import wrightomega

from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.expression import to_shares

# share of genes without expression in a cell state (BayesPrism)
FLOOR = 1e-8
# prior SD of log fold changes between reference and bulk profiles (BayesPrism)
LOG_FOLD_CHANGE_SD = 2.0
# samples per block: their expression fits into the processor cache (set by hand)
BLOCK = 64
# maximum change of a weight at convergence: smaller changes are rounding errors
TOLERANCE = 1e-12


def is_outlier(bulk: np.ndarray, share: float, samples: float) -> np.ndarray:
    """Return a mask of genes with more than ``share`` of the reads in more than a share ``samples`` of all samples."""
    return (to_shares(bulk) > share).mean(axis=0) > samples


def floor_profiles(profiles: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Divide profiles by their totals and raise every share to at least ``FLOOR``.

    As in the original, only profiles that contain a zero are changed. Profiles without any read stay zero. Profiles are
    types × genes. The totals are sums over all genes, including genes that are not in the profiles.
    """
    shares = profiles / np.maximum(totals, np.finfo(float).tiny)[:, None]
    lifted = shares * (1 - FLOOR * shares.shape[1]) + FLOOR
    has_zero, empty = (shares == 0).any(axis=1, keepdims=True), ~shares.any(axis=1, keepdims=True)
    return np.where(has_zero & ~empty, lifted, shares)


def lift(profiles: np.ndarray, smallest: float | None = None) -> np.ndarray:
    """Return shares of the profiles plus the smallest positive share, or plus ``smallest`` if given."""
    shares = to_shares(profiles)
    smallest = shares[shares > 0].min(initial=1.0) if smallest is None else smallest
    return np.where(shares.any(axis=1, keepdims=True), shares + smallest, 0.0)


def mix(weights: np.ndarray, profiles: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Return the mixtures of profiles (types × genes) with weights (samples × types), samples × genes.

    ``own`` is an additional type with one profile per sample (samples × genes). It is the last column of the weights.
    """
    mixture = weights[:, : len(profiles)] @ profiles
    return mixture if own is None else mixture + weights[:, -1:] * own


def fixed_point(bulk: np.ndarray, profiles: np.ndarray, n_iterations: int, own: np.ndarray | None = None) -> np.ndarray:
    r"""Estimate the shares of reads from each cell type, for all samples at once.

    Iterates :math:`\theta_k \leftarrow \sum_g X_g \phi_{kg} \theta_k / \sum_j \phi_{jg} \theta_j`, scaled to sum to 1,
    from equal shares. This is expectation maximisation of the multinomial likelihood. The fixed point approximates the
    posterior mean of BayesPrism's Gibbs sampler (Hu & Chikina 2024, doi:10.1093/bioinformatics/btae440).

    Parameters
    ----------
    bulk
        Samples × genes, counts.
    profiles, own
        As for :func:`mix`, positive. Types with a zero profile get weight 0.
    n_iterations
        Maximum number of iterations. Blocks of samples stop earlier at convergence.

    Returns
    -------
    Weights, samples × types; rows sum to 1. A sample without reads has equal weights.
    """
    n_types = len(profiles) + (own is not None)
    weights = np.full((len(bulk), n_types), 1 / n_types)
    for start in range(0, len(bulk), BLOCK):
        rows = slice(start, start + BLOCK)
        of_block = None if own is None else own[rows]
        for _ in range(n_iterations):
            ratio = mix(weights[rows], profiles, of_block)
            np.divide(bulk[rows], ratio, out=ratio)
            factor = ratio @ profiles.T
            if of_block is not None:
                factor = np.column_stack([factor, np.einsum("ng,ng->n", ratio, of_block)])
            updated = to_fractions(weights[rows] * factor)
            change = np.abs(updated - weights[rows]).max()
            weights[rows] = updated
            if change < TOLERANCE:
                break
    return weights


def update_profiles(profiles: np.ndarray, reads: np.ndarray, sigma: float = LOG_FOLD_CHANGE_SD) -> np.ndarray:
    r"""Return the MAP profiles of the cell types in bulk, given the reads from each type.

    Maximises :math:`\sum_g Z_g \log \psi_g - \sum_g \gamma_g^2 / 2 \sigma^2` with
    :math:`\psi_g \propto \phi_g e^{\gamma_g}` for each type (Chu et al. 2022, doi:10.1038/s43018-022-00356-3). At the
    maximum, :math:`\psi_g` is proportional to Wright's omega of :math:`\log(c \phi_g) + \sigma^2 Z_g`. The number c is
    such that these values sum to :math:`\sigma^2 \sum_g Z_g`. Newton's method finds c for all types at once.

    Parameters
    ----------
    profiles
        Types × genes, positive.
    reads
        Types × genes, counts. Types without reads keep their profile.
    sigma
        Prior standard deviation of the log fold changes.

    Returns
    -------
    Profiles, types × genes; rows sum to 1.
    """
    updated = to_shares(profiles)
    found = reads.sum(axis=1) > 0
    counts = sigma**2 * reads[found]
    total = counts.sum(axis=1, keepdims=True)
    base = np.log(updated[found]) + counts
    # start: solution for equal bulk and reference profiles. Convex: converges from any start
    level = np.log(total)
    for _ in range(50):
        omega = wrightomega(base + level)
        step = (omega.sum(axis=1, keepdims=True) - total) / (omega / (1 + omega)).sum(axis=1, keepdims=True)
        level = level - step
        if (np.abs(step) < 1e-9).all():
            break
    updated[found] = to_shares(wrightomega(base + level))
    return updated
