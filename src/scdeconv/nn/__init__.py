"""Torch parts shared by the neural models: networks, losses and the training loop."""

from __future__ import annotations

from ._losses import LOSSES, Loss
from ._networks import BatchedLinear, Ensemble, Perceptrons
from ._running import quiet
from ._training import TrainingData, fit

__all__ = [
    "LOSSES",
    "BatchedLinear",
    "Ensemble",
    "Loss",
    "Perceptrons",
    "TrainingData",
    "fit",
    "quiet",
]
