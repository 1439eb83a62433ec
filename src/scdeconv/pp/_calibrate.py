"""Learn from pairs how bulk differs from single cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._data.matrix import is_integer
from scdeconv._data.reference import Reference
from scdeconv._stats import compositions
from scdeconv._stats.compositions import FLOOR
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.logistic_normal import counting_variance
from scdeconv._stats.rounding import deviations_from_mean, without_rounding
from scdeconv._stats.shrinkage import correlation_shrinkage, shrink_variances

from ._calibration import Calibration
from ._pair import FEWEST_PAIRS

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

# of log expression between donors: a millionth is less than any measurement repeats
LEAST_VARIANCE = 1e-12
# standard deviation of log cell sizes around those counted in UMIs
SIZE_SD = 0.3
SIZE_STEPS = 3
# without pairs: standard deviation of the log shift between platforms, and of the compositions' log-ratios
PRIOR_SHIFT_SD = 0.7
PRIOR_RATIO_SD = 1.5


@overload
def centred_log_ratio(fractions: pd.DataFrame, floor: float = FLOOR) -> pd.DataFrame: ...
@overload
def centred_log_ratio(fractions: np.ndarray, floor: float = FLOOR) -> np.ndarray: ...
def centred_log_ratio(fractions: pd.DataFrame | np.ndarray, floor: float = FLOOR) -> pd.DataFrame | np.ndarray:
    """Return log fractions less their mean over cell types, for methods that do not know that fractions sum to 1.

    Parameters
    ----------
    fractions
        Samples × cell types, as a DataFrame or an array.
    floor
        Smaller fractions are raised to it, since zero has no logarithm. By default one cell in a thousand. What is said
        of rare types depends on it.

    Returns
    -------
    The same samples × cell types, in the same form; rows sum to 0. Rows with NaN are NaN.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdeconv
    >>> fractions = pd.DataFrame({"B": [0.2, 0.0], "T": [0.8, 1.0]}, index=["s1", "s2"])
    >>> scdeconv.pp.centred_log_ratio(fractions).round(2)
           B     T
    s1 -0.69  0.69
    s2 -3.45  3.45
    """
    values = fractions.to_numpy(dtype=float) if isinstance(fractions, pd.DataFrame) else fractions
    ratios = compositions.centred_log_ratio(values, floor)
    if isinstance(fractions, pd.DataFrame):
        return pd.DataFrame(ratios, fractions.index, fractions.columns)
    return ratios


def size_step(
    residuals: np.ndarray, fractions: np.ndarray, profiles: np.ndarray, variance: np.ndarray, shift_variance: float
) -> np.ndarray:
    """Return how far to move the log cell sizes: one Gauss-Newton step of their posterior, the shifts integrated out.

    For each gene the residuals over samples are modelled as ``shift + J d + noise``, with ``shift ~ N(0,
    shift_variance)``, ``d ~ N(0, SIZE_SD^2)`` the change of log sizes and J the derivative of log expression by it. What the
    genes say together counts as much as their number of independent ones.

    Parameters
    ----------
    residuals
        Log expression less its expectation, samples × genes.
    fractions, profiles
        Of the samples, samples × types; of the types, types × genes.
    variance
        Of the noise, per gene.
    shift_variance
        Of the shifts.

    Returns
    -------
    Changes of log sizes, length types, mean 0.
    """
    n_samples, n_genes = residuals.shape
    n_types = len(profiles)
    share_of_shift = shift_variance / (variance + n_samples * shift_variance)
    precision, target = np.zeros((n_types, n_types)), np.zeros(n_types)
    summed = np.zeros(profiles.shape)
    for composition, residual in zip(fractions, residuals, strict=True):
        parts = composition[:, None] * profiles
        # none where no cell of these types is left
        total = max(parts.sum(), np.finfo(float).tiny)
        shares = parts.sum(axis=0) / total
        slope = (parts - parts.sum(axis=1, keepdims=True) * shares) / total
        slope *= LEVEL * n_genes / (1 + LEVEL * n_genes * shares)
        precision += (slope / variance) @ slope.T
        target += slope @ (residual / variance)
        summed += slope
    precision -= (summed * share_of_shift / variance) @ summed.T
    target -= summed @ (share_of_shift / variance * residuals.sum(axis=0))
    _, squared = correlation_shrinkage(residuals - residuals.mean(axis=0))
    by_chance = n_genes * (n_genes - 1) / (n_samples - 1)
    independent = n_genes / (1 + max(0.0, squared - by_chance) / n_genes)
    trust = independent / n_genes
    step = np.linalg.solve(trust * precision + np.eye(n_types) / SIZE_SD**2, trust * target)
    return step - step.mean()


def fit_calibration(
    mdata: MuData,
    reference: Reference,
    genes: pd.Index,
    *,
    without: Collection[str] = (),
    batch_key: str | None = None,
) -> Calibration:
    """Fit :class:`Calibration` to the pairs over some genes, some donors left out of bulk and reference."""
    bulk = mdata[keys.BULK]
    profiles, size_umi = reference.profiles(without)
    kept = ~bulk.obs[keys.DONOR].isin(without).to_numpy()
    known = kept & bulk.obsm[keys.MEASURED].notna().all(axis=1).to_numpy()
    donors = bulk.obs[keys.DONOR].to_numpy()[known].astype(str)
    depths = values_of(bulk, kept, genes).sum(axis=1) if is_integer(bulk.X) else np.empty(0)
    cell_types = pd.DataFrame(
        {"cell_size": size_umi, "cell_size_umi": size_umi}, index=pd.Index(reference.cell_types, name="cell_type")
    )
    if len(np.unique(donors)) < FEWEST_PAIRS:
        return _prior(genes, cell_types, profiles, depths)
    expression = values_of(bulk, known, genes)
    fractions = bulk.obsm[keys.MEASURED].to_numpy(dtype=float)[known]
    batches = bulk.obs[batch_key].to_numpy()[known].astype(str) if batch_key is not None else None

    log = log_shares(expression)
    counting = counting_variance(log, expression.sum(axis=1, keepdims=True)) if len(depths) else np.zeros_like(log)
    # one row for all samples of a donor in a batch: repeats are no new donors
    by_row = pd.MultiIndex.from_arrays([donors, donors if batches is None else batches])
    rows = by_row.unique()
    codes = rows.get_indexer(by_row)
    average = np.equal.outer(np.arange(len(rows)), codes) / np.bincount(codes)[:, None]
    log, fractions, counting = average @ log, average @ fractions, average @ counting
    batches = None if batches is None else rows.get_level_values(1).to_numpy()
    _, codes, sizes = np.unique(rows.get_level_values(0), return_inverse=True, return_counts=True)
    weights = 1 / sizes[codes]
    n_donors = len(sizes)
    log_size = np.zeros(len(profiles))
    for step in range(SIZE_STEPS + 1):
        sized = profiles * np.exp(log_size)[:, None]
        expected = log_shares(fractions @ sized)
        residuals = log - expected
        shift, batch_shift, deviations = _shifts(residuals, weights, batches)
        deviations = without_rounding(deviations, log)
        deviations *= np.sqrt(weights * len(weights) / weights.sum())[:, None]
        variance = np.maximum(shrink_variances(deviations), LEAST_VARIANCE)
        shift_variance = max(float(shift.var() - variance.mean() / n_donors), 1e-4)
        if step < SIZE_STEPS:
            log_size += size_step(residuals, fractions, sized, variance, shift_variance)

    repeatability = shift_variance / (shift_variance + variance)
    kept_shift = shift_variance / (shift_variance + variance / n_donors)
    intensity, _ = correlation_shrinkage(deviations)
    scale = np.sqrt((deviations**2).sum(axis=0) / (len(deviations) - 1))
    # samples as factors: their products are the residual correlations, brought to the shrunk variances
    loadings = deviations / np.where(scale > 0, scale, 1) * np.sqrt(variance * (1 - intensity) / (len(deviations) - 1))
    independent = np.maximum(intensity * variance - (weights @ counting) / weights.sum(), 0)
    ratios = centred_log_ratio(pd.DataFrame(fractions).groupby(codes).mean().to_numpy(), FLOOR)
    cell_types["cell_size"] = size_umi * np.exp(log_size)
    cell_types["mean_log_ratio"] = ratios.mean(axis=0)
    table = pd.DataFrame(
        {
            "platform_shift": shift * kept_shift,
            "shift_sd": np.sqrt(kept_shift * variance / n_donors),
            "residual_sd": np.sqrt(independent),
            "repeatability": repeatability,
        },
        index=genes,
    )
    return Calibration(
        genes=table,
        cell_types=cell_types,
        profiles=sized,
        centre=np.average(expected, axis=0, weights=weights) + table["platform_shift"].to_numpy(),
        loadings=loadings,
        covariance=shrunk_covariance(deviations_from_mean(ratios)),
        depths=depths,
        batch_shift=batch_shift.set_axis(genes),
        n_donors=n_donors,
    )


def shrunk_covariance(deviations: np.ndarray) -> np.ndarray:
    """Return the covariance of columns with mean 0, variances and correlations shrunk, and rows that sum to 0."""
    variance = shrink_variances(deviations)
    intensity, _ = correlation_shrinkage(deviations)
    scale = np.sqrt((deviations**2).sum(axis=0) / (len(deviations) - 1))
    standard = deviations / np.where(scale > 0, scale, 1)
    correlation = (1 - intensity) * standard.T @ standard / (len(deviations) - 1)
    np.fill_diagonal(correlation, 1)
    return centred(correlation * np.sqrt(np.outer(variance, variance)))


def centred(covariance: np.ndarray) -> np.ndarray:
    """Take the variance of the common level out of a covariance of log-ratios."""
    projection = np.eye(len(covariance)) - 1 / len(covariance)
    return projection @ covariance @ projection


def _shifts(
    residuals: np.ndarray, weights: np.ndarray, batches: np.ndarray | None
) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Divide residuals into the mean shift, that of each batch, and the deviations of the samples."""
    shift = np.average(residuals, axis=0, weights=weights)
    deviations = residuals - shift
    if batches is None:
        return shift, pd.DataFrame(index=range(residuals.shape[1])), deviations
    names, codes = np.unique(batches, return_inverse=True)
    of_batch = np.stack(
        [np.average(deviations[codes == code], axis=0, weights=weights[codes == code]) for code in range(len(names))]
    )
    within = deviations - of_batch[codes]
    noise = (within**2).mean() / np.bincount(codes, weights=weights)
    between = max(float((of_batch**2).mean() - noise.mean()), 0.0)
    of_batch *= (between / (between + noise))[:, None] if between > 0 else 0
    return shift, pd.DataFrame(of_batch.T, columns=names), deviations - of_batch[codes]


