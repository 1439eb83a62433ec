"""scDeepCluster (Tian et al. 2019): a denoising count autoencoder trained together with its clusters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scdeconv.nn import CountAutoencoder, SoftClusters, clustering_loss, fit_cells

from ._base import ClusteringModel
from ._cells import CellBatch, Cells, Scaling
from ._initial_clusters import centroids, k_means, leiden
from ._self_training import SelfTraining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

N_NEIGHBORS = 20


class ScDeepCluster(ClusteringModel):
    """A denoising autoencoder of counts whose latent space is shaped by the clusters in it.

    The autoencoder is trained alone first. Then k-means (or Leiden, where the number of clusters is not known) finds
    clusters in its latent space, and reconstruction and clustering loss are minimised together; the clusters' targets are
    refreshed every epoch, until hardly any cell changes its cluster.

    Parameters
    ----------
    adata
        Cells × genes, counts, after :meth:`setup_anndata`.
    n_clusters
        Number of clusters; None: as many as Leiden finds at ``resolution``.
    resolution
        Of Leiden, on the graph of 20 neighbours.
    n_latent, hidden
        Latent dimensions, and widths of the encoder's hidden layers; the decoder has them the other way round.
    noise
        Standard deviation of the noise on the standardised input, in training.
    likelihood
        Of the counts: zero-inflated negative binomial (``"zinb"``), or negative binomial (``"nb"``).

    Notes
    -----
    Of the original's two programs the newer, in PyTorch, is followed: noise on the input alone, while the clustering loss
    reads the input without noise.
    """

    method = "scdeepcluster"
    whole_numbers = True

    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        n_clusters: int | None = None,
        resolution: float = 0.8,
        n_latent: int = 32,
        hidden: Sequence[int] = (256, 64),
        noise: float = 2.5,
        likelihood: Literal["zinb", "nb"] = "zinb",
    ) -> None:
        self.n_clusters, self.resolution = n_clusters, resolution
        self.n_latent, self.hidden, self.noise, self.likelihood = n_latent, list(hidden), noise, likelihood
        parameters = {
            "n_clusters": n_clusters,
            "resolution": resolution,
            "n_latent": n_latent,
            "hidden": self.hidden,
            "noise": noise,
            "likelihood": likelihood,
        }
        super().__init__(adata, parameters)
