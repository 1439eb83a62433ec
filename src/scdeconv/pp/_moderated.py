"""Statistics of markers: which genes a cell type expresses more than the others do, and how many of them to take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.special import digamma, polygamma
from scipy.stats import false_discovery_control, ttest_ind
from scipy.stats import t as student

from scdeconv._chunks import product
from scdeconv._stats.rounding import deviations_from_mean, rounding_error

from ._reference import indicator

if TYPE_CHECKING:
    import pandas as pd

    from scdeconv._matrix import Matrix

# a variance below this share of the median is taken for that: the log of a zero would decide everything
SMALLEST_VARIANCE = 1e-5
# pseudo-count of the moderated test, and the count that two pseudobulks must reach for a gene to be tested
PRIOR_COUNT, LEAST_COUNT = 2, 10


def trigamma_inverse(value: float) -> float:
    """Solve ``trigamma(y) = value`` by Newton steps on ``1 / trigamma``, which is convex (Smyth 2004, appendix)."""
    if value > 1e7:
        return value**-0.5
    if value < 1e-6:
        return 1 / value
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / value) / polygamma(2, y)
        y += step
        if abs(step) < 1e-10 * y:
            break
    return float(y)


def fit_variance_prior(variance: np.ndarray, df: float) -> tuple[float, float]:
    """Fit the distribution of the genes' true variances to the observed ones.

    ``d0 s0² / variance`` has a chi-square distribution with d0 degrees of freedom; both follow in closed form from mean
    and variance of the log of the observed variances (Smyth 2004, section 6.2).

    Parameters
    ----------
    variance
        Residual variance of each gene.
    df
        Residual degrees of freedom, the same for all genes.

    Returns
    -------
    d0 and s0². Infinite d0: the variances scatter no more than those of genes that share one, s0² is their mean. Both
    zero: there is nothing to learn from (fewer than two genes, or half of them without variance).
    """
    median = np.median(variance) if len(variance) > 1 else 0.0
    if not median > 0:
        return 0.0, 0.0
    log = np.log(np.maximum(variance, SMALLEST_VARIANCE * median)) - digamma(df / 2) + np.log(df / 2)
    excess = float(log.var(ddof=1) - polygamma(1, df / 2))
    if excess <= 0:
        return np.inf, float(variance.mean())
    d0 = 2 * trigamma_inverse(excess)
    return d0, float(np.exp(log.mean() + digamma(d0 / 2) - np.log(d0 / 2)))


def moderate_variances(variance: np.ndarray, df: float) -> tuple[np.ndarray, float]:
    """Return the genes' variances moved towards their common prior, and the degrees of freedom that they now have."""
    d0, s0 = fit_variance_prior(variance, df)
    if np.isinf(d0):
        return np.full_like(variance, s0), d0
    return (d0 * s0 + df * variance) / (d0 + df), d0 + df


