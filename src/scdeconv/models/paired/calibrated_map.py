"""CalibratedMAP: maximum a posteriori composition under the calibration of the pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from scdeconv._data import keys
from scdeconv._stats.calibration.logistic_normal import LogisticNormalModel
from scdeconv._stats.expression import fill_missing, log_shares, to_shares
from scdeconv._stats.type_expression.posterior import (
    DonorVariation,
    fit_donor_variation,
    own_variance_of_types,
    type_deviations,
)
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._state import Estimate, State
from scdeconv.pp import FEWEST_PAIRS, fit_calibration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from scdeconv._data.paired_data import PairedData
    from scdeconv._stats.known_parts import KnownParts


# random donor folds for out-of-fold errors; set by hand
N_DONOR_FOLDS, FOLD_SEED = 5, 0
# variance of the log expression of imputed genes: they do not inform other genes
MISSING_VARIANCE = 1e6


@dataclass(frozen=True, kw_only=True)
class CalibratedMAPState(State):
    """Logistic-normal model of bulk and the mean expression of the paired bulk.

    Parameters
    ----------
    model
        Prior of the compositions, profiles, platform effect and noise.
    reference
        Mean share of each gene in the paired bulk, used to impute missing genes.
    variation
        Variation between donors in bulk and cells, for the expression of cell types; None without cells of the pairs.
    """

    model: LogisticNormalModel
    reference: np.ndarray
    variation: DonorVariation | None = None

    def log_ratios(self, expression: np.ndarray) -> np.ndarray:
        """Return the maximum a posteriori log-ratios, samples × cell types; their softmax is the composition."""
        return self.model.solve(*self._log_and_totals(expression))

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return fractions, samples × cell types."""
        fractions: np.ndarray = softmax(self.log_ratios(expression), axis=1)
        return fractions

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return fractions, and the noise of each sample relative to its expected value."""
        ratios, noise = self.solve(expression)
        return Estimate(softmax(ratios, axis=1), noise=noise)

    def estimate_given(self, expression: np.ndarray, known: KnownParts, estimate: Estimate) -> Estimate:
        """Return the estimate under the posterior given the known parts, and its noise."""
        log, depths = self._log_and_totals(expression)
        ratios = self.model.solve(log, depths, known)
        noise = self.model.noise_level(log, depths, ratios)
        return Estimate(known.rescale(softmax(ratios, axis=1)), noise=noise)

    def fractions(self, expression: np.ndarray) -> np.ndarray:
        """Return fractions without the noise, samples × cell types."""
        return self.predict(expression)

    def solve(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log-ratios (samples × cell types) and noise (length samples) from one solution."""
        log, depths = self._log_and_totals(expression)
        ratios = self.model.solve(log, depths)
        return ratios, self.model.noise_level(log, depths, ratios)

    def contributions(self, expression: np.ndarray, cell_types: Sequence[int]) -> Iterator[np.ndarray] | None:
        """Return the posterior mean of the expression that comes from each type; None without cells of the pairs."""
        return None if self.variation is None else self._contributions(expression, cell_types, self.variation)

    def _contributions(
        self, expression: np.ndarray, cell_types: Sequence[int], variation: DonorVariation
    ) -> Iterator[np.ndarray]:
        present = ~np.isnan(expression).any(axis=0)
        log, totals = self._log_and_totals(expression)
        ratios = self.model.solve(log, totals)
        fractions, expected = softmax(ratios, axis=1), self.model.expected(ratios)
        # imputed genes tell nothing
        variation = replace(variation, variance=np.where(present, variation.variance, MISSING_VARIANCE))
        shared, independent = variation.deviations(np.where(present, log - expected, 0.0))
        mixture = np.maximum(fractions @ self.model.profiles, np.finfo(float).tiny)
        squares = (fractions**2 @ self.model.profiles**2) / mixture**2
        shares = np.where(present, np.maximum(np.expm1(expected), 0), np.nan)
        reads = totals[:, None] * shares / np.nansum(shares, axis=1, keepdims=True)
        for kind in cell_types:
            part = fractions[:, [kind]] * self.model.profiles[kind] / mixture
            yield reads * part * np.exp(type_deviations(variation, shared, independent, part, squares))

    def log_expression(self, expression: np.ndarray) -> np.ndarray:
        """Return log expression with imputed missing genes, samples × genes."""
        return log_shares(fill_missing(expression, self.reference))

    def _log_and_totals(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log expression (samples × genes) and total expression (length samples)."""
        return self.log_expression(expression), np.nansum(expression, axis=1)


def variation_of_pairs(data: PairedData, profiles: np.ndarray) -> DonorVariation | None:
    """Return the variation between paired donors in bulk and cells; None if fewer than 3 of them have cells.

    Parameters
    ----------
    data
        Pairs and reference.
    profiles
        Profiles with calibrated cell sizes, cell types × genes.
    """
    if not data.reference.has_donors or keys.PSEUDOBULK not in data.mdata.mod:
        return None
    pairs, counted = data.pairs(), data.profiles()
    with_cells = np.isin(pairs.donors, data.mdata[keys.PSEUDOBULK].obs[keys.DONOR].astype(str))
    if len(np.unique(pairs.donors[with_cells])) < FEWEST_PAIRS:
        return None
    fractions = pairs.fractions[with_cells]
    bulk = log_shares(pairs.expression[with_cells]) - log_shares(fractions @ profiles)
    cells = log_shares(data.pseudobulk()[with_cells]) - log_shares(fractions @ counted)
    return fit_donor_variation(bulk, cells, own_variance_of_types(*data.reference.by_donor(), counted))


class CalibratedMAP(CrossFittedModel):
    r"""Maximum a posteriori (MAP) composition under a model of bulk that is calibrated on the pairs.

    The prior of the composition is logistic-normal, with the mean and covariance of the paired donors. The log
    expression of bulk is :math:`x = \log(1 + 10 G s)` for the share s of a gene out of G genes. It is normally
    distributed around the expected expression:

    .. math::

        z \sim N(\mu, 1.5 \, \Sigma), \qquad
        x = \log(1 + 10 G \, \mathrm{share}(\mathrm{softmax}(z) \, P)) + b + \varepsilon,

    with P the profiles in counts per cell, b the platform effect of each gene, and :math:`\varepsilon` noise that is
    correlated between genes. :func:`scdeconv.pp.calibrate` estimates cell sizes, b and the noise from the pairs.
    Gauss-Newton steps maximise the posterior density of z for each sample. Needs pairs and profiles.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with at least 3 paired donors. The selected genes are used, or all genes if none
        were selected.

    Notes
    -----
    The page :doc:`/methods/calibrated_map` gives the source of each constant.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.CalibratedMAP.setup_mudata(mdata)
    >>> model = scdeconv.models.CalibratedMAP(mdata)
    >>> model.train()
    >>> list(model.quality(mdata["bulk"]))
    ['noise', 'composition', 'outside', 'few_reads']
    """

    record = Method(
        key="calibrated_map",
        family="paired",
        needs=("pairs", "profiles"),
        summary="most probable composition under the calibration of the pairs",
        reference="this library",
        genes_per_type=150,
    )
    state_type = CalibratedMAPState
    fewest_to_hold_out = FEWEST_PAIRS

    def _folds(self, donors: list[str]) -> list[list[str]]:
        # fewer folds than other methods: a calibration takes longer than a least-squares fit
        fold_of = np.random.default_rng(FOLD_SEED).permutation(len(donors)) % N_DONOR_FOLDS
        return [list(np.array(donors)[fold_of == fold]) for fold in range(min(N_DONOR_FOLDS, len(donors)))]

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return an empty search space: only the number of genes is tuned.

        Returns
        -------
        Empty dictionary.
        """
        return {}

    def fit(self, data: PairedData, without: Collection[str] = ()) -> CalibratedMAPState:
        """Estimate prior, platform effect, cell sizes and noise from the pairs.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``CalibratedMAPState``.
        """
        calibration = fit_calibration(data, without, batch_key=data.batch_key)
        return CalibratedMAPState(
            model=calibration.model(),
            reference=to_shares(data.pairs(without).expression).mean(axis=0),
            # models of folds predict only fractions
            variation=None if len(without) else variation_of_pairs(data, calibration.profiles),
            summary=f"{calibration.n_donors} donors, {len(data.cell_types)} profiles, {len(data.genes)} genes",
        )
