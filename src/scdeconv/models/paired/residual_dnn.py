"""ResidualDNN: a network that corrects the log-ratios of a base method if this reduces the error on held-out donors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.special import softmax

from scdeconv._data.checks import checked
from scdeconv._data.paired_data import PairedData
from scdeconv._nn import Ensemble, TrainingData, inference, weights_of
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.recognition.familiarity import Familiarity
from scdeconv.io import curves_of
from scdeconv.models._members import (
    LossName,
    Trained,
    check_network,
    first_held_out,
    network_space,
    pair_data,
    standardise_input,
    tensor,
)
from scdeconv.models._pair_ensemble import PairEnsemble
from scdeconv.models._record import Method
from scdeconv.models._state import Estimate, State
from scdeconv.models.paired._network_states import Networks
from scdeconv.models.paired._starts import Starts, with_simulated
from scdeconv.models.paired.calibrated_map import CalibratedMAP, CalibratedMAPState
from scdeconv.models.paired.ridge import Ridge, RidgeState
from scdeconv.pp import FEWEST_PAIRS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from scdeconv.models._neural import TrainingRows

NOT_USED = "correction not confirmed by held-out donors: not used"


@dataclass(frozen=True, kw_only=True)
class ResidualDNNState(State):
    """Base method and correction.

    Parameters
    ----------
    bases
        States of the base method: one for all members, or one for each member.
    networks
        Networks of the correction; None if it does not reduce the error on held-out donors.
    """

    bases: list[CalibratedMAPState | RidgeState]
    networks: Networks | None

    @cached_property
    def network(self) -> Ensemble | None:
        """Networks of the correction; None without correction."""
        return None if self.networks is None else self.networks.ensemble()

    def members(self, expression: np.ndarray) -> np.ndarray:
        """Return the predicted fractions of each member, members × samples × cell types."""
        return self._corrected([base.log_ratios(expression) for base in self.bases], expression)

    def members_and_noise(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the members' fractions, and the noise by each base (bases × samples) if it is estimated."""
        solved = [base.solve(expression) for base in self.bases]
        levels = [level for _, level in solved if level is not None]
        members = self._corrected([ratios for ratios, _ in solved], expression)
        return members, np.stack(levels) if levels else None

    def _corrected(self, log_ratios: list[np.ndarray], expression: np.ndarray) -> np.ndarray:
        ratios = np.stack(log_ratios)
        if self.network is not None:
            ratios = ratios + correction(self.network, self.bases[0].log_expression(expression))
        fractions: np.ndarray = softmax(ratios, axis=-1)
        return fractions

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the mean over members, samples × cell types."""
        return self.members(expression).mean(axis=0)

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return the mean and spread over members, and the noise if the base method estimates it."""
        members, levels = self.members_and_noise(expression)
        noise = None if levels is None else levels.mean(axis=0)
        return Estimate(members.mean(axis=0), members, noise)

    def fractions(self, expression: np.ndarray) -> np.ndarray:
        """Return the mean over members without spread and noise, samples × cell types."""
        return self.predict(expression)


@inference()
def correction(network: Ensemble, log: np.ndarray) -> np.ndarray:
    """Return the additive correction of the log-ratios, members × samples × cell types."""
    return network(tensor(log)).numpy().astype(float)


