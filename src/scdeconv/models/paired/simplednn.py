"""SimpleDNN: a neural network from bulk expression to composition, trained on pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scdeconv._data.checks import checked
from scdeconv._nn import Ensemble, TrainingData, inference, weights_of
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.expression import fill_missing, log_shares
from scdeconv.io import curves_of
from scdeconv.models._members import (
    LossName,
    Networks,
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models._neural import Source, TrainingRows


# arguments that moved to ResidualDNN
MOVED = ("base", "simulate", "start_from_solution")


@inference()
def members_fractions(network: Ensemble, log: np.ndarray) -> np.ndarray:
    """Return the predicted fractions of each member from log expression, members × samples × cell types."""
    return torch.softmax(network(tensor(log)).double(), dim=-1).numpy()


@dataclass(frozen=True, kw_only=True)
class SimpleDNNState(State):
    """Members of the ensemble."""

    networks: Networks

    @cached_property
    def network(self) -> Ensemble:
        """Networks of the ensemble."""
        return self.networks.ensemble()

    def members(self, expression: np.ndarray) -> np.ndarray:
        """Return the predicted fractions of each member, members × samples × cell types."""
        shares = fill_missing(expression, self.networks.weights["reference"].astype(float))
        return members_fractions(self.network, log_shares(shares))

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the mean over members, samples × cell types."""
        return self.members(expression).mean(axis=0)

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return the mean and spread over members."""
        members = self.members(expression)
        return Estimate(members.mean(axis=0), members)


class SimpleDNN(PairEnsemble):
    """Network of the SimpleDNN paper: a multi-layer perceptron from bulk expression to fractions, trained on pairs.

    Each member of an ensemble has hidden layers of linear, ReLU and dropout. The input is standardised log expression.
    A reference is not needed. ``n_members=1`` is the network of the paper.

    Parameters
    ----------
    data
        A MuData from :func:`scdeconv.pp.pair` (its selected genes are used), or an AnnData of bulk samples, after
        :meth:`setup_mudata` or :meth:`setup_anndata`.
    hidden
        Width of each hidden layer.
    dropout
        Dropout rate after each hidden layer: one number for all layers, or one for each.
    n_members
        Number of networks; their fractions are averaged.
    loss
        Loss of the fractions: ``"mse"`` (as in the paper), ``"cross_entropy"`` or ``"l1"``.
    train_on
        ``"pairs"`` (default) or ``"simulated"`` bulk.
    **moved
        Not accepted. Arguments that moved to :class:`ResidualDNN` raise an error that names the class.

    Raises
    ------
    TypeError
        For arguments of :class:`ResidualDNN`.
    ValueError
        If arguments are out of range.

    Notes
    -----
    The paper uses log1p of raw counts. Here the samples are normalised to the same library size first.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.SimpleDNN.setup_mudata(mdata)
    >>> model = scdeconv.models.SimpleDNN(mdata, n_members=2)
    >>> model.train(max_epochs=2)
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="simplednn",
        family="paired",
        needs=("pairs",),
        summary="network on pairs",
        reference="SimpleDNN paper (2025)",
        stochastic=True,
        genes_per_type=150,
    )
    state_type = SimpleDNNState

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to choices or Optuna distributions.
        """
        return network_space()

    @checked(further=lambda: MOVED)
    def __init__(
        self,
        data: AnnData | MuData | None = None,
        *,
        hidden: Sequence[int] = (64, 32),
        dropout: float | Sequence[float] = 0.1,
        n_members: int = 5,
        loss: LossName = "mse",
        train_on: Source | None = None,
        **moved: Any,
    ) -> None:
        if moved:
            msg = (
                f"Expected arguments of SimpleDNN, found {sorted(moved)}. SimpleDNN (method='simplednn') is trained on pairs "
                "only. For a network that corrects a base method, use ResidualDNN (method='residual_dnn')."
            )
            raise TypeError(msg)
        widths, rates = check_network(hidden, dropout)
        parameters = {"hidden": widths, "dropout": rates, "n_members": n_members, "loss": loss}
        super().__init__(data, {**parameters, "train_on": train_on})

    def _finish(self, rows: TrainingRows, held: np.ndarray, starts: None, trained: Trained, seed: int) -> None:
        """Predict the held-out donors and store the result."""
        member, row = first_held_out(held)
        predicted = members_fractions(trained.held_out, log_shares(rows.expression))[member, row]
        held_out = HeldOut(rows.measured[row], predicted, rows.donors[row])
        summary = (
            f"{len(np.unique(rows.donors))} donors, {rows.expression.shape[1]} genes, {self.parameters_['n_members']} members, best epoch "
            f"{trained.best_epoch}; {held_out.describe()}"
        )
        hidden, dropout = self.parameters_["hidden"], self.parameters_["dropout"]
        networks = Networks(weights_of(trained.final), hidden, dropout, linear=False)
        record = self._record(
            summary,
            rows,
            row,
            seed=seed,
            interrupted=trained.interrupted,
            curves=curves_of(trained.history),
            held_out=held_out,
        )
        self._store(SimpleDNNState(networks=networks, summary=summary), record)

    def _assemble(
        self, rows: TrainingRows, starts: None, held: np.ndarray
    ) -> tuple[Ensemble, TrainingData, TrainingData]:
        """Return untrained networks, training data and validation data."""
        sizes = len(held), rows.expression.shape[1], rows.measured.shape[1]
        network = Ensemble(*sizes, self.parameters_["hidden"], self.parameters_["dropout"], linear=False)
        standardise_input(network, rows.expression)
        return network, *pair_data(rows, held)
