"""Marker scores and surface-protein distances of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data.matrix import Matrix, to_dense
from scdeconv._stats.links import CANNOT_LINK_SHARE, MUST_LINK_SHARE, draw_pairs, mean_z_scores, select_by_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

# pairs per dense chunk: bounds the memory (set by hand)
PAIRS_PER_CHUNK = 10_000


def marker_scores(matrix: Matrix, markers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean z-score of the log-normalised expression of each type's markers, cells × types.

    Parameters
    ----------
    matrix
        Counts, cells × genes.
    markers
        Marker columns of each type.
    """
    totals = np.asarray(matrix.sum(axis=1), dtype=float).reshape(-1, 1)
    scores = np.empty((matrix.shape[0], len(markers)))
    for k, columns in enumerate(markers):
        logs = np.log1p(to_dense(matrix[:, columns]) / totals * np.median(totals))
        scores[:, k] = mean_z_scores(logs)
    return scores


def centred_log_levels(matrix: Matrix) -> np.ndarray:
    """Return ``log1p`` of protein counts minus the mean over the cell's proteins, cells × proteins."""
    logs = np.log1p(to_dense(matrix))
    return logs - logs.mean(axis=1, keepdims=True)


def link_by_distance(matrix: Matrix, n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return about ``n_pairs`` pairs of cells with extreme protein distances, and the mask of close pairs.

    Distances are Euclidean distances of centred log levels in a random sample of pairs. Pairs above the 95th percentile
    are far. Pairs below the 0.5th percentile are close. Far pairs come first, then close pairs in order of distance.

    Parameters
    ----------
    matrix
        Counts of proteins, cells × proteins.
    """
    pairs = draw_pairs(matrix.shape[0], int(np.ceil(n_pairs / (MUST_LINK_SHARE + CANNOT_LINK_SHARE))), rng)
    distances = np.empty(len(pairs))
    for start in range(0, len(pairs), PAIRS_PER_CHUNK):
        first, second = pairs[start : start + PAIRS_PER_CHUNK].T
        difference = centred_log_levels(matrix[first]) - centred_log_levels(matrix[second])
        distances[start : start + PAIRS_PER_CHUNK] = np.sqrt((difference**2).sum(axis=1))
    return select_by_distance(pairs, distances)
