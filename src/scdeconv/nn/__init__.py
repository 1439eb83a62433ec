"""Torch parts shared by the neural models: networks, losses and the training loops.

They serve :mod:`scdeconv.models` and :mod:`scdeconv.clustering`; they are not for users, and may change in any version.
"""

from __future__ import annotations

from ._autoencoders import CountAutoencoder, layers, linear
from ._cell_training import CellPlan, fit_cells
from ._losses import LOSSES, Loss
from ._networks import BatchedLinear, Ensemble, Perceptrons
from ._running import quiet
from ._soft_assignment import SoftClusters, cannot_link_loss, clustering_loss, must_link_loss, target_distribution
from ._training import TrainingData, fit
