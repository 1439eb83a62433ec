"""Platform shifts between two single-cell references, estimated from the cell types that both have."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.expression import log_shares

from .platform_noise import measure_noise
from .repeats import AveragedSamples

# share of the shift of one cell type that other types have, too: 0.80 between two references of blood (3 types), 0.58
# between two of the retina (7 types); the lower one
REPEATABILITY = 0.6


def fit_reference_shift(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the log expression of the second reference minus that of the first, shrunk to 0, length genes.

    The shift of a gene is its mean difference over the cell types, as the platform shift of
    :func:`scdeconv._stats.calibration.fit.fit_platform_calibration` is its mean over pairs. It is shrunk by the variance
    between the types. With one type this variance is unknown, and a fixed share of the difference is kept.

    Parameters
    ----------
    first, second
        Mean expression of the same cell types, cell types × genes, linear scale.
    """
    logs = log_shares(second), log_shares(first)
    if len(first) == 1:
        shift: np.ndarray = REPEATABILITY * (logs[0] - logs[1])[0]
        return shift
    n_types = len(first)
    samples = AveragedSamples(
        log=logs[0],
        fractions=np.eye(n_types),
        counting=np.zeros_like(logs[0]),
        donors=np.arange(n_types),
        batches=None,
    )
    noise = measure_noise(samples, logs[1])
    return noise.shift * noise.shift_variance / (noise.shift_variance + noise.variance / n_types)


def match_platform(first: np.ndarray, second: np.ndarray, *, by_gene: bool = True) -> np.ndarray:
    """Return the factors of the genes that bring the second reference to the platform and the depth of the first.

    Parameters
    ----------
    first, second
        Mean expression of the same cell types, cell types × genes, linear scale.
    by_gene
        Remove the shift of each gene. If False, only the depth is matched.
    """
    factors = np.exp(-fit_reference_shift(first, second)) if by_gene else np.ones(first.shape[1])
    return factors * match_depth(first.sum(axis=1), second @ factors)


def match_depth(first: np.ndarray, second: np.ndarray) -> float:
    """Return the geometric mean ratio of the totals of the first reference to those of the second, over cell types."""
    return float(np.exp(np.mean(np.log(first) - np.log(second))))
