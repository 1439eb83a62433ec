"""Platform shifts, batch shifts and variance between donors of each gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.rounding import without_rounding
from scdeconv._stats.shrinkage import shrink_variances

if TYPE_CHECKING:
    from .repeats import AveragedSamples

# minimum variance of log expression between donors: an SD of 1e-6 is below any measurement error
MIN_DONOR_VARIANCE = 1e-12
# minimum variance of the shifts over genes: keeps the shrinkage factor defined for equal platforms (set by hand)
MIN_SHIFT_VARIANCE = 1e-4


@dataclass(frozen=True, eq=False)
class PlatformNoise:
    """Residuals of bulk against single cells of the same composition in log expression.

    Attributes
    ----------
    shift
        Mean residual over donors, not shrunk, length genes.
    batch_shift
        Additional shift of each batch, shrunk to 0, batches × genes; no rows without batches.
    deviations
        Remaining residuals, scaled by the square root of the row weights, rows × genes.
    variance
        Variance of the deviations between donors, shrunk to the median, length genes.
    shift_variance
        Estimated variance of the true shifts over genes.
    """

    shift: np.ndarray
    batch_shift: np.ndarray
    deviations: np.ndarray
    variance: np.ndarray
    shift_variance: float


def measure_noise(samples: AveragedSamples, expected: np.ndarray) -> PlatformNoise:
    """Decompose log expression minus its expectation into shifts and deviations.

    Parameters
    ----------
    samples
        Paired samples with averaged repeats.
    expected
        Log expression of single cells of the same composition, rows × genes.
    """
    weights = samples.weights
    shift, batch_shift, deviations = split_residuals(samples.log - expected, weights, samples.batches)
    deviations = without_rounding(deviations, samples.log)
    deviations *= np.sqrt(weights * len(weights) / weights.sum())[:, None]
    variance = np.maximum(shrink_variances(deviations), MIN_DONOR_VARIANCE)
    # variance of the mean residual = shift variance + variance of the mean deviation
    shift_variance = max(float(shift.var() - variance.mean() / samples.n_donors), MIN_SHIFT_VARIANCE)
    return PlatformNoise(shift, batch_shift, deviations, variance, shift_variance)


def split_residuals(
    residuals: np.ndarray, weights: np.ndarray, batches: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decompose residuals into the mean shift, batch shifts and deviations.

    Parameters
    ----------
    residuals
        Log expression minus its expectation, rows × genes.
    weights
        Weight of each row.
    batches
        Batch code of each row, from 0, or None.

    Returns
    -------
    shift
        Length genes.
    batch_shift
        Batches × genes.
    deviations
        Rows × genes.
    """
    shift = np.average(residuals, axis=0, weights=weights)
    deviations = residuals - shift
    if batches is None:
        return shift, np.empty((0, residuals.shape[1])), deviations
    of_batch = np.stack(
        [
            np.average(deviations[batches == code], axis=0, weights=weights[batches == code])
            for code in range(batches.max() + 1)
        ]
    )
    within = deviations - of_batch[batches]
    noise = (within**2).mean() / np.bincount(batches, weights=weights)
    between = max(float((of_batch**2).mean() - noise.mean()), 0.0)
    of_batch *= (between / (between + noise))[:, None] if between > 0 else 0
    return shift, of_batch, deviations - of_batch[batches]
