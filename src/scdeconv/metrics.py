"""Metrics of predicted and measured compositions: pure functions on samples × cell types.

Report them per cell type. If one type dominates all samples, the mean composition has good pooled metrics.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._data.fractions import Table, align_compositions, align_distance, align_fractions, by_column, documented
from scdeconv._stats.compositions import centred_log_ratio, mean_kl, mean_transport_cost
from scdeconv._stats.recognition import familiarity
from scdeconv._stats.rounding import deviations_from_mean, ratio

overlap = checked()(familiarity.overlap)

__all__ = [
    "aitchison",
    "bias",
    "ccc",
    "kl",
    "mae",
    "mse",
    "overlap",
    "paper_kl_softmax",
    "paper_r2_pooled",
    "paper_w_sorted",
    "pearson",
    "r2",
    "rmse",
    "table",
    "wasserstein",
]


@by_column
def mse(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean squared error.

    {pooled_or_per_type}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.mse([[0.4, 0.6], [0.2, 0.8]], [[0.5, 0.5], [0.2, 0.8]]), 6)
    0.005
    """
    return np.mean((predicted - measured) ** 2, axis=0)


@by_column
def rmse(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Root mean squared error, in units of the fractions.

    {pooled_or_per_type}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> metrics.rmse([[0.4, 0.6], [0.2, 0.8]], [[0.5, 0.5], [0.3, 0.7]], per_type=True).round(3).to_list()
    [0.1, 0.1]
    """
    return np.sqrt(np.mean((predicted - measured) ** 2, axis=0))


@by_column
def mae(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean absolute error, in units of the fractions.

    {pooled_or_per_type}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.mae([[0.4, 0.6]], [[0.5, 0.5]]), 6)
    0.1
    """
    return np.mean(np.abs(predicted - measured), axis=0)


@by_column
def bias(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean of predicted minus measured; positive if a type is overestimated.

    Over all entries it is zero if both compositions sum to one, so only ``per_type=True`` is informative.

    {pooled_or_per_type}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> metrics.bias([[0.4, 0.6]], [[0.5, 0.5]], per_type=True).round(6).to_list()
    [0.1, -0.1]
    """
    return np.mean(predicted - measured, axis=0)


@by_column
def r2(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Coefficient of determination: 1 − residual / total sum of squares.

    NaN if the measured values are constant. Over all entries, the total sum of squares is around the grand mean. Most
    of it is the variance *between* cell types, so the mean composition has a high R². Report ``per_type=True``.

    {pooled_or_per_type}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> measured, mean_composition = [[0.8, 0.2], [0.9, 0.1]], [[0.85, 0.15]] * 2
    >>> round(metrics.r2(measured, mean_composition), 3)
    0.98
    >>> metrics.r2(measured, mean_composition, per_type=True).round(3).to_list()
    [0.0, 0.0]
    """
    return 1 - ratio(np.sum((predicted - measured) ** 2, axis=0), np.sum(deviations_from_mean(measured) ** 2, axis=0))


@by_column
def pearson(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Pearson correlation.

    NaN if one of the two is constant. It is invariant to scale and offset errors; see :func:`ccc`.

    {pooled_or_per_type}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.pearson([[0.1], [0.2], [0.3]], [[0.2], [0.4], [0.6]]), 3)
    1.0
    """
    x, y = deviations_from_mean(measured), deviations_from_mean(predicted)
    return ratio(np.sum(x * y, axis=0), np.sqrt(np.sum(x**2, axis=0) * np.sum(y**2, axis=0)))


@by_column
def ccc(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Concordance correlation coefficient (Lin 1989): agreement with the identity line, from −1 to 1.

    ``2·cov / (var + var + (difference of means)²)``, with population variances. It is 0 for a constant prediction, and
    NaN if both are constant and equal.

    {pooled_or_per_type}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.ccc([[0.1], [0.2], [0.3]], [[0.2], [0.4], [0.6]]), 3)
    0.364
    """
    x, y = deviations_from_mean(measured), deviations_from_mean(predicted)
    gap = measured.mean(axis=0) - predicted.mean(axis=0)
    return ratio(2 * np.mean(x * y, axis=0), np.mean(x**2 + y**2, axis=0) + gap**2)


@documented
def kl(measured: Table, predicted: Table, *, epsilon: float = 1e-6) -> float:
    """Kullback-Leibler divergence of the measured from the predicted composition, in nats.

    {with_floor}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.kl([[0.5, 0.5]], [[0.25, 0.75]]), 4)
    0.1438
    """
    p, q, _ = align_compositions(measured, predicted)
    return mean_kl(p, q, epsilon)


@documented
def wasserstein(measured: Table, predicted: Table, *, distance: Table | None = None) -> float:
    """Wasserstein distance between predicted and measured composition.

    {compared}
    distance
        Distances between cell types, cell types × cell types, symmetric with a zero diagonal. A DataFrame is aligned by
        name. None: all distances are 1, which gives the total variation, half the sum of absolute differences.

    {mean}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> measured, predicted = [[1.0, 0.0, 0.0]], [[0.0, 0.5, 0.5]]
    >>> metrics.wasserstein(measured, predicted)
    1.0
    >>> metrics.wasserstein(measured, predicted, distance=[[0, 1, 4], [1, 0, 4], [4, 4, 0]])
    2.5
    """
    p, q, types = align_compositions(measured, predicted)
    return mean_transport_cost(p, q, None if distance is None else align_distance(distance, types))


@documented
def aitchison(measured: Table, predicted: Table, *, epsilon: float = 1e-3) -> float:
    """Aitchison distance: Euclidean distance between centred log-ratios.

    A change from 1 % to 2 % has the same effect as from 10 % to 20 %: rare types and `epsilon` dominate.

    {with_floor}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.aitchison([[0.5, 0.5]], [[0.2, 0.8]]), 4)
    0.9803
    """
    p, q, _ = align_compositions(measured, predicted)
    difference = centred_log_ratio(p, epsilon) - centred_log_ratio(q, epsilon)
    return float(np.mean(np.linalg.norm(difference, axis=1)))


@documented
def paper_r2_pooled(measured: Table, predicted: Table) -> float:
    """R² of all entries around the grand mean. It is near 1 for the mean composition: use ``r2(…, per_type=True)``.

    {as_in_the_paper}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.paper_r2_pooled([[0.8, 0.2], [0.9, 0.1]], [[0.85, 0.15]] * 2), 3)
    0.98
    """
    return r2(measured, predicted)


@documented
def paper_kl_softmax(measured: Table, predicted: Table) -> float:
    """KL divergence of the softmax of the fractions. It is 100 to 1000 times too small: use :func:`kl`.

    {as_in_the_paper}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> round(metrics.paper_kl_softmax([[0.5, 0.5]], [[0.25, 0.75]]), 4)
    0.0309
    """
    true, estimate, _ = align_fractions(measured, predicted)
    return mean_kl(np.exp(true), np.exp(estimate))


@documented
def paper_w_sorted(measured: Table, predicted: Table) -> float:
    """Distance between sorted fractions. It ignores swapped cell types: use :func:`wasserstein`.

    {as_in_the_paper}

    Examples
    --------
    >>> from scdeconv import metrics
    >>> metrics.paper_w_sorted([[0.9, 0.1]], [[0.1, 0.9]])
    0.0
    """
    true, estimate, _ = align_fractions(measured, predicted)
    return float(np.mean(np.abs(np.sort(true, axis=1) - np.sort(estimate, axis=1))))


@documented
def table(measured: Table, predicted: Table) -> pd.DataFrame:
    """Table of all metrics.

    {compared}

    Returns
    -------
    One row for each cell type, then "all entries" (pooled over samples and types) and "mean of types" (mean over cell
    types without NaN). Columns: n (number of values; number of samples in "mean of types"), rmse, mae, r2, pearson, ccc
    and bias.

    {raises}

    Examples
    --------
    >>> import pandas as pd
    >>> from scdeconv import metrics
    >>> measured = pd.DataFrame({{"B": [0.4, 0.2, 0.1], "T": [0.6, 0.8, 0.9]}})
    >>> predicted = pd.DataFrame({{"B": [0.5, 0.2, 0.1], "T": [0.5, 0.8, 0.9]}})
    >>> metrics.table(measured, predicted)[["n", "rmse", "ccc"]].round(3)
                   n   rmse    ccc
    B              3  0.058  0.927
    T              3  0.058  0.927
    all entries    6  0.058  0.980
    mean of types  3  0.058  0.927
    """
    true, estimate, types = align_fractions(measured, predicted)
    shown = {metric.__name__: metric for metric in (rmse, mae, r2, pearson, ccc, bias)}
    per_type = pd.DataFrame({name: metric(true, estimate, per_type=True) for name, metric in shown.items()})
    pooled = {name: metric(true, estimate) for name, metric in shown.items()}
    summary = pd.DataFrame([pooled, per_type.mean()], index=["all entries", "mean of types"])
    n_samples, n_types = true.shape
    result = pd.concat([per_type.set_axis(types, axis=0), summary])
    result.insert(0, "n", [n_samples] * n_types + [n_samples * n_types, n_samples])
    return result
