"""The autoencoder of DESC, which is trained layer by layer first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from scdeconv._nn import layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._cells import CellBatch

DROPOUT = 0.2


def layers_to_tanh(sizes: Sequence[int]) -> nn.Sequential:
    """Return layers with ReLU, the last one with tanh."""
    return nn.Sequential(*list(layers(sizes))[:-1], nn.Tanh())


class StackedAutoencoder(nn.Module):
    """An autoencoder whose layers can also be trained one by one, each to denoise what the layers before it give.

    Parameters
    ----------
    sizes
        Genes, then the widths of the encoder; the decoder has them the other way round.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.encoder = layers_to_tanh(sizes)
        self.decoder = layers_to_tanh(sizes[::-1])

    def reconstruction_loss(self, batch: CellBatch) -> torch.Tensor:
        """Return the mean squared error of the whole autoencoder."""
        return nn.functional.mse_loss(self.decoder(self.encoder(batch.x)), batch.x)

    def layer_loss(self, layer: int, batch: CellBatch) -> torch.Tensor:
        """Return the mean squared error of one layer's autoencoder, with dropout before each half of it in training."""
        # a layer is two modules: linear and activation
        start, end = 2 * layer, 2 * layer + 2
        with torch.no_grad():
            x = self.encoder[:start](batch.x)
        hidden = self.encoder[start:end](nn.functional.dropout(x, DROPOUT, self.training))
        n_modules = len(self.decoder)
        decoder = self.decoder[n_modules - end : n_modules - start]
        return nn.functional.mse_loss(decoder(nn.functional.dropout(hidden, DROPOUT, self.training)), x)
