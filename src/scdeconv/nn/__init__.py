"""Torch parts shared by the neural models: networks, losses and the training loops."""

from __future__ import annotations

from ._autoencoders import CountAutoencoder, layers, linear
from ._cell_training import CellPlan, fit_cells
from ._losses import LOSSES, Loss
from ._networks import BatchedLinear, Ensemble, Perceptrons
from ._running import quiet
from ._soft_assignment import SoftClusters, cannot_link_loss, clustering_loss, must_link_loss, target_distribution
from ._training import TrainingData, fit

__all__ = [
    "LOSSES",
    "BatchedLinear",
    "CellPlan",
    "CountAutoencoder",
    "Ensemble",
    "Loss",
    "Perceptrons",
    "SoftClusters",
    "TrainingData",
    "cannot_link_loss",
    "clustering_loss",
    "fit",
    "fit_cells",
    "layers",
    "linear",
    "must_link_loss",
    "quiet",
    "target_distribution",
]
