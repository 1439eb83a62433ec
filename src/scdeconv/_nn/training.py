"""Training on compositions: every member at once, early stopping on held-out donors, the best weights kept."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from .running import EpochPlan, run

if TYPE_CHECKING:
    from .losses import Loss


@dataclass
class TrainingData:
    """Rows to learn from, or to validate on.

    Parameters
    ----------
    x
        Input, rows × genes; or members × rows × genes where every member has rows of its own.
    targets
        Fractions, rows × choices × types, or members × rows × choices × types. Each time a row is used, one of its
        choices is drawn (augmentation).
    weights
        Weight of each row for each member, members × rows. Zero keeps a row out of a member's training.
    offsets
        Logits to which those of the module are added, members × rows × types; none by default.
    groups
        Donor of each row, as a number, where gains over the starting point must be confirmed by donors.
    """

    x: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    offsets: torch.Tensor | None = None
    groups: torch.Tensor | None = None

    def to(self, device: torch.device) -> TrainingData:
        """Return the same on a device."""
        moved = copy(self)
        for name, value in vars(self).items():
            setattr(moved, name, None if value is None else value.to(device))
        return moved

    def logits(self, module: nn.Module, rows: torch.Tensor | slice) -> torch.Tensor:
        """Return the module's logits for some rows, added to their offsets."""
        logits: torch.Tensor = module(self.x[..., rows, :])
        return logits if self.offsets is None else logits + self.offsets[:, rows]


