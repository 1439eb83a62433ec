"""WeightedEnsemble: CalibratedMAP, Ridge and SimpleDNN, with weights from out-of-fold predictions; the default."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.conformal import HeldOut
from scdeconv.models._base import DeconvolutionModel
from scdeconv.models._cross_fitted import NO_DATA
from scdeconv.models._record import Method
from scdeconv.models._state import Estimate, State
from scdeconv.models.paired.calibrated_map import CalibratedMAP, CalibratedMAPState
from scdeconv.models.paired.ridge import Ridge, RidgeState
from scdeconv.models.paired.simplednn import SimpleDNN, SimpleDNNState
from scdeconv.pp import paired_donors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

# weight of the sum-to-one row relative to the largest norm of a column; set by hand
SUM_WEIGHT = 1e3
# number of donors that the preference for the best member counts as; set by hand
PRIOR_DONORS = 3
# weight of the ridge regression from which a network on the pairs is trained beside a reference; set by hand
WORTH_A_NETWORK = 0.1


def stack(measured: np.ndarray, predicted: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Return the weights of the members: non-negative, sum 1, smallest squared error of the weighted mean.

    The weights are shrunk to the best member alone. The penalty is ``PRIOR_DONORS`` times the mean squared error of the
    best member on one donor.

    Parameters
    ----------
    measured
        Measured fractions, samples × cell types.
    predicted
        Out-of-fold predictions, members × samples × cell types.
    donors
        Donor of each sample.

    Returns
    -------
    Weights, length members.
    """
    columns = predicted.reshape(len(predicted), -1).T
    errors = ((columns - measured.reshape(-1, 1)) ** 2).sum(axis=0)
    best = np.eye(len(errors))[errors.argmin()]
    prior = np.sqrt(PRIOR_DONORS * errors.min() / len(np.unique(donors)))
    heavy = SUM_WEIGHT * np.linalg.norm(columns, axis=0).max()
    system = np.vstack([columns, prior * np.eye(len(best)), np.full(len(best), heavy)])
    weights = nnls(system, np.concatenate([measured.ravel(), prior * best, [heavy]]))[0]
    return weights / weights.sum()


def stack_out_of_fold(measured: np.ndarray, predicted: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Return weighted means, samples × cell types; the weights of each donor are from the other donors."""
    found = np.empty_like(measured)
    for donor in np.unique(donors):
        mine = donors == donor
        weights = stack(measured[~mine], predicted[:, ~mine], donors[~mine])
        found[mine] = np.tensordot(weights, predicted[:, mine], axes=1)
    return found


@dataclass(frozen=True, kw_only=True)
class WeightedEnsembleState(State):
    """States of the members and their weights.

    Parameters
    ----------
    members
        States of the members with a weight, and of CalibratedMAP, which estimates the noise.
    weights
        Weights of the members in this order; sum 1.
    """

    members: tuple[CalibratedMAPState | RidgeState | SimpleDNNState, ...]
    weights: np.ndarray

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the weighted mean over members, samples × cell types."""
        return self.estimate(expression).fractions

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return the weighted mean over members, and the noise if CalibratedMAP is a member."""
        found = [member.estimate(expression) for member in self.members]
        mean = np.tensordot(self.weights, np.stack([each.fractions for each in found]), axes=1)
        return Estimate(to_fractions(mean), noise=found[0].noise)


class WeightedEnsemble(DeconvolutionModel):
    """The weighted mean of CalibratedMAP, Ridge and SimpleDNN. The default with at least four paired donors.

    Each member predicts held-out donors. The weights minimise the squared error of the weighted out-of-fold predictions,
    with a preference for the best member alone, which counts as much as three donors. Without a reference, the members
    are Ridge and SimpleDNN. Beside a reference, the network takes part if the ridge regression gets a weight, which means
    that the pairs alone tell something that the calibrated profiles do not.

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
        needs=("pairs",),
        summary="weighted mean of calibrated_map, ridge and simplednn",
        reference="this library",
        stochastic=True,
        genes_per_type=150,
        fewest_pairs=4,
    )
    state_type = WeightedEnsembleState

    @checked()
    def __init__(self, mdata: MuData | None = None) -> None:
        self.mdata = mdata
        self.parameters_ = {}

    @classmethod
    @checked()
    def setup_mudata(cls, mdata: MuData) -> None:
        """Check that the data have what the members need, and register the bulk with scvi-tools for the network.

        Parameters
        ----------
        mdata
            From :func:`scdeconv.pp.pair`.

        Raises
        ------
        KeyError
            If there is no bulk.
        ValueError
            If the data were changed after pairing, if a bulk sample has no donor, or if donors or cell types have two
            spellings.
        """
        for member in (CalibratedMAP, Ridge) if keys.PROFILES in mdata.mod else (Ridge,):
            member.setup_mudata(mdata)
        SimpleDNN.setup_mudata(mdata)

    @checked()
    def train(self, *, seed: int = 0) -> None:
        """Train the members and estimate their weights.

        Parameters
        ----------
        seed
            Random seed of the network.
        """
        mdata = self._require_data()
        n_donors = len(paired_donors(mdata))
        if n_donors < self.record.fewest_pairs:
            msg = (
                f"Expected at least {self.record.fewest_pairs} paired donors to estimate the weights of the members, found "
                f"{n_donors}. Use method='calibrated_map'."
            )
            raise ValueError(msg)
        members: list[DeconvolutionModel] = [CalibratedMAP(mdata)] if keys.PROFILES in mdata.mod else []
        members.append(Ridge(mdata))
        for member in members:
            member.train()
        if len(members) == 1 or stack(*_out_of_fold(members))[-1] >= WORTH_A_NETWORK:
            network = SimpleDNN(mdata)
            network.train(seed=seed)
            network.deregister_manager(network.adata)
            members.append(network)
        self._combine(members, seed)

    def _combine(self, members: Sequence[DeconvolutionModel], seed: int) -> None:
        """Weigh trained members and store them, with the out-of-fold predictions of the weighted mean."""
        measured, predicted, donors = _out_of_fold(members)
        weights = stack(measured, predicted, donors)
        held_out = HeldOut(measured, stack_out_of_fold(measured, predicted, donors), donors)
        shown = ", ".join(f"{member.method} {weight:.2f}" for member, weight in zip(members, weights, strict=True))
        record = members[0].training_
        summary = f"{len(np.unique(donors))} donors, {len(record.genes)} genes; weights {shown}; {held_out.describe()}"
        # the noise of CalibratedMAP is needed without its fractions, too
        kept = [
            number for number, weight in enumerate(weights) if weight > 0 or members[number].familiarity_ is not None
        ]
        state = WeightedEnsembleState(
            members=tuple(members[number].state_ for number in kept), weights=weights[kept], summary=summary
        )
        interrupted = any(member.interrupted_ for member in members)
        self._store(state, replace(record, summary=summary, seed=seed, held_out=held_out, interrupted=interrupted))

    def _require_data(self) -> MuData:
        if self.mdata is None:
            raise RuntimeError(NO_DATA)
        return self.mdata


def _out_of_fold(members: Sequence[DeconvolutionModel]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return measured fractions, predictions (members × samples × cell types) and donors of the held-out samples."""
    tables = [member.held_out_ for member in members]
    first = tables[0]
    if first is None or any(each is None or not np.array_equal(each.donors, first.donors) for each in tables):
        msg = "Expected the same held-out samples of all members of the ensemble, found different ones. Report this."
        raise RuntimeError(msg)
    return first.measured, np.stack([each.predicted for each in tables if each is not None]), first.donors
