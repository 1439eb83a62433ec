"""Network of scGen, and decoding of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scvi.nn import Encoder, FCLayers
from torch import nn
from torch.distributions import Normal, kl_divergence

from scdeconv._data.annotated import make_adata
from scdeconv._nn import inference

from ._cells import CHUNK_CELLS

if TYPE_CHECKING:
    from anndata import AnnData

# from the authors' program
KL_WEIGHT = 5e-5


class ScGenNetwork(nn.Module):
    """Variational autoencoder of log expression: the encoder of scvi-tools, and a decoder with linear output.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_latent, n_hidden, n_layers, dropout_rate
        As in :class:`ScGen`.
    """

    def __init__(self, n_genes: int, *, n_latent: int, n_hidden: int, n_layers: int, dropout_rate: float) -> None:
        super().__init__()
        options = {"n_layers": n_layers, "n_hidden": n_hidden, "dropout_rate": dropout_rate}
        self.encoder = Encoder(n_genes, n_latent, return_dist=True, activation_fn=nn.LeakyReLU, **options)
        hidden = FCLayers(n_latent, n_hidden, activation_fn=nn.LeakyReLU, **options)
        self.decoder = nn.Sequential(hidden, nn.Linear(n_hidden, n_genes))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of the latent representation."""
        mean: torch.Tensor = self.encoder.mean_encoder(self.encoder.encoder(x))
        return mean

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Return half the squared error plus the weighted divergence from the prior: sum by cell, mean over cells."""
        posterior, z = self.encoder(x)
        squared_error = (x - self.decoder(z)).square().sum(dim=1)
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1)
        return 0.5 * (squared_error + KL_WEIGHT * kl).mean()


@inference()
def decode_cells(network: ScGenNetwork, latent: np.ndarray, obs: pd.DataFrame, genes: pd.Index) -> AnnData:
    """Return decoded log expression.

    Parameters
    ----------
    network
        In evaluation mode.
    latent
        Cells × dimensions.
    obs
        Metadata of the cells. Columns of scvi-tools are removed.
    genes
        Genes of the model.
    """
    parts = torch.as_tensor(latent, dtype=torch.float32).split(CHUNK_CELLS)
    decoded = make_adata(
        np.concatenate([network.decoder(part).numpy() for part in parts]),
        obs=obs.loc[:, ~obs.columns.str.startswith("_scvi_")].copy(),
        var=pd.DataFrame(index=genes),
    )
    # scanpy's flag for log expression
    decoded.uns["log1p"] = {"base": None}
    return decoded