def moderated_t(
    log_expression: np.ndarray, cell_type: np.ndarray, donor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Test each cell type against the one that comes closest to it, in a linear model of pseudobulk.

    The model has an effect for each type and, where the types then still can be compared, for each donor. A marker is
    higher than in every other type, so the statistic is the smallest of the moderated t against the others, and its
    one-sided p-value is valid without correction for their number (an intersection-union test; Berger 1982).

    Parameters
    ----------
    log_expression
        Pseudobulks × genes.
    cell_type, donor
        Of each pseudobulk, as codes from 0 that all occur.

    Returns
    -------
    Statistic and p-value, cell types × genes, and whether donors were in the model.
    """
    types, donors = (np.eye(codes.max() + 1)[codes] for codes in (cell_type, donor))
    design = np.hstack([types, donors[:, 1:]])
    n_rows, n_types = types.shape
    # full rank: donors connect all types
    by_donor = bool(n_rows > design.shape[1] == np.linalg.matrix_rank(design))
    if not by_donor:
        design = types
    orthogonal, triangle = np.linalg.qr(design)
    inverse = np.linalg.inv(triangle)
    effects = inverse @ (orthogonal.T @ log_expression)
    df = n_rows - design.shape[1]
    residual = log_expression - design @ effects
    # otherwise rounding divided by rounding would be a statistic
    rounding = rounding_error(log_expression)
    residual = np.where(np.abs(residual) <= rounding, 0.0, residual)
    variance, df_total = moderate_variances((residual**2).sum(axis=0) / df, df)
    effects, covariance = effects[:n_types], (inverse @ inverse.T)[:n_types, :n_types]
    statistic = np.empty_like(effects)
    for kind in range(n_types):
        others = np.arange(n_types) != kind
        unscaled = np.diag(covariance) + covariance[kind, kind] - 2 * covariance[kind]
        difference = effects[kind] - effects[others]
        difference = np.where(np.abs(difference) <= rounding, 0.0, difference)
        statistic[kind] = (difference / np.sqrt(unscaled[others])[:, None]).min(axis=0)
    statistic /= np.sqrt(np.maximum(variance, np.finfo(float).tiny))
    return statistic, student.sf(statistic, df_total), by_donor


def moderated_scores(
    counts: np.ndarray, totals: np.ndarray, cell_type: np.ndarray, donor: np.ndarray, q_value: float
) -> tuple[np.ndarray, bool]:
    """Return the moderated t of the markers in pseudobulk, and whether donors were in the model.

    The test is that of :func:`moderated_t` on log2 counts per million, with two counts of the mean depth added.

    Parameters
    ----------
    counts
        Pseudobulks × genes.
    totals
        Counts of each pseudobulk over all genes.
    cell_type, donor
        Of each pseudobulk, as codes from 0 that all occur.
    q_value
        False discovery rate among the markers of a type.

    Returns
    -------
    Cell types × genes, -inf where a gene is no marker of the type; and whether donors were in the model.
    """
    tested = (counts >= LEAST_COUNT).sum(axis=0) > 1
    scores = np.full((cell_type.max() + 1, counts.shape[1]), -np.inf)
    log_expression = np.log2(counts[:, tested] * (totals.mean() / totals)[:, None] + PRIOR_COUNT)
    statistic, p, by_donor = moderated_t(log_expression, cell_type, donor)
    if tested.any():
        found = (false_discovery_control(p, axis=1) < q_value) & (statistic > 0)
        scores[:, tested] = np.where(found, statistic, -np.inf)
    return scores, by_donor


def draw_replicates(cell_type: np.ndarray, replicates: int, sampling: float, seed: int) -> sp.csr_matrix:
    """Return a matrix replicates × cells that is 1 for the cells of a replicate: a share of a type's, each once.

    Parameters
    ----------
    cell_type
        Of each cell, as codes from 0, each of at least 2 cells.
    replicates
        Of each type; those of the first type come first.
    sampling
        Share of the cells, rounded up; never all, or the replicates would be the same.
    seed
        Seed of the draws.
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


def fold_change_scores(
    counts: Matrix,
    totals: np.ndarray,
    cell_type: pd.Series,
    *,
    replicates: int,
    sampling: float,
    fraction: float,
    q_value: float,
    seed: int,
) -> np.ndarray:
    """Return the log2 fold change of the genes that a type expresses more than the others do on average.

    Parameters
    ----------
    counts
        Cells × genes.
    totals
        Counts of each cell over all genes.
    cell_type
        Of each cell, categorical.
    replicates, sampling, seed
        As for :func:`draw_replicates`.
    fraction
        Least share of a type's cells that express a marker of the type.
    q_value
        False discovery rate of the Welch tests of a type (on log2 of CPM + 1).

    Returns
    -------
    Cell types × genes, -inf where a gene is no marker of the type.
    """
    codes, names = cell_type.cat.codes.to_numpy(), list(cell_type.cat.categories)
    rows = draw_replicates(codes, replicates, sampling, seed)
    cpm = product(rows, counts, description="adding up replicates")[0] / (rows @ totals)[:, None] * 1e6
    expressed = np.ones((len(names), cpm.shape[1]))
    # the cells are read again only where it matters
    if fraction > 0:
        of_type = indicator(cell_type, names)
        expressed = product(of_type, counts > 0, description="counting cells")[0] / np.asarray(of_type.sum(axis=1))
    log, kind_of_row = np.log2(cpm + 1), np.repeat(np.arange(len(names)), replicates)
    # a gene that no replicate has, or that does not vary, says nothing
    tested = deviations_from_mean(log).any(axis=0)
    scores = np.full((len(names), cpm.shape[1]), -np.inf)
    for kind, score in enumerate(scores):
        mine = kind_of_row == kind
        change = np.log2((cpm[mine].mean(axis=0) + 1) / (cpm[~mine].mean(axis=0) + 1))
        p = ttest_ind(log[mine][:, tested], log[~mine][:, tested], equal_var=False).pvalue
        q = np.ones_like(change)
        q[tested] = false_discovery_control(np.nan_to_num(p, nan=1))
        found = (q < q_value) & (change > 0) & (expressed[kind] >= fraction)
        score[found] = change[found]
    return scores


def condition_number(profiles: np.ndarray) -> float:
    """Return the 2-norm condition number of profiles, types × genes; infinite where they cannot be told apart."""
    return float(np.linalg.cond(profiles)) if profiles.shape[0] <= profiles.shape[1] else np.inf


def best_depth(scores: np.ndarray, profiles: np.ndarray, depths: range) -> tuple[int, np.ndarray]:
    """Choose how many of each type's best markers make the signature with the lowest condition number.

    Parameters
    ----------
    scores
        Cell types × genes, -inf where a gene is no marker of the type.
    profiles
        Cell types × genes, in a unit that is the same for all types.
    depths
        Numbers to choose from.

    Returns
    -------
    The number, the smallest of the best, and the mask of the genes in the union of the types' lists.
    """
    position = (-scores).argsort(axis=1, kind="stable").argsort(axis=1)
    first = np.where(np.isfinite(scores), position, scores.shape[1]).min(axis=0)
    conditions = [condition_number(profiles[:, first < depth]) for depth in depths]
    depth = depths[int(np.argmin(conditions))]
    return depth, first < depth
