"""Pairs of cells that belong together or apart: random, by label, by distance, and which can all be true."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from .rounding import deviations_from_mean

# shares of pairs that are close enough for a must-link and far enough for a cannot-link (Tian et al. 2021)
CLOSEST, FARTHEST = 0.005, 0.05
# quantiles of a marker score that stand for cells without and with the type; the upper one lets a type be rare
LOW, HIGH = 0.05, 0.995


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


def mean_z_scores(logs: np.ndarray) -> np.ndarray:
    """Return the mean z-score of each cell over genes, from log expression of cells × genes; constant genes count as 0."""
    deviations = deviations_from_mean(logs)
    sd = np.where(deviations.any(axis=0), logs.std(axis=0), 1)
    return (deviations / sd).mean(axis=1)


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


def select_by_distance(pairs: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs that are very far apart, then the very close ones, closest first, and which are close.

    Parameters
    ----------
    pairs
        Cells, pairs × 2.
    distances
        Distance of each pair. Above the 95th percentile is far, below the 0.5th close.
    """
    lower, upper = np.quantile(distances, [CLOSEST, 1 - FARTHEST])
    far = np.flatnonzero(distances > upper)
    close = np.flatnonzero(distances < lower)
    close = close[np.argsort(distances[close], kind="stable")]
    return pairs[np.concatenate([far, close])], np.repeat([False, True], [len(far), len(close)])


def without_contradictions(pairs: np.ndarray, must: np.ndarray) -> np.ndarray:
    """Return which constraints can all be true: each is kept unless it contradicts those kept before it.

    Must-links join cells to groups. A cannot-link inside a group is a contradiction, and so is a must-link between two
    groups that a cannot-link keeps apart.

    Parameters
    ----------
    pairs
        Cells, pairs × 2, the most trusted first.
    must
        Whether a pair is a must-link.
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
        # the group with fewer others to stay apart from is the one that moves
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
