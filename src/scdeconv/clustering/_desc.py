"""DESC (Li et al. 2020): an autoencoder trained layer by layer, then its encoder trained towards the clusters in it."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from torch import nn

from scdeconv._data.validation import Problems
from scdeconv._nn import SoftClusters, clustering_loss, fit_cells

from ._base import ClusteringModel
from ._cells import CellBatch, Cells, Scaling
from ._initial_clusters import centroids, leiden
from ._self_training import SelfTraining
from ._stacked_autoencoder import StackedAutoencoder, layers_to_tanh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

# the constants of the released program: widths for more cells than a number, learning rates one after the other
HIDDEN = ((20_000, (128, 32)), (10_000, (64, 32)), (5_000, (32, 16)), (2_000, (128,)), (500, (64,)), (0, (16,)))
LAYER_RATES = (0.1, 0.01, 0.001)
FINE_TUNING_RATES = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
CLUSTERING_RATE = 0.01
MOMENTUM = 0.9
PRETRAINING = {"max_epochs": 50, "patience": 10, "min_delta": 1e-4}
BATCH_SIZE = 256
UPDATE_INTERVAL = 5
N_NEIGHBORS = 10
CLIP = 6.0


def default_hidden(n_cells: int) -> list[int]:
    """Return the widths of the encoder that the released program chooses for so many cells."""
    return list(next(widths for n, widths in HIDDEN if n_cells > n))


class DESC(ClusteringModel):
    """Deep embedding whose number of clusters is found by Leiden.

    An autoencoder of standardised log expression is trained first, layer by layer and then as a whole. Leiden finds
    clusters in its latent space, and encoder and centroids are trained to make the assignments of the cells to them
    surer, until hardly any cell changes its cluster. A cluster may lose all its cells on the way, and is then dropped;
    none is added.

    Parameters
    ----------
    adata
        Cells × genes on a linear scale, after :meth:`setup_anndata`; preferably 1,000–2,000 variable genes.
    resolution
        Of Leiden, on the graph of 10 neighbours. Each of several is trained from the same autoencoder and kept.
    hidden
        Widths of the encoder, the last one the latent dimensions; None: as the original program chooses for the number of
        cells, from 16 for up to 500 cells to 128 and 32 for more than 20,000.
    scale_by_batch
        Standardise the expression in each batch (``batch_key`` of :meth:`setup_anndata`) by itself. It removes shifts
        between batches, and real differences in composition with them.

    Notes
    -----
    Constants are those of the released program; it finds clusters by Louvain instead of Leiden.

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
        problems = Problems("DESC cannot be made")
        if not self.resolutions or min(self.resolutions) <= 0 or len(set(self.resolutions)) < len(self.resolutions):
            problems.add(f"Expected one or more different resolutions above 0, found {self.resolutions}.")
        if self.hidden is not None and (not self.hidden or min(self.hidden) < 1):
            problems.add(f"Expected widths of at least 1 in hidden, found {self.hidden}.")
        if adata is not None and self.scale_by_batch and self.batch_key_ is None:
            problems.add(
                "Expected a batch_key for scale_by_batch=True, found none. Name the column of obs: "
                'DESC.setup_anndata(adata, batch_key="batch").'
            )
        problems.raise_if_any()

    def train(
        self,
        *,
        max_epochs: int = 500,
        tolerance: float = 0.005,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the autoencoder, then the clusters at each resolution. Ctrl-C keeps what was learned.

        After Ctrl-C no further step is taken: clusters that are still to be trained stay as Leiden found them.

        Parameters
        ----------
        max_epochs, tolerance
            Of the training towards the clusters: it ends when, in 5 epochs, a smaller share of the cells than
            ``tolerance`` has changed its cluster, or after ``max_epochs``.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Seed of everything; the global random state is left alone.
        **trainer_kwargs
            Handed to ``lightning.Trainer``.

        Raises
        ------
        ValueError
            Where Leiden finds a single cluster.
        """
        counts, batches = self._training_data()
        scaled_together = batches if self.scale_by_batch else np.zeros_like(batches)
        self.scaling_ = Scaling.learn(counts, scaled_together, scale="unit", clip=CLIP)
        cells = Cells(counts, batches, self.scaling_, np.ones(counts.shape[1], dtype=bool))
        sizes = [counts.shape[1], *(self.hidden or default_hidden(len(cells)))]
        fit = partial(
            fit_cells,
            data=cells,
            rows=np.arange(len(cells)),
            batch_size=BATCH_SIZE,
            accelerator=accelerator,
            **trainer_kwargs,
        )
        self.interrupted_, self.is_trained_ = False, False
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            autoencoder = StackedAutoencoder(sizes)
            history = self._pretrain(autoencoder, fit)
            self.module = nn.ModuleDict({"encoder": autoencoder.encoder})
            latent = np.concatenate(list(self._encoded(cells)))
            results, found = [], []
            for resolution, labels in [(value, leiden(latent, value, N_NEIGHBORS, seed)) for value in self.resolutions]:
                clusters = SoftClusters(torch.as_tensor(centroids(latent, labels)))
                self.module = nn.ModuleDict({"encoder": copy.deepcopy(autoencoder.encoder), "clusters": clusters})
                history |= self._train_clusters(cells, resolution, fit, max_epochs, tolerance)
                results.append(self.module)
                found.append(f"{self._count_clusters()} at resolution {resolution:g}")
        self.module, self.history_ = _join(results), history
        self.summary_ = f"{', '.join(found)}; {len(cells):,} cells, {sizes[0]:,} genes, {sizes[-1]} latent dimensions"
        self.seed_, self.is_trained_ = seed, True

    def _pretrain(self, autoencoder: StackedAutoencoder, fit: Callable[..., Any]) -> dict[str, pd.DataFrame]:
        """Train the layers one after the other, then all together; return the losses by epoch."""
        n_layers = len(autoencoder.encoder) // 2
        phases: dict[str, tuple[Callable[[CellBatch], torch.Tensor], Sequence[float]]] = {
            f"layer_{layer + 1}": (partial(autoencoder.layer_loss, layer), LAYER_RATES) for layer in range(n_layers)
        }
        phases["autoencoder"] = (autoencoder.reconstruction_loss, FINE_TUNING_RATES)
        history = {}
        for name, (loss, rates) in phases.items():
            losses: list[float] = []
            for rate in rates:
                if self.interrupted_:
                    break
                plan = fit(
                    autoencoder,
                    loss=loss,
                    optimizer=partial(torch.optim.SGD, lr=rate, momentum=0 if name == "autoencoder" else MOMENTUM),
                    description=f"pretraining DESC: {name.replace('_', ' ')}",
                    **PRETRAINING,
                )
                losses += plan.losses["train_loss"]
                self.interrupted_ = plan.stop
            epochs = pd.RangeIndex(1, len(losses) + 1, name="epoch")
            history[f"{name}_train_loss"] = pd.DataFrame({f"{name}_train_loss": losses}, index=epochs)
        return history

    def _train_clusters(
        self, cells: Cells, resolution: float, fit: Callable[..., Any], max_epochs: int, tolerance: float
    ) -> dict[str, pd.DataFrame]:
        """Train the encoder and the centroids in ``module`` by the clustering loss alone; return losses and changes."""
        self_training = SelfTraining(partial(self._assign, cells), tolerance, UPDATE_INTERVAL)

        def loss(batch: CellBatch) -> torch.Tensor:
            return clustering_loss(self_training.targets[batch.rows], self.module["clusters"](self._encode(batch.x)))

        plan = fit(
            self.module,
            loss=loss,
            optimizer=partial(torch.optim.SGD, lr=CLUSTERING_RATE, momentum=MOMENTUM),
            max_epochs=0 if self.interrupted_ else max_epochs,
            before_epoch=self_training,
            description=f"training DESC at resolution {resolution:g}",
        )
        self.interrupted_ = self.interrupted_ or plan.stop
        self._name_clusters(cells)
        # as in the methods that read results: the first resolution needs no name
        suffix = "" if resolution == self.resolutions[0] else f"_{resolution:g}"
        curves = plan.history() | {"label_change": self_training.history()}
        return {name + suffix: curve.set_axis([name + suffix], axis=1) for name, curve in curves.items()}

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        latent: torch.Tensor = self.module["encoder"](x)
        return latent

    def _make_module(self, arrays: dict[str, np.ndarray]) -> nn.ModuleDict:
        weights = [array for name, array in arrays.items() if name.startswith("encoder.") and array.ndim == 2]
        sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
        every = [array for name, array in arrays.items() if name.endswith("clusters.centroids")]
        return _join(
            [
                nn.ModuleDict({"encoder": layers_to_tanh(sizes), "clusters": SoftClusters(torch.as_tensor(array))})
                for array in every
            ]
        )

    def _at(self, resolution: float | None) -> Self:
        """Return the model with the result of one resolution as its first."""
        if resolution is None or resolution == self.resolutions[0]:
            return self
        if resolution not in self.resolutions:
            msg = f"Expected one of the resolutions {self.resolutions}, found {resolution}. Train a model with it."
            raise ValueError(msg)
        model = copy.copy(self)
        if self.is_trained_:
            others: Any = self.module["others"]
            model.module = others[self.resolutions.index(resolution) - 1]
        return model

    def get_latent_representation(
        self, adata: AnnData | None = None, *, layer: str | None = None, resolution: float | None = None
    ) -> np.ndarray:
        """Return the latent representation, cells × dimensions.

        Parameters
        ----------
        adata
            New cells, whose genes are found by name; by default those that the model was made with. Not changed.
        layer
            Layer of ``adata`` to read instead of ``X``.
        resolution
            Whose clusters the encoder was trained towards; by default the first.
        """
        return super(DESC, self._at(resolution)).get_latent_representation(adata, layer=layer)

    def get_soft_assignments(
        self, adata: AnnData | None = None, *, layer: str | None = None, resolution: float | None = None
    ) -> pd.DataFrame:
        """Return how much each cell belongs to each cluster: cells × clusters, rows sum to 1.

        Clusters are named ``"0"``, ``"1"``, ... from the largest to the smallest.

        Parameters
        ----------
        adata, layer
            As for :meth:`get_latent_representation`.
        resolution
            Whose clusters; by default the first.
        """
        return super(DESC, self._at(resolution)).get_soft_assignments(adata, layer=layer)

    def get_clusters(
        self, adata: AnnData | None = None, *, layer: str | None = None, resolution: float | None = None
    ) -> pd.Series:
        """Return the cluster that each cell belongs to most, as a categorical.

        Parameters
        ----------
        adata, layer, resolution
            As for :meth:`get_soft_assignments`.
        """
        return super(DESC, self._at(resolution)).get_clusters(adata, layer=layer)


def _join(results: Sequence[nn.ModuleDict]) -> nn.ModuleDict:
    """Return the first result, with the others in it."""
    first, *others = results
    return nn.ModuleDict({**first, "others": nn.ModuleList(others)})
