"""Training loop of all networks: epochs of optimiser steps, early stopping, restoring the best weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import lightning.pytorch as lightning
import pandas as pd
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Batches = Callable[[torch.device], Iterator[tuple[Any, int]]]
    BatchLoss = Callable[[Any], torch.Tensor]
    Optimizer = Callable[[Any], torch.optim.Optimizer]
    Validate = Callable[[torch.device], tuple[float, torch.Tensor | None]]
    Confirm = Callable[[torch.Tensor, torch.Tensor], bool]


@dataclass(frozen=True)
class Snapshot:
    """Weights of a module and, if computed, their validation loss of each row."""

    weights: dict[str, torch.Tensor]
    row_losses: torch.Tensor | None


class Plan(lightning.LightningModule):
    """Training of one module. One Lightning "batch" is an epoch; the plan takes its optimiser steps itself.

    Parameters
    ----------
    module
        Network in training mode during steps and in evaluation mode during validation.
    batches
        Returns the batches of one epoch on a device, each with the weight of its loss in the mean of the epoch.
    loss
        Loss of a batch, a scalar. It reads the module.
    optimizer
        Function from parameters to their optimiser.
    max_epochs
        Maximum number of epochs.
    batch_size
        Rows in a step. :func:`~scdeconv._nn.running.run` uses it to choose the number of threads.
    max_steps
        Maximum number of optimiser steps; None: no limit.
    validate
        Returns the validation loss and, if ``confirm`` needs it, the loss of each row. None: no validation.
    validate_start
        Whether to validate the initial weights before the first epoch.
    confirm
        Function from the validation losses of each row (initial and best weights) to whether the best weights are an
        improvement. If not, the initial weights are restored. Needs ``validate_start``.
    patience
        Early stopping: number of epochs without a lower validation loss, or without a lower training loss if there is
        no validation. None: no early stopping.
    keep_best
        Restore the weights with the lowest loss at the end. If False, the last weights are kept.
    min_delta
        Minimum decrease of the loss.
    before_epoch
        Called before each epoch with the number of completed epochs. Training stops if it returns True.
    n_members
        Number of ensemble members. The loss of a batch is the sum over members; the reported loss is the mean.

    Attributes
    ----------
    train_losses
        Mean loss of each epoch.
    validation_losses
        Validation loss of each epoch; with ``validate_start``, the first value is that of the initial weights.
    best_epoch
        Epoch of the weights that are kept, counted from 1: that of the lowest loss or, without ``keep_best``, the last one.
        0 for the initial weights, and with neither validation nor patience.
    n_steps
        Number of optimiser steps taken.
    stop
        Whether Ctrl-C or SIGTERM interrupted the training.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        batches: Batches,
        loss: BatchLoss,
        *,
        optimizer: Optimizer,
        max_epochs: int,
        batch_size: int,
        max_steps: int | None = None,
        validate: Validate | None = None,
        validate_start: bool = False,
        confirm: Confirm | None = None,
        patience: int | None = None,
        keep_best: bool = True,
        min_delta: float = 0.0,
        before_epoch: Callable[[int], bool] | None = None,
        n_members: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self.batches = batches
        self.loss = loss
        self.optimizer = optimizer
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.validate = validate
        self.validate_start = validate_start
        self.confirm = confirm
        self.patience = patience
        self.keep_best = keep_best
        self.min_delta = min_delta
        self.before_epoch = before_epoch
        self.n_members = n_members
        self.train_losses: list[float] = []
        self.validation_losses: list[float] = []
        self.lowest = float("inf")
        self.best_epoch = 0
        self.n_steps = 0
        self.stop = False
        self.bar: Any = None
        self.install_signal_handlers: Callable[[], None] | None = None
        self._start: Snapshot | None = None
        self._best: Snapshot | None = None

    def request_stop(self) -> None:
        """Stop after the current step."""
        self.stop = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the module's parameters."""
        return self.optimizer(self.module.parameters())

    def on_fit_start(self) -> None:
        """Validate the initial weights."""
        if self.validate is not None and self.validate_start:
            value, self._start = self._validate(self.validate)
            self._best = self._start
            # the loss of the initial weights may be NaN
            self.lowest = min(self.lowest, value)

    def on_train_start(self) -> None:
        """Take the signals back from Lightning, which ends the process on SIGTERM."""
        if self.install_signal_handlers is not None:
            self.install_signal_handlers()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Run one epoch."""
        n_epochs = len(self.train_losses)
        if self.stop or (self.before_epoch is not None and self.before_epoch(n_epochs)):
            self.trainer.should_stop = True
            return
        train_loss = self._run_epoch()
        if train_loss is None:
            # Ctrl-C before the first step
            self.trainer.should_stop = True
            return
        n_epochs += 1
        self.train_losses.append(train_loss)
        self.log("train_loss", train_loss)
        snapshot, watched = None, train_loss
        if self.validate is not None:
            watched, snapshot = self._validate(self.validate)
            self.log("validation_loss", watched)
            # Ray Tune's callback reports after Lightning's validation loop, which is not used here
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_validation_end(self.trainer, self)
        is_watched = self.validate is not None or self.patience is not None
        if is_watched and (not self.keep_best or watched < self.lowest - self.min_delta):
            self.lowest, self.best_epoch, self._best = watched, n_epochs, snapshot
        self.bar.update()
        self.bar.set_postfix(train_loss=f"{train_loss:.4g}", refresh=False)
        stale = self.patience is not None and n_epochs - self.best_epoch >= self.patience
        self.trainer.should_stop = self.stop or stale

    def _run_epoch(self) -> float | None:
        """Take the steps of one epoch, and return the mean loss; None if no step was taken."""
        optimizer: Any = self.optimizers()
        total, weights = torch.zeros((), device=self.device), 0
        steps_left = None if self.max_steps is None else self.max_steps - self.n_steps
        for batch, weight in islice(self.batches(self.device), steps_left):
            if self.stop:
                break
            loss = self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            total += loss.detach() * weight
            weights += weight
            self.n_steps += 1
        return float(total) / weights / self.n_members if weights else None

    @torch.no_grad()
    def _validate(self, validate: Validate) -> tuple[float, Snapshot]:
        """Return the validation loss and a snapshot of the weights."""
        self.module.eval()
        value, row_losses = validate(self.device)
        self.module.train()
        self.validation_losses.append(value)
        weights = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        return value, Snapshot(weights, row_losses)

    def on_fit_end(self) -> None:
        """Restore the best weights, or the initial weights if the gain is not confirmed."""
        if self._best is None:
            return
        if self._start is not None and self.confirm is not None:
            start, best = self._start.row_losses, self._best.row_losses
            if start is not None and best is not None and not self.confirm(start, best):
                self.best_epoch, self._best = 0, self._start
        self.module.load_state_dict(self._best.weights)
        self._start = self._best = None

    def history(self, prefix: str = "") -> dict[str, pd.DataFrame]:
        """Return the losses by epoch, one DataFrame each, and the best epoch with ``validate_start``.

        Parameters
        ----------
        prefix
            Prefix of the names.

        Returns
        -------
        ``"train_loss"`` from epoch 1; ``"validation_loss"`` from epoch 0 (initial weights) with ``validate_start``,
        otherwise from 1; ``"best_epoch"``. Empty curves are omitted.
        """
        best = [float(self.best_epoch)] if self.validate_start else []
        curves = {
            "train_loss": (1, self.train_losses),
            "validation_loss": (0 if self.validate_start else 1, self.validation_losses),
            "best_epoch": (self.best_epoch, best),
        }
        return {
            prefix + name: pd.DataFrame(
                {prefix + name: values}, index=pd.RangeIndex(start, start + len(values), name="epoch")
            )
            for name, (start, values) in curves.items()
            if values
        }
