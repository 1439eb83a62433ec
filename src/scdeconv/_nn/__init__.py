"""Torch parts shared by the neural models: networks, losses and the training loops.

They serve :mod:`scdeconv.models` and :mod:`scdeconv.clustering`; they are not for users, and may change in any version.
"""

from __future__ import annotations

from scdeconv._nn.autoencoders import CountAutoencoder, layers, linear
from scdeconv._nn.cell_training import CellPlan, fit_cells
from scdeconv._nn.losses import LOSSES, Loss
from scdeconv._nn.networks import BatchedLinear, Ensemble, Perceptrons
from scdeconv._nn.running import quiet
from scdeconv._nn.soft_assignment import (
    SoftClusters,
    cannot_link_loss,
    clustering_loss,
    must_link_loss,
    target_distribution,
)
from scdeconv._nn.training import TrainingData, fit
