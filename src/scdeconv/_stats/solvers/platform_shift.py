"""Platform shift of bulk against single-cell profiles, and non-negative least squares that allows for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scdeconv._stats.expression import LEVEL, to_shares
from scdeconv._stats.least_squares import solve_weighted

# degrees of freedom of the t distribution of the platform shift over genes (heavy tail); set by hand
T_DF = 2.0
# minimum SD of the platform shift (log expression), as between two runs of one protocol; set by hand
MIN_EFFECT_SD = 0.1
# ratio of SD to median absolute deviation of a normal distribution
MAD_TO_SD = 1.4826
MAX_ITERATIONS = 50
TOLERANCE = 1e-4
# prior slope of the shift on its prediction, and its weight in genes (chosen in benchmarks/platform_shifts.py)
PRIOR_SLOPE, PRIOR_SLOPE_GENES = 1.0, 30


@dataclass(frozen=True)
class PlatformShift:
    """Platform shift of the bulk against the profiles.

    Attributes
    ----------
    sd
        SD over genes of the shift (log expression) around its expectation.
    trust
        Weight of each gene, mean about 1.
    expected
        Expected log shift of each gene, from other data sets; None: 0 for all genes.
    slopes
        Slopes of the expected shift on its predictors, 0 to 1.
    """

    sd: float
    trust: np.ndarray
    expected: np.ndarray | None = None
    slopes: np.ndarray | None = None

    def of(self, genes: np.ndarray) -> PlatformShift:
        """Return the shift of some genes (mask or positions)."""
        expected = None if self.expected is None else self.expected[genes]
        return PlatformShift(self.sd, self.trust[genes], expected, self.slopes)

    def applied(self, signature: np.ndarray) -> np.ndarray:
        """Return profiles (cell types × genes) with the expected shift and a mean total of 1."""
        shifted = signature if self.expected is None else signature * np.exp(self.expected)
        return shifted / max(shifted.sum(axis=1).mean(), np.finfo(float).tiny)


def _step(
    signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift, weights: np.ndarray, *, counts: bool
) -> np.ndarray:
    """Return the solution of one iteration of reweighted least squares, with variances at the fit of ``weights``."""
    level = weights @ signature + 1 / (LEVEL * signature.shape[1])
    variance = (shift.sd * level) ** 2
    if counts:
        variance = variance + level / np.maximum(bulk.sum(axis=1, keepdims=True), 1)
    return solve_weighted(signature, to_shares(bulk), shift.trust / variance)


def _start(signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift) -> np.ndarray:
    """Return an initial solution without counting noise."""
    level = signature.mean(axis=0) + 1 / (LEVEL * signature.shape[1])
    return solve_weighted(signature, to_shares(bulk), np.tile(shift.trust / level**2, (len(bulk), 1)))


def learn_shift(
    signature: np.ndarray,
    bulk: np.ndarray,
    *,
    counts: bool,
    predictors: np.ndarray | None = None,
    start: PlatformShift | None = None,
    tolerance: float = TOLERANCE,
) -> PlatformShift:
    """Estimate the platform shift from a cohort; the shift and the solutions are updated alternately (IRLS).

    The residual of a gene with fitted value ``m`` is ``m`` times the platform shift, plus counting noise. The shift is
    the same in all samples. Over genes, it follows a t distribution around ``slopes @ predictors``. The shift of a gene
    is the log ratio of the mean bulk to the mean fit. Its SD over genes is estimated by the median absolute deviation.
    The slopes are estimated by weighted ridge regression towards 1 and are limited to 0 to 1: predictors that do not
    agree with the cohort have no effect.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes. Without samples, all genes have equal weight.
    counts
        Whether the bulk is counts; then the variance includes counting noise.
    predictors
        Predictions of the log shift, such as the mean over other data sets, predictors × genes; 0 where unknown.
    start
        Initial shift, from the same predictors. None: equal weights.
    tolerance
        Largest change of a weight at convergence.

    Returns
    -------
    Platform shift.
    """
    plain = PlatformShift(1.0, np.ones(signature.shape[1]))
    shift = plain if start is None else start
    if not len(bulk):
        return shift
    weights, plain_signature = _start(shift.applied(signature), bulk, shift), plain.applied(signature)
    slopes = np.zeros(0 if predictors is None else len(predictors)) if shift.slopes is None else shift.slopes
    pseudo_share, observed = 1 / (LEVEL * signature.shape[1]), to_shares(bulk).mean(axis=0)
    for _ in range(MAX_ITERATIONS):
        new = _step(shift.applied(signature), bulk, shift, weights, counts=counts)
        change = np.abs(new - weights).max()
        weights = (new + weights) / 2
        log_ratio = np.log((observed + pseudo_share) / (weights.mean(axis=0) @ plain_signature + pseudo_share))
        log_ratio -= np.median(log_ratio)
        expected = None
        if predictors is not None:
            slopes = (slopes + _slopes(predictors, log_ratio, shift.trust)) / 2
            expected = slopes @ predictors
            log_ratio = log_ratio - expected
            log_ratio -= np.median(log_ratio)
        sd = max(MIN_EFFECT_SD, MAD_TO_SD * float(np.median(np.abs(log_ratio))))
        shift = PlatformShift(
            sd, (T_DF + 1) / (T_DF + (log_ratio / sd) ** 2), expected, slopes if len(slopes) else None
        )
        if change < tolerance:
            break
    return shift


def _slopes(predictors: np.ndarray, log_ratio: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Return the slopes of the log ratio on the predictors, shrunk to their prior and limited to 0 to 1."""
    power = (predictors**2).mean(axis=1)
    rows = np.vstack([np.ones(len(log_ratio)), predictors])
    penalty = PRIOR_SLOPE_GENES * np.append(0, np.where(power > 0, power, 1))
    gram = (rows * trust) @ rows.T + np.diag(penalty)
    moment = (rows * trust) @ log_ratio + penalty * PRIOR_SLOPE
    slopes: np.ndarray = np.clip(np.linalg.solve(gram, moment)[1:], 0, 1)
    return slopes


def solve_robust_nnls(signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift, *, counts: bool) -> np.ndarray:
    """Solve non-negative least squares with a known platform shift by iterative reweighting.

    The weight of a gene is its ``trust`` divided by the variance of platform shift and counting noise. Each new
    solution is averaged with the previous one until convergence of each sample.

    Parameters
    ----------
    signature, bulk, counts
        As for :func:`learn_shift`.
    shift
        From :func:`learn_shift`.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    signature = shift.applied(signature)
    weights = _start(signature, bulk, shift)
    active = np.arange(len(bulk))
    for _ in range(MAX_ITERATIONS):
        new = _step(signature, bulk[active], shift, weights[active], counts=counts)
        moves = np.abs(new - weights[active]).max(axis=1) >= TOLERANCE
        weights[active] = (new + weights[active]) / 2
        active = active[moves]
        if not len(active):
            break
    return weights
