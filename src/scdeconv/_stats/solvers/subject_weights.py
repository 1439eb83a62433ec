"""Least squares weighted by the variance of genes between subjects (MuSiC), and its statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import RELATIVE_RIDGE, solve_weighted, weighted_gram
from scdeconv._stats.markers import GENES_PER_TYPE

# minimum number of subjects with cells of a type: a variance needs two
FEWEST_SUBJECTS = 2
# nu, eps, iter.max and the sum of a bulk sample in the R package MuSiC
NU = 1e-4
TOLERANCE = 0.01
MAX_ITERATIONS = 1000
SCALE = 100.0


@dataclass(frozen=True)
class WeightedFit:
    """Solutions of :func:`fit_weighted`.

    Parameters
    ----------
    weights
        Amounts of the cell types, samples × cell types, not normalised.
    gene_weights
        Gene weights of the last iteration, samples × genes; 0 for genes that are not used.
    iterations
        Number of iterations until the summed change of the fractions was below 0.01, length samples; at most 1000.
    converged
        Whether the iteration converged, length samples.
    """

    weights: np.ndarray
    gene_weights: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


def fit_weighted(bulk: np.ndarray, statistics: SubjectStatistics, *, weighted_residuals: bool = True) -> WeightedFit:
    """Fit all samples by iteratively reweighted non-negative least squares (Wang et al. 2019, Methods).

    The weights are ``w_g = 1 / (1e-4 + r_g^2 + sum_k (x_k S_k)^2 sigma2_kg)``. Unweighted least squares gives the
    start. Converged samples are not updated further.

    Parameters
    ----------
    bulk
        Samples × genes, 100 times the share of each gene. Genes with value 0 in a sample are not used for it.
    statistics
        Statistics of the cell types over the same genes.
    weighted_residuals
        Use the residuals of the last weighted problem as ``r``, as in the original, instead of ``b - D x``.
    """
    design, n_samples = statistics.design, len(bulk)
    weights = solve_weighted(design, bulk, (bulk > 0).astype(float))
    gene_weights = np.zeros_like(bulk)
    iterations, converged = np.full(n_samples, MAX_ITERATIONS), np.zeros(n_samples, dtype=bool)
    active, sample = np.arange(n_samples), bulk
    residual, variance = bulk - weights @ design, statistics.variance_of_bulk(weights)
    fractions = np.full_like(weights, np.inf)
    for iteration in range(MAX_ITERATIONS + 1):
        current = (sample > 0) / (NU + residual**2 + variance)
        solution = solve_weighted(design, sample, current)
        weights[active], gene_weights[active] = solution, current
        done = np.abs(to_shares(solution) - fractions).sum(axis=1) < TOLERANCE
        iterations[active[done]], converged[active[done]] = iteration, True
        active, sample, current, solution = (part[~done] for part in (active, sample, current, solution))
        if not len(active):
            break
        fractions = to_shares(solution)
        residual = sample - solution @ design
        if weighted_residuals:
            residual *= np.sqrt(current)
        # with covariances, the original keeps the variance of the unweighted solution
        variance = statistics.variance_of_bulk(solution) if statistics.variance.ndim == 2 else variance[~done]
    return WeightedFit(weights, gene_weights, iterations, converged)


def explained_variance(bulk: np.ndarray, design: np.ndarray, fit: WeightedFit) -> np.ndarray:
    """Return ``1 - var(b - D x) / var(b)`` over the used genes of each sample; 0 if they are constant."""
    used = fit.gene_weights > 0
    total, rest = (_variance(values, used) for values in (bulk, bulk - fit.weights @ design))
    return np.divide(total - rest, total, out=np.zeros_like(total), where=total > 0)


def _variance(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    count = np.maximum(used.sum(axis=1, keepdims=True), 1)
    mean = (values * used).sum(axis=1, keepdims=True) / count
    return ((values - mean) ** 2 * used).sum(axis=1) / count[:, 0]


def variance_of_fractions(bulk: np.ndarray, design: np.ndarray, fit: WeightedFit) -> np.ndarray:
    """Return ``diag((D' W D)^-1) mean_g(w_g r_g^2) / (sum_k x_k)^2``, samples × cell types.

    The mean is over the used genes, and ``r = b - D x``. The variance is infinite for samples without weights and for
    types that no used gene is expressed in.
    """
    gram = weighted_gram(design, fit.gene_weights)
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    known = scale > 0
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=known)
    correlation = gram * inverse[:, :, None] * inverse[:, None, :] + RELATIVE_RIDGE * np.eye(len(design))
    spread = np.diagonal(np.linalg.inv(correlation), axis1=1, axis2=2) * inverse**2
    residual = bulk - fit.weights @ design
    n_used = np.maximum((fit.gene_weights > 0).sum(axis=1), 1)
    noise = (fit.gene_weights * residual**2).sum(axis=1) / n_used
    total = fit.weights.sum(axis=1, keepdims=True)
    return np.divide(spread * noise[:, None], total**2, out=np.full_like(spread, np.inf), where=known & (total > 0))


@dataclass(frozen=True)
class SubjectStatistics:
    """Mean, variance between subjects and cell size of each cell type.

    Parameters
    ----------
    mean
        Relative abundance of each gene, averaged over subjects, cell types × genes.
    variance
        Variance of the relative abundance between subjects, cell types × genes, or covariance, cell types × cell types
        × genes.
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
        """Return the statistics of the masked types and genes."""
        chosen = (types,) if self.variance.ndim == 2 else (types, types)
        return SubjectStatistics(
            self.mean[np.ix_(types, genes)], self.variance[np.ix_(*chosen, genes)], self.size[types]
        )

    def variance_of_bulk(self, weights: np.ndarray) -> np.ndarray:
        """Return the variance between subjects of bulk with given weights of the types, samples × genes.

        ``sum_k (x_k S_k)^2 sigma2_kg``, or with covariances ``sum_kl x_k S_k x_l S_l sigma2_klg``.
        """
        amounts = weights * self.size
        if self.variance.ndim == 2:
            return amounts**2 @ self.variance
        pairs = (amounts[:, :, None] * amounts[:, None, :]).reshape(len(amounts), -1)
        # pairwise covariances from different subjects may not be positive semi-definite
        return np.maximum(pairs @ self.variance.reshape(pairs.shape[1], -1), 0)


def subject_statistics(
    sums: np.ndarray, totals: np.ndarray, sizes: np.ndarray, *, covariance: bool = False
) -> SubjectStatistics:
    """Compute means over subjects and variances between subjects (Wang et al. 2019, Methods).

    Parameters
    ----------
    sums
        Summed counts of a subject's cells of each type, subjects × cell types × genes.
    totals
        Sum over all genes, including genes that are not in ``sums``, subjects × cell types; 0 without cells.
    sizes
        Mean total per cell, subjects × cell types.
    covariance
        Compute covariances between types instead of variances. As in the original, covariances of a type that some
        subject lacks are computed over the subjects with all types.

    Returns
    -------
    The statistics. Types with fewer than 2 subjects have mean 0, so that methods give them weight 0.
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
    """Return the covariance over subjects (cell types × cell types × genes) of subjects × cell types × genes."""
    n_subjects = len(abundance)
    deviations = abundance - abundance.sum(axis=0) / max(n_subjects, 1)
    return np.einsum("skg,slg->klg", deviations, deviations) / max(n_subjects - 1, 1)


def choose_markers(mean: np.ndarray, variance: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Choose marker genes of the cell types within each group.

    Genes are ranked by the difference from the mean of the other types in the group, divided by the standard deviation
    between subjects plus its median over genes (Tusher, Tibshirani & Chu 2001, equation 1). The median prevents high
    ranks of genes with small variance. At most 50 genes per type are chosen, and at most half of all genes in total.

    Parameters
    ----------
    mean, variance
        Mean relative abundance of each gene and its variance between subjects, cell types × genes.
    members
        Mask of the types in each group, groups × cell types.

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
