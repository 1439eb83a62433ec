"""Marker genes and proportions of cell types on the log scale (dtangle, hspe)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from scdeconv._stats.expression import to_shares

# share of a type's candidate genes that become its markers, default of dtangle and hspe
MARKER_SHARE = 0.1
# lower bound of expression before the logarithm (CPM + 1), as in hspe
MIN_EXPRESSION = 1.0
# L-BFGS-B stops at a relative change of the loss near the machine precision; set by hand
LOSS_TOLERANCE, GRADIENT_TOLERANCE, MAX_ITERATIONS = 1e-15, 1e-12, 5000


def log2_cpm(expression: np.ndarray) -> np.ndarray:
    """Return log2 of counts per million plus 1, samples × genes."""
    return np.log2(1e6 * to_shares(expression) + 1)


def mean_by_type(values: np.ndarray, types: np.ndarray, n_types: int) -> np.ndarray:
    """Return the mean over the samples of each type, types × genes; 0 for types without samples."""
    member = types == np.arange(n_types)[:, None]
    mean: np.ndarray = member @ values / np.maximum(member.sum(axis=1), 1)[:, None]
    return mean


def score_markers(logs: np.ndarray, types: np.ndarray, n_types: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the type with the highest mean expression of each gene, and its ratio to the sum of the other types.

    Parameters
    ----------
    logs
        Reference samples × genes, log2 scale. The means are computed on the linear scale.
    types
        Cell-type code of each reference sample, from 0.
    n_types
        Number of cell types.

    Returns
    -------
    cell_type
        Code of the type, length genes; -1 for genes without a unique highest type.
    score
        Ratio, length genes.
    """
    means = mean_by_type(2**logs, types, n_types)
    others = means.sum(axis=0) - means
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(means / others, nan=0.0)
    score = ratio.max(axis=0)
    unique = (ratio == score).sum(axis=0) == 1
    return np.where(unique, ratio.argmax(axis=0), -1), score


def choose_markers(cell_type: np.ndarray, score: np.ndarray, n_types: int) -> np.ndarray:
    """Return the best tenth of the candidate genes of each type, at least one and at most genes / types.

    Parameters
    ----------
    cell_type, score
        From :func:`score_markers`.
    n_types
        Number of cell types.

    Returns
    -------
    Types × genes (bool). No type has a marker of another type; a type without candidates has none.
    """
    markers = np.zeros((n_types, len(score)), dtype=bool)
    for code, mine in enumerate(markers):
        candidates = np.flatnonzero(cell_type == code)
        n_markers = max(1, min(int(MARKER_SHARE * len(candidates)), len(score) // n_types))
        mine[candidates[np.argsort(-score[candidates], kind="stable")[:n_markers]]] = True
    return markers


def solve_marker_logs(logs: np.ndarray, profiles: np.ndarray, markers: np.ndarray, gamma: float) -> np.ndarray:
    """Return the proportions of the types from the mean log expression of their markers (dtangle).

    Parameters
    ----------
    logs
        Samples × genes, log2 scale.
    profiles
        Mean of the reference samples, types × genes, log2 scale.
    markers
        Types × genes (bool).
    gamma
        Change of measured log expression for a change of log concentration by 1.

    Returns
    -------
    Proportions, samples × types; 0 for types without markers.
    """
    number = markers.sum(axis=1)
    change = (logs @ markers.T - (profiles * markers).sum(axis=1)) / (gamma * np.maximum(number, 1))
    change = np.where(number > 0, change, -np.inf)
    amounts = 2.0 ** (change - change.max(axis=1, keepdims=True))
    return to_shares(amounts)


def solve_log_residuals(bulk: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Minimise the variance over genes of ``log(bulk) - log(x @ profiles)`` over ``0 <= x <= 1`` (hspe).

    The variance does not depend on the sum of x. The minimum is found by L-BFGS-B from equal proportions; on the data in
    ``tests/parity``, 20 random starts and differential evolution find the same minimum.

    Parameters
    ----------
    bulk
        Samples × marker genes, linear scale.
    profiles
        Types × marker genes, linear scale.

    Returns
    -------
    Proportions, samples × types.
    """
    logs, profiles = np.log(np.maximum(bulk, MIN_EXPRESSION)), np.maximum(profiles, MIN_EXPRESSION)
    n_types, n_genes = profiles.shape

    def loss(x: np.ndarray, log: np.ndarray) -> tuple[float, np.ndarray]:
        fitted = x @ profiles
        residual = log - np.log(fitted)
        deviation = residual - residual.mean()
        return float(deviation @ deviation) / n_genes, -2 / n_genes * (profiles / fitted) @ deviation

    start, bounds = np.full(n_types, 1 / n_types), [(0.0, 1.0)] * n_types
    options = {"ftol": LOSS_TOLERANCE, "gtol": GRADIENT_TOLERANCE, "maxiter": MAX_ITERATIONS}
    found = [
        minimize(loss, start, (log,), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x for log in logs
    ]
    return to_shares(np.stack(found))
