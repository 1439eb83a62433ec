"""Base class of the ensembles on pairs: training with held-out donors, then on all donors."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

from scdeconv._data.checks import checked
from scdeconv._nn import seeded, trainer_arguments

from ._members import member_folds, train_members
from ._neural import NeuralModel

if TYPE_CHECKING:
    import numpy as np

    from scdeconv._nn import Ensemble, TrainingData

    from ._members import Trained
    from ._neural import TrainingRows


class PairEnsemble(NeuralModel):
    """Base class of the ensembles on pairs. A subclass defines what each member learns from and how the result is stored."""

    @checked(further=trainer_arguments)
    def train(
        self,
        *,
        max_epochs: int = 200,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-2,
        batch_size: int = 128,
        patience: int | None = 10,
        refit: bool = True,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train with held-out donors, then refit on all donors for the best number of epochs.

        The donors are split into folds. Each member holds out one fold. The best epoch has the lowest mean validation
        loss; epoch 0 is the initial state. Ctrl-C stops the training and keeps the best weights so far.

        Parameters
        ----------
        max_epochs
            Maximum number of epochs.
        learning_rate, weight_decay, batch_size
            Hyperparameters of AdamW.
        patience
            Early stopping: number of epochs without a lower validation loss. None: train for ``max_epochs``.
        refit
            Refit on all donors. If False, each member keeps its best weights on its held-out donors.
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
        rows, n_members = self._training_rows(), self.parameters_["n_members"]
        held = self._folds(rows.donors, n_members, seed, refit=refit)
        starts = self._starts(seed)
        settings = {
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "accelerator": accelerator,
            **trainer_kwargs,
        }
        with seeded(seed):
            trained = train_members(
                partial(self._assemble, rows, starts),
                held,
                self.parameters_["loss"],
                n_members=n_members,
                max_epochs=max_epochs,
                steps_per_epoch=self._steps_per_epoch(len(rows.donors), batch_size),
                patience=patience,
                refit=refit,
                settings=settings,
            )
        self._finish(rows, held, starts, trained, seed)

    def _folds(self, donors: np.ndarray, n_members: int, seed: int, *, refit: bool) -> np.ndarray:
        """Return a mask of the rows that each member holds out, members × rows."""
        return member_folds(donors, n_members, seed, refit=refit)

    def _steps_per_epoch(self, n_rows: int, batch_size: int) -> int:
        """Return the number of optimiser steps in an epoch."""
        return max(1, n_rows // batch_size)

    def _starts(self, seed: int) -> Any:
        """Return what the members start from; None: from random weights."""
        return None

    @abstractmethod
    def _assemble(
        self, rows: TrainingRows, starts: Any, held: np.ndarray
    ) -> tuple[Ensemble, TrainingData, TrainingData]:
        """Return untrained networks, training data and validation data."""

    @abstractmethod
    def _finish(self, rows: TrainingRows, held: np.ndarray, starts: Any, trained: Trained, seed: int) -> None:
        """Predict the held-out donors and store the result."""