class Plan(EpochPlan):
    """Trains every member of ``module`` at once, on data that stay on the device."""

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        loss: Loss,
        *,
        validation: TrainingData | None,
        max_steps: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        adam_epsilon: float,
        patience: int | None,
    ) -> None:
        n_rows = data.weights.shape[1]
        self.steps_per_epoch = max(1, n_rows // min(batch_size, n_rows))
        super().__init__(module, -(-max_steps // self.steps_per_epoch), min(batch_size, n_rows))
        self.data = data
        self.validation = validation
        self.loss = loss
        self.n_rows = n_rows
        self.steps_left = max_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.adam_epsilon = adam_epsilon
        self.patience = patience
        self.queue = torch.empty(0, dtype=torch.long)
        self.train_losses: list[float] = []
        self.validation_losses: list[float] = []
        self.best_epoch = 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.start_weights: dict[str, torch.Tensor] = {}
        # validation loss of each row at the start and at the best epoch
        self.start_losses = self.best_losses = torch.empty(0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, or AdamW where weights decay, in one pass over the weights (it is several times faster)."""
        options: dict[str, Any] = {"lr": self.learning_rate, "eps": self.adam_epsilon, "fused": True}
        if self.weight_decay == 0:
            return torch.optim.Adam(self.module.parameters(), **options)
        return torch.optim.AdamW(self.module.parameters(), weight_decay=self.weight_decay, **options)

    def on_fit_start(self) -> None:
        """Move the data to the device once and note how good the starting point is."""
        self.data = self.data.to(self.device)
        self.validation = None if self.validation is None else self.validation.to(self.device)
        self.validate(epoch=0)

    def next_rows(self) -> torch.Tensor:
        """Return the rows of the next batch from an endless stream of permutations."""
        while len(self.queue) < self.batch_size:
            self.queue = torch.cat([self.queue, torch.randperm(self.n_rows)])
        rows, self.queue = self.queue[: self.batch_size], self.queue[self.batch_size :]
        return rows.to(self.device)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Run one epoch of optimiser steps."""
        optimizer: Any = self.optimizers()
        data, total, n_steps = self.data, torch.zeros((), device=self.device), 0
        n_choices = data.targets.shape[-2]
        for _ in range(min(self.steps_per_epoch, self.steps_left)):
            if self.stop:
                break
            rows = self.next_rows()
            choice = torch.randint(n_choices, (len(rows),)).to(self.device) if n_choices > 1 else torch.zeros_like(rows)
            losses = self.loss(data.logits(self.module, rows), data.targets[..., rows, choice, :])
            weights = data.weights[:, rows]
            # each member's loss is its own mean, so that the sum leaves their gradients apart
            loss = ((losses * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-12)).sum()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            total += loss.detach()
            n_steps += 1
        if n_steps == 0:
            # Ctrl-C came between two epochs
            self.trainer.should_stop = True
            return
        self.steps_left -= n_steps
        self.train_losses.append(float(total) / n_steps / len(data.weights))
        self.log("train_loss", self.train_losses[-1])
        self.validate(epoch=len(self.train_losses))
        self.bar.update()
        self.bar.set_postfix(train_loss=f"{self.train_losses[-1]:.4g}", refresh=False)
        stale = self.patience is not None and len(self.train_losses) - self.best_epoch >= self.patience
        self.trainer.should_stop = self.stop or (stale and self.validation is not None)

    @torch.no_grad()
    def validate(self, epoch: int) -> None:
        """Note the validation loss, and the weights where it is the lowest so far."""
        if self.validation is None:
            return
        self.module.eval()
        losses = self.loss(self.validation.logits(self.module, slice(None)), self.validation.targets.mean(dim=-2))
        self.module.train()
        weighted = losses * self.validation.weights
        value = float(weighted.sum() / self.validation.weights.sum())
        if epoch:
            self.log("validation_loss", value)
            # Lightning's own validation loop, after which Ray Tune's callback reports, does not run
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_validation_end(self.trainer, self)
        if not self.validation_losses or value < min(self.validation_losses):
            self.best_epoch = epoch
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
            self.best_losses = weighted.sum(dim=0)
        if epoch == 0:
            self.start_weights, self.start_losses = self.best_weights, self.best_losses
        self.validation_losses.append(value)

    def on_fit_end(self) -> None:
        """Go back to the best weights, or to the start where donors do not confirm that they are better."""
        if not self.best_weights:
            return
        if not self.confirmed():
            self.best_epoch, self.best_weights = 0, self.start_weights
        self.module.load_state_dict(self.best_weights)

    def confirmed(self) -> bool:
        """Say whether the mean gain over the start exceeds its standard error over held-out donors."""
        if self.validation is None or self.validation.groups is None:
            return True
        counted = self.validation.weights.sum(dim=0) > 0
        _, groups = self.validation.groups[counted].unique(return_inverse=True)
        gains = torch.zeros(int(groups.max()) + 1, device=groups.device)
        gains.index_add_(0, groups, (self.start_losses - self.best_losses)[counted])
        return len(gains) < 2 or bool(gains.mean() > gains.std() / len(gains) ** 0.5)

    def history(self) -> dict[str, pd.DataFrame]:
        """Return the losses by epoch, 0 the starting point, and where the weights were kept (``best_epoch``)."""
        best = [float(self.best_epoch)] if self.validation_losses else []
        curves = {
            "train_loss": (1, self.train_losses),
            "validation_loss": (0, self.validation_losses),
            "best_epoch": (self.best_epoch, best),
        }
        return {
            name: pd.DataFrame({name: values}, index=pd.RangeIndex(start, start + len(values), name="epoch"))
            for name, (start, values) in curves.items()
            if values
        }


def fit(
    module: nn.Module,
    data: TrainingData,
    loss: Loss,
    *,
    validation: TrainingData | None = None,
    max_steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    adam_epsilon: float = 1e-8,
    patience: int | None = None,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    description: str = "training",
    **trainer_kwargs: Any,
) -> Plan:
    """Train ``module`` in place and return the plan with its history.

    With rows to validate on the best weights, the starting point included, are put back at the end, and training stops after
    ``patience`` epochs without a better one. Where the rows have groups, the starting point stays unless the groups
    confirm the gain (by more than one standard error). Ctrl-C stops after the current step and keeps what was learned
    (``plan.stop`` is then True).
    """
    plan = Plan(
        module,
        data,
        loss,
        validation=validation,
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        adam_epsilon=adam_epsilon,
        patience=patience,
    )
    run(plan, description=description, accelerator=accelerator, devices=devices, **trainer_kwargs)
    return plan
