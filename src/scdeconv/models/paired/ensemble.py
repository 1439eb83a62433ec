"""Weighted mean of several methods, with weights from out-of-fold predictions (stacking)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.conformal import HeldOut
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._state import Estimate, State
from scdeconv.models.paired.bisque import Bisque, BisqueState
from scdeconv.models.paired.calibrated_map import CalibratedMAP, CalibratedMAPState
from scdeconv.models.paired.calibrated_nnls import CalibratedNNLS, CalibratedNNLSState
from scdeconv.models.paired.ridge import Ridge, RidgeState
from scdeconv.pp import FEWEST_PAIRS

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData
    from scdeconv._stats.familiarity import Familiarity
    from scdeconv._stats.known_parts import KnownParts

MEMBERS: dict[str, type[CrossFittedModel]] = {cls.method: cls for cls in (CalibratedMAP, CalibratedNNLS, Ridge, Bisque)}
# weight of the sum-to-one row relative to the largest norm of a column; set by hand
SUM_WEIGHT = 1e3


def stack(measured: np.ndarray, predicted: np.ndarray, n_donors: int) -> np.ndarray:
    """Return the stacking weights of the members: non-negative, sum 1, smallest squared error of the weighted mean.

    The weights are shrunk to equal weights. The penalty is the mean squared error of the members on one donor.

    Parameters
    ----------
    measured
        Measured fractions, samples × cell types.
    predicted
        Out-of-fold predictions, members × samples × cell types.
    n_donors
        Number of donors.

    Returns
    -------
    Weights, length members.
    """
    columns = predicted.reshape(len(predicted), -1).T
    prior = np.sqrt(((columns - measured.reshape(-1, 1)) ** 2).sum(axis=0).mean() / n_donors)
    heavy = SUM_WEIGHT * np.linalg.norm(columns, axis=0).max()
    system = np.vstack([columns, prior * np.eye(columns.shape[1]), np.full(columns.shape[1], heavy)])
    target = np.concatenate([measured.ravel(), np.full(columns.shape[1], prior / columns.shape[1]), [heavy]])
    weights = nnls(system, target)[0]
    return weights / weights.sum()


@dataclass(frozen=True, kw_only=True)
class WeightedEnsembleState(State):
    """States of the members and their weights.

    Parameters
    ----------
    calibrated_map, calibrated_nnls, ridge, bisque
        States of the members.
    weights
        Weights of the members in this order; sum 1.
    """

    calibrated_map: CalibratedMAPState
    calibrated_nnls: CalibratedNNLSState
    ridge: RidgeState
    bisque: BisqueState
    weights: np.ndarray

    def members(self, expression: np.ndarray) -> list[Estimate]:
        """Return the estimates of the members."""
        return [getattr(self, name).estimate(expression) for name in MEMBERS]

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the weighted mean over members, samples × cell types."""
        return self.estimate(expression).fractions

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return the weighted mean over members, and the noise estimated by ``calibrated_map``."""
        return self._mean(self.members(expression))

    def estimate_given(self, expression: np.ndarray, known: KnownParts, estimate: Estimate) -> Estimate:
        """Return the weighted mean of the members' estimates given the known parts."""
        states = [getattr(self, name) for name in MEMBERS]
        return self._mean([state.estimate_given(expression, known, state.estimate(expression)) for state in states])

    def _mean(self, members: list[Estimate]) -> Estimate:
        mean = np.tensordot(self.weights, np.stack([member.fractions for member in members]), axes=1)
        return Estimate(to_fractions(mean), noise=members[0].noise)


class WeightedEnsemble(CrossFittedModel):
    """The weighted mean of CalibratedMAP, CalibratedNNLS, Ridge and Bisque.

    The weights minimise the squared error of the weighted out-of-fold predictions.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with at least 4 paired donors. The members share the selected genes.

    Raises
    ------
    ValueError
        If ``train`` finds fewer than 4 paired donors.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.WeightedEnsemble.setup_mudata(mdata)
    >>> model = scdeconv.models.WeightedEnsemble(mdata)
    >>> model.train()
    >>> round(float(model.state_.weights.sum()), 6)
    1.0
    """

    record = Method(
        key="ensemble",
        family="paired",
        needs=("pairs", "profiles"),
        summary="weighted mean of calibrated_map, calibrated_nnls, ridge and bisque",
        reference="this library",
        genes_per_type=150,
    )
    state_type = WeightedEnsembleState

    def fit(self, data: PairedData, without: Collection[str] = ()) -> WeightedEnsembleState:
        """Fit the members, and estimate their weights by cross-fitting.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``WeightedEnsembleState``.
        """
        return self._fit_members(data, self._weigh(data, without)[0], without)

    def _learn(
        self, data: PairedData, *, held_out: bool, **settings: Any
    ) -> tuple[State, HeldOut | None, Familiarity | None]:
        # one cross-fit gives both the weights and the out-of-fold predictions
        weights, predicted, familiarity = self._weigh(data, **settings)
        return self._fit_members(data, weights), predicted if held_out else None, familiarity

    def _fit_members(
        self, data: PairedData, weights: np.ndarray, without: Collection[str] = ()
    ) -> WeightedEnsembleState:
        states: dict[str, Any] = {name: cls().fit(data, without) for name, cls in MEMBERS.items()}
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(MEMBERS, weights, strict=True))
        n_donors = len(set(data.pairs(without).donors))
        summary = f"{n_donors} donors, {len(data.genes)} genes; weights {shown}"
        return WeightedEnsembleState(**states, weights=weights, summary=summary)

    def _weigh(self, data: PairedData, without: Collection[str] = ()) -> tuple[np.ndarray, HeldOut, Familiarity | None]:
        """Return the weights, the weighted out-of-fold predictions and the familiarity."""
        n_donors = len(set(data.pairs(without).donors))
        if n_donors <= FEWEST_PAIRS:
            msg = (
                f"Expected at least {FEWEST_PAIRS + 1} paired donors to estimate the weights of the members, found "
                f"{n_donors}. Use method='calibrated_map'."
            )
            raise ValueError(msg)
        found = [cls().cross_fit(data, without) for cls in MEMBERS.values()]
        tables = [held_out for held_out, _ in found if held_out is not None]
        measured, donors = tables[0].measured, tables[0].donors
        predicted = np.stack([table.predicted for table in tables])
        weights = stack(measured, predicted, n_donors)
        return weights, HeldOut(measured, np.tensordot(weights, predicted, axes=1), donors), found[0][1]
