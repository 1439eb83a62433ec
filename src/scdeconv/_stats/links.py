"""Must-link and cannot-link pairs of cells from labels and distances, and their consistency."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from .rounding import deviations_from_mean

# shares of the closest pairs (must-link) and the farthest pairs (cannot-link) (Tian et al. 2021)
MUST_LINK_SHARE, CANNOT_LINK_SHARE = 0.005, 0.05
# score quantiles that are scaled to 0 and 1; the upper quantile allows rare types (set by hand)
LOW_SCORE_QUANTILE, HIGH_SCORE_QUANTILE = 0.05, 0.995


def draw_pairs(n: int, n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Return distinct random pairs of indices below ``n``, pairs × 2, smaller index first; at most all pairs."""
    n_all = n * (n - 1) // 2
    # index pairs as (0, 1), (0, 2), (1, 2), (0, 3), ... so that no list of all pairs is needed
    number = np.arange(n_all) if n_pairs >= n_all else rng.choice(n_all, n_pairs, replace=False)
    second = ((1 + np.sqrt(1 + 8.0 * number)) / 2).astype(np.int64)
    # the square root may be off by one
    second -= second * (second - 1) // 2 > number
    second += second * (second + 1) // 2 <= number
    return np.column_stack([number - second * (second - 1) // 2, second])


def link_by_label(codes: np.ndarray, n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return random pairs of labelled cells and whether their labels are equal; code -1 means unlabelled."""
    labelled = np.flatnonzero(codes >= 0)
    pairs = labelled[draw_pairs(len(labelled), n_pairs, rng)]
    return pairs, codes[pairs[:, 0]] == codes[pairs[:, 1]]


def mean_z_scores(logs: np.ndarray) -> np.ndarray:
    """Return the mean z-score over genes of log expression (cells × genes); constant genes have z-score 0."""
    deviations = deviations_from_mean(logs)
    sd = np.where(deviations.any(axis=0), logs.std(axis=0), 1)
    return (deviations / sd).mean(axis=1)


def find_anchors(scores: np.ndarray) -> np.ndarray:
    """Return the cell type of anchor cells and -1 for all other cells.

    The scores of each type are scaled so that the 5th percentile is 0 and the 99.5th percentile is 1. An anchor has a
    score above 2/3 for one type and below 1/3 for all other types.
    """
    low, high = np.quantile(scores, [LOW_SCORE_QUANTILE, HIGH_SCORE_QUANTILE], axis=0)
    # a score without spread defines no anchors
    scaled = np.where(high > low, (scores - low) / np.where(high > low, high - low, 1), 0)
    clear = ((scaled > 2 / 3).sum(axis=1) == 1) & ((scaled < 1 / 3).sum(axis=1) == scores.shape[1] - 1)
    return np.where(clear, scaled.argmax(axis=1), -1)


def select_by_distance(pairs: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the farthest pairs, then the closest pairs in order of distance, and a mask of the close pairs.

    Parameters
    ----------
    pairs
        Cells, pairs × 2.
    distances
        Distance of each pair. Far: above the 95th percentile. Close: below the 0.5th percentile.
    """
    lower, upper = np.quantile(distances, [MUST_LINK_SHARE, 1 - CANNOT_LINK_SHARE])
    far = np.flatnonzero(distances > upper)
    close = np.flatnonzero(distances < lower)
    close = close[np.argsort(distances[close], kind="stable")]
    return pairs[np.concatenate([far, close])], np.repeat([False, True], [len(far), len(close)])


def without_contradictions(pairs: np.ndarray, must: np.ndarray) -> np.ndarray:
    """Return a mask of consistent constraints; each is kept unless it contradicts an earlier kept constraint.

    Must-links join cells into groups. Two cases are contradictions: a cannot-link within a group, and a must-link
    between two groups with a cannot-link between them.

    Parameters
    ----------
    pairs
        Cells, pairs × 2, in order of decreasing priority.
    must
        Mask of the must-links.
    """
    parents: dict[int, int] = {}
    apart: defaultdict[int, set[int]] = defaultdict(set)

    def group_of(cell: int) -> int:
        while (parent := parents.setdefault(cell, cell)) != cell:
            parents[cell] = parents[parent]
            cell = parent
        return cell

    kept = np.ones(len(pairs), dtype=bool)
    for i, ((first, second), together) in enumerate(zip(pairs.tolist(), must.tolist(), strict=True)):
        # merge the group with fewer cannot-links into the other one: less to update
        small, large = sorted((group_of(first), group_of(second)), key=lambda group: len(apart[group]))
        if together:
            kept[i] = large not in apart[small]
        else:
            kept[i] = small != large
        if not kept[i] or small == large:
            continue
        if together:
            parents[small] = large
            for other in apart.pop(small):
                apart[other].remove(small)
                apart[other].add(large)
                apart[large].add(other)
        else:
            apart[small].add(large)
            apart[large].add(small)
    return kept
