"""Platform shift of each gene, batch shifts, and the variance between donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.rounding import without_rounding
from scdeconv._stats.shrinkage import shrink_variances

if TYPE_CHECKING:
    from .repeats import AveragedSamples

# of log expression between donors: a millionth is less than any measurement repeats
LEAST_VARIANCE = 1e-12
# variance of the shifts over genes: keeps the share of the shift defined where platforms agree
LEAST_SHIFT_VARIANCE = 1e-4


@dataclass(frozen=True, eq=False)
class PlatformNoise:
    """What bulk departs by from single cells of the same composition, on the log scale.

    Attributes
    ----------
    shift
        Mean residual of each gene over donors, not shrunk, length genes.
    batch_shift
        Shift of each batch beyond that, shrunk to 0, batches × genes; no rows without batches.
    deviations
        What remains of each row, scaled by its weight, rows × genes.
    variance
        Variance of the deviations between donors, shrunk to the median, length genes.
    shift_variance
        Variance of the true shifts over genes.
    """

    shift: np.ndarray
    batch_shift: np.ndarray
    deviations: np.ndarray
    variance: np.ndarray
    shift_variance: float


def measure_noise(samples: AveragedSamples, expected: np.ndarray) -> PlatformNoise:
    """Divide log expression less its expectation into shifts and deviations.

    Parameters
    ----------
    samples
        Paired samples, repeats averaged.
    expected
        Log expression of single cells of the same composition, rows × genes.
    """
    weights = samples.weights
    shift, batch_shift, deviations = split_residuals(samples.log - expected, weights, samples.batches)
    deviations = without_rounding(deviations, samples.log)
    deviations *= np.sqrt(weights * len(weights) / weights.sum())[:, None]
    variance = np.maximum(shrink_variances(deviations), LEAST_VARIANCE)
    # the mean over donors has the variance of the shift and that of the mean deviation
    shift_variance = max(float(shift.var() - variance.mean() / samples.n_donors), LEAST_SHIFT_VARIANCE)
    return PlatformNoise(shift, batch_shift, deviations, variance, shift_variance)


def split_residuals(
    residuals: np.ndarray, weights: np.ndarray, batches: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide residuals into the mean shift, that of each batch, and the deviations of the rows.

    Parameters
    ----------
    residuals
        Log expression less its expectation, rows × genes.
    weights
        Weight of each row.
    batches
        Code of each row's batch, from 0, or None.

    Returns
    -------
    Shift, length genes; batch shifts, batches × genes; deviations, rows × genes.
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
