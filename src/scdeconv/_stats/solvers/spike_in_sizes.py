"""RNA per cell of each cell type from the ratio of RNA to spike-ins of bulk samples."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from scdeconv._stats.calibration.cell_sizes import SIZE_SD

# minimum t statistic of the slope of the spike-in ratio on the composition; set by hand
MIN_SLOPE_T = 2.0
# prior SD of the log spike-in ratio between samples, and its weight in samples; set by hand
SPIKE_IN_SD, SPIKE_IN_PRIOR_SAMPLES = 0.3, 4


def sizes_from_spike_ins(rna_shares: np.ndarray, ratio: np.ndarray, sizes: np.ndarray) -> np.ndarray | None:
    """Estimate RNA per cell of each type from samples with equal numbers of cells and equal amounts of spike-in.

    The ratio of RNA to spike-ins is then proportional to the mean RNA per cell, ``1 / sum(share / size)``. The sizes
    are maximum a posteriori estimates with a log-normal prior around the given sizes. If samples have equal amounts of
    RNA instead, the ratio does not depend on the composition, and no sizes are returned.

    Parameters
    ----------
    rna_shares
        RNA fractions, samples × cell types.
    ratio
        RNA per spike-in, length samples, positive.
    sizes
        Cell sizes of the reference, length cell types.

    Returns
    -------
    Sizes, length cell types; None if the ratio does not depend on the composition.
    """
    if len(ratio) <= 2:
        return None
    observed = np.log(ratio) - np.log(ratio).mean()
    expected = -np.log(rna_shares @ (1 / sizes))
    expected -= expected.mean()
    power = (expected**2).sum()
    slope = (expected @ observed) / max(power, np.finfo(float).tiny)
    variance = ((observed - slope * expected) ** 2).sum() / (len(ratio) - 2)
    if not slope * np.sqrt(power) > MIN_SLOPE_T * np.sqrt(variance):
        return None
    sd = SPIKE_IN_SD

    def misfit(log_sizes: np.ndarray) -> np.ndarray:
        residual = observed + np.log(rna_shares @ np.exp(-log_sizes))
        return np.append((residual - residual.mean()) / sd, (log_sizes - np.log(sizes)) / SIZE_SD)

    log_sizes = np.log(sizes)
    for _ in range(5):
        log_sizes = least_squares(misfit, log_sizes).x
        squares = ((misfit(log_sizes)[: len(ratio)] * sd) ** 2).sum()
        sd = np.sqrt((squares + SPIKE_IN_PRIOR_SAMPLES * SPIKE_IN_SD**2) / (len(ratio) + SPIKE_IN_PRIOR_SAMPLES))
    return np.exp(log_sizes)