class ResidualDNN(PairEnsemble):
    """Neural network that corrects the log-ratios of a base method.

    Each member of an ensemble is the sum of a multi-layer perceptron and a linear path, both initialised to zero. The
    members are trained on the pairs and on bulk simulated from the calibration of the pairs
    (:func:`scdeconv.pp.calibrate`), with held-out donors. The correction is used only if it reduces the error on
    held-out donors by more than one standard error. Otherwise the estimates are those of the base method; the summary
    and :func:`scdeconv.pl.history` report this.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, after :meth:`setup_mudata`. The selected genes are used.
    base
        Base method: ``"calibrated_map"`` or ``"ridge"``.
    hidden
        Width of each hidden layer.
    dropout
        Dropout rate after each hidden layer: one number for all layers, or one for each.
    n_members
        Number of networks; their fractions are averaged.
    simulate
        Number of simulated bulk samples for each member; None: train on the pairs only.
    loss
        ``"mse"``, ``"cross_entropy"`` or ``"l1"`` of the fractions.

    Raises
    ------
    ValueError
        If arguments are out of range.

    Notes
    -----
    On the data of :doc:`/benchmarks/held_out_donors`, a correction of ``calibrated_map`` was rarely used.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.ResidualDNN.setup_mudata(mdata)
    >>> model = scdeconv.models.ResidualDNN(mdata, n_members=2, simulate=50)
    >>> model.train(max_epochs=2)
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="residual_dnn",
        family="paired",
        needs=("pairs", "profiles"),
        summary="network that corrects the calibrated composition",
        reference="this library",
        stochastic=True,
        genes_per_type=150,
    )
    state_type = ResidualDNNState

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to choices or Optuna distributions.
        """
        from optuna.distributions import IntDistribution

        return {**network_space(), "simulate": IntDistribution(100, 4000, log=True)}

    @checked()
    def __init__(
        self,
        mdata: MuData | None = None,
        *,
        base: Literal["calibrated_map", "ridge"] = "calibrated_map",
        hidden: Sequence[int] = (64, 32),
        dropout: float | Sequence[float] = 0.1,
        n_members: int = 5,
        simulate: int | None = 500,
        loss: LossName = "mse",
    ) -> None:
        bases: dict[str, type[CalibratedMAP] | type[Ridge]] = {"calibrated_map": CalibratedMAP, "ridge": Ridge}
        widths, rates = check_network(hidden, dropout)
        parameters = {"base": base, "hidden": widths, "dropout": rates, "n_members": n_members}
        super().__init__(mdata, {**parameters, "simulate": simulate, "loss": loss})
        self._base = bases[base](mdata)

    def _steps_per_epoch(self, n_rows: int, batch_size: int) -> int:
        return super()._steps_per_epoch(n_rows + (self.parameters_["simulate"] or 0), batch_size)

    def _starts(self, seed: int) -> Starts:
        data = PairedData(self.mdata, self._training_genes)
        return Starts(self._base, data, self.parameters_["simulate"], seed)

    def _finish(self, rows: TrainingRows, held: np.ndarray, starts: Starts, trained: Trained, seed: int) -> None:
        """Predict the held-out donors and store the result."""
        chosen, bases = self.parameters_, [start.base for start in starts.of_members(rows.donors, held)]
        # after the refit all members share one base state
        final = [starts.without(()).base] if trained.refitted else bases
        hidden, dropout = chosen["hidden"], chosen["dropout"]
        states = [
            ResidualDNNState(bases=of, networks=Networks(weights_of(network), hidden, dropout, linear=True))
            for of, network in ((bases, trained.held_out), (final, trained.final))
        ]
        if not trained.best_epoch:
            states = [replace(state, networks=None) for state in states]
        member, row = first_held_out(held)
        members, levels = states[0].members_and_noise(rows.expression)
        held_out = HeldOut(rows.measured[row], members[member, row], rows.donors[row])
        familiarity = None
        if levels is not None and len(set(held_out.donors)) >= FEWEST_PAIRS:
            familiarity = Familiarity.from_held_out(levels[member, row], held_out.measured, held_out.donors)
        summary = (
            f"{len(np.unique(rows.donors))} donors, {chosen['simulate'] or 0} simulated, {rows.expression.shape[1]} genes, "
            f"{chosen['n_members']} members, best epoch {trained.best_epoch}; {held_out.describe()}"
        )
        curves = curves_of(trained.history)
        curves["confirmed"] = {"epoch": [trained.best_epoch], "value": [float(trained.best_epoch > 0)]}
        if not trained.best_epoch:
            summary += f"; {NOT_USED}"
        record = self._record(
            summary,
            rows,
            row,
            seed=seed,
            interrupted=trained.interrupted,
            curves=curves,
            held_out=held_out,
            familiarity=familiarity,
        )
        self._store(replace(states[1], summary=summary), record)

    def _assemble(
        self, rows: TrainingRows, starts: Starts, held: np.ndarray
    ) -> tuple[Ensemble, TrainingData, TrainingData]:
        """Return untrained networks, training data and validation data."""
        of_members = starts.of_members(rows.donors, held)
        sizes = len(held), rows.expression.shape[1], rows.measured.shape[1]
        network = Ensemble(*sizes, self.parameters_["hidden"], self.parameters_["dropout"], linear=True)
        standardise_input(network, rows.expression)
        training, validation = pair_data(rows, held)
        solved = {id(start): start.base.log_ratios(rows.expression) for start in of_members}
        offsets = tensor(np.stack([solved[id(start)] for start in of_members]))
        training.offsets = validation.offsets = offsets
        # the standard error of the gain over the base is computed over donors
        validation.groups = torch.as_tensor(np.unique(rows.donors, return_inverse=True)[1])
        return network, training if of_members[0].bulk is None else with_simulated(training, of_members), validation
