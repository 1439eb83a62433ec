"""Extensions of DWLS by Rectangle: clusters of similar cell types and unknown content of bulk."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import silhouette_score

from scdeconv._stats.expression import LEVEL, to_shares
from scdeconv._stats.least_squares import MAD_PER_SD, solve_huber, solve_nonnegative
from scdeconv._stats.markers import best_per_type, marker_ratio

# minimum number of clusters, and maximum number of merged types for up to 12 types and for more than 12 (Rectangle)
MIN_CLUSTERS = 3
MAX_MERGED, MAX_MERGED_OF_MANY, MANY_TYPES = 3, 4, 12
PER_MILLION = 1e6
# weight of the proximal term, which makes the dual problem regular, and number of proximal steps (set by hand)
PROXIMAL_WEIGHT, N_PROXIMAL_STEPS = 1e-7, 3
# markers of unknown content: minimum log2 ratio to the next type, minimum and maximum number per type (set by hand)
MIN_LOG2_RATIO, MIN_MARKERS, MAX_MARKERS = 2.0, 10, 50
# rounds of slope and marker medians in `residual_share` (set by hand)
N_ROUNDS = 2
# asymptotic variance ratio of median and mean for normal values
MEDIAN_VARIANCE_RATIO = np.pi / 2
# minimum number of cell types and of non-marker genes (set by hand)
MIN_TYPES, MIN_OTHER_GENES = 3, 50
# shares of a missing type in the calibration mixtures of unknown content (set by hand)
MISSING = np.array([0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
# slope that is added to the calibration curve, which makes it strictly increasing (set by hand)
MIN_SLOPE = 1e-6


def cut_tree(points: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return cluster codes from 0 by complete linkage; ties may give fewer clusters than requested."""
    return fcluster(linkage(points, method="complete"), n_clusters, criterion="maxclust") - 1


def cluster_profiles(profiles: np.ndarray) -> np.ndarray:
    """Cluster cell types by complete linkage of log profiles with the number of clusters of the best silhouette.

    Parameters
    ----------
    profiles
        Shares of RNA, cell types × genes.

    Returns
    -------
    Indicator, clusters × cell types. With fewer than 4 types, each type is its own cluster.
    """
    n_types, best, highest = len(profiles), np.arange(len(profiles)), -np.inf
    if n_types > MIN_CLUSTERS:
        points = np.log1p(PER_MILLION * profiles)
        merged = MAX_MERGED if n_types <= MANY_TYPES else MAX_MERGED_OF_MANY
        for n_clusters in range(max(MIN_CLUSTERS, n_types - merged), n_types):
            labels = cut_tree(points, n_clusters)
            # the silhouette is undefined for a single cluster, which identical profiles can give
            score = silhouette_score(points, labels) if labels.any() else -np.inf
            if score > highest:
                best, highest = labels, score
    return np.eye(best.max() + 1)[best].T


