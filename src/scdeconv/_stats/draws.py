"""Random compositions, and random cells to go with them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def draw_fractions(n_normal: int, n_sparse: int, available: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw compositions as Scaden does: normalised uniforms, in the sparse half over a random subset of the types.

    Parameters
    ----------
    n_normal, n_sparse
        Compositions over all available types, and over 1 to K-1 of them (K the number available).
    available
        Which types there are, bool of length K_all; the others get 0.
    rng
        Source of randomness.

    Returns
    -------
    Fractions, (n_normal + n_sparse) × K_all, rows sum to 1.
    """
    types = np.flatnonzero(available)
    weights = rng.uniform(size=(n_normal + n_sparse, len(types)))
    if len(types) > 1:
        n_kept = rng.integers(1, len(types), size=n_sparse)
        order = rng.permuted(np.tile(np.arange(len(types)), (n_sparse, 1)), axis=1)
        weights[n_normal:][order >= n_kept[:, None]] = 0.0
    fractions = np.zeros((len(weights), len(available)))
    fractions[:, types] = weights / weights.sum(axis=1, keepdims=True)
    return fractions


def draw_cells(n_cells: np.ndarray, pools: list[np.ndarray], n_total: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Draw cells with replacement and return how often each sample holds each cell (samples × all cells)."""
    n_types = n_cells.shape[1]
    types = np.repeat(np.tile(np.arange(n_types), len(n_cells)), n_cells.ravel())
    starts = np.cumsum([0, *(len(pool) for pool in pools)])
    sizes = np.diff(starts)
    within = (rng.random(len(types)) * sizes[types]).astype(np.int64)
    cells = np.concatenate(pools)[starts[types] + within]
    ends = np.concatenate([[0], np.cumsum(n_cells.sum(axis=1))])
    weights = sp.csr_matrix((np.ones(len(cells), np.float32), cells, ends), shape=(len(n_cells), n_total))
    weights.sum_duplicates()
    return weights
