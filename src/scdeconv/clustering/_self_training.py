"""Self-training (Xie et al. 2016): targets from all cells, refreshed every few epochs, until labels hardly change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch

from scdeconv._nn import target_distribution

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


class SelfTraining:
    """Called before each epoch: refreshes the targets, and says when training may end.

    Parameters
    ----------
    assign
        Returns the soft assignments of all cells, cells × clusters.
    tolerance
        Training ends when a smaller share of cells has changed its label since the last refresh.
    update_interval
        Epochs between two refreshes.
    """

    def __init__(self, assign: Callable[[], torch.Tensor], tolerance: float, update_interval: int = 1) -> None:
        self.assign = assign
        self.tolerance = tolerance
        self.update_interval = update_interval
        self.targets = torch.empty(0)
        self.labels: np.ndarray | None = None
        self.changes: dict[int, float] = {}

    def __call__(self, epoch: int) -> bool:
        """Refresh the targets where it is time to, and return whether labels have settled."""
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
