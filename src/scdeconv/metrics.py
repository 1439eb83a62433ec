"""How far predicted compositions are from measured ones: pure functions on samples × cell types.

Every function takes ``(measured, predicted)`` as arrays or DataFrames of the same shape. Two DataFrames are
aligned by the names of their rows and columns; anything else is compared by position. Report per cell type:
when one type dominates every sample, even the mean composition scores well on pooled entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, overload

import numpy as np
import pandas as pd

from scdeconv._stats.rounding import deviations_from_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

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

Fractions: TypeAlias = "NDArray[np.floating] | pd.DataFrame"


class Metric(Protocol):
    """A metric over all entries (a float), or per cell type (a Series named by cell type)."""

    __name__: str

    @overload
    def __call__(self, measured: Fractions, predicted: Fractions, *, per_type: Literal[False] = False) -> float: ...
    @overload
    def __call__(self, measured: Fractions, predicted: Fractions, *, per_type: Literal[True]) -> pd.Series: ...


def _metric(by_column: Callable[[NDArray, NDArray], NDArray]) -> Metric:
    """Make a metric of a formula that scores column by column: pooled entries are one long column."""

    def metric(measured: Fractions, predicted: Fractions, *, per_type: bool = False) -> float | pd.Series:
        true, estimate, types = _aligned(measured, predicted)
        if per_type:
            return pd.Series(by_column(true, estimate), index=types, name=by_column.__name__)
        return float(by_column(true.reshape(-1, 1), estimate.reshape(-1, 1))[0])

    metric.__name__ = metric.__qualname__ = by_column.__name__
    metric.__doc__ = by_column.__doc__
    return metric  # type: ignore[return-value]


@_metric
def mse(measured: NDArray, predicted: NDArray) -> NDArray:
    """Mean squared error, over all entries or (``per_type=True``) for each cell type.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> measured, predicted = np.array([[0.4, 0.6], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.2, 0.8]])
    >>> round(metrics.mse(measured, predicted), 6)
    0.005
    """
    return np.mean((predicted - measured) ** 2, axis=0)


@_metric
def rmse(measured: NDArray, predicted: NDArray) -> NDArray:
    """Root mean squared error, in units of the fractions, over all entries or (``per_type=True``) per cell type.

    Examples
    --------
    >>> import pandas as pd
    >>> from scdeconv import metrics
    >>> measured = pd.DataFrame({"B": [0.4, 0.2], "T": [0.6, 0.8]})
    >>> predicted = pd.DataFrame({"T": [0.5, 0.7], "B": [0.5, 0.3]})
    >>> metrics.rmse(measured, predicted, per_type=True).round(3).to_dict()
    {'B': 0.1, 'T': 0.1}
    """
    return np.sqrt(np.mean((predicted - measured) ** 2, axis=0))


@_metric
def mae(measured: NDArray, predicted: NDArray) -> NDArray:
    """Mean absolute error, in units of the fractions, over all entries or (``per_type=True``) per cell type.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> round(metrics.mae(np.array([[0.4, 0.6]]), np.array([[0.5, 0.5]])), 6)
    0.1
    """
    return np.mean(np.abs(predicted - measured), axis=0)


@_metric
def bias(measured: NDArray, predicted: NDArray) -> NDArray:
    """Mean of predicted minus measured; positive where a type is overestimated.

    Over all entries it is zero whenever both sides sum to one, so only ``per_type=True`` tells anything.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> metrics.bias(np.array([[0.4, 0.6]]), np.array([[0.5, 0.5]]), per_type=True).round(6).tolist()
    [0.1, -0.1]
    """
    return np.mean(predicted - measured, axis=0)


@_metric
def r2(measured: NDArray, predicted: NDArray) -> NDArray:
    """Share of the measured variance explained: 1 − residual / total sum of squares.

    NaN where the measured values do not vary. Over all entries the total is taken around the grand mean, so most
    of it lies *between* cell types and predicting the mean composition scores high; ``per_type=True`` is the
    honest figure.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> measured = np.array([[0.8, 0.2], [0.9, 0.1]])
    >>> constant = np.array([[0.85, 0.15], [0.85, 0.15]])
    >>> round(metrics.r2(measured, constant), 3), metrics.r2(measured, constant, per_type=True).round(3).tolist()
    (0.98, [0.0, 0.0])
    """
    return 1 - _ratio(np.sum((predicted - measured) ** 2, axis=0), np.sum(deviations_from_mean(measured) ** 2, axis=0))


@_metric
def pearson(measured: NDArray, predicted: NDArray) -> NDArray:
    """Pearson correlation, over all entries or (``per_type=True``) across samples for each cell type.

    NaN where either side does not vary. Blind to a wrong scale or offset; see :func:`ccc`.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> measured = np.array([[0.1], [0.2], [0.3]])
    >>> round(metrics.pearson(measured, 2 * measured), 3)
    1.0
    """
    x, y = deviations_from_mean(measured), deviations_from_mean(predicted)
    return _ratio(np.sum(x * y, axis=0), np.sqrt(np.sum(x**2, axis=0) * np.sum(y**2, axis=0)))


@_metric
def ccc(measured: NDArray, predicted: NDArray) -> NDArray:
    """Concordance correlation (Lin 1989): how close the points are to the identity line, from −1 to 1.

    ``2·cov / (var + var + (difference of means)²)``, with population variances. A constant prediction of varying
    truth scores 0; NaN where both sides are constant and equal.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> measured = np.array([[0.1], [0.2], [0.3]])
    >>> round(metrics.ccc(measured, 2 * measured), 3)
    0.364
    """
    x, y = deviations_from_mean(measured), deviations_from_mean(predicted)
    gap = measured.mean(axis=0) - predicted.mean(axis=0)
    return _ratio(2 * np.mean(x * y, axis=0), np.mean(x**2 + y**2, axis=0) + gap**2)


def kl(measured: Fractions, predicted: Fractions, *, epsilon: float = 1e-6) -> float:
    """Kullback-Leibler divergence of the measured from the predicted composition, in nats, mean over samples.

    Values below `epsilon` are raised to it and every sample is scaled to sum to one, because a type predicted
    absent but present would otherwise cost infinity. The result depends on `epsilon` where there are zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> round(metrics.kl(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])), 4)
    0.1438
    """
    true, estimate, _ = _aligned(measured, predicted)
    p, q = _floored(true, epsilon), _floored(estimate, epsilon)
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def wasserstein(
    measured: Fractions, predicted: Fractions, *, distance: NDArray[np.floating] | pd.DataFrame | None = None
) -> float:
    """Cost of moving the predicted composition onto the measured one, mean over samples.

    Parameters
    ----------
    measured, predicted
        Samples × cell types; every sample is scaled to sum to one.
    distance
        Cell types × cell types: what it costs to mistake one type for another (zero diagonal, symmetric). A
        DataFrame is aligned by name. Without it all mistakes cost the same, which is the total variation
        distance, half the sum of absolute differences.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> measured, predicted = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.5, 0.5]])
    >>> metrics.wasserstein(measured, predicted)
    1.0
    >>> metrics.wasserstein(measured, predicted, distance=np.array([[0, 1, 4], [1, 0, 4], [4, 4, 0]]))
    2.5
    """
    true, estimate, types = _aligned(measured, predicted)
    p, q = _floored(true, 0.0), _floored(estimate, 0.0)
    if distance is None:
        return float(np.mean(np.abs(p - q).sum(axis=1)) / 2)
    cost = _ground_metric(distance, types)
    return float(np.mean([_transport(a, b, cost) for a, b in zip(p, q, strict=True)]))


def aitchison(measured: Fractions, predicted: Fractions, *, epsilon: float = 1e-3) -> float:
    """Aitchison distance: Euclidean distance between centred log-ratios, mean over samples.

    Counts a change from 1 % to 2 % as much as one from 10 % to 20 %, so it is ruled by the rare types and by
    `epsilon`, the value to which smaller fractions are raised (by default one cell in a thousand).

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> round(metrics.aitchison(np.array([[0.5, 0.5]]), np.array([[0.2, 0.8]])), 4)
    0.9803
    """
    true, estimate, _ = _aligned(measured, predicted)
    log_ratio = np.log(_floored(true, epsilon)) - np.log(_floored(estimate, epsilon))
    return float(np.mean(np.linalg.norm(log_ratio - log_ratio.mean(axis=1, keepdims=True), axis=1)))


def paper_r2_pooled(measured: Fractions, predicted: Fractions) -> float:
    """R² as in the SimpleDNN table (jasont7/2dRNA): all entries around one grand mean.

    What is wrong: the differences between abundant and rare cell types fill the denominator, so a constant
    prediction, the mean composition, scores near one. Only for comparing with that table; use
    ``r2(..., per_type=True)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> round(metrics.paper_r2_pooled(np.array([[0.8, 0.2], [0.9, 0.1]]), np.array([[0.85, 0.15]] * 2)), 3)
    0.98
    """
    return r2(measured, predicted)


def paper_kl_softmax(measured: Fractions, predicted: Fractions) -> float:
    """KL divergence as in the SimpleDNN table (jasont7/2dRNA): softmax of the fractions first, then KL.

    What is wrong: fractions are probabilities already. Their softmax is nearly uniform whatever they are, which
    makes the figure two to three orders of magnitude too small. Only for comparing with that table; use
    :func:`kl`.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> round(metrics.paper_kl_softmax(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])), 4)
    0.0309
    """
    true, estimate, _ = _aligned(measured, predicted)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (true, estimate))
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def paper_w_sorted(measured: Fractions, predicted: Fractions) -> float:
    """Wasserstein distance as in the SimpleDNN table (jasont7/2dRNA): sorted values against sorted values.

    What is wrong: it compares two sets of numbers and forgets which cell type each belongs to, so swapping two
    types costs nothing. Only for comparing with that table; use :func:`wasserstein`.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> metrics.paper_w_sorted(np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]]))
    0.0
    """
    true, estimate, _ = _aligned(measured, predicted)
    return float(np.mean(np.abs(np.sort(true, axis=1) - np.sort(estimate, axis=1))))


def table(measured: Fractions, predicted: Fractions) -> pd.DataFrame:
    """All metrics at a glance.

    Returns
    -------
    One row for each cell type, then "all entries" (pooled over samples and types) and "mean of types" (mean of the
    rows above, undefined ones left out); columns n (values compared; samples in "mean of types"), rmse, mae, r2,
    pearson, ccc and bias.

    Examples
    --------
    >>> import pandas as pd
    >>> from scdeconv import metrics
    >>> measured = pd.DataFrame({"B": [0.4, 0.2, 0.1], "T": [0.6, 0.8, 0.9]})
    >>> predicted = pd.DataFrame({"B": [0.5, 0.2, 0.1], "T": [0.5, 0.8, 0.9]})
    >>> metrics.table(measured, predicted)[["n", "rmse", "ccc"]].round(3)
                   n   rmse    ccc
    B              3  0.058  0.927
    T              3  0.058  0.927
    all entries    6  0.058  0.980
    mean of types  3  0.058  0.927
    """
    shown = [rmse, mae, r2, pearson, ccc, bias]
    per_type = pd.DataFrame({metric.__name__: metric(measured, predicted, per_type=True) for metric in shown})
    pooled = {metric.__name__: metric(measured, predicted) for metric in shown}
    summary = pd.DataFrame([pooled, per_type.mean()], index=["all entries", "mean of types"])
    samples, types = np.shape(measured)
    result = pd.concat([per_type, summary])
    result.insert(0, "n", [samples] * types + [samples * types, samples])
    return result


def overlap(real: NDArray, simulated: NDArray, *, n_components: int = 10) -> float:
    """Share of real samples that lie where 95 % of the simulated ones do.

    Both are projected on the first principal components of the simulated samples; a real sample is inside when its
    Mahalanobis distance is within the 95 % quantile of theirs. About 0.95 or more is what to hope for; near 0, a
    method that learns from the simulation is tried on something else. Differences in directions in which the simulation
    hardly varies are not seen.

    Parameters
    ----------
    real, simulated
        Log expression, samples × genes.
    n_components
        Principal components to compare in.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> rng = np.random.default_rng(0)
    >>> simulated = rng.normal(size=(500, 20))
    >>> metrics.overlap(simulated[:100], simulated) > 0.9
    True
    >>> metrics.overlap(simulated[:100] + 3, simulated)
    0.0
    """
    centre = simulated.mean(axis=0)
    _, singular, components = np.linalg.svd(simulated - centre, full_matrices=False)
    kept = min(n_components, int((singular > 1e-9 * singular[0]).sum()))
    axes = components[:kept].T / singular[:kept]
    distances = [(((samples - centre) @ axes) ** 2).sum(axis=1) for samples in (real, simulated)]
    return float((distances[0] <= np.quantile(distances[1], 0.95)).mean())


def _aligned(measured: Fractions, predicted: Fractions) -> tuple[NDArray, NDArray, pd.Index]:
    """Both as finite, non-negative float arrays in the order of `measured`, with the names of the cell types."""
    if isinstance(measured, pd.DataFrame) and isinstance(predicted, pd.DataFrame):
        for axis, what in enumerate(("samples", "cell types")):
            _check_same_names(measured.axes[axis], predicted.axes[axis], what)
        if not predicted.index.equals(measured.index) or not predicted.columns.equals(measured.columns):
            predicted = predicted.loc[measured.index, measured.columns]
    true, estimate = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    if true.ndim != 2 or true.shape != estimate.shape or true.size == 0:
        msg = (
            f"Expected two tables of the same shape (samples × cell types), found {true.shape} measured and "
            f"{estimate.shape} predicted. Select the same samples and cell types on both sides."
        )
        raise ValueError(msg)
    frame = next((x for x in (measured, predicted) if isinstance(x, pd.DataFrame)), pd.DataFrame(true))
    missing = frame.index[np.isnan(true).any(axis=1)]
    if len(missing):
        msg = (
            f"Expected a measured composition for every sample, found NaN in {len(missing)} of {len(true)} "
            f"(such as {missing[0]!r}). Drop them."
        )
        raise ValueError(msg)
    for name, values in (("measured", true), ("predicted", estimate)):
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            msg = (
                f"Expected finite {name} fractions of at least 0, found {bad.sum()} other value(s) "
                f"(such as {values[bad][0]:.3g}). Clip or remove them."
            )
            raise ValueError(msg)
    return true, estimate, frame.columns


def _check_same_names(measured: pd.Index, other: pd.Index, what: str, side: str = "predicted") -> None:
    """Both indices must hold the same names, in any order; repeated names only where the order is the same too."""
    if measured.equals(other):
        return
    absent, extra = list(measured.difference(other)), list(other.difference(measured))
    if absent or extra or not (measured.is_unique and other.is_unique):
        msg = (
            f"Expected the same {what}, each once, on both sides, found only measured: {absent[:5]} ({len(absent)}), "
            f"only {side}: {extra[:5]} ({len(extra)}). Rename or select them, or pass arrays to compare by position."
        )
        raise ValueError(msg)


def _ratio(numerator: NDArray, denominator: NDArray) -> NDArray:
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def _floored(values: NDArray, epsilon: float) -> NDArray:
    """Rows scaled to sum to one, after and before small values are raised to `epsilon`."""
    total = values.sum(axis=1, keepdims=True)
    if (total <= 0).any():
        msg = f"Expected compositions with a positive sum, found {int((total <= 0).sum())} rows of zeros. Drop them."
        raise ValueError(msg)
    floored = np.maximum(values / total, epsilon)
    return floored / floored.sum(axis=1, keepdims=True)


def _ground_metric(distance: NDArray[np.floating] | pd.DataFrame, types: pd.Index) -> NDArray:
    if isinstance(distance, pd.DataFrame):
        for names in distance.axes:
            _check_same_names(types, names, "cell types", "in distance")
        distance = distance.loc[types, types]
    cost = np.asarray(distance, dtype=float)
    k = len(types)
    if cost.shape != (k, k) or not np.allclose(cost, cost.T) or np.diag(cost).any() or not (cost >= 0).all():
        msg = (
            f"Expected a symmetric {k} × {k} distance between cell types with a zero diagonal and no negative entry, "
            f"found shape {cost.shape}: {cost.tolist() if k < 5 else '…'}. Pass one row and column per cell type."
        )
        raise ValueError(msg)
    return cost


def _transport(source: NDArray, target: NDArray, cost: NDArray) -> float:
    """Exact optimal transport by linear programming; variables are the flows from type i to type j."""
    from scipy.optimize import linprog

    k = len(source)
    leaving, arriving = np.kron(np.eye(k), np.ones(k)), np.kron(np.ones(k), np.eye(k))
    # The last equation follows from the others; with it, rounding could make the programme infeasible.
    balance, mass = np.vstack([leaving, arriving[:-1]]), np.concatenate([source, target[:-1]])
    solution = linprog(cost.ravel(), A_eq=balance, b_eq=mass)
    if solution.fun is None:
        msg = f"Expected HiGHS to solve the transport problem, found: {solution.message}"
        raise RuntimeError(msg)
    return float(solution.fun)
