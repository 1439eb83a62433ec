"""What Rectangle adds to DWLS: clusters of similar cell types, and the share of bulk that no cell type explains."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import silhouette_score

from scdeconv._stats.expression import LEVEL, to_shares
from scdeconv._stats.least_squares import MAD_PER_SD, solve_huber, solve_nonnegative
from scdeconv._stats.markers import best_per_type, marker_ratio

# Rectangle merges few types: there are at least 3 clusters, and at most 3 fewer than types (4 for more than 12 types)
FEWEST_CLUSTERS = 3
MOST_MERGED, MOST_MERGED_OF_MANY, MANY = 3, 4, 12
PER_MILLION = 1e6
# proximal steps make the dual problem regular; their number leaves nothing of them in the solution
PROXIMAL, N_PROXIMAL = 1e-7, 3
# markers that show unknown content: log2 of the least ratio of a type to the next, fewest and most of a type
LEAST_RATIO, FEWEST_MARKERS, MOST_MARKERS = 2.0, 10, 50
N_ROUNDS = 2
# variance of a median over that of a mean, of normal values
MEDIAN_VARIANCE = np.pi / 2
UNKNOWN = "Unknown"
# least numbers of types, and of genes that the markers are compared with
FEWEST_TYPES, FEWEST_GENES = 3, 50
# shares of a missing type in the mixtures that calibrate unknown content
MISSING = np.array([0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
LEAST_RISE = 1e-6


def cut_tree(points: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return the number of each row's cluster, from 0, by complete linkage; ties may leave fewer clusters."""
    return fcluster(linkage(points, method="complete"), n_clusters, criterion="maxclust") - 1


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
    n_types, best, highest = len(profiles), np.arange(len(profiles)), -np.inf
    if n_types > FEWEST_CLUSTERS:
        points = np.log1p(PER_MILLION * profiles)
        merged = MOST_MERGED if n_types <= MANY else MOST_MERGED_OF_MANY
        for n_clusters in range(max(FEWEST_CLUSTERS, n_types - merged), n_types):
            labels = cut_tree(points, n_clusters)
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
    solution = solve_nonnegative(gram, moment)
    outside = (np.einsum("nck,nk->nc", cone, solution) < 0).any(axis=1)
    if not outside.any():
        return solution
    gram, moment, cone = gram[outside], moment[outside], cone[outside]
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
    solution[outside] = np.maximum(x, 0) / scale
    return solution


def clear_markers(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find genes that one type has at least four times as much of as any other, and genes that are no such markers.

    Parameters
    ----------
    profiles
        Shares of a cell's RNA, cell types × genes.

    Returns
    -------
    Markers, cell types × genes, at most 50 of each type; and the other genes, length genes. Both without faint genes.
    """
    seen = profiles.mean(axis=0) > 1 / (LEVEL * profiles.shape[1])
    best, score = marker_ratio(profiles)
    clear = seen & (score >= LEAST_RATIO)
    chosen = best_per_type(best, np.where(clear, score, -1.0), MOST_MARKERS * len(profiles)) & clear
    return chosen & (best == np.arange(len(profiles))[:, None]), seen & ~clear


def check_unknown(profiles: np.ndarray, cell_types: list[str]) -> None:
    """Raise ``ValueError`` where profiles (shares, cell types × genes) cannot tell unknown content."""
    markers, others = clear_markers(profiles)
    if len(profiles) < FEWEST_TYPES:
        msg = f"Expected at least {FEWEST_TYPES} cell types with unknown=True, found {len(profiles)}. Do without it."
        raise ValueError(msg)
    if UNKNOWN in cell_types:
        msg = f"Expected no cell type called {UNKNOWN!r} with unknown=True, found one. Rename it or drop its cells."
        raise ValueError(msg)
    if not markers.any() or others.sum() < FEWEST_GENES:
        msg = (
            f"Expected markers and at least {FEWEST_GENES} genes that are none with unknown=True, found {markers.sum()} "
            f"and {others.sum()}. Give all genes to pp.pair."
        )
        raise ValueError(msg)


def merge_unmarked(profiles: np.ndarray) -> np.ndarray:
    """Cluster similar cell types until all clusters have clear markers, or three are left.

    Parameters
    ----------
    profiles
        Shares of a cell's RNA, cell types × genes.

    Returns
    -------
    Clusters × cell types, 1 for the members of a cluster.
    """
    members = np.eye(len(profiles))
    for n_clusters in range(len(profiles) - 1, FEWEST_CLUSTERS - 1, -1):
        if clear_markers(cluster_means(profiles, members))[0].sum(axis=1).min() >= FEWEST_MARKERS:
            break
        labels = cut_tree(np.log1p(PER_MILLION * profiles), n_clusters)
        if labels.max() + 1 < FEWEST_CLUSTERS:
            break
        members = np.eye(labels.max() + 1)[labels].T
    return members


def residual_share(
    profiles: np.ndarray, bulk: np.ndarray, weights: np.ndarray, members: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much the clear markers of clusters fall behind the other genes in bulk.

    Cells that the reference lacks add to the genes that all cells express, not to the markers of the types that it has.
    So the weight of each cluster is set by the median of its markers, and what the weights explain of the sample is
    read from the median of the other genes. Medians stand for sums because platforms differ by orders of magnitude in
    some genes. What they differ by in proportion to the level of a gene (a slope of log bulk on log level) is taken
    out.

    Parameters
    ----------
    profiles
        Shares of a cell's RNA, cell types × genes.
    bulk
        Samples × genes.
    weights
        Shares of the RNA, samples × cell types, whose ratios within clusters are kept.
    members
        Clusters × cell types, 1 for the members of a cluster.

    Returns
    -------
    Share of each sample, negative where markers are ahead, and its standard error from the scatter of the markers.
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
    return 1 - explained, explained * scatter * np.sqrt(MEDIAN_VARIANCE * variance)


def shrink(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return ``value - error^2 / value`` where that is positive, else 0: nothing within a standard error of zero."""
    return np.where(value > error, value - error**2 / np.where(value > error, value, 1), 0)


def calibrate_residual(profiles: np.ndarray) -> np.ndarray:
    """Say what :func:`residual_share` is where a type is missing, by leaving out those of the reference one by one.

    Parameters
    ----------
    profiles
        Shares of a cell's RNA, cell types × genes, at least 3 types. Those not left out have equal shares of the RNA.

    Returns
    -------
    Median over the types, for each share in ``MISSING``; it rises, if hardly where nothing can be seen.
    """
    found = []
    for missing in range(len(profiles)):
        others = np.delete(profiles, missing, axis=0)
        equal = np.full((len(MISSING), len(others)), 1 / len(others))
        mixtures = (1 - MISSING)[:, None] * (equal @ others) + np.outer(MISSING, profiles[missing])
        found.append(residual_share(others, mixtures, equal, np.eye(len(others)))[0])
    return np.maximum.accumulate(np.median(found, axis=0)) + LEAST_RISE * MISSING
