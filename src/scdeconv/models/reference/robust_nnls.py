"""Non-negative least squares with a robust model of the platform effect; the default without pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._data.progress import progress
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.expression import to_shares
from scdeconv._stats.resampling import N_RESAMPLES, add_counting_noise, draw_log_sizes, draw_profiles
from scdeconv._stats.solvers.platform_shift import PlatformShift, learn_shift, solve_robust_nnls
from scdeconv._stats.solvers.spike_in_sizes import sizes_from_spike_ins
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel, describe, present_genes
from scdeconv.models._state import State

from ._platform_prior import shift_predictors

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

    from scdeconv._data.paired_data import PairedData
    from scdeconv._stats.conformal import HeldOut
    from scdeconv._stats.recognition.familiarity import Familiarity

# maximum number of bulk samples from which a resampled platform shift is learned; limits the time of training
MAX_SHIFT_SAMPLES = 50
# tolerance of a resampled platform shift: the SD over resamples is larger
SHIFT_TOLERANCE = 1e-3
# minimum number of bulk samples for the SD of the composition
MIN_COHORT = 3
# the same resamples in every training: the estimates have no seed either
RESAMPLING_SEED = 0
TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class Resampled:
    """The model learned again from resampled data, for prediction intervals.

    Parameters
    ----------
    genes
        Positions of the resampled genes, resamples × genes.
    signatures
        Profiles from resampled reference donors, resamples × cell types × genes in the order of the model; None for a
        reference without donors.
    sd, trust, expected
        Platform shift over the resampled genes, as in ``PlatformShift``, with one row for each resample.
    log_sizes
        Errors of the log cell sizes, resamples × cell types.
    count_draws
        Standard normal draws of the counting noise, resamples × genes.
    cohort_sd
        SD of the estimated fractions over the training bulk, length cell types; NaN for less than 3 samples.
    """

    genes: np.ndarray
    signatures: np.ndarray | None
    sd: np.ndarray
    trust: np.ndarray
    expected: np.ndarray | None
    log_sizes: np.ndarray
    count_draws: np.ndarray
    cohort_sd: np.ndarray

    def shift(self, number: int) -> PlatformShift:
        """Return the platform shift of a resample, over its genes."""
        expected = None if self.expected is None else self.expected[number]
        return PlatformShift(float(self.sd[number]), self.trust[number], expected)


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
    resampled
        Resampled genes and reference, for prediction intervals; None if the training held out donors.
    """

    signature: np.ndarray
    shift: PlatformShift
    counts: bool
    resampled: Resampled | None = None

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        present = present_genes(expression)
        shift = self.shift.of(present)
        return solve_robust_nnls(self.signature[:, present], expression[:, present], shift, counts=self.counts)

    def resample(self, expression: np.ndarray) -> np.ndarray | None:
        """Return fractions from resampled genes, donors, cell sizes and counts, resamples × samples × cell types."""
        if self.resampled is None:
            return None
        present, found = present_genes(expression), []
        with progress(len(self.resampled.genes), "resampling genes and reference") as bar:
            for number, genes in enumerate(self.resampled.genes):
                there = present[genes]
                kept, shift = genes[there], self.resampled.shift(number).of(there)
                signature = self.signature if self.resampled.signatures is None else self.resampled.signatures[number]
                bulk = expression[:, kept]
                if self.counts:
                    bulk = add_counting_noise(bulk, self.resampled.count_draws[number][there])
                weights = solve_robust_nnls(signature[:, kept], bulk, shift, counts=self.counts)
                found.append(to_fractions(weights * np.exp(self.resampled.log_sizes[number])))
                bar.update()
        return np.stack(found)

    @property
    def cohort_sd(self) -> np.ndarray | None:
        """SD of the estimated fractions over the training bulk."""
        return None if self.resampled is None else self.resampled.cohort_sd


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
    platform_prior
        Protocol of the cells, as for :func:`scdeconv.datasets.platform_shift_prior`, whose shifts are expected before
        the bulk is seen. How much the shifts of the bulk follow them is learned. None: no expectation. Genes are found
        by symbol or Ensembl identifier; the prior has no effect on microarrays and on other gene names.

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

    @checked()
    def __init__(
        self,
        mdata: MuData | None = None,
        *,
        platform_prior: Literal["10x 3'", "10x 3' nuclei"] | None = "10x 3'",
    ) -> None:
        super().__init__(mdata)
        self.parameters_ = {"platform_prior": platform_prior}

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
        predictors = shift_predictors(data, self.parameters_["platform_prior"])
        shift = learn_shift(signature, expression, counts=data.is_counts, predictors=predictors)
        state = RobustNNLSState(signature=signature, shift=shift, counts=data.is_counts, summary=describe(data))
        if keys.RNA_PER_SPIKE_IN not in data.samples:
            return state
        ratio = data.samples[keys.RNA_PER_SPIKE_IN].to_numpy(dtype=float)[data.kept(without)]
        return with_sizes_from_spike_ins(state, expression, ratio, data.cell_sizes(without))

    def _learn(
        self, data: PairedData, *, held_out: bool, **settings: Any
    ) -> tuple[State, HeldOut | None, Familiarity | None]:
        """Fit as other methods; without held-out donors, also learn from resampled data for prediction intervals."""
        state, predicted, familiarity = super()._learn(data, held_out=held_out, **settings)
        if held_out and predicted is None and isinstance(state, RobustNNLSState):
            state = replace(state, resampled=self._resample(data, state))
        return state, predicted, familiarity

    def _resample(self, data: PairedData, state: RobustNNLSState) -> Resampled:
        """Learn the platform shift again from resampled genes, reference donors and bulk samples."""
        rng, expression = np.random.default_rng(RESAMPLING_SEED), data.bulk()
        predictors = shift_predictors(data, self.parameters_["platform_prior"])
        n_samples, n_genes = expression.shape
        genes = rng.integers(n_genes, size=(N_RESAMPLES, n_genes))
        signatures = None
        if data.reference.has_donors:
            # the factors of cell sizes from spike-ins
            sizes = state.signature.sum(axis=1) / np.maximum(self.signature(data).sum(axis=1), TINY)
            sums, _, n_cells = data.reference.by_donor()
            signatures = (draw_profiles(sums, n_cells, N_RESAMPLES, rng) * sizes[:, None]).astype(np.float32)
        shifts = []
        with progress(N_RESAMPLES, "resampling genes and reference") as bar:
            for number, chosen in enumerate(genes):
                rows = rng.permutation(n_samples)[:MAX_SHIFT_SAMPLES]
                signature = state.signature if signatures is None else signatures[number]
                shifts.append(
                    learn_shift(
                        signature[:, chosen],
                        expression[np.ix_(rows, chosen)],
                        counts=data.is_counts,
                        predictors=None if predictors is None else predictors[:, chosen],
                        start=state.shift.of(chosen),
                        tolerance=SHIFT_TOLERANCE,
                    )
                )
                bar.update()
        log_sizes = draw_log_sizes(N_RESAMPLES, data.cell_sizes(), rng)
        fractions = state.fractions(expression) if n_samples else np.empty((0, len(data.cell_types)))
        return Resampled(
            genes=genes,
            signatures=signatures,
            sd=np.array([shift.sd for shift in shifts]),
            trust=np.stack([shift.trust for shift in shifts]),
            expected=None if predictors is None else np.stack([np.asarray(shift.expected) for shift in shifts]),
            log_sizes=log_sizes,
            count_draws=rng.normal(size=genes.shape),
            cohort_sd=np.nanstd(fractions, axis=0, ddof=1)
            if n_samples >= MIN_COHORT
            else np.full(len(data.cell_types), np.nan),
        )
