"""Self-training (Xie et al. 2016): targets from all cells, updated every few epochs until labels are stable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch

from scdeconv._nn import target_distribution

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


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
