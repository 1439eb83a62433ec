"""Training on compositions: all ensemble members at once, validation on held-out donors."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .loop import Plan
from .mixing import EPOCH_STEPS, Mixing
from .running import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .losses import Loss

# row indices of a batch, or weights of all rows in its mixtures (inputs × samples × rows), and index of the drawn
# choice of fractions of each row
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class TrainingData:
    """Training or validation samples.

    Parameters
    ----------
    x
        Input, rows × genes, or members × rows × genes if each member has its own rows.
    targets
        Fractions, rows × choices × types, or members × rows × choices × types. Each time a row is used, one of its
        choices is drawn (augmentation).
    weights
        Weight of each row for each member, members × rows. A member does not use rows of weight 0.
    offsets
        Logits added to the output of the module, members × rows × types; None: no offsets.
    groups
        Donor code of each row. With it, the best weights are used only if the gain over the initial weights is larger
        than its standard error over donors.
    mixing
        Mixtures to train on instead of single rows; consecutive members share one input. None: single rows.
    """

    x: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    offsets: torch.Tensor | None = None
    groups: torch.Tensor | None = None
    mixing: Mixing | None = None

    def to(self, device: torch.device) -> TrainingData:
        """Return a copy with all tensors on a device."""
        moved = copy(self)
        for name, value in vars(self).items():
            setattr(moved, name, None if value is None else value.to(device))
        return moved

    def logits(self, module: nn.Module, rows: torch.Tensor | slice) -> torch.Tensor:
        """Return the logits of the rows: output of the module plus offsets."""
        logits: torch.Tensor = module(self.x[..., rows, :])
        return logits if self.offsets is None else logits + self.offsets[:, rows]


class Learning:
    """Batches of the training samples, and their loss. The data are moved to the device once.

    Parameters
    ----------
    module
        The network.
    data
        Training samples.
    loss
        Loss of each member and sample.
    batch_size
        Rows in a step.
    """

    def __init__(self, module: nn.Module, data: TrainingData, loss: Loss, batch_size: int) -> None:
        self.module = module
        self.data = data
        self.loss = loss
        self.n_members, self.n_rows = data.weights.shape
        self.batch_size = batch_size if data.mixing else min(batch_size, self.n_rows)
        self.steps_per_epoch = EPOCH_STEPS if data.mixing else max(1, self.n_rows // self.batch_size)
        self.queue = torch.empty(0, dtype=torch.long)

    def batches(self, device: torch.device) -> Iterator[tuple[Batch, int]]:
        """Yield the batches of one epoch: mixtures, or rows in the order of consecutive permutations."""
        self.data = self.data.to(device)
        n_choices = self.data.targets.shape[-2]
        for _ in range(self.steps_per_epoch):
            if self.data.mixing:
                choice = torch.randint(n_choices, (self.batch_size, self.n_rows)).to(device)
                yield (self.data.mixing.draw(self.batch_size), choice), 1
                continue
            while len(self.queue) < self.batch_size:
                self.queue = torch.cat([self.queue, torch.randperm(self.n_rows)])
            rows, self.queue = self.queue[: self.batch_size].to(device), self.queue[self.batch_size :]
            choice = torch.randint(n_choices, (len(rows),)).to(device) if n_choices > 1 else torch.zeros_like(rows)
            yield (rows, choice), 1

    def batch_loss(self, batch: Batch) -> torch.Tensor:
        """Return the sum over members of the weighted mean loss; the gradients of the members are independent."""
        rows, choice = batch
        if self.data.mixing:
            fractions = self.data.targets[torch.arange(self.n_rows, device=choice.device), choice]
            mixed = torch.einsum("isr,srk->isk", rows, fractions)
            mixed = mixed.repeat_interleave(self.n_members // len(mixed), dim=0)
            logits = self.module(self.data.mixing.log_expression(rows))
            return self.loss(logits, mixed).mean(dim=1).sum()
        losses = self.loss(self.data.logits(self.module, rows), self.data.targets[..., rows, choice, :])
        weights = self.data.weights[:, rows]
        return ((losses * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-12)).sum()


class HeldOut:
    """Validation loss, and test of the gain over donors. The data are moved to the device once.

    Parameters
    ----------
    module, data, loss
        As for :class:`Learning`.
    """

    def __init__(self, module: nn.Module, data: TrainingData, loss: Loss) -> None:
        self.module = module
        self.data = data
        self.loss = loss

    def validate(self, device: torch.device) -> tuple[float, torch.Tensor]:
        """Return the weighted mean of the losses, and the weighted loss of each row summed over members."""
        self.data = self.data.to(device)
        losses = self.loss(self.data.logits(self.module, slice(None)), self.data.targets.mean(dim=-2))
        weighted = losses * self.data.weights
        return float(weighted.sum() / self.data.weights.sum()), weighted.sum(dim=0)

    def confirm(self, start_losses: torch.Tensor, best_losses: torch.Tensor) -> bool:
        """Return whether the mean gain over donors is larger than its standard error; True without donors."""
        if self.data.groups is None:
            return True
        counted = self.data.weights.sum(dim=0) > 0
        _, groups = self.data.groups[counted].unique(return_inverse=True)
        gains = torch.zeros(int(groups.max()) + 1, device=groups.device)
        gains.index_add_(0, groups, (start_losses - best_losses)[counted])
        return len(gains) < 2 or bool(gains.mean() > gains.std() / len(gains) ** 0.5)


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
    keep_best: bool = True,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    description: str = "training",
    **trainer_kwargs: Any,
) -> Plan:
    """Train a module in place on compositions, all members at once.

    Parameters
    ----------
    module
        Returns logits, members × rows × types.
    data
        Training samples.
    loss
        Loss of each member and sample, one of :data:`~scdeconv._nn.LOSSES`.
    validation
        Validation samples. With them, the weights with the lowest validation loss (initial weights included) are
        restored. With ``groups``, the initial weights are restored unless the mean gain over donors is larger than its
        standard error.
    max_steps
        Number of optimiser steps.
    batch_size
        Rows in a step.
    learning_rate, weight_decay, adam_epsilon
        Hyperparameters of Adam, or of AdamW if the weight decay is not 0.
    patience
        Early stopping: number of epochs without a lower validation loss. None: no early stopping. It has no effect
        without ``validation``.
    keep_best
        If False, the last weights are used instead of those with the lowest validation loss.
    accelerator, devices, **trainer_kwargs
        Passed to ``lightning.Trainer``.
    description
        Name of the progress bar.

    Returns
    -------
    The plan, with the losses. After Ctrl-C, ``plan.stop`` is True and the best weights so far are kept.
    """

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        # fused: one pass over the weights, several times faster
        options: dict[str, Any] = {"lr": learning_rate, "eps": adam_epsilon, "fused": True}
        if weight_decay == 0:
            return torch.optim.Adam(parameters, **options)
        return torch.optim.AdamW(parameters, weight_decay=weight_decay, **options)

    learning = Learning(module, data, loss, batch_size)
    held_out = None if validation is None else HeldOut(module, validation, loss)
    plan = Plan(
        module,
        learning.batches,
        learning.batch_loss,
        optimizer=optimizer,
        max_epochs=-(-max_steps // learning.steps_per_epoch),
        batch_size=learning.batch_size,
        max_steps=max_steps,
        validate=None if held_out is None else held_out.validate,
        validate_start=held_out is not None,
        confirm=None if held_out is None else held_out.confirm,
        patience=None if held_out is None else patience,
        keep_best=keep_best,
        n_members=learning.n_members,
    )
    run(plan, description=description, accelerator=accelerator, devices=devices, **trainer_kwargs)
    return plan
