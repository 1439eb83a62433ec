"""Networks of DESC and their training: layer by layer, then with clusters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn

from scdeconv._nn import SoftClusters, clustering_loss, layers

from ._clustering_model import ClusterNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scdeconv._nn import Plan

    from ._cells import CellBatch
    from ._self_training import SelfTraining

# constants of the released program of DESC
DROPOUT = 0.2
LAYER_RATES = (0.1, 0.01, 0.001)
FINE_TUNING_RATES = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
MOMENTUM = 0.9
CLUSTERING_RATE = 0.01
PRETRAINING = {"max_epochs": 50, "patience": 10, "min_delta": 1e-4}


def layers_to_tanh(sizes: Sequence[int]) -> nn.Sequential:
    """Return layers with ReLU, the last one with tanh."""
    return nn.Sequential(*list(layers(sizes))[:-1], nn.Tanh())


class StackedAutoencoder(nn.Module):
    """Autoencoder with layer-wise training; each layer denoises the output of the previous layers.

    Parameters
    ----------
    sizes
        Number of genes, then the widths of the encoder. The decoder has the same widths in reverse order.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.encoder = layers_to_tanh(sizes)
        self.decoder = layers_to_tanh(sizes[::-1])

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent representation of network input."""
        latent: torch.Tensor = self.encoder(x)
        return latent

    def reconstruction_loss(self, batch: CellBatch) -> torch.Tensor:
        """Return the mean squared error of the whole autoencoder."""
        return nn.functional.mse_loss(self.decoder(self.encoder(batch.x)), batch.x)

    def layer_loss(self, layer: int, batch: CellBatch) -> torch.Tensor:
        """Return the mean squared error of one layer, with dropout before encoding and before decoding in training."""
        # a layer is two modules: linear and activation
        start, end = 2 * layer, 2 * layer + 2
        with torch.no_grad():
            x = self.encoder[:start](batch.x)
        hidden = self.encoder[start:end](nn.functional.dropout(x, DROPOUT, self.training))
        n_modules = len(self.decoder)
        decoder = self.decoder[n_modules - end : n_modules - start]
        return nn.functional.mse_loss(decoder(nn.functional.dropout(hidden, DROPOUT, self.training)), x)


class DESCNetwork(ClusterNetwork):
    """Encoder with clusters in latent space.

    Parameters
    ----------
    encoder
        Layers of a stacked autoencoder.
    clusters
        Centroids in latent space.
    """

    def __init__(self, encoder: nn.Module, clusters: SoftClusters) -> None:
        super().__init__(clusters)
        self.encoder = encoder

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent representation of network input."""
        latent: torch.Tensor = self.encoder(x)
        return latent


def pretrain(autoencoder: StackedAutoencoder, fit: Callable[..., Plan]) -> tuple[dict[str, pd.DataFrame], bool]:
    """Train the layers one after the other, then all together, each at several learning rates.

    Parameters
    ----------
    autoencoder
        Trained in place.
    fit
        :func:`~scdeconv._nn.fit_cells` with the cells.

    Returns
    -------
    Losses by epoch, and whether Ctrl-C interrupted the training.
    """
    n_layers = len(autoencoder.encoder) // 2
    phases: dict[str, tuple[Callable[[CellBatch], torch.Tensor], Sequence[float]]] = {
        f"layer_{layer + 1}": (partial(autoencoder.layer_loss, layer), LAYER_RATES) for layer in range(n_layers)
    }
    phases["autoencoder"] = (autoencoder.reconstruction_loss, FINE_TUNING_RATES)
    history, interrupted = {}, False
    for name, (loss, rates) in phases.items():
        losses: list[float] = []
        for rate in rates:
            if interrupted:
                break
            plan = fit(
                autoencoder,
                loss=loss,
                optimizer=partial(torch.optim.SGD, lr=rate, momentum=0 if name == "autoencoder" else MOMENTUM),
                description=f"pretraining DESC: {name.replace('_', ' ')}",
                **PRETRAINING,
            )
            losses += plan.train_losses
            interrupted = plan.stop
        epochs = pd.RangeIndex(1, len(losses) + 1, name="epoch")
        history[f"{name}_train_loss"] = pd.DataFrame({f"{name}_train_loss": losses}, index=epochs)
    return history, interrupted


def train_clusters(
    network: DESCNetwork, self_training: SelfTraining, fit: Callable[..., Plan], max_epochs: int, description: str
) -> Plan:
    """Train the encoder and the centroids on the clustering loss only.

    Parameters
    ----------
    network
        Trained in place.
    self_training
        Provides the targets and the stopping rule.
    fit
        :func:`~scdeconv._nn.fit_cells` with the cells.
    max_epochs
        Maximum number of epochs.
    description
        Name of the progress bar.
    """

    def loss(batch: CellBatch) -> torch.Tensor:
        return clustering_loss(self_training.targets[batch.rows], network.assign(batch.x))

    return fit(
        network,
        loss=loss,
        optimizer=partial(torch.optim.SGD, lr=CLUSTERING_RATE, momentum=MOMENTUM),
        max_epochs=max_epochs,
        before_epoch=self_training,
        description=description,
    )
