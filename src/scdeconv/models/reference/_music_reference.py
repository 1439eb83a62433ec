"""What MuSiC takes from the reference: statistics over subjects, groups of similar types, markers within groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.genes import strip_versions
from scdeconv._data.validation import examples
from scdeconv._stats.markers import GENES_PER_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FEWEST_SUBJECTS = 2


@dataclass(frozen=True)
class SubjectStatistics:
    """What the cells of several subjects say about cell types.

    Parameters
    ----------
    mean
        Relative abundance of each gene, averaged over subjects, cell types × genes.
    variance
        Its variance between subjects, cell types × genes, or covariance, cell types × cell types × genes.
    size
        Mean total per cell, averaged over subjects, length cell types.
    """

    mean: np.ndarray
    variance: np.ndarray
    size: np.ndarray

    @property
    def design(self) -> np.ndarray:
        """Mean counts per cell, cell types × genes."""
        return self.mean * self.size[:, None]

    def take(self, types: np.ndarray, genes: np.ndarray) -> SubjectStatistics:
        """Return the part for some types and genes (bool)."""
        chosen = (types,) if self.variance.ndim == 2 else (types, types)
        return SubjectStatistics(
            self.mean[np.ix_(types, genes)], self.variance[np.ix_(*chosen, genes)], self.size[types]
        )

    def variance_of_bulk(self, weights: np.ndarray) -> np.ndarray:
        """Return the variance between subjects of bulk with so much of each type, samples × genes.

        ``sum_k (x_k S_k)^2 sigma2_kg``, or with covariances ``sum_kl x_k S_k x_l S_l sigma2_klg``.
        """
        amounts = weights * self.size
        if self.variance.ndim == 2:
            return amounts**2 @ self.variance
        pairs = (amounts[:, :, None] * amounts[:, None, :]).reshape(len(amounts), -1)
        # covariances of different sets of subjects need not make a positive whole
        return np.maximum(pairs @ self.variance.reshape(pairs.shape[1], -1), 0)


def subject_statistics(
    sums: np.ndarray, totals: np.ndarray, sizes: np.ndarray, *, covariance: bool = False
) -> SubjectStatistics:
    """Average over subjects and measure the variance between them (Wang et al. 2019, Methods).

    Parameters
    ----------
    sums
        Summed counts of a subject's cells of each type, subjects × cell types × genes.
    totals
        Their sum over all genes, also those that are not in ``sums``, subjects × cell types; 0: no cells.
    sizes
        Mean total per cell, subjects × cell types.
    covariance
        Covariance between types instead of variances. As in the original, a type that some subject lacks is compared
        with the others over the subjects that have all types.

    Returns
    -------
    The statistics. A type of fewer than 2 subjects has no variance and gets a mean of zero, so no method uses it.
    """
    there = totals > 0
    abundance = sums / np.where(there, totals, 1)[:, :, None]
    n_subjects = there.sum(axis=0)
    mean = abundance.sum(axis=0) / np.maximum(n_subjects, 1)[:, None]
    size = np.where(there, sizes, 0).sum(axis=0) / np.maximum(n_subjects, 1)
    if covariance:
        everywhere = there.all(axis=0)
        variance = np.where(
            np.outer(everywhere, everywhere)[:, :, None],
            _covariance(abundance),
            _covariance(abundance[there.all(axis=1)]),
        )
    else:
        deviations = np.where(there[:, :, None], abundance - mean, 0)
        variance = (deviations**2).sum(axis=0) / np.maximum(n_subjects - 1, 1)[:, None]
    mean[n_subjects < FEWEST_SUBJECTS] = 0
    return SubjectStatistics(mean, variance, size)


def _covariance(abundance: np.ndarray) -> np.ndarray:
    """Return the covariance over subjects of subjects × cell types × genes, cell types × cell types × genes."""
    n_subjects = len(abundance)
    deviations = abundance - abundance.sum(axis=0) / max(n_subjects, 1)
    return np.einsum("skg,slg->klg", deviations, deviations) / max(n_subjects - 1, 1)


def check_subjects(there: pd.DataFrame, *, covariance: bool) -> None:
    """Refuse types whose variance between subjects is not known; ``there`` is donors × cell types (bool)."""
    few = list(there.columns[there.sum() < FEWEST_SUBJECTS])
    if few:
        msg = (
            f"Expected cells of at least {FEWEST_SUBJECTS} donors of every type, to see how genes vary between them, found "
            f"fewer of {examples(few)}. Merge these types with others or remove them, or use method='nnls'."
        )
        raise ValueError(msg)
    n_complete = int(there.all(axis=1).sum())
    if covariance and n_complete < FEWEST_SUBJECTS:
        msg = (
            f"Expected at least {FEWEST_SUBJECTS} donors with cells of all types for covariance=True, found {n_complete}. "
            "Use covariance=False."
        )
        raise ValueError(msg)


def check_sizes(sizes: Mapping[str, float], cell_types: Sequence[str]) -> None:
    """Refuse cell sizes that are not one positive number for each type."""
    wrong = sorted(set(sizes) ^ set(cell_types)) or [name for name, size in sizes.items() if not 0 < size < np.inf]
    if wrong:
        msg = (
            f"Expected cell_sizes with one positive number for each of {list(cell_types)}, found a missing, unknown or "
            f"unusable one for {examples(wrong)}. Correct cell_sizes."
        )
        raise ValueError(msg)


def group_members(groups: Mapping[str, Sequence[str]], cell_types: Sequence[str]) -> np.ndarray:
    """Return which types belong to which group, groups × cell types (bool); a type in no group is one of its own."""
    grouped = [cell_type for members in groups.values() for cell_type in members]
    empty = [name for name, members in groups.items() if not members]
    if empty:
        msg = f"Expected cell types in every group, found none in {examples(empty)}. Leave such groups out."
        raise ValueError(msg)
    unknown = sorted(set(grouped) - set(cell_types))
    if unknown:
        msg = f"Expected groups of cell types out of {list(cell_types)}, found {examples(unknown)}. Correct the names."
        raise ValueError(msg)
    repeated = sorted({cell_type for cell_type in grouped if grouped.count(cell_type) > 1})
    if repeated:
        msg = f"Expected every cell type in one group, found {examples(repeated)} in more. Choose one group for each."
        raise ValueError(msg)
    alone = [[cell_type] for cell_type in cell_types if cell_type not in grouped]
    return np.array([np.isin(cell_types, list(members)) for members in [*groups.values(), *alone]])


def given_markers(
    markers: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]], genes: pd.Index, n_groups: int
) -> np.ndarray:
    """Return the markers within each group that the user gave, ``n_groups`` × genes (bool).

    Genes that the model does not have are left out, Ensembl versions do not matter. Groups beyond the named ones, types
    on their own, have no markers.
    """
    unknown = sorted(set(markers) - set(groups))
    if unknown:
        msg = f"Expected group_markers of groups out of {list(groups)}, found {examples(unknown)}. Correct the names."
        raise ValueError(msg)
    known = strip_versions(genes)
    mask = np.zeros((n_groups, len(genes)), dtype=bool)
    for row, (name, members) in enumerate(groups.items()):
        mask[row] = known.isin(strip_versions(pd.Index(list(markers.get(name, [])), dtype=str)))
        if len(members) > 1 and mask[row].sum() < len(members):
            msg = (
                f"Expected at least {len(members)} markers of group {name!r} among the model's {len(genes)} genes, found "
                f"{mask[row].sum()}. Give genes that differ between {examples(members)}, or no group_markers at all."
            )
            raise ValueError(msg)
    left = int((~mask.any(axis=0)).sum())
    if left < n_groups:
        msg = (
            f"Expected at least {n_groups} genes that are no group_markers, to tell the {n_groups} groups apart, found "
            f"{left}. Give fewer markers."
        )
        raise ValueError(msg)
    return mask


def choose_markers(mean: np.ndarray, variance: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Choose the genes that tell the types of a group apart in every subject.

    For each type the genes with the largest difference from the mean of the group's other types, in units of their
    standard deviation between subjects plus the median of these (so that a gene that happens not to vary does not win;
    Tusher, Tibshirani & Chu 2001, equation 1). 50 for each type, or fewer, so that half of all genes are left to
    tell the groups apart.

    Parameters
    ----------
    mean, variance
        Mean relative abundance of each gene and its variance between subjects, cell types × genes.
    members
        From :func:`group_members`.

    Returns
    -------
    Groups × genes (bool).
    """
    n_types, n_genes = mean.shape
    divided = members.sum(axis=1) > 1
    n_markers = min(GENES_PER_TYPE, n_genes // (2 * max(int(members[divided].sum()), 1)))
    markers = np.zeros((len(members), n_genes), dtype=bool)
    for group in np.flatnonzero(divided):
        for cell_type in np.flatnonzero(members[group]):
            others = members[group] & (np.arange(n_types) != cell_type)
            difference = mean[cell_type] - mean[others].mean(axis=0)
            deviation = np.sqrt(variance[cell_type] + variance[others].mean(axis=0))
            typical = np.median(deviation[deviation > 0]) if deviation.any() else 1.0
            best = np.argsort(-difference / (deviation + typical), kind="stable")[:n_markers]
            markers[group, best[difference[best] > 0]] = True
    return markers
