"""Training on single cells: mini-batches made dense as they come, early stopping, a hook before each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch

from .running import EpochPlan, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Loss = Callable[[Any], torch.Tensor]
    Optimizer = Callable[[Any], torch.optim.Optimizer]


class Batches(Protocol):
    """Anything that gives rows of a data set as tensors."""

    def batch(self, rows: np.ndarray, device: torch.device) -> Any:
        """Return these rows, on the device."""


class CellPlan(EpochPlan):
    """Minimises ``loss`` over batches of ``rows``."""

    def __init__(
        self,
        module: torch.nn.Module,
        data: Batches,
        loss: Loss,
        *,
        rows: np.ndarray,
        validation_rows: np.ndarray,
        optimizer: Optimizer,
        max_epochs: int,
        batch_size: int,
        patience: int | None,
        min_delta: float,
        before_epoch: Callable[[int], bool] | None,
    ) -> None:
        super().__init__(module, max_epochs, batch_size)
        self.data = data
        self.loss = loss
        self.rows = rows
        self.validation_rows = validation_rows
        self.optimizer = optimizer
        self.patience = patience
        self.min_delta = min_delta
        self.before_epoch = before_epoch
        self.losses: dict[str, list[float]] = {"train_loss": [], "validation_loss": []}
        self.lowest = float("inf")
        self.best_epoch = 0
        self.best_weights: dict[str, torch.Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the module's parameters."""
        return self.optimizer(self.module.parameters())

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Run one epoch of optimiser steps."""
        epoch = len(self.losses["train_loss"])
        if self.stop or (self.before_epoch is not None and self.before_epoch(epoch)):
            self.trainer.should_stop = True
            return
        optimizer: Any = self.optimizers()
        order = self.rows[torch.randperm(len(self.rows)).numpy()]
        total, seen = torch.zeros((), device=self.device), 0
        for start in range(0, len(order), self.batch_size):
            if self.stop:
                break
            rows = order[start : start + self.batch_size]
            loss = self.loss(self.data.batch(rows, self.device))
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            total += loss.detach() * len(rows)
            seen += len(rows)
        if seen == 0:
            self.trainer.should_stop = True
            return
        self.losses["train_loss"].append(float(total) / seen)
        self.bar.update()
        self.bar.set_postfix(train_loss=f"{self.losses['train_loss'][-1]:.4g}", refresh=False)
        if len(self.validation_rows):
            self.losses["validation_loss"].append(self.validation_loss())
        watched = self.losses["validation_loss" if len(self.validation_rows) else "train_loss"]
        if watched[-1] < self.lowest - self.min_delta:
            self.lowest, self.best_epoch = watched[-1], epoch
            if len(self.validation_rows):
                state = self.module.state_dict()
                self.best_weights = {name: tensor.detach().clone() for name, tensor in state.items()}
        stale = self.patience is not None and epoch - self.best_epoch >= self.patience
        self.trainer.should_stop = self.stop or stale

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean loss over the held-out cells, without noise and dropout."""
        self.module.eval()
        total = 0.0
        for start in range(0, len(self.validation_rows), self.batch_size):
            rows = self.validation_rows[start : start + self.batch_size]
            total += float(self.loss(self.data.batch(rows, self.device))) * len(rows)
        self.module.train()
        return total / len(self.validation_rows)

    def on_fit_end(self) -> None:
        """Go back to the weights that were best on the held-out cells."""
        if self.best_weights:
            self.module.load_state_dict(self.best_weights)

    def history(self, prefix: str = "") -> dict[str, pd.DataFrame]:
        """Return the losses by epoch, under names that start with ``prefix``."""
        return {
            prefix + name: pd.DataFrame({prefix + name: values}, index=pd.RangeIndex(1, len(values) + 1, name="epoch"))
            for name, values in self.losses.items()
            if values
        }


def fit_cells(
    module: torch.nn.Module,
    data: Batches,
    loss: Loss,
    *,
    rows: np.ndarray,
    validation_rows: Sequence[int] | np.ndarray = (),
    optimizer: Optimizer,
    max_epochs: int,
    batch_size: int,
    patience: int | None = None,
    min_delta: float = 0.0,
    before_epoch: Callable[[int], bool] | None = None,
    description: str,
    accelerator: str = "auto",
    **trainer_kwargs: Any,
) -> CellPlan:
    """Train ``module`` in place and return the plan with its history.

    Parameters
    ----------
    module
        In training mode during steps, in evaluation mode during validation and afterwards.
    data
        Gives batches of rows.
    loss
        Mean loss of a batch; reads the module.
    rows, validation_rows
        Cells to learn from, and cells to validate on. With the latter, the weights that were best on them are put back.
    optimizer
        Makes the optimiser of the module's parameters.
    max_epochs, batch_size
        Longest training; cells in a step.
    patience, min_delta
        Training stops after so many epochs in which the loss (of the validation cells, where there are any) has not
        fallen by ``min_delta``; None: never.
    before_epoch
        Called with the number of the epoch that begins, from 0; training ends where it returns True.
    description
        Name of the progress bar.
    accelerator, **trainer_kwargs
        Of ``lightning.Trainer``.

    Notes
    -----
    Ctrl-C stops after the current step and keeps what was learned (``plan.stop`` is then True).
    """
    plan = CellPlan(
        module,
        data,
        loss,
        rows=rows,
        validation_rows=np.asarray(validation_rows, dtype=int),
        optimizer=optimizer,
        max_epochs=max_epochs,
        batch_size=batch_size,
        patience=patience,
        min_delta=min_delta,
        before_epoch=before_epoch,
    )
    run(plan, description=description, accelerator=accelerator, **trainer_kwargs)
    return plan
