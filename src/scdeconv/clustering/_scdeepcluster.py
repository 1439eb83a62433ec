"""scDeepCluster (Tian et al. 2019): joint training of a denoising autoencoder of counts and clusters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scdeconv._data.checks import CELLS, WIDTHS, checked, whole
from scdeconv._nn import (
    CountAutoencoder,
    SoftClusters,
    clustering_loss,
    fit_cells,
    seeded,
    trainer_arguments,
    weights_of,
)

from ._base import CellState
from ._cells import CellBatch, Cells, Scaling, encode_cells
from ._clustering_model import ClusteringModel, ClusterNetwork
from ._initial_clusters import centroids, even_spread, k_means, leiden
from ._self_training import Schedule, SelfTraining

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

# of the graph for Leiden; set by hand
N_NEIGHBORS = 20
# learning rate of the second phase relative to the first; chosen as SCHEDULE
SECOND_RATE = 0.2


def adam(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """Return Adam as in the original program; fused, which is faster on the CPU."""
    return torch.optim.Adam(parameters, lr=lr, amsgrad=True, fused=True)


# chosen on three data sets, see docs/benchmarks/clustering.md
SCHEDULE = Schedule(900, even_spread, lambda parameters, lr: adam(parameters, SECOND_RATE * lr))


class CountNetwork(ClusterNetwork):
    """Autoencoder of counts with clusters in latent space.

    Parameters
    ----------
    autoencoder
        Autoencoder of counts.
    clusters
        Centroids in latent space.
    """

    def __init__(self, autoencoder: CountAutoencoder, clusters: SoftClusters) -> None:
        super().__init__(clusters)
        self.autoencoder = autoencoder

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent representation of network input, without noise."""
        return self.autoencoder.encode(x)


def reconstruction_loss(autoencoder: CountAutoencoder, batch: CellBatch) -> torch.Tensor:
    """Return the mean negative log-likelihood of the counts."""
    return autoencoder.nll(batch.x, batch.counts, batch.size_factors)