def _prior(genes: pd.Index, cell_types: pd.DataFrame, profiles: np.ndarray, depths: np.ndarray) -> Calibration:
    """Return what is known from the reference alone."""
    n_types = len(cell_types)
    table = pd.DataFrame(
        {"platform_shift": 0.0, "shift_sd": PRIOR_SHIFT_SD, "residual_sd": 0.0, "repeatability": 0.0}, index=genes
    )
    return Calibration(
        genes=table,
        cell_types=cell_types.assign(mean_log_ratio=0.0),
        profiles=profiles,
        centre=log_shares(profiles.mean(axis=0, keepdims=True))[0],
        loadings=np.empty((0, len(genes))),
        covariance=centred(PRIOR_RATIO_SD**2 * np.eye(n_types)),
        depths=depths,
        batch_shift=pd.DataFrame(index=genes),
        n_donors=0,
    )


def calibrate(mdata: MuData, *, batch_key: str | None = None) -> Calibration:
    """Learn from the pairs how bulk differs from single cells.

    Per gene, the shift between the platforms and how repeatable it is over donors; per cell type, the RNA of a cell;
    over genes, what else differs between bulk samples of known composition (low rank plus independent); and the
    distribution of compositions. With few pairs all of it is shrunk: shifts to 0 by their standard error, variances and
    correlations as Strimmer and colleagues do, cell sizes to what was counted in the cells. With fewer than 3 paired
    donors it is what the reference alone says, with wide uncertainty.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    batch_key
        Column of ``mdata["bulk"].obs`` with the batch of bulk samples, whose shifts are then told apart.

    Returns
    -------
    The calibration, all genes of ``mdata``.

    Writes
    ------
    ``mdata.uns["scdeconv"]["calibration"]``: the same as tables and arrays.

    Raises
    ------
    KeyError
        Where there is no such column.

    Notes
    -----
    Shrinkage: Schäfer & Strimmer 2005 (correlations), Opgen-Rhein & Strimmer 2007 (variances).

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> calibration = scdeconv.pp.calibrate(mdata)
    >>> calibration.genes["platform_shift"].shape
    (300,)
    """
    bulk = mdata[keys.BULK]
    if batch_key is not None and batch_key not in bulk.obs:
        msg = f"Expected column {batch_key!r} in mdata['bulk'].obs, found {list(bulk.obs.columns)}."
        raise KeyError(msg)
    calibration = fit_calibration(mdata, Reference(mdata, bulk.var_names), bulk.var_names, batch_key=batch_key)
    records = mdata.uns.setdefault(keys.UNS, {})
    records["calibrate"] = {"batch_key": batch_key}
    records[keys.CALIBRATION] = calibration.to_dict()
    return calibration
