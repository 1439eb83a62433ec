"""DESC (Li et al. 2020): a stacked autoencoder, then self-training of encoder and clusters."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scdeconv._data.checks import CELLS, RESOLUTIONS, WIDTHS, Problems, checked, examples, whole
from scdeconv._nn import SoftClusters, fit_cells, seeded, trainer_arguments, weights_of

from ._base import CellState
from ._cells import Cells, Scaling, encode_cells
from ._clustering_model import ClusteringModel
from ._desc_network import DESCNetwork, StackedAutoencoder, layers_to_tanh, pretrain, train_clusters
from ._initial_clusters import centroids, leiden
from ._self_training import SelfTraining

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

# constants of the released DESC program; HIDDEN: minimum number of cells and widths of the encoder
HIDDEN = ((20_000, (128, 32)), (10_000, (64, 32)), (5_000, (32, 16)), (2_000, (128,)), (500, (64,)), (0, (16,)))
BATCH_SIZE = 256
UPDATE_INTERVAL = 5
N_NEIGHBORS = 10
CLIP = 6.0


def default_hidden(n_cells: int) -> list[int]:
    """Return the widths of the encoder that the released program uses for this number of cells."""
    return list(next(widths for n, widths in HIDDEN if n_cells > n))


class DESC(ClusteringModel):
    """Deep embedded clustering; Leiden determines the number of clusters.

    First, an autoencoder of standardised log expression is trained, layer by layer and then as a whole. Leiden finds
    initial clusters in its latent space. Then encoder and centroids are trained by self-training, which sharpens the
    soft assignments, until the share of cells that change their cluster is below ``tolerance``. Empty clusters are
    removed; no clusters are added.

    Parameters
    ----------
    adata
        Cells × genes on a linear scale, after :meth:`setup_anndata`; preferably 1,000–2,000 variable genes.
    resolution
        Resolution of Leiden on the graph of 10 neighbours. With several resolutions, clusters are trained for each from
        the same autoencoder.
    hidden
        Widths of the encoder; the last one is the number of latent dimensions. None: as in the original program, from
        16 for up to 500 cells to 128 and 32 for more than 20,000 cells.
    scale_by_batch
        Standardise the expression separately in each batch (``batch_key`` of :meth:`setup_anndata`). This removes batch
        effects and also real differences in composition.

    Raises
    ------
    ValueError
        If parameters are out of range; all are reported.

    Notes
    -----
    Constants are those of the released program, which uses Louvain instead of Leiden.

    References
    ----------
    Li et al. (2020), *Deep learning enables accurate clustering with batch effect removal in single-cell RNA-seq
    analysis*, Nature Communications 11:2338.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> scdeconv.clustering.DESC.setup_anndata(cells)
    >>> model = scdeconv.clustering.DESC(cells, resolution=[0.5, 1.0], hidden=(8,))
    >>> model.train(max_epochs=5)
    >>> model.get_latent_representation().shape[1], model.get_clusters(resolution=1.0).cat.categories[0]
    (8, '0')
    """

    method = "desc"
    whole_numbers = False

    @checked(adata=CELLS, hidden=WIDTHS, resolution=RESOLUTIONS)
    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        resolution: float | Sequence[float] = 0.8,
        hidden: Sequence[int] | None = None,
        scale_by_batch: bool = False,
    ) -> None:
        self.resolutions = [float(value) for value in np.atleast_1d(resolution)]
        self.hidden = None if hidden is None else [int(width) for width in hidden]
        self.scale_by_batch = bool(scale_by_batch)
        parameters = {
            "resolution": self.resolutions,
            "hidden": self.hidden,
            "scale_by_batch": self.scale_by_batch,
        }
        super().__init__(adata, parameters)
        problems = Problems("DESC cannot be created")
        if len(set(self.resolutions)) < len(self.resolutions):
            problems.add(f"Expected one or more different resolutions, found {self.resolutions}.")
        if adata is not None and self.scale_by_batch and self.batch_key_ is None:
            problems.add(
                "Expected a batch_key for scale_by_batch=True, found none. Pass the column of obs: "
                'DESC.setup_anndata(adata, batch_key="batch").'
            )
        elif adata is not None and self.scale_by_batch:
            single = [name for name, n in zip(self.batches_, self._batch_sizes(), strict=True) if n == 1]
            if single:
                problems.add(
                    f"Expected several cells in each batch for scale_by_batch=True, found one in {examples(single)}. "
                    "Merge or remove these batches."
                )
        problems.raise_if_any()

    def _batch_sizes(self) -> np.ndarray:
        """Return the number of training cells of each batch."""
        return np.bincount(self._training_data()[1], minlength=len(self.batches_))

    # without self-training, the clusters are those of the start
    @checked(max_epochs=whole(0), further=trainer_arguments)
    def train(
        self,
        *,
        max_epochs: int = 500,
        tolerance: float = 0.005,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the autoencoder, then the clusters at each resolution.

        Ctrl-C stops the training and keeps the weights. Untrained clusters are those of Leiden.

        Parameters
        ----------
        max_epochs
            Maximum number of epochs of self-training.
        tolerance
            Self-training stops if the share of cells that changed their cluster within 5 epochs is below this value.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Random seed. The global random state does not change.
        **trainer_kwargs
            Further arguments of ``lightning.Trainer``.

        Raises
        ------
        ValueError
            If Leiden finds a single cluster.
        RuntimeError
            If the model was loaded and has no training cells.
        """
        counts, batches = self._training_data()
        scaled_together = batches if self.scale_by_batch else np.zeros_like(batches)
        scaling = Scaling.learn(counts, scaled_together, scale="unit", clip=CLIP)
        cells = Cells.to_train_on(counts, batches, scaling)
        sizes = [counts.shape[1], *(self.hidden or default_hidden(len(cells)))]
        fit = partial(
            fit_cells,
            data=cells,
            rows=np.arange(len(cells)),
            batch_size=BATCH_SIZE,
            accelerator=accelerator,
            **trainer_kwargs,
        )
        with seeded(seed):
            autoencoder = StackedAutoencoder(sizes)
            history, interrupted = pretrain(autoencoder, fit)
            latent = encode_cells(autoencoder, cells)
            networks, found = [], []
            for resolution, labels in [(value, leiden(latent, value, N_NEIGHBORS, seed)) for value in self.resolutions]:
                clusters = SoftClusters(torch.as_tensor(centroids(latent, labels)))
                network = DESCNetwork(copy.deepcopy(autoencoder.encoder), clusters)
                self_training = SelfTraining(partial(network.assign_cells, cells), tolerance, UPDATE_INTERVAL)
                name = f"training DESC at resolution {resolution:g}"
                plan = train_clusters(network, self_training, fit, 0 if interrupted else max_epochs, name)
                interrupted = interrupted or plan.stop
                found.append(f"{network.describe(network.sort_clusters(cells))} at resolution {resolution:g}")
                networks.append(network)
                # no suffix for the first resolution
                suffix = "" if resolution == self.resolutions[0] else f"_{resolution:g}"
                curves = plan.history() | {"label_change": self_training.history()}
                history |= {key + suffix: curve.set_axis([key + suffix], axis=1) for key, curve in curves.items()}
        summary = f"{', '.join(found)}; {len(cells):,} cells, {sizes[0]:,} genes, {sizes[-1]} latent dimensions"
        self._store(
            CellState(scaling=scaling, weights=weights_of(nn.ModuleList(networks))),
            self._record(summary, history, seed=seed, interrupted=interrupted),
        )

    def _make_network(self, weights: Mapping[str, np.ndarray]) -> nn.ModuleList:
        first = [array for name, array in weights.items() if name.startswith("0.encoder.") and array.ndim == 2]
        sizes = [first[0].shape[1], *(len(array) for array in first)]
        every = [weights[f"{number}.clusters.centroids"] for number in range(len(self.resolutions))]
        return nn.ModuleList(
            DESCNetwork(layers_to_tanh(sizes), SoftClusters(torch.empty(array.shape))) for array in every
        )

    def _network(self, resolution: float | None) -> DESCNetwork:
        self._require_trained()
        if resolution is not None and resolution not in self.resolutions:
            msg = f"Expected resolution to be one of {self.resolutions}, found {resolution}. Train a model with it."
            raise ValueError(msg)
        network: DESCNetwork = self.module[0 if resolution is None else self.resolutions.index(resolution)]
        return network

    @checked(adata=CELLS)
    def get_latent_representation(
        self, adata: AnnData | None = None, *, layer: str | None = None, resolution: float | None = None
    ) -> np.ndarray:
        """Return the latent representation.

        Parameters
        ----------
        adata
            New cells. Genes are matched by name; the object is not changed. None: the training cells.
        layer
            Layer of ``adata`` to read instead of ``X``.
        resolution
            Resolution of the clusters that the encoder was trained with; None: the first.

        Returns
        -------
        Cells × dimensions.

        Raises
        ------
        RuntimeError
            If the model is not trained, or if ``adata`` is None for a loaded model.
        ValueError
            If the model was not trained at the resolution, or if the cells cannot be read, lack half of the genes of
            the model, or are of unknown batches.
        KeyError
            If batches were scaled separately and the cells have no column with the batch.
        """
        network = self._network(resolution)
        return encode_cells(network, self._cells(adata, layer))

    @checked(adata=CELLS)
    def get_soft_assignments(
        self, adata: AnnData | None = None, *, layer: str | None = None, resolution: float | None = None
    ) -> pd.DataFrame:
        """Return the soft assignment of each cell to each cluster.

        Parameters
        ----------
        adata, layer
            As for :meth:`get_latent_representation`.
        resolution
            Resolution of the clusters; None: the first.

        Returns
        -------
        Cells × clusters; rows sum to 1. Clusters are named ``"0"``, ``"1"``, ... from the largest to the smallest.

        Raises
        ------
        RuntimeError, ValueError, KeyError
            As for :meth:`get_latent_representation`.
        """
        return self._soft_assignments(resolution, adata, layer)

    @checked(adata=CELLS)
    def get_clusters(
        self, adata: AnnData | None = None, *, layer: str | None = None, resolution: float | None = None
    ) -> pd.Series:
        """Return the cluster with the largest soft assignment of each cell.

        Parameters
        ----------
        adata, layer, resolution
            As for :meth:`get_soft_assignments`.

        Returns
        -------
        One cluster for each cell, categorical.

        Raises
        ------
        RuntimeError, ValueError, KeyError
            As for :meth:`get_latent_representation`.
        """
        return self._clusters(resolution, adata, layer)
