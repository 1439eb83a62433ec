"""SimpleDNN: a neural network from bulk expression to composition, trained on pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scdeconv._data.checks import checked
from scdeconv._data.paired_data import PairedData
from scdeconv._nn import EPOCH_STEPS, Ensemble, TrainingData, trainer_arguments, weights_of
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.expression import log_shares
from scdeconv.io import curves_of
from scdeconv.models._members import (
    LossName,
    Trained,
    check_network,
    held_out_means,
    held_out_members,
    members_fractions,
    network_space,
    pair_data,
    repeated_folds,
)
from scdeconv.models._pair_ensemble import PairEnsemble
from scdeconv.models._record import Method
from scdeconv.models.paired._network_states import Networks, SimpleDNNState
from scdeconv.models.paired._own_donors import mix_donors, mix_of, start_from_donors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models._neural import Source, TrainingRows


# default sum of the Dirichlet parameters of the donors' weights; chosen on public data, see docs/benchmarks/learning_curve
MIX = 1.0
# epochs of training on mixtures. The minimum of the validation loss of few donors is a matter of chance: with this number the
# error is lower than with early stopping (blood and PBMC arrays, generated cohorts) or the same (retina)
MIXED_EPOCHS = 40
# arguments that moved to ResidualDNN
MOVED = ("base", "simulate", "start_from_solution")


class SimpleDNN(PairEnsemble):
    """Network of the SimpleDNN paper: a multi-layer perceptron from bulk expression to fractions, trained on pairs.

    Each member of an ensemble has hidden layers of linear, ReLU and dropout. The network is trained on mixtures of the
    training donors, which are drawn anew for every batch, and starts at their mean composition. A reference is not
    needed. ``n_members=1, mix=0`` is closest to the network of the paper.

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
    mix
        Number of donors in a mixture: the weights of the donors have a Dirichlet distribution whose parameters sum to
        ``mix``, so that a mixture has about ``1 + mix`` donors. 0: train on single samples. None: the value passed to
        :func:`scdeconv.pp.augment`, or else 1. Simulated bulk is not mixed.
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
    The paper uses log1p of raw counts. Here the samples are normalised to the same library size first. The input of a gene
    is its standardised log expression times its relevance: the largest squared correlation with the fraction of a cell
    type over the training donors, adjusted for chance.

    Bulk is additive. With weights w of the training donors, a mixture has the fractions ``sum_i w_i f_i`` and the linear
    expression ``sum_i w_i s_i b_i``, where ``b_i`` is the donor's bulk on a common library size and ``s_i`` its mean RNA
    per cell, if the cells give it, else 1. With augmented fractions (:func:`scdeconv.pp.augment`), ``f_i`` is one of the
    drawn compositions. A mixture averages the noise of its donors: noise with the covariance of single samples, from a
    regression of log expression on the fractions, is added to its log expression. Donors are never mixed across folds.

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
        genes_per_pair=2,
    )
    state_type = SimpleDNNState

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to choices or Optuna distributions.
        """
        # None: the default
        return {**network_space(), "mix": [None, 0.0, 0.5, 2.0, 4.0]}

    @checked(further=lambda: MOVED)
    def __init__(
        self,
        data: AnnData | MuData | None = None,
        *,
        hidden: Sequence[int] = (64, 32),
        dropout: float | Sequence[float] = 0.1,
        n_members: int = 5,
        loss: LossName = "mse",
        mix: float | None = None,
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
        parameters = {"hidden": widths, "dropout": rates, "n_members": n_members, "loss": loss, "mix": mix}
        super().__init__(data, {**parameters, "train_on": train_on})

    @checked(further=trainer_arguments)
    def train(
        self,
        *,
        max_epochs: int | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 64,
        patience: int | None = None,
        refit: bool = True,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train with held-out donors, then refit on all donors for the same number of epochs.

        The donors are split into 5 folds, and up to 2 networks hold out each fold. With early stopping, the best epoch
        has the lowest mean validation loss; epoch 0 is the mean composition of the training donors. Ctrl-C stops the
        training and keeps the weights so far.

        Parameters
        ----------
        max_epochs
            Maximum number of epochs. An epoch is 10 batches of mixtures; without mixtures, all training samples once. None:
            40 with mixtures, 200 without.
        learning_rate, weight_decay, batch_size
            Hyperparameters of AdamW.
        patience
            Early stopping: number of epochs without a lower validation loss. None: no early stopping with mixtures, 10
            epochs without.
        refit
            Refit on all donors. If False, each member holds out one fold and keeps its best weights on it.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Random seed. The global random state does not change.
        **trainer_kwargs
            Passed to ``lightning.Trainer``.

        Raises
        ------
        ValueError
            If all samples are of one donor.
        """
        if max_epochs is None:
            max_epochs = MIXED_EPOCHS if self._mix() else 200
        if patience is None and not self._mix():
            patience = 10
        super().train(
            max_epochs=max_epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
            patience=patience,
            refit=refit,
            accelerator=accelerator,
            seed=seed,
            **trainer_kwargs,
        )

    def _folds(self, donors: np.ndarray, n_members: int, seed: int, *, refit: bool) -> np.ndarray:
        return repeated_folds(donors, n_members, seed, refit=refit)

    def _steps_per_epoch(self, n_rows: int, batch_size: int) -> int:
        return EPOCH_STEPS if self._mix() else super()._steps_per_epoch(n_rows, batch_size)

    def _mix(self) -> float:
        """Return the sum of the parameters of the donors' weights; 0: no mixtures."""
        return 0.0 if self.train_on == "simulated" else mix_of(self.parameters_["mix"], self.mdata, MIX)

    def _finish(self, rows: TrainingRows, held: np.ndarray, starts: None, trained: Trained, seed: int) -> None:
        """Predict the held-out donors and store the result."""
        row = np.flatnonzero(held.any(axis=0))
        members = members_fractions(trained.held_out, log_shares(rows.expression))
        held_out = HeldOut(
            rows.measured[row], held_out_means(members, held), rows.donors[row], held_out_members(members, held)
        )
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
        # members that hold out the same fold are consecutive
        folds = held[np.r_[True, (held[1:] != held[:-1]).any(axis=1)]]
        sizes = len(held), rows.expression.shape[1], rows.measured.shape[1]
        hidden, dropout = self.parameters_["hidden"], self.parameters_["dropout"]
        network = Ensemble(*sizes, hidden, dropout, linear=False, n_inputs=len(folds) if held.any() else None)
        start_from_donors(network, rows, folds)
        training, validation = pair_data(rows, held)
        mix = self._mix()
        if mix:
            data = None if self.mdata is None else PairedData(self.mdata, self._training_genes)
            training.mixing = mix_donors(rows, folds, mix, data)
        return network, training, validation
