"""Marker-gene statistics: scores, moderated t-tests on pseudobulk, and choice of the number of markers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, ttest_ind
from scipy.stats import t as student

from .expression import to_shares
from .rounding import deviations_from_mean, without_rounding
from .shrinkage import moderate_variances

# default number of marker genes per cell type (set by hand)
GENES_PER_TYPE = 50
# pseudocount of the moderated test, and minimum count in at least two pseudobulks for a gene to be tested (set by hand)
PRIOR_COUNT, MIN_COUNT = 2, 10


def marker_ratio(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell type with the highest expression of each gene and its log2 ratio to the second.

    The score is log2 of the highest over the second-highest share of a type's RNA (Mean Ratio; Huuki-Myers et al.
    2025). A pseudocount of 10 % of the mean share reduces the scores of lowly expressed genes.

    Parameters
    ----------
    profiles
        Mean expression, cell types × genes.

    Returns
    -------
    cell_type
        Code of the cell type, length genes.
    score
        Log2 ratio, length genes.
    """
    totals = profiles.sum(axis=1, keepdims=True)
    shares = profiles / np.where(totals > 0, totals, 1)
    shares = shares + 0.1 / profiles.shape[1]
    if len(shares) == 1:
        return np.zeros(shares.shape[1], dtype=int), shares[0]
    highest = np.partition(shares, -2, axis=0)
    return shares.argmax(axis=0), np.log2(highest[-1] / highest[-2])


def best_per_type(cell_type: np.ndarray, score: np.ndarray, n_genes: int) -> np.ndarray:
    """Return a mask of the ``n_genes`` best genes, with about the same number for each type."""
    rank = pd.Series(-score).groupby(cell_type).rank(method="first").to_numpy()
    chosen = np.lexsort((-score, rank))[:n_genes]
    mask = np.zeros(len(score), dtype=bool)
    mask[chosen] = True
    return mask


def agreement(bulk: np.ndarray, pseudobulk: np.ndarray) -> np.ndarray:
    """Return the correlation over donors of each gene between bulk and pseudobulk of the same donors."""
    first, second = (deviations_from_mean(values) for values in (bulk, pseudobulk))
    scale = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    return (first * second).sum(axis=0) / np.where(scale > 0, scale, np.inf)


def fold_changes(
    cpm: np.ndarray, kinds: np.ndarray, expressed: np.ndarray, *, fraction: float, q_value: float
) -> np.ndarray:
    """Return the log2 fold changes of marker genes of each cell type against the mean of the other types.

    Parameters
    ----------
    cpm
        Counts per million, replicates × genes.
    kinds
        Cell-type code of each replicate, from 0.
    expressed
        Share of a type's cells that express a gene, cell types × genes.
    fraction
        Minimum of this share for a marker of the type.
    q_value
        False discovery rate of the Welch tests of a type, on log2(CPM + 1).

    Returns
    -------
    Log2 fold changes, cell types × genes; -inf for genes that are no markers of the type.
    """
    log = np.log2(cpm + 1)
    # Welch's test is undefined for constant genes
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
    """Return the 2-norm condition number of profiles, types × genes; infinite with fewer genes than types."""
    return float(np.linalg.cond(profiles)) if profiles.shape[0] <= profiles.shape[1] else np.inf


def best_depth(scores: np.ndarray, profiles: np.ndarray, depths: range) -> tuple[int, np.ndarray]:
    """Choose the number of markers per type that gives the signature with the lowest condition number.

    Parameters
    ----------
    scores
        Cell types × genes; -inf for genes that are no markers of the type.
    profiles
        Cell types × genes, in the same unit for all types.
    depths
        Candidate numbers of markers per type.

    Returns
    -------
    depth
        The chosen number; the smallest one for ties.
    mask
        Mask of the genes in the union of the types' markers.
    """
    position = (-scores).argsort(axis=1, kind="stable").argsort(axis=1)
    first = np.where(np.isfinite(scores), position, scores.shape[1]).min(axis=0)
    conditions = [condition_number(profiles[:, first < depth]) for depth in depths]
    depth = depths[int(np.argmin(conditions))]
    return depth, first < depth


def moderated_t(
    log_expression: np.ndarray, cell_type: np.ndarray, donor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Test each cell type against all other types with moderated t-tests in a linear model of pseudobulk.

    The model has cell-type effects. It also has donor effects if the types remain estimable. A marker must be higher
    than in every other type, so the statistic is the minimum of the moderated t over the other types. Its one-sided
    p-value needs no correction for the number of types (intersection-union test; Berger 1982).

    Parameters
    ----------
    log_expression
        Pseudobulks × genes.
    cell_type, donor
        Codes of each pseudobulk, from 0. All codes must occur.

    Returns
    -------
    statistic, p
        Cell types × genes.
    by_donor
        Whether the model has donor effects.
    """
    types, donors = (np.eye(codes.max() + 1)[codes] for codes in (cell_type, donor))
    design = np.hstack([types, donors[:, 1:]])
    n_rows, n_types = types.shape
    # full rank: shared donors make all type differences estimable
    by_donor = bool(n_rows > design.shape[1] == np.linalg.matrix_rank(design))
    if not by_donor:
        design = types
    orthogonal, triangle = np.linalg.qr(design)
    inverse = np.linalg.inv(triangle)
    effects = inverse @ (orthogonal.T @ log_expression)
    df = n_rows - design.shape[1]
    residual = log_expression - design @ effects
    # otherwise the statistic of constant genes would be a ratio of rounding errors
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
    """Return the moderated t of the markers in pseudobulk, and whether the model has donor effects.

    The test is :func:`moderated_t` on log2 of counts scaled to the mean library size, plus a pseudocount of 2.

    Parameters
    ----------
    counts
        Pseudobulks × genes.
    totals
        Library size of each pseudobulk over all genes.
    cell_type, donor
        Codes of each pseudobulk, from 0. All codes must occur.
    q_value
        False discovery rate of the markers of a type.

    Returns
    -------
    scores
        Moderated t, cell types × genes; -inf for genes that are no markers of the type.
    by_donor
        Whether the model has donor effects.
    """
    tested = (counts >= MIN_COUNT).sum(axis=0) > 1
    scores = np.full((cell_type.max() + 1, counts.shape[1]), -np.inf)
    log_expression = np.log2(counts[:, tested] * (totals.mean() / totals)[:, None] + PRIOR_COUNT)
    statistic, p, by_donor = moderated_t(log_expression, cell_type, donor)
    if tested.any():
        found = (false_discovery_control(p, axis=1) < q_value) & (statistic > 0)
        scores[:, tested] = np.where(found, statistic, -np.inf)
    return scores, by_donor


def score_by_reference(clusters: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Return the correlations between centred cluster profiles and centred type profiles, clusters × types.

    Centring over clusters removes platform effects, which are the same in all clusters. The genes are the 50 per type
    with the highest variance between types. Profiles are log1p of expression relative to its mean over genes. This
    scale reduces the counting noise of rare types.

    Parameters
    ----------
    clusters, types
        Summed or mean expression on a linear scale, clusters × genes and types × the same genes.
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
    """Return the column of the best score in each row; -1 if it is below ``least`` or its lead is below ``lead``."""
    second, best = np.sort(scores, axis=1)[:, -2:].T
    return np.where((best >= least) & (best - second >= lead), scores.argmax(axis=1), -1)
