"""Statistics of marker genes: scores, moderated t tests of pseudobulk, and how many to take."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import digamma, polygamma
from scipy.stats import false_discovery_control, ttest_ind
from scipy.stats import t as student

from .expression import to_shares
from .rounding import deviations_from_mean, without_rounding

GENES_PER_TYPE = 50
# a variance below this share of the median is taken for that: the log of a zero would decide everything
SMALLEST_VARIANCE = 1e-5
# pseudo-count of the moderated test, and the count that two pseudobulks must reach for a gene to be tested
PRIOR_COUNT, LEAST_COUNT = 2, 10


def marker_ratio(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, per gene, the cell type that expresses it most and by how much more than the second.

    The score is log2 of the highest over the second highest share of a type's RNA (Mean Ratio; Huuki-Myers et al. 2025),
    with a pseudo-count of one tenth of the mean share, so that genes that are hardly seen do not win.

    Parameters
    ----------
    profiles
        Mean expression, cell types × genes.

    Returns
    -------
    Index of the type and score, both of length genes.
    """
    totals = profiles.sum(axis=1, keepdims=True)
    shares = profiles / np.where(totals > 0, totals, 1)
    shares = shares + 0.1 / profiles.shape[1]
    if len(shares) == 1:
        return np.zeros(shares.shape[1], dtype=int), shares[0]
    highest = np.partition(shares, -2, axis=0)
    return shares.argmax(axis=0), np.log2(highest[-1] / highest[-2])


def best_per_type(cell_type: np.ndarray, score: np.ndarray, n_genes: int) -> np.ndarray:
    """Return a mask of about ``n_genes`` genes, the same number for each type, the best of each."""
    rank = pd.Series(-score).groupby(cell_type).rank(method="first").to_numpy()
    chosen = np.lexsort((-score, rank))[:n_genes]
    mask = np.zeros(len(score), dtype=bool)
    mask[chosen] = True
    return mask


def agreement(bulk: np.ndarray, pseudobulk: np.ndarray) -> np.ndarray:
    """Return each gene's correlation, over donors, between bulk and the pseudobulk of the same donors."""
    first, second = (deviations_from_mean(values) for values in (bulk, pseudobulk))
    scale = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    return (first * second).sum(axis=0) / np.where(scale > 0, scale, np.inf)


def fold_changes(
    cpm: np.ndarray, kinds: np.ndarray, expressed: np.ndarray, *, fraction: float, q_value: float
) -> np.ndarray:
    """Return the log2 fold change of the genes that a type expresses more than the others do on average.

    Parameters
    ----------
    cpm
        Counts per million, replicates × genes.
    kinds
        Cell type of each replicate, from 0.
    expressed
        Share of a type's cells that express a gene, cell types × genes.
    fraction
        Least such share of a marker of the type.
    q_value
        False discovery rate of the Welch tests of a type (on log2 of CPM + 1).

    Returns
    -------
    Cell types × genes, -inf where a gene is no marker of the type.
    """
    log = np.log2(cpm + 1)
    # a test needs a gene that varies
    tested = deviations_from_mean(log).any(axis=0)
    scores = np.full(expressed.shape, -np.inf)
    for kind, score in enumerate(scores):
        mine = kinds == kind
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
    residual = without_rounding(residual, log_expression)
    variance, df_total = moderate_variances((residual**2).sum(axis=0) / df, df)
    effects, covariance = effects[:n_types], (inverse @ inverse.T)[:n_types, :n_types]
    statistic = np.empty_like(effects)
    for kind in range(n_types):
        others = np.arange(n_types) != kind
        unscaled = np.diag(covariance) + covariance[kind, kind] - 2 * covariance[kind]
        difference = effects[kind] - effects[others]
        difference = without_rounding(difference, log_expression)
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


def score_by_reference(clusters: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Return, clusters × types, how a cluster's departure from all clusters correlates with a type's from all types.

    What a platform does to a gene is the same in all clusters and drops out with their mean. The genes are those that
    differ most between the types, 50 for each. The scale is log1p of the expression as multiple of its mean over genes, on
    which the few counts of a rare type make little noise.

    Parameters
    ----------
    clusters, types
        Summed or mean expression of each, linear, × the same genes.
    """
    clusters, types = (np.log1p(to_shares(table) * table.shape[1]) for table in (clusters, types))
    genes = np.argsort(-types.var(axis=0), kind="stable")[: GENES_PER_TYPE * len(types)]
    departures = []
    for profiles in (clusters, types):
        rows = (profiles - profiles.mean(axis=0))[:, genes]
        rows = rows - rows.mean(axis=1, keepdims=True)
        departures.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny))
    return np.asarray(departures[0] @ departures[1].T)


def choose(scores: np.ndarray, least: float, lead: float) -> np.ndarray:
    """Return the column of the best score in each row, -1 where it is below ``least`` or not ``lead`` ahead of the next."""
    second, best = np.sort(scores, axis=1)[:, -2:].T
    return np.where((best >= least) & (best - second >= lead), scores.argmax(axis=1), -1)
