"""Random compositions and random draws of cells."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def draw_fractions(n_normal: int, n_sparse: int, available: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw compositions by the Scaden rule: normalised uniform numbers over all types or a random subset.

    Parameters
    ----------
    n_normal, n_sparse
        Number of compositions over all K available types, and over random subsets of 1 to K-1 types.
    available
        Mask of the available types, length K_all. Other types have fraction 0.
    rng
        Random number generator.

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
    """Draw cells with replacement and return the count of each cell in each sample, samples × all cells."""
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


def draw_replicates(cell_type: np.ndarray, replicates: int, sampling: float, seed: int) -> sp.csr_matrix:
    """Return the indicator matrix replicates × cells of pseudo-replicates drawn without replacement.

    Parameters
    ----------
    cell_type
        Cell-type code of each cell, from 0. Each type needs at least 2 cells.
    replicates
        Number of replicates per type; rows are sorted by type.
    sampling
        Share of a type's cells per replicate, rounded up. At least one cell is left out, so that replicates differ.
    seed
        Seed of the random number generator.
    """
    rng = np.random.default_rng(seed)
    columns, sizes = [], []
    for kind in range(cell_type.max() + 1):
        members = np.flatnonzero(cell_type == kind)
        size = min(int(np.ceil(sampling * len(members))), len(members) - 1)
        columns.append(rng.permuted(np.tile(members, (replicates, 1)), axis=1)[:, :size].ravel())
        sizes += [size] * replicates
    ends = np.r_[0, np.cumsum(sizes)]
    return sp.csr_matrix((np.ones(ends[-1]), np.concatenate(columns), ends), (len(sizes), len(cell_type)))


def subsample_fractions(counts: np.ndarray, n_aug: int, aug_ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the compositions of random subsets of one donor's cells from the cell counts.

    A subset of ``m`` out of ``N`` cells drawn without replacement has multivariate hypergeometric counts.

    Parameters
    ----------
    counts
        Number of cells of each type, length K.
    n_aug
        Number of subsets.
    aug_ratio
        Share of the cells in a subset: ``m = max(1, floor(aug_ratio * N))``.
    rng
        Random number generator.

    Returns
    -------
    Fractions, n_aug × K, float32.
    """
    size = max(1, int(aug_ratio * counts.sum()))
    drawn = rng.multivariate_hypergeometric(counts, size, size=n_aug, method="marginals")
    return (drawn / size).astype(np.float32)


def round_to_cells(fractions: np.ndarray, n_cells: int) -> np.ndarray:
    """Return integer cell numbers of samples with about ``n_cells`` cells, rounded down as in Scaden.

    Parameters
    ----------
    fractions
        Samples × cell types, rows sum to 1.
    n_cells
        Number of cells per sample before rounding.

    Returns
    -------
    Samples × cell types, int. If all numbers of a sample round to 0, it has one cell of its most frequent type.
    """
    numbers = np.floor(fractions * n_cells).astype(np.int64)
    empty = numbers.sum(axis=1) == 0
    numbers[empty, fractions[empty].argmax(axis=1)] = 1
    return numbers
