"""Marker scores and distances of surface protein, read from counts in small dense parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data.matrix import Matrix, to_dense
from scdeconv._stats.links import CLOSEST, FARTHEST, draw_pairs, mean_z_scores, select_by_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

# pairs whose proteins are made dense at once
CHUNK = 10_000


def marker_scores(matrix: Matrix, markers: Sequence[np.ndarray]) -> np.ndarray:
    """Return, cells × types, the mean z-score of the log normalised expression of a type's markers.

    Parameters
    ----------
    matrix
        Counts, cells × genes.
    markers
        Columns of the markers of each type.
    """
    totals = np.asarray(matrix.sum(axis=1), dtype=float).reshape(-1, 1)
    scores = np.empty((matrix.shape[0], len(markers)))
    for k, columns in enumerate(markers):
        logs = np.log1p(to_dense(matrix[:, columns]) / totals * np.median(totals))
        scores[:, k] = mean_z_scores(logs)
    return scores


def centred_log_levels(matrix: Matrix) -> np.ndarray:
    """Return ``log1p`` of protein counts less its mean over the proteins of the cell, cells × proteins."""
    logs = np.log1p(to_dense(matrix))
    return logs - logs.mean(axis=1, keepdims=True)


def link_by_distance(matrix: Matrix, n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return about ``n_pairs`` pairs of cells whose proteins are very far apart, then very close, and which are close.

    Of a random sample of pairs, those with a Euclidean distance of centred log levels above the 95th percentile are far
    apart, those below the 0.5th are close. The closest come first, as the surest of their kind.

    Parameters
    ----------
    matrix
        Counts of proteins, cells × proteins.
    """
    pairs = draw_pairs(matrix.shape[0], int(np.ceil(n_pairs / (CLOSEST + FARTHEST))), rng)
    distances = np.empty(len(pairs))
    for start in range(0, len(pairs), CHUNK):
        first, second = pairs[start : start + CHUNK].T
        difference = centred_log_levels(matrix[first]) - centred_log_levels(matrix[second])
        distances[start : start + CHUNK] = np.sqrt((difference**2).sum(axis=1))
    return select_by_distance(pairs, distances)
