"""Order and position of samples in bars and heat maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

if TYPE_CHECKING:
    from .columns import Column

# samples above which the order of the leaves is not optimised, and above which there is no clustering: its memory is
# quadratic
MAX_OPTIMAL, MAX_CLUSTERED = 500, 5000
# number of samples or types below which there is nothing to cluster
MIN_CLUSTERED = 3
Segments = list[np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Samples from left to right.

    Parameters
    ----------
    table
        Samples × cell types in the order of drawing.
    rows
        Number of each sample in the table before.
    codes
        Number of the group of each sample.
    groups
        Names of the groups; a single empty name without groups.
    position
        Centre of each sample on the x axis; groups have a gap between them.
    sample_tree, type_tree
        Lines of the dendrograms in positions of samples and numbers of types, as corners × (position, height).
    """

    table: pd.DataFrame
    rows: np.ndarray
    codes: np.ndarray
    groups: pd.Index
    position: np.ndarray
    sample_tree: Segments
    type_tree: Segments

    @property
    def has_groups(self) -> bool:
        """Whether the samples are in named groups."""
        return list(self.groups) != [""]

    @property
    def length(self) -> float:
        """Length of the axis, in samples."""
        return float(self.position[-1] + 1)


def grouped(table: pd.DataFrame, groups: Column, sort_by: str) -> Samples:
    """Return the samples by group and, within, by decreasing fraction of a cell type."""
    order = np.lexsort((-table[sort_by].to_numpy(), groups.values.codes))
    return _samples(table, groups, order, [], [])


def clustered(table: pd.DataFrame, groups: Column) -> Samples:
    """Return the samples by group and, within, by average linkage of the square roots of their fractions.

    Cell types are clustered by the correlation of their square roots over samples.
    """
    if len(table) > MAX_CLUSTERED:
        return grouped(table, groups, str(table.mean().idxmax()))
    roots = np.sqrt(np.clip(table.to_numpy(dtype=float), 0, None))
    members = [np.flatnonzero(groups.values.codes == code) for code in range(len(groups.values.categories))]
    trees = [_tree(roots[of_group]) for of_group in members]
    order = np.concatenate([of_group[leaves] for of_group, (leaves, _) in zip(members, trees, strict=True)])
    spread = roots.std(axis=0)
    profiles = (roots - roots.mean(axis=0)) / np.where(spread > 0, spread, 1)
    # two samples have correlations of 1 and -1 only
    few = len(table) < MIN_CLUSTERED
    types, type_tree = (np.arange(table.shape[1]), []) if few else _tree(profiles.T / np.sqrt(len(table)))
    samples = _samples(table.iloc[:, types], groups, order, [], type_tree)
    first = [samples.position[samples.codes == code][0] for code in range(len(members))]
    moved = [line + [start, 0] for (_, tree), start in zip(trees, first, strict=True) for line in tree]
    return replace(samples, sample_tree=moved)


def _samples(
    table: pd.DataFrame, groups: Column, order: np.ndarray, sample_tree: Segments, type_tree: Segments
) -> Samples:
    codes = groups.values.codes[order]
    position = np.arange(len(table)) + max(0.8, 0.02 * len(table)) * codes
    return Samples(table.iloc[order], order, codes, groups.values.categories, position, sample_tree, type_tree)


def _tree(values: np.ndarray) -> tuple[np.ndarray, Segments]:
    """Return the order of the rows by average linkage, and the lines of its dendrogram."""
    n = len(values)
    if n < MIN_CLUSTERED:
        return np.arange(n), []
    merges = linkage(values, "average", optimal_ordering=n <= MAX_OPTIMAL)
    leaves = leaves_list(merges)
    place, height = np.empty(2 * n - 1), np.zeros(2 * n - 1)
    place[leaves] = np.arange(n)
    lines = []
    for node, (left, right, distance, _) in enumerate(merges, start=n):
        a, b = int(left), int(right)
        place[node], height[node] = (place[a] + place[b]) / 2, distance
        corners = [(place[a], height[a]), (place[a], distance), (place[b], distance), (place[b], height[b])]
        lines.append(np.array(corners))
    return leaves, lines
