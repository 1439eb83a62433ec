"""What Rectangle adds to DWLS: clusters of similar cell types, and the share of bulk that no cell type explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import silhouette_score

from scdeconv._expression import LEVEL, to_shares
from scdeconv.pp._select_genes import marker_ratio

from ._nonnegative import solve_nonnegative
from ._robust_regression import solve_huber

if TYPE_CHECKING:
    from collections.abc import Callable

# Rectangle merges few types: there are at least 3 clusters, and at most 3 fewer than types (4 for more than 12 types)
FEWEST_CLUSTERS = 3
MOST_MERGED, MOST_MERGED_OF_MANY, MANY = 3, 4, 12
PER_MILLION = 1e6
# proximal steps make the dual problem regular; their number leaves nothing of them in the solution
PROXIMAL, N_PROXIMAL = 1e-6, 4
# markers that show unknown content: log2 of the least ratio of a type to the next, and how many a type needs
LEAST_RATIO, FEWEST_MARKERS = 2.0, 5
# shares of a missing type in the mixtures that calibrate unknown content
MISSING = np.array([0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
LEAST_RISE = 1e-6


def cluster_profiles(profiles: np.ndarray) -> np.ndarray:
    """Cluster cell types by complete linkage of log profiles, into as many clusters as give the best silhouette.

    Parameters
    ----------
    profiles
        Shares of a cell's RNA, cell types × genes.

    Returns
    -------
    Clusters × cell types, 1 for the members of a cluster; every type is alone where there are fewer than 4.
    """
    n_types = len(profiles)
    labels = best = np.arange(n_types)
    if n_types > FEWEST_CLUSTERS:
        points, highest = np.log1p(PER_MILLION * profiles), -np.inf
        tree = linkage(points, method="complete")
        merged = MOST_MERGED if n_types <= MANY else MOST_MERGED_OF_MANY
        for n_clusters in range(max(FEWEST_CLUSTERS, n_types - merged), n_types):
            labels = fcluster(tree, n_clusters, criterion="maxclust") - 1
            # identical profiles can leave a single cluster, which has no silhouette
            score = silhouette_score(points, labels) if labels.any() else -np.inf
            if score > highest:
                best, highest = labels, score
    return np.eye(best.max() + 1)[best].T


def cluster_means(profiles: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return the mean profile of each cluster, clusters × genes; arguments as elsewhere here."""
    return members @ profiles / members.sum(axis=1, keepdims=True)


def share_constraints(shares: np.ndarray, members: np.ndarray, slack: float) -> np.ndarray:
    """Return the constraints that no weight is negative and the share of each cluster is near a given one.

    Parameters
    ----------
    shares
        Samples × clusters.
    members
        Clusters × cell types, 1 for the members of a cluster.
    slack
        How far a cluster's share of the sum of all weights may be from the given one.

    Returns
    -------
    Samples × constraints × cell types: weights are allowed where the product with them is not negative.
    """
    n_types = members.shape[1]
    positive = np.broadcast_to(np.eye(n_types), (len(shares), n_types, n_types))
    above = members - (shares - slack)[:, :, None]
    below = (shares + slack)[:, :, None] - members
    return np.concatenate([positive, above, below], axis=1)


def solve_in_cone(gram: np.ndarray, moment: np.ndarray, cone: np.ndarray) -> np.ndarray:
    """Minimise ``x' gram x / 2 - moment' x`` over ``cone x >= 0`` for each sample.

    The multipliers of the constraints solve a problem that knows only their signs.

    Parameters
    ----------
    gram
        Samples × cell types × cell types, positive semi-definite.
    moment
        Samples × cell types.
    cone
        Samples × constraints × cell types; those of :func:`share_constraints`, ``x >= 0`` among them.

    Returns
    -------
    Solutions, samples × cell types.
    """
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    scale = np.where(scale > 0, scale, 1)
    inverse = np.linalg.inv(gram / (scale[:, :, None] * scale[:, None, :]) + PROXIMAL * np.eye(gram.shape[1]))
    rows = cone / scale[:, None, :]
    columns = rows.transpose(0, 2, 1)
    reach = rows @ inverse
    x = np.zeros_like(moment)
    for _ in range(N_PROXIMAL):
        pull = (moment / scale + PROXIMAL * x)[..., None]
        multipliers = solve_nonnegative(reach @ columns, -(reach @ pull)[..., 0])
        x = (inverse @ (pull + columns @ multipliers[..., None]))[..., 0]
    return np.maximum(x, 0) / scale


def residual_share(signature: np.ndarray, bulk: np.ndarray, weights: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Return by how much markers fall behind the other genes in bulk.

    Cells that the signature lacks add to the genes that all cells express, not to the markers of the types that it has.
    So the weight of each type is set by the median of its markers, and what the weights explain of the sample is read
    from the median of the other genes. Medians stand for sums because platforms differ by orders of magnitude in some
    genes. What they differ by in proportion to the level of a gene (a slope of log bulk on log level) is taken out.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    weights
        To start from, samples × cell types.
    markers
        Which genes are markers; of these, those count that one type has at least four times as much of as any other.

    Returns
    -------
    Share of each sample; negative where markers are ahead.
    """
    reference, best, score = to_shares(signature).mean(axis=0), *marker_ratio(signature)
    faint = 1 / (LEVEL * signature.shape[1])
    others = ~markers & (reference > faint)
    level = np.log(reference + faint)
    level -= level[others].mean()
    shares, total = to_shares(bulk), np.maximum(bulk.sum(axis=1, keepdims=True), np.finfo(float).tiny)

    def excess(weights: np.ndarray) -> np.ndarray:
        return np.log((shares + faint) / (weights @ signature / total + faint))

    first, weights = excess(weights), weights.copy()
    slope = solve_huber(np.stack([np.ones_like(level), level])[:, others], first[:, others])[:, 1:]
    behind, clear = first - slope * level, markers & (score >= LEAST_RATIO)
    for cell_type in range(len(signature)):
        own = clear & (best == cell_type)
        # a type that resembles another has few of its own; it is as far off as the types are on average
        own = own if own.sum() >= FEWEST_MARKERS else clear if clear.any() else markers
        weights[:, cell_type] *= np.exp(np.median(behind[:, own], axis=1))
    return 1 - np.exp(-np.median((excess(weights) - slope * level)[:, others], axis=1))


def calibrate_residual(
    signature: np.ndarray, markers: np.ndarray, solve: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Say what :func:`residual_share` is where a type is missing, by leaving out those of the signature one by one.

    The other types have equal shares of the RNA; the markers of the type that is left out are no markers then.

    Parameters
    ----------
    signature
        Cell types × genes, at least 3 types.
    markers
        Which genes are markers.
    solve
        Returns the weights of a signature in bulk.

    Returns
    -------
    Median over the types, for each share in ``MISSING``; it rises, if hardly where nothing can be seen.
    """
    profiles, best = to_shares(signature), marker_ratio(signature)[0]
    found = []
    for missing in range(len(profiles)):
        others, known = np.delete(profiles, missing, axis=0), markers & (best != missing)
        mixtures = np.outer(1 - MISSING, others.mean(axis=0)) + np.outer(MISSING, profiles[missing])
        found.append(residual_share(others, mixtures, solve(others[:, known], mixtures[:, known]), known))
    return np.maximum.accumulate(np.median(found, axis=0)) + LEAST_RISE * MISSING
