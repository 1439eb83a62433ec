"""Non-negative least squares with a robust model of the platform effect; the default without pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from scdeconv._data import keys
from scdeconv._stats.expression import LEVEL, to_shares
from scdeconv._stats.least_squares import solve_weighted
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel, describe, present_genes
from scdeconv.models._state import State
from scdeconv.pp import SIZE_SD

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData

# degrees of freedom of the t distribution of the platform effect over genes (heavy tail); set by hand
T_DF = 2.0
# minimum SD of the platform effect (log expression), as between two runs of one protocol; set by hand
MIN_EFFECT_SD = 0.1
# ratio of SD to median absolute deviation of a normal distribution
MAD_TO_SD = 1.4826
MAX_ITERATIONS = 50
TOLERANCE = 1e-4
# minimum t statistic of the slope of the spike-in ratio on the composition; set by hand
MIN_SLOPE_T = 2.0
# prior SD of the log spike-in ratio between samples, and its weight in samples; set by hand
SPIKE_IN_SD, SPIKE_IN_PRIOR_SAMPLES = 0.3, 4


@dataclass(frozen=True)
class PlatformShift:
    """Platform effect of the bulk: SD over genes (log expression), and weight of each gene (``trust``, mean 1)."""

    sd: float
    trust: np.ndarray


def _step(
    signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift, weights: np.ndarray, *, counts: bool
) -> np.ndarray:
    """Return the solution of one iteration of reweighted least squares, with variances at the fit of ``weights``."""
    level = weights @ signature + 1 / (LEVEL * signature.shape[1])
    variance = (shift.sd * level) ** 2
    if counts:
        variance = variance + level / np.maximum(bulk.sum(axis=1, keepdims=True), 1)
    return solve_weighted(signature, to_shares(bulk), shift.trust / variance)


def _start(signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift) -> tuple[np.ndarray, np.ndarray]:
    """Return the signature scaled to a mean total of 1, and an initial solution without counting noise."""
    signature = signature / max(signature.sum(axis=1).mean(), np.finfo(float).tiny)
    level = signature.mean(axis=0) + 1 / (LEVEL * signature.shape[1])
    return signature, solve_weighted(signature, to_shares(bulk), np.tile(shift.trust / level**2, (len(bulk), 1)))


def learn_shift(signature: np.ndarray, bulk: np.ndarray, *, counts: bool) -> PlatformShift:
    """Estimate the platform effect from a cohort; the effect and the solutions are updated alternately (IRLS).

    The residual of a gene with fitted value ``m`` is ``m`` times the platform effect, plus counting noise. The effect
    is the same in all samples and follows a t distribution over genes. The effect of a gene is the log ratio of the
    mean bulk to the mean fit. Its SD over genes is estimated by the median absolute deviation.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes. Without samples, all genes have equal weight.
    counts
        Whether the bulk is counts; then the variance includes counting noise.

    Returns
    -------
    Platform effect.
    """
    shift = PlatformShift(1.0, np.ones(signature.shape[1]))
    if not len(bulk):
        return shift
    signature, weights = _start(signature, bulk, shift)
    pseudo_share, observed = 1 / (LEVEL * signature.shape[1]), to_shares(bulk).mean(axis=0)
    for _ in range(MAX_ITERATIONS):
        new = _step(signature, bulk, shift, weights, counts=counts)
        change = np.abs(new - weights).max()
        weights = (new + weights) / 2
        log_ratio = np.log((observed + pseudo_share) / (weights.mean(axis=0) @ signature + pseudo_share))
        log_ratio -= np.median(log_ratio)
        sd = max(MIN_EFFECT_SD, MAD_TO_SD * float(np.median(np.abs(log_ratio))))
        shift = PlatformShift(sd, (T_DF + 1) / (T_DF + (log_ratio / sd) ** 2))
        if change < TOLERANCE:
            break
    return shift


def solve_robust_nnls(signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift, *, counts: bool) -> np.ndarray:
    """Solve non-negative least squares with a known platform effect by iterative reweighting.

    The weight of a gene is its ``trust`` divided by the variance of platform effect and counting noise. Each new
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
    signature, weights = _start(signature, bulk, shift)
    active = np.arange(len(bulk))
    for _ in range(MAX_ITERATIONS):
        new = _step(signature, bulk[active], shift, weights[active], counts=counts)
        moves = np.abs(new - weights[active]).max(axis=1) >= TOLERANCE
        weights[active] = (new + weights[active]) / 2
        active = active[moves]
        if not len(active):
            break
    return weights


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


