"""Self-training (Xie et al. 2016): targets from all cells, updated every few epochs until labels are stable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from scdeconv._nn import target_distribution

# limits of the epochs that a number of optimiser steps is converted to; set by hand
PRETRAINING_EPOCHS = (25, 150)


@dataclass(frozen=True)
class Schedule:
    """How an autoencoder is pretrained and trained with clusters.

    Parameters
    ----------
    pretraining_steps
        Optimiser steps of the autoencoder alone.
    points
        Returns the coordinates for k-means from the latent representation.
    optimizer
        Returns the optimiser of the second phase from the weights and the learning rate of the first.
    """

    pretraining_steps: int
    points: Callable[[np.ndarray], np.ndarray]
    optimizer: Callable[..., torch.optim.Optimizer]

    def pretrain_epochs(self, n_cells: int, batch_size: int) -> int:
        """Return the number of epochs that take ``pretraining_steps``, within limits."""
        steps_per_epoch = -(-n_cells // batch_size)
        return int(np.clip(round(self.pretraining_steps / steps_per_epoch), *PRETRAINING_EPOCHS))


class SelfTraining:
    """Targets of self-training. A call before each epoch updates the targets and returns whether training stops.

    Parameters
    ----------
    assign
        Returns the soft assignments of all cells, cells × clusters.
    tolerance
        Training stops if the share of cells that changed their label since the last update is below this value.
    update_interval
        Number of epochs between two updates.

    Attributes
    ----------
    targets
        Target distribution of each cell, cells × clusters.
    changes
        Share of cells that changed their label, by epoch.
    """

    def __init__(self, assign: Callable[[], torch.Tensor], tolerance: float, update_interval: int = 1) -> None:
        self.assign = assign
        self.tolerance = tolerance
        self.update_interval = update_interval
        self.targets = torch.empty(0)
        self.labels: np.ndarray | None = None
        self.changes: dict[int, float] = {}

    def __call__(self, epoch: int) -> bool:
        """Update the targets every ``update_interval`` epochs, and return whether labels are stable."""
        if epoch % self.update_interval:
            return False
        assignments = self.assign()
        self.targets = target_distribution(assignments)
        labels, before = assignments.argmax(dim=1).cpu().numpy(), self.labels
        self.labels = labels
        if before is None:
            return False
        self.changes[epoch] = float((labels != before).mean())
        return self.changes[epoch] < self.tolerance

    def history(self) -> pd.DataFrame:
        """Return the share of cells that changed their label, by epoch."""
        return pd.DataFrame({"label_change": self.changes}).rename_axis("epoch")
