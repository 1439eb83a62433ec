"""What says that cells belong together or apart: labels, markers that single out a type, surface protein."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data.matrix import Matrix, to_dense
from scdeconv._stats.rounding import deviations_from_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

# shares of pairs that are close enough for a must-link and far enough for a cannot-link (Tian et al. 2021)
CLOSEST, FARTHEST = 0.005, 0.05
# quantiles of a marker score that stand for cells without and with the type; the upper one lets a type be rare
LOW, HIGH = 0.05, 0.995
# pairs whose proteins are made dense at once
CHUNK = 10_000


def draw_pairs(n: int, n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Return different pairs of different numbers below ``n``, pairs × 2, smaller first; all where there are not more."""
    n_all = n * (n - 1) // 2
    # numbered (0, 1), (0, 2), (1, 2), (0, 3), ...: choice() keeps no list of all
    number = np.arange(n_all) if n_pairs >= n_all else rng.choice(n_all, n_pairs, replace=False)
    second = ((1 + np.sqrt(1 + 8.0 * number)) / 2).astype(np.int64)
    # rounding may be off by one
    second -= second * (second - 1) // 2 > number
    second += second * (second + 1) // 2 <= number
    return np.column_stack([number - second * (second - 1) // 2, second])


def link_by_label(codes: np.ndarray, n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return random pairs of labelled cells, and whether their labels are the same; cells of code -1 have none."""
    labelled = np.flatnonzero(codes >= 0)
    pairs = labelled[draw_pairs(len(labelled), n_pairs, rng)]
    return pairs, codes[pairs[:, 0]] == codes[pairs[:, 1]]


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
        deviations = deviations_from_mean(logs)
        sd = np.where(deviations.any(axis=0), logs.std(axis=0), 1)
        scores[:, k] = (deviations / sd).mean(axis=1)
    return scores


def find_anchors(scores: np.ndarray) -> np.ndarray:
    """Return the type of each cell that clearly is of one type, -1 for the others.

    The scores of each type are set on a scale where 0 is their 5th and 1 their 99.5th percentile. An anchor has more than
    2/3 for one type, and less than 1/3 for each of the others.
    """
    low, high = np.quantile(scores, [LOW, HIGH], axis=0)
    # a score that is the same for nearly all cells singles out none
    scaled = np.where(high > low, (scores - low) / np.where(high > low, high - low, 1), 0)
    clear = ((scaled > 2 / 3).sum(axis=1) == 1) & ((scaled < 1 / 3).sum(axis=1) == scores.shape[1] - 1)
    return np.where(clear, scaled.argmax(axis=1), -1)


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
    lower, upper = np.quantile(distances, [CLOSEST, 1 - FARTHEST])
    far = np.flatnonzero(distances > upper)
    close = np.flatnonzero(distances < lower)
    close = close[np.argsort(distances[close], kind="stable")]
    return pairs[np.concatenate([far, close])], np.repeat([False, True], [len(far), len(close)])
