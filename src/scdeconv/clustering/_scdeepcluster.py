"""scDeepCluster (Tian et al. 2019): a denoising autoencoder of counts, trained together with its clusters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scdeconv._data.validation import Problems
from scdeconv._nn import CountAutoencoder, SoftClusters, clustering_loss, fit_cells

from ._base import ClusteringModel
from ._cells import CellBatch, Cells, Scaling
from ._initial_clusters import centroids, k_means, leiden
from ._self_training import SelfTraining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

# of the graph on which Leiden finds the number of clusters
N_NEIGHBORS = 20


class ScDeepCluster(ClusteringModel):
    """A denoising autoencoder of counts whose latent space is shaped by the clusters in it.

    The autoencoder is trained alone first. Then k-means (or Leiden, where the number of clusters is not known) finds
    clusters in its latent space, and reconstruction and clustering loss are minimised together; the clusters' targets
    are refreshed every epoch, until hardly any cell changes its cluster.

    Parameters
    ----------
    adata
        Cells × genes, counts, after :meth:`setup_anndata`. Batches are not told apart.
    n_clusters
        Number of clusters; None: as many as Leiden finds at ``resolution``.
    resolution
        Of Leiden, on the graph of 20 neighbours.
    n_latent, hidden
        Latent dimensions, and widths of the encoder's hidden layers; the decoder has them the other way round.
    noise
        Standard deviation of the noise on the standardised input, in training.
    likelihood
        Of the counts: negative binomial (``"nb"``), or zero-inflated negative binomial (``"zinb"``).
    gamma
        Weight of the clustering loss beside the reconstruction.
    scale
        What each gene's log expression is divided by: the root of its standard deviation (``"pareto"``), or the standard
        deviation itself (``"unit"``), which makes genes that are hardly seen as loud as any.

    Notes
    -----
    Of the original's two programs the newer one, in PyTorch, is followed: noise is added to the input alone, and the
    clustering loss reads the input without noise. Its settings are ``likelihood="zinb", scale="unit"`` and
    ``pretrain_epochs=300``; the defaults here found the known cell types better and in less time
    (``docs/benchmarks/clustering.md``).

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> scdeconv.clustering.ScDeepCluster.setup_anndata(cells)
    >>> model = scdeconv.clustering.ScDeepCluster(cells, n_clusters=3, n_latent=8)
    >>> model.train(pretrain_epochs=5, max_epochs=2)
    >>> model.get_latent_representation().shape == (cells.n_obs, 8)
    True
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
        likelihood: Literal["nb", "zinb"] = "nb",
        gamma: float = 1.0,
        scale: Literal["pareto", "unit"] = "pareto",
    ) -> None:
        problems = Problems(f"{type(self).__name__} cannot be made")
        if likelihood not in ("nb", "zinb"):
            problems.add(f"Expected likelihood 'nb' or 'zinb', found {likelihood!r}.")
        if scale not in ("pareto", "unit"):
            problems.add(f"Expected scale 'pareto' or 'unit', found {scale!r}.")
        if not hidden or min(hidden) < 1:
            problems.add(f"Expected widths of at least 1 in hidden, found {list(hidden)}.")
        if n_clusters is not None and n_clusters < 2:
            problems.add(f"Expected at least 2 clusters, found n_clusters={n_clusters}.")
        if adata is not None and n_clusters is not None and n_clusters > adata.n_obs:
            problems.add(f"Expected at most as many clusters as cells ({adata.n_obs}), found n_clusters={n_clusters}.")
        problems.raise_if_any()
        self.n_clusters, self.resolution, self.gamma = n_clusters, resolution, gamma
        self.architecture: dict[str, Any] = {
            "n_latent": n_latent,
            "hidden": [int(width) for width in hidden],
            "noise": noise,
        }
        self.likelihood, self.scale = likelihood, scale
        parameters = {
            "n_clusters": n_clusters,
            "resolution": resolution,
            **self.architecture,
            "likelihood": likelihood,
            "gamma": gamma,
            "scale": scale,
        }
        super().__init__(adata, parameters)

    def train(
        self,
        *,
        pretrain_epochs: int = 150,
        max_epochs: int = 500,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        patience: int | None = None,
        tolerance: float = 1e-3,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the autoencoder, find clusters, train both. Ctrl-C ends training and keeps what was learned.

        After Ctrl-C while the autoencoder is trained, clusters are found, and stay as k-means or Leiden found them.

        Parameters
        ----------
        pretrain_epochs, learning_rate
            Of the autoencoder alone, by Adam.
        patience
            Hold a tenth of the cells out of it, stop after so many epochs in which their reconstruction has not become
            better, and go back to the best. By default all cells are learned from: clusters become clearer long after
            the reconstruction of new cells is at its best.
        max_epochs, tolerance
            Of the second phase, by Adadelta: it stops when a smaller share of cells than ``tolerance`` changes cluster.
        batch_size
            Cells in a step.
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
        self.is_trained_ = False
        self.scaling_ = Scaling.learn(counts, np.zeros_like(batches), self.scale)
        self.batch_size = batch_size
        cells = Cells(counts, batches, self.scaling_, np.ones(counts.shape[1], dtype=bool))
        every = np.arange(len(cells))
        rows, validation_rows = self._split(len(cells), np.random.default_rng(seed)) if patience else (every, every[:0])
        fit: Any = partial(fit_cells, data=cells, batch_size=batch_size, accelerator=accelerator, **trainer_kwargs)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            self.module = self._make_autoencoder(counts.shape[1])
            pretraining = fit(
                self.module,
                loss=self._reconstruction,
                rows=rows,
                validation_rows=validation_rows,
                optimizer=partial(torch.optim.Adam, lr=learning_rate, amsgrad=True),
                max_epochs=pretrain_epochs,
                patience=patience,
                description=f"training the autoencoder of {type(self).__name__}",
            )
            self.module["clusters"] = SoftClusters(self._start(np.concatenate(list(self._encoded(cells))), seed))
            self_training = SelfTraining(lambda: self._assign(cells), tolerance)

            def joint(batch: CellBatch) -> torch.Tensor:
                return self._joint_loss(batch, self_training.targets[batch.rows], cells)

            clustering = fit(
                self.module,
                loss=joint,
                rows=every,
                optimizer=partial(torch.optim.Adadelta, lr=1.0, rho=0.95),
                max_epochs=0 if pretraining.stop else max_epochs,
                before_epoch=self_training,
                description=f"training {type(self).__name__}",
            )
        self._name_clusters(cells)
        self.history_ = (
            pretraining.history("pretraining_") | clustering.history() | {"label_change": self_training.history()}
        )
        n_epochs = [len(plan.losses["train_loss"]) for plan in (pretraining, clustering)]
        self.summary_ = f"{self._count_clusters()} of {len(cells)} cells, {counts.shape[1]} genes, {n_epochs[0]} + {n_epochs[1]} epochs"
        self.interrupted_ = pretraining.stop or clustering.stop
        self.seed_, self.is_trained_ = seed, True

    def _make_autoencoder(self, n_genes: int) -> torch.nn.ModuleDict:
        autoencoder = CountAutoencoder(n_genes, **self.architecture, zero_inflated=self.likelihood == "zinb")
        return torch.nn.ModuleDict({"autoencoder": autoencoder})

    def _start(self, latent: np.ndarray, seed: int) -> torch.Tensor:
        """Return the centroids of k-means, or of Leiden where the number of clusters is not known."""
        if self.n_clusters is None:
            labels = leiden(latent, self.resolution, N_NEIGHBORS, seed)
        else:
            labels = k_means(latent, self.n_clusters, seed)
        return torch.as_tensor(centroids(latent, labels))

    def _reconstruction(self, batch: CellBatch) -> torch.Tensor:
        nll: torch.Tensor = self.module["autoencoder"].nll(batch.x, batch.counts, batch.size_factors)
        return nll

    def _joint_loss(self, batch: CellBatch, targets: torch.Tensor, cells: Cells) -> torch.Tensor:
        assignments = self.module["clusters"](self._encode(batch.x))
        return self.gamma * clustering_loss(targets, assignments) + self._reconstruction(batch)

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        latent: torch.Tensor = self.module["autoencoder"].encode(x)
        return latent

    def _make_module(self, arrays: dict[str, np.ndarray]) -> torch.nn.ModuleDict:
        module = self._make_autoencoder(len(self.genes_))
        module["clusters"] = SoftClusters(torch.as_tensor(arrays["clusters.centroids"]))
        return module
