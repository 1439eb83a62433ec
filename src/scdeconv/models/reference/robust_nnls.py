"""Non-negative least squares for profiles of another platform than the bulk's: the default without pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._stats.expression import LEVEL, to_shares
from scdeconv._stats.least_squares import solve_weighted
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel
from scdeconv.pp import SIZE_SD

if TYPE_CHECKING:
    from collections.abc import Collection

# degrees of freedom of the t distribution of the platform shift over genes: some genes are off by orders of magnitude
TAIL = 2.0
# least platform shift (standard deviation of log expression), as between two runs of one protocol
LEAST_SHIFT = 0.1
# standard deviation of a normal distribution over its median absolute deviation
MAD_TO_SD = 1.4826
MAX_ITERATIONS = 50
TOLERANCE = 1e-4
# spike-ins tell cell sizes where they follow the composition by so many standard errors
EVIDENCE = 2.0
# spread of the ratio of RNA to spike-ins between equal samples (log), and how many samples this guess counts for
SPIKE_IN_SD, SPIKE_IN_WEIGHT = 0.3, 4


class PlatformShift(NamedTuple):
    """How bulk departs from the reference: spread over genes (log), and how far each gene can be trusted (mean 1)."""

    sd: float
    trust: np.ndarray


def _step(
    signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift, weights: np.ndarray, *, counts: bool
) -> np.ndarray:
    """Solve least squares weighted by the inverse variances that the fit by ``weights`` implies."""
    level = weights @ signature + 1 / (LEVEL * signature.shape[1])
    variance = (shift.sd * level) ** 2
    if counts:
        variance = variance + level / np.maximum(bulk.sum(axis=1, keepdims=True), 1)
    return solve_weighted(signature, to_shares(bulk), shift.trust / variance)


def _start(signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift) -> tuple[np.ndarray, np.ndarray]:
    """Return the signature in shares of the genes, on average over types, and a first solution without counting noise."""
    signature = signature / max(signature.sum(axis=1).mean(), np.finfo(float).tiny)
    level = signature.mean(axis=0) + 1 / (LEVEL * signature.shape[1])
    return signature, solve_weighted(signature, to_shares(bulk), np.tile(shift.trust / level**2, (len(bulk), 1)))


def learn_shift(signature: np.ndarray, bulk: np.ndarray, *, counts: bool) -> PlatformShift:
    """Learn from a cohort how far to trust each gene: the shift and the solutions are found in turn.

    A gene fitted as ``m`` departs by ``m`` times a shift, which all samples have in common and which follows a t
    distribution over genes, and by counting noise. The shift of a gene is the log ratio of the cohort's mean to the mean
    of its fit, its spread over genes is the median absolute deviation.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes. Without any, all genes are trusted alike.
    counts
        Whether bulk is counts, so that its depth tells the counting noise.

    Returns
    -------
    The platform shift.
    """
    shift = PlatformShift(1.0, np.ones(signature.shape[1]))
    if not len(bulk):
        return shift
    signature, weights = _start(signature, bulk, shift)
    faint, observed = 1 / (LEVEL * signature.shape[1]), to_shares(bulk).mean(axis=0)
    for _ in range(MAX_ITERATIONS):
        new = _step(signature, bulk, shift, weights, counts=counts)
        change = np.abs(new - weights).max()
        weights = (new + weights) / 2
        log_ratio = np.log((observed + faint) / (weights.mean(axis=0) @ signature + faint))
        log_ratio -= np.median(log_ratio)
        sd = max(LEAST_SHIFT, MAD_TO_SD * float(np.median(np.abs(log_ratio))))
        shift = PlatformShift(sd, (TAIL + 1) / (TAIL + (log_ratio / sd) ** 2))
        if change < TOLERANCE:
            break
    return shift


def solve_robust_nnls(signature: np.ndarray, bulk: np.ndarray, shift: PlatformShift, *, counts: bool) -> np.ndarray:
    """Fit bulk by non-negative combinations of profiles that bulk sees with a known spread of platform shifts.

    Least squares are weighted by the trust in a gene over the variance of shift and counting; weights and solution are
    found in turn, as a running mean, for each sample until it does not move.

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
    """Estimate RNA per cell of each type from samples that hold equally many cells and equally much spike-in.

    The ratio of RNA to spike-ins is then proportional to the mean RNA per cell, ``1 / sum(share / size)``. Sizes are the most
    probable ones, log-normal around the given ones. Where samples hold equally much RNA instead, the ratio does not follow
    the composition; then nothing is learned.

    Parameters
    ----------
    rna_shares
        Samples × cell types.
    ratio
        RNA per spike-in, length samples, positive.
    sizes
        Of the cells in the reference, length cell types.

    Returns
    -------
    Sizes, length cell types; None where the ratio does not follow the composition.
    """
    if len(ratio) <= 2:
        return None
    observed = np.log(ratio) - np.log(ratio).mean()
    expected = -np.log(rna_shares @ (1 / sizes))
    expected -= expected.mean()
    power = (expected**2).sum()
    slope = (expected @ observed) / max(power, np.finfo(float).tiny)
    variance = ((observed - slope * expected) ** 2).sum() / (len(ratio) - 2)
    if not slope * np.sqrt(power) > EVIDENCE * np.sqrt(variance):
        return None
    sd = SPIKE_IN_SD

    def misfit(log_sizes: np.ndarray) -> np.ndarray:
        residual = observed + np.log(rna_shares @ np.exp(-log_sizes))
        return np.append((residual - residual.mean()) / sd, (log_sizes - np.log(sizes)) / SIZE_SD)

    log_sizes = np.log(sizes)
    for _ in range(5):
        log_sizes = least_squares(misfit, log_sizes).x
        squares = ((misfit(log_sizes)[: len(ratio)] * sd) ** 2).sum()
        sd = np.sqrt((squares + SPIKE_IN_WEIGHT * SPIKE_IN_SD**2) / (len(ratio) + SPIKE_IN_WEIGHT))
    return np.exp(log_sizes)


