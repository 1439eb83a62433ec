"""Networks, losses and the training loop of :mod:`scdeconv.models` and :mod:`scdeconv.clustering`.

This package is internal and may change in any version.
"""

from __future__ import annotations

from scdeconv._nn.autoencoders import CountAutoencoder, layers, linear
from scdeconv._nn.cell_training import fit_cells
from scdeconv._nn.composition_training import TrainingData, fit
from scdeconv._nn.loop import Plan
from scdeconv._nn.losses import LOSSES, Loss
from scdeconv._nn.mixing import EPOCH_STEPS, Mixing
from scdeconv._nn.networks import BatchedLinear, Ensemble, Perceptrons
from scdeconv._nn.random_numbers import seeded
from scdeconv._nn.running import inference, quiet, registration_arguments, trainer_arguments
from scdeconv._nn.soft_assignment import (
    SoftClusters,
    cannot_link_loss,
    clustering_loss,
    must_link_loss,
    target_distribution,
)
from scdeconv._nn.weights import last_bias, weights_of, with_weights
