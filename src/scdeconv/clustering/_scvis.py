"""scvis (Ding et al. 2018): a map of cells in two dimensions that new cells can be put on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scdeconv._data.validation import Problems
from scdeconv._nn import fit_cells, layers, linear

from ._base import CellModel
from ._cells import Scaling
from ._tsne_terms import map_divergence, neighbour_probabilities

if TYPE_CHECKING:
    from anndata import AnnData

N_LATENT = 2
MAX_PCS = 100
ENCODER = (128, 64, 32)
DECODER = (32, 32, 32, 64, 128)
MEAN_DROPOUT = 0.1
VARIANCE_BOUNDS = (1e-6, 1e10)
DOF_BOUNDS = (0.1, 10.0)
WEIGHT_BOUNDS = (0.01, 2.0)
SMOOTHING = 0.1
LEAST_KL_WEIGHT = 0.1
L2 = 1e-3
ADAM_EPSILON = 1e-3
CLIP_NORM = 10.0
CLIP_VALUE = 3.0
CLIP_VALUE_OF_VARIANCE = 0.3
EPOCHS = 100
STEP_BOUNDS = (3000, 30000)


class ScvisNetwork(nn.Module):
    """Encoder to the map and decoder from it.

    Parameters
    ----------
    projection
        Genes × principal components: from centred log expression to the encoder's input.
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

    def encode(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance on the map, each cells × 2."""
        hidden = self.encoder(scores)
        # the original drops weights, not units
        weight = nn.functional.dropout(self.mean.weight, MEAN_DROPOUT, self.training)
        return nn.functional.linear(hidden, weight, self.mean.bias), _positive(self.variance(hidden))

    def log_likelihood(self, scores: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the log-likelihood of each cell at its place on the map: Student's t in each principal component."""
        hidden = self.decoder(z)
        scale = _positive(self.squared_scale(hidden)).sqrt()
        distribution = torch.distributions.StudentT(self.dof.clamp(*DOF_BOUNDS), self.location(hidden), scale)
        return distribution.log_prob(scores).sum(dim=1)

    def objective(self, scores: torch.Tensor, step: int, perplexity: float) -> torch.Tensor:
        """Return what training minimises in its ``step``-th step, counted from 1.

        The divergence from the prior starts with a large weight, that of t-SNE with a small one.
        """
        n_pcs = scores.shape[1]
        p = neighbour_probabilities(scores, perplexity)
        mean, variance = self.encode(scores)
        z = mean + variance.sqrt() * torch.randn_like(mean)
        # cells that are neighbours of many count more than outliers
        log_likelihood = (p.sum(dim=0).clamp(*WEIGHT_BOUNDS) * self.log_likelihood(scores, z)).mean()
        kl = 0.5 * (mean.square() + variance - variance.log() - 1).sum(dim=1).mean()
        elbo = log_likelihood - max(LEAST_KL_WEIGHT, n_pcs / step) * kl
        l2 = sum(weight.square().sum() for weight in self.parameters() if weight.ndim == 2) / 2
        return min(step, n_pcs) * map_divergence(p, z, smoothing=SMOOTHING) + L2 * l2 - elbo

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Return Adam, which clips the gradients before each step: their norm, then each value."""
        of_variance = list(self.variance.parameters())
        others = [parameter for name, parameter in self.named_parameters() if not name.startswith("variance.")]
        groups = [
            {"params": of_variance, "clip_value": CLIP_VALUE_OF_VARIANCE},
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


@dataclass
class Scores:
    """Principal components of the cells to train on, cells × components."""

    values: torch.Tensor

    def batch(self, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return these cells, on the device."""
        return self.values[rows].to(device)


class Scvis(CellModel):
    """A map of cells in two dimensions, made by a network, so that new cells can be put on it without training again.

    A variational autoencoder of the first principal components of log expression, whose two latent dimensions are the map.
    A t-SNE term keeps neighbours together, the decoder keeps the large-scale structure.

    Parameters
    ----------
    adata
        Cells × genes: counts, or other expression on a linear scale, after :meth:`setup_anndata`. Batches are not told
        apart.
    n_pcs
        Number of principal components that are read, at most 100; fewer where there are not so many cells or genes.
    perplexity
        About how many neighbours of a cell in its mini-batch are to stay near it.

    Raises
    ------
    ValueError
        One report of every parameter that is out of range.

    Notes
    -----
    Constants are those of the authors' program. It compares an entropy in nats with the base-2 logarithm of its perplexity,
    so that its 10 is in fact a perplexity of 28; here 10 is 10. Its map of new cells is random, as weights are dropped then
    too; here they are dropped in training only.

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
    module: ScvisNetwork

    def __init__(self, adata: AnnData | None = None, *, n_pcs: int = 50, perplexity: float = 10.0) -> None:
        problems = Problems("scvis cannot be set up")
        if not 2 <= n_pcs <= MAX_PCS:
            problems.add(f"Expected n_pcs from 2 to {MAX_PCS}, found {n_pcs}.")
        if not perplexity > 1:
            problems.add(f"Expected a perplexity above 1, found {perplexity:g}.")
        elif adata is not None and adata.n_obs <= perplexity + 1:
            problems.add(f"Expected more than {perplexity + 1:g} cells, found {adata.n_obs}. Lower the perplexity.")
        problems.raise_if_any()
        self.n_pcs, self.perplexity = n_pcs, perplexity
        super().__init__(adata, {"n_pcs": n_pcs, "perplexity": perplexity})

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
        """Find the principal components, then train the network. Ctrl-C ends training and keeps what was learned.

        Parameters
        ----------
        max_epochs
            Passes over the cells; None: 100, but at least 3,000 and at most 30,000 steps.
        batch_size
            Most cells in a step. Batches are made equally large, as a cell's neighbours are sought within its batch.
        learning_rate
            Of Adam.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Seed of everything; the global random state is left alone.
        **trainer_kwargs
            Handed to ``lightning.Trainer``.
        """
        counts, _ = self._training_data()
        n_cells = counts.shape[0]
        n_batches = math.ceil(n_cells / batch_size)
        if max_epochs is None:
            max_epochs = math.ceil(np.clip(EPOCHS * n_batches, *STEP_BOUNDS) / n_batches)
        self.scaling_, projection, scores = self._principal_components(counts, seed)
        steps = count(1)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            module = self.module = ScvisNetwork(torch.as_tensor(projection, dtype=torch.float32))
            plan = fit_cells(
                module,
                Scores(torch.as_tensor(scores, dtype=torch.float32)),
                lambda batch: module.objective(batch, next(steps), self.perplexity),
                rows=np.arange(n_cells),
                optimizer=lambda _: module.optimizer(learning_rate),
                max_epochs=max_epochs,
                batch_size=math.ceil(n_cells / n_batches),
                description="training scvis",
                accelerator=accelerator,
                **trainer_kwargs,
            )
        self.history_ = plan.history()
        self.summary_ = (
            f"{n_cells} cells, {len(self.genes_)} genes, {projection.shape[1]} principal components, "
            f"{len(self.history_['train_loss'])} epochs"
        )
        self.seed_, self.interrupted_, self.is_trained_ = seed, plan.stop, True

    def _principal_components(self, counts: Any, seed: int) -> tuple[Scaling, np.ndarray, np.ndarray]:
        """Return how counts become centred, what then projects them on the components, and the cells projected.

        Log expression stays sparse. Its centre is kept as the scaling's mean, so that a missing gene says nothing.
        """
        from sklearn.decomposition import PCA

        scaling = Scaling.learn(counts, np.zeros(counts.shape[0], dtype=int), scale=None)
        logs, _ = scaling.log_expression(counts)
        pca = PCA(min(self.n_pcs, min(logs.shape) - 1), svd_solver="arpack", random_state=seed)
        scores = pca.fit_transform(logs)
        largest = np.abs(scores).max()
        scaling.mean = pca.mean_[None]
        return scaling, pca.components_.T / largest, scores / largest

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.encode(x @ self.module.projection)[0]

    def _make_module(self, arrays: dict[str, np.ndarray]) -> ScvisNetwork:
        return ScvisNetwork(torch.as_tensor(arrays["projection"]))

    @torch.no_grad()
    def get_log_likelihood(self, adata: AnnData | None = None, *, layer: str | None = None) -> np.ndarray:
        """Return the log-likelihood of each cell at its place on the map; it is low for cells unlike those trained on.

        Parameters
        ----------
        adata
            New cells, whose genes are found by name; by default those that the model was made with. Not changed.
        layer
            Layer of ``adata`` to read instead of ``X``.
        """
        scores = (batch.x @ self.module.projection for batch in self._cells(adata, layer).chunks())
        return np.concatenate([self.module.log_likelihood(x, self.module.encode(x)[0]).numpy() for x in scores])
