"""Training on single cells in mini-batches; one batch is dense at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from .loop import Plan
from .running import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .loop import BatchLoss, Optimizer


class Rows(Protocol):
    """Data set that returns rows as tensors."""

    def batch(self, rows: np.ndarray, device: torch.device) -> Any:
        """Return these rows, on the device."""


def fit_cells(
    module: torch.nn.Module,
    data: Rows,
    loss: BatchLoss,
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
) -> Plan:
    """Train a module in place on cells in random order.

    Parameters
    ----------
    module
        In training mode during steps, in evaluation mode during validation and afterwards.
    data
        Returns batches of cells.
    loss
        Mean loss of a batch. It reads the module.
    rows
        Numbers of the cells to train on.
    validation_rows
        Numbers of the held-out cells. With them, the weights with the lowest validation loss are restored.
    optimizer
        Returns the optimiser of the module's parameters.
    max_epochs
        Maximum number of passes over the cells.
    batch_size
        Cells in a step.
    patience
        Early stopping: number of epochs without a lower loss on held-out cells, or without a lower training loss if
        there are no held-out cells. None: no early stopping.
    min_delta
        Minimum decrease of the loss.
    before_epoch
        Called before each epoch with the number of completed epochs. Training stops if it returns True.
    description
        Name of the progress bar.
    accelerator, **trainer_kwargs
        Passed to ``lightning.Trainer``.

    Returns
    -------
    The plan, with the losses. After Ctrl-C, ``plan.stop`` is True and the best weights so far are kept.
    """
    held_out = np.asarray(validation_rows, dtype=int)

    def batches(device: torch.device) -> Iterator[tuple[Any, int]]:
        order = rows[torch.randperm(len(rows)).numpy()]
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            yield data.batch(members, device), len(members)

    def validate(device: torch.device) -> tuple[float, None]:
        total = 0.0
        for start in range(0, len(held_out), batch_size):
            members = held_out[start : start + batch_size]
            total += float(loss(data.batch(members, device))) * len(members)
        return total / len(held_out), None

    plan = Plan(
        module,
        batches,
        loss,
        optimizer=optimizer,
        max_epochs=max_epochs,
        batch_size=batch_size,
        validate=validate if len(held_out) else None,
        patience=patience,
        min_delta=min_delta,
        before_epoch=before_epoch,
    )
    run(plan, description=description, accelerator=accelerator, **trainer_kwargs)
    return plan
