"""Base classes of the clustering models and their networks."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from scdeconv._data.checks import CELLS, checked
from scdeconv._nn import SoftClusters, inference

from ._base import CellModel

if TYPE_CHECKING:
    from anndata import AnnData

    from ._cells import Cells


class ClusterNetwork(nn.Module):
    """Base class of the networks with an encoder and soft clusters in latent space.

    Parameters
    ----------
    clusters
        Centroids in latent space.
    """

    def __init__(self, clusters: SoftClusters) -> None:
        super().__init__()
        self.clusters = clusters

    @abstractmethod
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent representation of network input, cells × dimensions."""

    def assign(self, x: torch.Tensor) -> torch.Tensor:
        """Return the soft assignments of network input, cells × clusters."""
        assignments: torch.Tensor = self.clusters(self.encode(x))
        return assignments

    @inference()
    def assign_cells(self, cells: Cells) -> torch.Tensor:
        """Return the soft assignments of all cells, on the device of the network. Training mode is kept."""
        was_training = self.training
        self.eval()
        device = self.clusters.centroids.device
        assignments = [self.assign(batch.x.to(device)) for batch in cells.chunks()]
        self.train(was_training)
        return torch.cat(assignments)

    def sort_clusters(self, cells: Cells) -> int:
        """Sort the clusters by size, remove empty clusters, and return the number of removed clusters."""
        n_clusters = len(self.clusters.centroids)
        sizes = np.bincount(self.assign_cells(cells).argmax(dim=1).numpy(), minlength=n_clusters)
        order = np.argsort(-sizes, kind="stable")
        n_removed = int((sizes == 0).sum())
        kept = torch.as_tensor(order[: n_clusters - n_removed].copy())
        self.clusters = SoftClusters(self.clusters.centroids.detach()[kept], self.clusters.alpha)
        return n_removed

    def describe(self, n_removed: int) -> str:
        """Return the numbers of clusters and removed clusters as text."""
        removed = f" ({n_removed} removed)" if n_removed else ""
        return f"{len(self.clusters.centroids)} clusters{removed}"


class ClusteringModel(CellModel):
    """Base class of the models with soft assignments of cells to clusters.

    Parameters
    ----------
    adata
        Cells × genes, after :meth:`setup_anndata`; None for a loaded model.
    parameters
        Constructor arguments of the subclass, plain values.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> scdeconv.clustering.ScDeepCluster.setup_anndata(cells)
    >>> model = scdeconv.clustering.ScDeepCluster(cells, n_clusters=3)
    >>> model.train(pretrain_epochs=5, max_epochs=2)
    >>> model.get_soft_assignments(cells[:5]).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    >>> bool(model.get_clusters().isin(["0", "1", "2"]).all())
    True
    """

    @checked(adata=CELLS)
    def get_soft_assignments(self, adata: AnnData | None = None, *, layer: str | None = None) -> pd.DataFrame:
        """Return the soft assignment of each cell to each cluster.

        Parameters
        ----------
        adata
            New cells. Genes are matched by name; the object is not changed. None: the training cells.
        layer
            Layer of ``adata`` to read instead of ``X``.

        Returns
        -------
        Cells × clusters; rows sum to 1. Clusters are named ``"0"``, ``"1"``, ... from the largest to the smallest.

        Raises
        ------
        RuntimeError
            If the model is not trained, or if ``adata`` is None for a loaded model.
        ValueError
            If the cells cannot be read, lack half of the genes of the model, or have unknown batches.
        KeyError
            If batches were scaled separately and the cells have no column with the batch.
        """
        return self._soft_assignments(None, adata, layer)

    @checked(adata=CELLS)
    def get_clusters(self, adata: AnnData | None = None, *, layer: str | None = None) -> pd.Series:
        """Return the cluster with the largest soft assignment of each cell.

        Parameters
        ----------
        adata, layer
            As for :meth:`get_soft_assignments`.

        Returns
        -------
        One cluster for each cell, categorical.

        Raises
        ------
        RuntimeError, ValueError, KeyError
            As for :meth:`get_soft_assignments`.
        """
        return self._clusters(None, adata, layer)

    def _network(self, resolution: float | None) -> ClusterNetwork:
        """Return the trained network; ``resolution`` selects it if the model has several."""
        self._require_trained()
        network: ClusterNetwork = self.module
        return network

    def _soft_assignments(self, resolution: float | None, adata: AnnData | None, layer: str | None) -> pd.DataFrame:
        network = self._network(resolution)
        assignments = network.assign_cells(self._cells(adata, layer)).numpy().astype(float)
        names = (self.adata if adata is None else adata).obs_names
        frame = pd.DataFrame(assignments, index=names, columns=[str(k) for k in range(assignments.shape[1])])
        return frame.div(frame.sum(axis=1), axis=0)

    def _clusters(self, resolution: float | None, adata: AnnData | None, layer: str | None) -> pd.Series:
        assignments = self._soft_assignments(resolution, adata, layer)
        labels = assignments.columns.to_numpy()[assignments.to_numpy().argmax(axis=1)]
        return pd.Series(pd.Categorical(labels, categories=assignments.columns), index=assignments.index)