def cluster_means(profiles: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return the mean profile of each cluster, clusters × genes."""
    return members @ profiles / members.sum(axis=1, keepdims=True)


def share_constraints(shares: np.ndarray, members: np.ndarray, slack: float) -> np.ndarray:
    """Return linear constraints for non-negative weights and for cluster shares near given shares.

    Parameters
    ----------
    shares
        Target share of each cluster, samples × clusters.
    members
        Indicator, clusters × cell types.
    slack
        Maximum absolute difference of a cluster's share of all weights from its target.

    Returns
    -------
    Constraint matrices C, samples × constraints × cell types. Weights x are feasible if ``C x >= 0``.
    """
    n_types = members.shape[1]
    positive = np.broadcast_to(np.eye(n_types), (len(shares), n_types, n_types))
    above = members - (shares - slack)[:, :, None]
    below = (shares + slack)[:, :, None] - members
    return np.concatenate([positive, above, below], axis=1)


def solve_in_cone(gram: np.ndarray, moment: np.ndarray, cone: np.ndarray) -> np.ndarray:
    """Minimise ``x' gram x / 2 - moment' x`` over ``cone x >= 0`` for each sample.

    The dual problem in the multipliers has sign constraints only and is solved by non-negative least squares.

    Parameters
    ----------
    gram
        Samples × cell types × cell types, positive semi-definite.
    moment
        Samples × cell types.
    cone
        Samples × constraints × cell types, from :func:`share_constraints`. It must include ``x >= 0``.

    Returns
    -------
    Solutions, samples × cell types.
    """
    solution = solve_nonnegative(gram, moment)
    outside = (np.einsum("nck,nk->nc", cone, solution) < 0).any(axis=1)
    if not outside.any():
        return solution
    gram, moment, cone = gram[outside], moment[outside], cone[outside]
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    scale = np.where(scale > 0, scale, 1)
    inverse = np.linalg.inv(gram / (scale[:, :, None] * scale[:, None, :]) + PROXIMAL_WEIGHT * np.eye(gram.shape[1]))
    rows = cone / scale[:, None, :]
    columns = rows.transpose(0, 2, 1)
    reach = rows @ inverse
    x = np.zeros_like(moment)
    for _ in range(N_PROXIMAL_STEPS):
        pull = (moment / scale + PROXIMAL_WEIGHT * x)[..., None]
        multipliers = solve_nonnegative(reach @ columns, -(reach @ pull)[..., 0])
        x = (inverse @ (pull + columns @ multipliers[..., None]))[..., 0]
    solution[outside] = np.maximum(x, 0) / scale
    return solution


def clear_markers(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find marker genes with at least four-fold expression over any other type, and non-marker genes.

    Parameters
    ----------
    profiles
        Shares of RNA, cell types × genes.

    Returns
    -------
    markers
        Mask, cell types × genes; at most 50 markers per type.
    others
        Mask of the non-marker genes, length genes. Both masks exclude lowly expressed genes.
    """
    seen = profiles.mean(axis=0) > 1 / (LEVEL * profiles.shape[1])
    best, score = marker_ratio(profiles)
    clear = seen & (score >= MIN_LOG2_RATIO)
    chosen = best_per_type(best, np.where(clear, score, -1.0), MAX_MARKERS * len(profiles)) & clear
    return chosen & (best == np.arange(len(profiles))[:, None]), seen & ~clear


def check_unknown(profiles: np.ndarray) -> None:
    """Raise ``ValueError`` if unknown content cannot be estimated from profiles (shares, cell types × genes)."""
    markers, others = clear_markers(profiles)
    if len(profiles) < MIN_TYPES:
        msg = f"Expected at least {MIN_TYPES} cell types with unknown=True, found {len(profiles)}. Set unknown=False."
        raise ValueError(msg)
    if not markers.any() or others.sum() < MIN_OTHER_GENES:
        msg = (
            f"Expected marker genes and at least {MIN_OTHER_GENES} other genes with unknown=True, found "
            f"{markers.sum()} markers and {others.sum()} other genes. Pass all genes to pp.pair."
        )
        raise ValueError(msg)


def merge_unmarked(profiles: np.ndarray) -> np.ndarray:
    """Merge similar cell types until all clusters have clear markers or three clusters remain.

    Parameters
    ----------
    profiles
        Shares of RNA, cell types × genes.

    Returns
    -------
    Indicator, clusters × cell types.
    """
    members = np.eye(len(profiles))
    for n_clusters in range(len(profiles) - 1, MIN_CLUSTERS - 1, -1):
        if clear_markers(cluster_means(profiles, members))[0].sum(axis=1).min() >= MIN_MARKERS:
            break
        labels = cut_tree(np.log1p(PER_MILLION * profiles), n_clusters)
        if labels.max() + 1 < MIN_CLUSTERS:
            break
        members = np.eye(labels.max() + 1)[labels].T
    return members


def residual_share(
    profiles: np.ndarray, bulk: np.ndarray, weights: np.ndarray, members: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of bulk RNA that the reference does not explain.

    Cell types that are missing from the reference express common genes but not the markers of the reference types. The
    weight of each cluster is therefore fitted to the median log ratio of its markers. The explained share is the median
    ratio of the other genes. Medians replace sums because platform effects of some genes are orders of magnitude. A
    platform effect that is linear in log expression is estimated and removed.

    Parameters
    ----------
    profiles
        Shares of RNA, cell types × genes.
    bulk
        Samples × genes.
    weights
        Shares of RNA, samples × cell types. Their ratios within clusters are kept.
    members
        Indicator, clusters × cell types.

    Returns
    -------
    share
        Unexplained share, length samples. It is negative if markers exceed the other genes.
    error
        Standard error from the variation of the markers, length samples.
    """
    markers, others = clear_markers(cluster_means(profiles, members))
    faint = 1 / (LEVEL * profiles.shape[1])
    level = np.log(profiles.mean(axis=0) + faint)
    level -= level[others].mean()
    design, shares = np.stack([np.ones_like(level), level]), to_shares(bulk)

    def excess(weights: np.ndarray) -> np.ndarray:
        return np.log((shares + faint) / (weights @ profiles + faint))

    for _ in range(N_ROUNDS):
        ratio = excess(weights)
        slope = solve_huber(design[:, others], ratio[:, others])[:, 1:]
        behind = ratio - slope * level
        medians = [np.median(behind[:, own], axis=1) if own.any() else np.zeros(len(bulk)) for own in markers]
        weights = weights * np.exp(np.stack(medians, axis=1) @ members)
    rest = excess(weights) - slope * level
    scatter = np.median(np.abs(rest[:, markers.any(axis=0)]), axis=1) / MAD_PER_SD
    variance = to_shares(weights @ members.T) ** 2 @ (1 / np.maximum(markers.sum(axis=1), 1)) + 1 / others.sum()
    explained = np.exp(-np.median(rest[:, others], axis=1))
    return 1 - explained, explained * scatter * np.sqrt(MEDIAN_VARIANCE_RATIO * variance)


def shrink(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return ``value - error^2 / value`` for values above their standard error, else 0."""
    return np.where(value > error, value - error**2 / np.where(value > error, value, 1), 0)


def calibrate_residual(profiles: np.ndarray) -> np.ndarray:
    """Return the calibration curve of :func:`residual_share`, by leaving out one reference type at a time.

    Parameters
    ----------
    profiles
        Shares of RNA, cell types × genes, at least 3 types. The remaining types are mixed with equal shares.

    Returns
    -------
    Median over the types for each true share in ``MISSING``; strictly increasing.
    """
    found = []
    for missing in range(len(profiles)):
        others = np.delete(profiles, missing, axis=0)
        equal = np.full((len(MISSING), len(others)), 1 / len(others))
        mixtures = (1 - MISSING)[:, None] * (equal @ others) + np.outer(MISSING, profiles[missing])
        found.append(residual_share(others, mixtures, equal, np.eye(len(others)))[0])
    return np.maximum.accumulate(np.median(found, axis=0)) + MIN_SLOPE * MISSING