@dataclass(frozen=True, kw_only=True)
class RobustNNLSState(State):
    """Signature and platform effect of the training bulk.

    Parameters
    ----------
    signature
        Cell types × genes.
    shift
        Platform effect, from :func:`learn_shift`.
    counts
        Whether the bulk is counts.
    """

    signature: np.ndarray
    shift: PlatformShift
    counts: bool

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        present = present_genes(expression)
        shift = PlatformShift(self.shift.sd, self.shift.trust[present])
        return solve_robust_nnls(self.signature[:, present], expression[:, present], shift, counts=self.counts)


def with_sizes_from_spike_ins(
    state: RobustNNLSState, expression: np.ndarray, ratio: np.ndarray, sizes: np.ndarray
) -> RobustNNLSState:
    """Return the state with cell sizes estimated from spike-ins, or unchanged if they cannot be estimated.

    Parameters
    ----------
    state
        State whose signature has the given cell sizes.
    expression
        Bulk, samples × genes.
    ratio
        RNA per spike-in of each sample; NaN if unknown.
    sizes
        Cell sizes, length cell types; 0 for types without cells.
    """
    there = sizes > 0
    rna = (state.predict(expression) * sizes)[:, there]
    known = (ratio > 0) & rna.any(axis=1)
    learned = sizes_from_spike_ins(to_shares(rna[known]), ratio[known], sizes[there])
    if learned is None:
        return state
    signature = state.signature.copy()
    signature[there] *= (learned / sizes[there])[:, None]
    return replace(state, signature=signature, summary=f"{state.summary}, cell sizes from spike-ins")


class RobustNNLS(SignatureModel):
    """Non-negative least squares with gene weights from a robust estimate of the platform effect.

    Single-cell and bulk platforms measure genes with different efficiency, for some genes by orders of magnitude. The
    platform effect of a gene is estimated as the log ratio of the mean bulk to its fit by the profiles. This needs no
    measured fractions. Genes with an outlying effect get a low weight. All genes are fitted on a relative scale,
    limited by counting noise. The default of :func:`scdeconv.tl.train` without pairs.

    If the bulk has spike-ins (see :func:`scdeconv.pp.pair`) and their share depends on the composition, the RNA content
    of the cell types is estimated from them, with the reference as prior.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.

    Notes
    -----
    Developed for this library, based on DWLS (relative errors) and robust regression. The gene weights are estimated in
    training. Predictions therefore do not depend on the other samples.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.RobustNNLS.setup_mudata(mdata)
    >>> model = scdeconv.models.RobustNNLS(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="robust_nnls",
        family="reference",
        needs=("profiles",),
        summary="NNLS with genes weighted by how well the reference explains the cohort",
        reference="this library; after DWLS",
        genes_per_type=100,
    )

    state_type = RobustNNLSState

    def fit(self, data: PairedData, without: Collection[str] = ()) -> RobustNNLSState:
        """Estimate the platform effect from the bulk and, with spike-ins, the cell sizes.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``RobustNNLSState``.
        """
        expression, signature = data.bulk(without), self.signature(data, without)
        shift = learn_shift(signature, expression, counts=data.is_counts)
        state = RobustNNLSState(signature=signature, shift=shift, counts=data.is_counts, summary=describe(data))
        if keys.RNA_PER_SPIKE_IN not in data.samples:
            return state
        ratio = data.samples[keys.RNA_PER_SPIKE_IN].to_numpy(dtype=float)[data.kept(without)]
        return with_sizes_from_spike_ins(state, expression, ratio, data.cell_sizes(without))
