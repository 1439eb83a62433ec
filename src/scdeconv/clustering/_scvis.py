"""scvis (Ding et al. 2018): a two-dimensional embedding of cells to which new cells can be added."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scdeconv._data.checks import CELLS, checked
from scdeconv._nn import fit_cells, inference, layers, linear, seeded, trainer_arguments, weights_of

from ._base import CellModel, CellState
from ._cells import Scaling, Scores
from ._tsne_terms import map_divergence, neighbour_probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

N_LATENT = 2
MAX_PCS = 100
# constants of the authors' program
ENCODER = (128, 64, 32)
DECODER = (32, 32, 32, 64, 128)
MEAN_DROPOUT = 0.1
VARIANCE_BOUNDS = (1e-6, 1e10)
DOF_BOUNDS = (0.1, 10.0)
CELL_WEIGHT_BOUNDS = (0.01, 2.0)
TSNE_SMOOTHING = 0.1
MIN_KL_WEIGHT = 0.1
L2_WEIGHT = 1e-3
ADAM_EPSILON = 1e-3
CLIP_NORM = 10.0
CLIP_VALUE = 3.0
VARIANCE_CLIP_VALUE = 0.3
EPOCHS = 100
STEP_BOUNDS = (3000, 30000)


class ScvisNetwork(nn.Module):
    """Encoder from principal components to the embedding, and decoder back.

    Parameters
    ----------
    projection
        Genes × principal components: projects centred log expression on the input of the encoder.
    """

    projection: torch.Tensor

    def __init__(self, projection: torch.Tensor) -> None:
        super().__init__()
        n_pcs = projection.shape[1]
        self.register_buffer("projection", projection)
        self.encoder = layers([n_pcs, *ENCODER], nn.ELU)
        self.mean = linear(ENCODER[-1], N_LATENT)
        self.variance = linear(ENCODER[-1], N_LATENT)
        self.decoder = layers([N_LATENT, *DECODER], nn.ELU)
        self.location = linear(DECODER[-1], n_pcs)
        self.squared_scale = linear(DECODER[-1], n_pcs)
        self.dof = nn.Parameter(torch.ones(n_pcs))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embedding of centred log expression, cells × 2."""
        return self.posterior(x @ self.projection)[0]

    def posterior(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return posterior mean and variance in the embedding, each cells × 2."""
        hidden = self.encoder(scores)
        # the original drops weights, not units
        weight = nn.functional.dropout(self.mean.weight, MEAN_DROPOUT, self.training)
        return nn.functional.linear(hidden, weight, self.mean.bias), _positive(self.variance(hidden))

    def log_likelihood(self, scores: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the log-likelihood of each cell given its embedding: Student's t in each principal component."""
        hidden = self.decoder(z)
        scale = _positive(self.squared_scale(hidden)).sqrt()
        distribution = torch.distributions.StudentT(self.dof.clamp(*DOF_BOUNDS), self.location(hidden), scale)
        return distribution.log_prob(scores).sum(dim=1)

    def objective(self, scores: torch.Tensor, step: int, perplexity: float) -> torch.Tensor:
        """Return the loss of a training step, counted from 1.

        The weight of the Kullback-Leibler divergence decreases with the step; the weight of the t-SNE term increases.
        """
        n_pcs = scores.shape[1]
        p = neighbour_probabilities(scores, perplexity)
        mean, variance = self.posterior(scores)
        z = mean + variance.sqrt() * torch.randn_like(mean)
        # outliers, which are neighbours of few cells, get a lower weight
        log_likelihood = (p.sum(dim=0).clamp(*CELL_WEIGHT_BOUNDS) * self.log_likelihood(scores, z)).mean()
        kl = 0.5 * (mean.square() + variance - variance.log() - 1).sum(dim=1).mean()
        elbo = log_likelihood - max(MIN_KL_WEIGHT, n_pcs / step) * kl
        l2 = sum(weight.square().sum() for weight in self.parameters() if weight.ndim == 2) / 2
        return min(step, n_pcs) * map_divergence(p, z, smoothing=TSNE_SMOOTHING) + L2_WEIGHT * l2 - elbo

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Return Adam with gradient clipping before each step: by norm, then by value."""
        of_variance = list(self.variance.parameters())
        others = [parameter for name, parameter in self.named_parameters() if not name.startswith("variance.")]
        groups = [
            {"params": of_variance, "clip_value": VARIANCE_CLIP_VALUE},
            {"params": others, "clip_value": CLIP_VALUE},
        ]
        optimizer = torch.optim.Adam(groups, lr=learning_rate, eps=ADAM_EPSILON)
        optimizer.register_step_pre_hook(_clip_gradients)
        return optimizer


def _positive(values: torch.Tensor) -> torch.Tensor:
    return nn.functional.softplus(values).clamp(*VARIANCE_BOUNDS)


def _clip_gradients(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    groups = optimizer.param_groups
    nn.utils.clip_grad_norm_([parameter for group in groups for parameter in group["params"]], CLIP_NORM)
    for group in groups:
        nn.utils.clip_grad_value_(group["params"], group["clip_value"])


class Scvis(CellModel):
    """Two-dimensional embedding of cells by a network. New cells are embedded without retraining.

    A variational autoencoder of the first principal components of log expression. Its two latent dimensions are the
    embedding. A t-SNE term preserves neighbourhoods; the reconstruction loss preserves the large-scale structure.

    Parameters
    ----------
    adata
        Cells × genes, counts or other expression on a linear scale, after :meth:`setup_anndata`. Batch labels are not
        used.
    n_pcs
        Number of principal components, at most 100 and at most the number of cells and of genes.
    perplexity
        Perplexity of the t-SNE term: approximate number of neighbours of a cell in its mini-batch.

    Raises
    ------
    ValueError
        If parameters are out of range; all are reported.

    Notes
    -----
    Constants are those of the authors' program. The program compares an entropy in nats with the base-2 logarithm of
    the perplexity, so its perplexity of 10 corresponds to 28. Here the natural logarithm is used. The program also uses
    dropout of weights to embed new cells, which makes the embedding random. Here dropout is used in training only.

    References
    ----------
    Ding, Condon, Shah (2018), *Interpretable dimensionality reduction of single cell transcriptome data with deep
    generative models*, Nature Communications 9:2002.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> scdeconv.clustering.Scvis.setup_anndata(cells)
    >>> model = scdeconv.clustering.Scvis(cells, n_pcs=20)
    >>> model.train(max_epochs=5)
    >>> model.get_latent_representation().shape == (cells.n_obs, 2)
    True
    >>> model.get_log_likelihood(cells[:5]).shape
    (5,)
    """

    method = "scvis"
    whole_numbers = False

    @checked(adata=CELLS)
    def __init__(self, adata: AnnData | None = None, *, n_pcs: int = 50, perplexity: float = 10.0) -> None:
        if adata is not None and adata.n_obs <= perplexity + 1:
            msg = f"Expected more than {perplexity + 1:g} cells, found {adata.n_obs}. Lower the perplexity."
            raise ValueError(msg)
        self.n_pcs, self.perplexity = n_pcs, perplexity
        super().__init__(adata, {"n_pcs": n_pcs, "perplexity": perplexity})

    @checked(further=trainer_arguments)
    def train(
        self,
        *,
        max_epochs: int | None = None,
        batch_size: int = 512,
        learning_rate: float = 0.01,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Compute the principal components, then train the network. Ctrl-C stops the training and keeps the weights.

        Parameters
        ----------
        max_epochs
            Number of epochs; None: 100, but at least 3,000 and at most 30,000 steps.
        batch_size
            Maximum number of cells in a step. Batches have equal size, because neighbours are found within a batch.
        learning_rate
            Learning rate of Adam.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Random seed. The global random state does not change.
        **trainer_kwargs
            Further arguments of ``lightning.Trainer``.

        Raises
        ------
        RuntimeError
            If the model was loaded and has no training cells.
        """
        counts, _ = self._training_data()
        n_cells, n_genes = counts.shape
        n_batches = math.ceil(n_cells / batch_size)
        if max_epochs is None:
            max_epochs = math.ceil(np.clip(EPOCHS * n_batches, *STEP_BOUNDS) / n_batches)
        scaling, projection, scores = self._principal_components(counts, seed)
        steps = count(1)
        with seeded(seed):
            network = ScvisNetwork(torch.as_tensor(projection, dtype=torch.float32))
            plan = fit_cells(
                network,
                Scores(torch.as_tensor(scores, dtype=torch.float32)),
                lambda batch: network.objective(batch, next(steps), self.perplexity),
                rows=np.arange(n_cells),
                optimizer=lambda _: network.optimizer(learning_rate),
                max_epochs=max_epochs,
                batch_size=math.ceil(n_cells / n_batches),
                description="training scvis",
                accelerator=accelerator,
                **trainer_kwargs,
            )
        summary = (
            f"{n_cells} cells, {n_genes} genes, {projection.shape[1]} principal components, "
            f"{len(plan.train_losses)} epochs"
        )
        self._store(
            CellState(scaling=scaling, weights=weights_of(network)),
            self._record(summary, plan.history(), seed=seed, interrupted=plan.stop),
        )

    def _principal_components(self, counts: Any, seed: int) -> tuple[Scaling, np.ndarray, np.ndarray]:
        """Return the scaling to centred log expression, the projection on the components, and the projected cells.

        Log expression stays sparse. The scaling subtracts the mean, so that the input of a missing gene is 0.
        """
        from sklearn.decomposition import PCA

        uncentred = Scaling.learn(counts, np.zeros(counts.shape[0], dtype=int), scale=None)
        logs, _ = uncentred.log_expression(counts)
        pca = PCA(min(self.n_pcs, min(logs.shape) - 1), svd_solver="arpack", random_state=seed)
        scores = pca.fit_transform(logs)
        largest = np.abs(scores).max()
        return replace(uncentred, mean=pca.mean_[None]), pca.components_.T / largest, scores / largest

    def _make_network(self, weights: Mapping[str, np.ndarray]) -> ScvisNetwork:
        return ScvisNetwork(torch.empty(weights["projection"].shape))

    @inference()
    @checked(adata=CELLS)
    def get_log_likelihood(self, adata: AnnData | None = None, *, layer: str | None = None) -> np.ndarray:
        """Return the log-likelihood of each cell given its embedding.

        It is low for cells that differ from the training cells.

        Parameters
        ----------
        adata
            New cells. Genes are matched by name; the object is not changed. None: the training cells.
        layer
            Layer of ``adata`` to read instead of ``X``.

        Returns
        -------
        One value for each cell.

        Raises
        ------
        RuntimeError
            If the model is not trained, or if ``adata`` is None for a loaded model.
        ValueError
            If the cells cannot be read or lack half of the genes of the model.
        """
        scores = (batch.x @ self.module.projection for batch in self._cells(adata, layer).chunks())
        return np.concatenate([self.module.log_likelihood(x, self.module.posterior(x)[0]).numpy() for x in scores])