class ScDeepCluster(ClusteringModel):
    """Joint training of a denoising autoencoder of counts and clusters in its latent space.

    First, the autoencoder is trained alone. Then k-means finds initial clusters in its latent space, on principal
    components divided by the square root of their standard deviation; if the number of clusters is unknown, Leiden
    finds them. Finally, the sum of reconstruction loss and clustering loss is minimised.
    The targets of the clustering loss are updated every epoch. Training stops if the share of cells that change their
    cluster is below ``tolerance``.

    Parameters
    ----------
    adata
        Cells × genes, counts, after :meth:`setup_anndata`. Batch labels are not used.
    n_clusters
        Number of clusters; None: the number of Leiden clusters at ``resolution``.
    resolution
        Resolution of Leiden on the graph of 20 neighbours.
    n_latent
        Number of latent dimensions.
    hidden
        Widths of the hidden layers of the encoder. The decoder has the same widths in reverse order.
    noise
        Standard deviation of the noise on the standardised input, in training.
    likelihood
        Distribution of the counts: negative binomial (``"nb"``) or zero-inflated negative binomial (``"zinb"``).
    gamma
        Weight of the clustering loss relative to the reconstruction loss.
    scale
        Divisor of the log expression of each gene: the square root of its standard deviation (``"pareto"``), or its
        standard deviation (``"unit"``), which gives rarely detected genes the same weight as others.

    Raises
    ------
    ValueError
        If parameters are out of range; all are reported.

    Notes
    -----
    The authors published two programs. This class follows the newer one, in PyTorch: noise is added to the input only,
    and the clustering loss uses the input without noise. Its settings are ``likelihood="zinb", scale="unit"`` and
    ``pretrain_epochs=300``, and Adadelta in the second phase. The defaults here recovered the known cell types better
    and in less time (``docs/benchmarks/clustering.md``).

    References
    ----------
    Tian, Wan, Song, Wei (2019), *Clustering single-cell RNA-seq data with a model-based deep learning approach*, Nature
    Machine Intelligence 1:191–198.

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

    @checked(adata=CELLS, hidden=WIDTHS)
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
        if adata is not None and n_clusters is not None and n_clusters > adata.n_obs:
            msg = (
                f"Expected at most as many clusters as cells ({adata.n_obs}), found n_clusters={n_clusters}. Lower it."
            )
            raise ValueError(msg)
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

    # without self-training, the clusters are those of the start
    @checked(max_epochs=whole(0), further=trainer_arguments)
    def train(
        self,
        *,
        pretrain_epochs: int | None = None,
        max_epochs: int = 500,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        patience: int | None = None,
        tolerance: float = 1e-3,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the autoencoder, find initial clusters, then train both.

        Ctrl-C stops the training and keeps the weights. Untrained clusters are those of k-means or Leiden.

        Parameters
        ----------
        pretrain_epochs
            Maximum number of epochs of the autoencoder alone; None: as many as 900 steps need (1,350 with constraints),
            at least 25 and at most 150.
        max_epochs
            Maximum number of epochs of the second phase.
        learning_rate
            Learning rate of Adam in the first phase; a fifth of it in the second phase. With constraints,
            the second phase uses Adadelta at rate 1.
        batch_size
            Number of cells in a step.
        patience
            Early stopping of the first phase: hold out 10 % of the cells, stop after this number of epochs without a
            lower loss on them, and restore the best weights. None: train on all cells. The separation of the clusters
            still improves after the best loss on held-out cells.
        tolerance
            The second phase stops if the share of cells that changed their cluster in an epoch is below this value.
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
        scaling = Scaling.learn(counts, np.zeros_like(batches), self.scale)
        cells = Cells.to_train_on(counts, batches, scaling)
        every = np.arange(len(cells))
        rows, validation_rows = self._split(len(cells), np.random.default_rng(seed)) if patience else (every, every[:0])
        fit: Any = partial(fit_cells, data=cells, batch_size=batch_size, accelerator=accelerator, **trainer_kwargs)
        with seeded(seed):
            autoencoder = self._make_autoencoder(counts.shape[1])
            pretraining = fit(
                autoencoder,
                loss=lambda batch: reconstruction_loss(autoencoder, batch),
                rows=rows,
                validation_rows=validation_rows,
                optimizer=partial(adam, lr=learning_rate),
                max_epochs=pretrain_epochs or self._schedule.pretrain_epochs(len(cells), batch_size),
                patience=patience,
                description=f"training the autoencoder of {type(self).__name__}",
            )
            network = CountNetwork(autoencoder, SoftClusters(self._start(encode_cells(autoencoder, cells), seed)))
            self_training = SelfTraining(lambda: network.assign_cells(cells), tolerance)

            def joint(batch: CellBatch) -> torch.Tensor:
                return self._joint_loss(network, batch, self_training.targets[batch.rows], cells, batch_size)

            clustering = fit(
                network,
                loss=joint,
                rows=every,
                optimizer=partial(self._schedule.optimizer, lr=learning_rate),
                max_epochs=0 if pretraining.stop else max_epochs,
                before_epoch=self_training,
                description=f"training {type(self).__name__}",
            )
        found = network.describe(network.sort_clusters(cells))
        n_epochs = " + ".join(str(len(plan.train_losses)) for plan in (pretraining, clustering))
        summary = f"{found} of {len(cells)} cells, {counts.shape[1]} genes, {n_epochs} epochs"
        history = pretraining.history("pretraining_") | clustering.history() | {"label_change": self_training.history()}
        self._store(
            CellState(scaling=scaling, weights=weights_of(network)),
            self._record(summary, history, seed=seed, interrupted=pretraining.stop or clustering.stop),
        )

    def _make_autoencoder(self, n_genes: int) -> CountAutoencoder:
        return CountAutoencoder(n_genes, **self.architecture, zero_inflated=self.likelihood == "zinb")

    @property
    def _schedule(self) -> Schedule:
        return SCHEDULE

    def _start(self, latent: np.ndarray, seed: int) -> torch.Tensor:
        """Return the centroids of k-means, or of Leiden if the number of clusters is unknown."""
        if self.n_clusters is None:
            labels = leiden(latent, self.resolution, N_NEIGHBORS, seed)
        else:
            labels = self._k_means(self._schedule.points(latent), self.n_clusters, seed)
        return torch.as_tensor(centroids(latent, labels))

    def _k_means(self, points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
        """Return the initial cluster of each cell."""
        return k_means(points, n_clusters, seed)

    def _joint_loss(
        self,
        network: CountNetwork,
        batch: CellBatch,
        targets: torch.Tensor,
        cells: Cells,
        batch_size: int,
    ) -> torch.Tensor:
        """Return the loss of the second phase; ``targets``: target distribution of the cells in the batch."""
        clustering = clustering_loss(targets, network.assign(batch.x))
        return self.gamma * clustering + reconstruction_loss(network.autoencoder, batch)

    def _make_network(self, weights: Mapping[str, np.ndarray]) -> CountNetwork:
        autoencoder = self._make_autoencoder(len(weights["autoencoder.log_mean.bias"]))
        return CountNetwork(autoencoder, SoftClusters(torch.empty(weights["clusters.centroids"].shape)))