class RobustNNLS(SignatureModel):
    """Non-negative least squares whose genes count by how well the reference explains them in the cohort.

    Single cells and bulk see genes with different efficiency, a few of them by orders of magnitude. The bulk samples need
    no measured fractions to show which: the shift of each gene is what the best mixture of profiles leaves unexplained in
    their mean. Genes far from the others lose their weight, and all are compared on a relative scale as far as counting
    noise permits. The default of :func:`scdeconv.tl.train` without pairs.

    Where bulk has spike-ins (see :func:`scdeconv.pp.pair`) whose share follows the composition, they tell the RNA content
    of the cell types, starting from that of the reference.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.

    Notes
    -----
    Our own, in the line of DWLS (relative errors) and of robust regression. Weights learned from the training bulk are
    kept: predictions do not depend on which samples are predicted together.

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

    def _fit(self, without: Collection[str]) -> None:
        super()._fit(without)
        mdata = self._require_data()
        bulk = mdata[keys.BULK]
        kept = ~bulk.obs[keys.DONOR].isin(without).to_numpy()
        expression = values_of(bulk, kept, self.genes_)
        self.counts_ = mdata.uns.get(keys.UNS, {}).get("pair", {}).get("bulk_unit") == "counts"
        self.shift_sd_, self.trust_ = learn_shift(self.signature_, expression, counts=self.counts_)
        if keys.RNA_PER_SPIKE_IN in bulk.obs:
            ratio = bulk.obs[keys.RNA_PER_SPIKE_IN].to_numpy(dtype=float)[kept]
            self._take_sizes_from_spike_ins(expression, ratio, self._reference.profiles(without)[1])

    def _take_sizes_from_spike_ins(self, expression: np.ndarray, ratio: np.ndarray, sizes: np.ndarray) -> None:
        # a type may have no cells where donors are held out
        there = sizes > 0
        rna = (self._fractions(expression) * sizes)[:, there]
        known = (ratio > 0) & rna.any(axis=1)
        learned = sizes_from_spike_ins(to_shares(rna[known]), ratio[known], sizes[there])
        if learned is not None:
            self.signature_[there] *= (learned / sizes[there])[:, None]
            self.summary_ += ", cell sizes from spike-ins"

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        present = ~np.isnan(expression).any(axis=0)
        shift = PlatformShift(self.shift_sd_, self.trust_[present])
        signature = self.signature_[:, present]
        return solve_robust_nnls(signature, expression[:, present], shift, counts=self.counts_)

    def _arrays(self) -> dict[str, np.ndarray]:
        state = {"trust": self.trust_, "shift_sd": np.array(self.shift_sd_), "counts": np.array(self.counts_)}
        return super()._arrays() | state

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self.trust_, self.shift_sd_ = arrays["trust"], float(arrays["shift_sd"])
        self.counts_ = bool(arrays["counts"])
