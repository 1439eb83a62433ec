"""scDCC (Tian et al. 2021): scDeepCluster with must-link and cannot-link constraints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from scdeconv._data.checks import CELLS, WIDTHS, checked, examples
from scdeconv._nn import cannot_link_loss, must_link_loss

from ._initial_clusters import centroids, k_means
from ._scdeepcluster import ScDeepCluster
from ._self_training import Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scdeconv.pp import Constraints

    from ._cells import CellBatch, Cells
    from ._scdeepcluster import CountNetwork

# with the schedule of scDeepCluster, fewer constraints are satisfied, see docs/benchmarks/clustering.md
CONSTRAINED = Schedule(1350, np.asarray, lambda parameters, lr: torch.optim.Adadelta(parameters, lr=1.0, rho=0.95))
PAIR_LOSSES = {"must_link": must_link_loss, "cannot_link": cannot_link_loss}


class ScDCC(ScDeepCluster):
    """scDeepCluster with pairwise constraints: must-link (same cluster) and cannot-link (different clusters).

    Groups of must-linked cells with cannot-links between them are the seeds of k-means. Each step of the second phase
    also uses a batch of pairs. The constraint loss is the negative log-probability that the two cells are in the same
    cluster (must-link) or in different clusters (cannot-link).

    Parameters
    ----------
    adata
        Cells × genes, counts, after :meth:`setup_anndata`. Batch labels are not used.
    constraints
        From :func:`scdeconv.pp.constraints`; None: no constraints, as in :class:`ScDeepCluster`.
    must_link_weight, cannot_link_weight
        Weights of the constraints relative to the reconstruction loss.
    n_clusters, resolution, n_latent, hidden, noise, likelihood, gamma, scale
        As in :class:`ScDeepCluster`.

    Raises
    ------
    ValueError
        If parameters are out of range; all are reported, or if constraints are of cells that are not in ``adata``.

    Notes
    -----
    The original program takes separate steps for the constraints after each epoch, uses their cells without noise, adds
    the reconstruction loss of must-linked cells and starts from k-means without seeds. Here, each step includes pairs,
    and their cells have the same noise as the input of the autoencoder. Without noise, the model overfits if there are
    few constrained cells (``docs/benchmarks/clustering.md``). The second phase uses Adadelta, as the original. In the
    original scripts, the must-link weight is also used for cannot-links.

    References
    ----------
    Tian, Zhang, Lin, Wei, Hakonarson (2021), *Model-based deep embedding for constrained clustering analysis of single
    cell RNA-seq data*, Nature Communications 12:1873.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> cells.obs["known"] = cells.obs["cell_type"].where(cells.obs["donor"] == cells.obs["donor"].iloc[0])
    >>> constraints = scdeconv.pp.constraints(cells, labels_key="known", n_pairs=100)  # doctest: +ELLIPSIS
    constraints: ...
    >>> scdeconv.clustering.ScDCC.setup_anndata(cells)
    >>> model = scdeconv.clustering.ScDCC(cells, constraints=constraints, n_clusters=3)
    >>> model.train(pretrain_epochs=5, max_epochs=2)
    >>> 0 <= constraints.agreement(model.get_clusters()) <= 1
    True
    """

    method = "scdcc"

    @checked(adata=CELLS, hidden=WIDTHS)
    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        constraints: Constraints | None = None,
        must_link_weight: float = 1.0,
        cannot_link_weight: float = 1.0,
        n_clusters: int | None = None,
        resolution: float = 0.8,
        n_latent: int = 32,
        hidden: Sequence[int] = (256, 64),
        noise: float = 2.5,
        likelihood: Literal["nb", "zinb"] = "nb",
        gamma: float = 1.0,
        scale: Literal["pareto", "unit"] = "pareto",
    ) -> None:
        super().__init__(
            adata,
            n_clusters=n_clusters,
            resolution=resolution,
            n_latent=n_latent,
            hidden=hidden,
            noise=noise,
            likelihood=likelihood,
            gamma=gamma,
            scale=scale,
        )
        self.weights = {"must_link": must_link_weight, "cannot_link": cannot_link_weight}
        self.parameters_ |= {f"{name}_weight": weight for name, weight in self.weights.items()}
        self.pairs: dict[str, np.ndarray] = {}
        self.groups: list[np.ndarray] = []
        if adata is None or constraints is None:
            return
        rows = adata.obs_names.get_indexer(constraints.cells)
        linked = {name: getattr(constraints, name) for name in self.weights}
        positions = np.unique(np.concatenate([pairs.ravel() for pairs in linked.values()]))
        unknown = constraints.cells[positions[rows[positions] < 0]]
        if len(unknown):
            msg = (
                f"Expected constraints for cells in adata, found {len(unknown)} other cells: {examples(unknown)}. "
                "Create constraints with pp.constraints from these cells."
            )
            raise ValueError(msg)
        self.pairs = {name: rows[pairs] for name, pairs in linked.items() if len(pairs)}
        self.groups = [rows[group] for group in constraints.distinct_groups()]

    @property
    def _schedule(self) -> Schedule:
        return CONSTRAINED if self.pairs else super()._schedule

    def _k_means(self, points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
        """Return clusters of k-means initialised at the seeds; clusters without a seed start at unseeded centroids."""
        labels = super()._k_means(points, n_clusters, seed)
        if not self.groups:
            return labels
        seeds = [points[cells].mean(axis=0) for cells in self.groups[:n_clusters]]
        candidates = list(centroids(points, labels))
        while len(seeds) < n_clusters:
            distances = [min(np.square(centre - other).sum() for other in seeds) for centre in candidates]
            seeds.append(candidates.pop(int(np.argmax(distances))))
        return k_means(points, np.stack(seeds), seed)

    def _joint_loss(
        self, network: CountNetwork, batch: CellBatch, targets: torch.Tensor, cells: Cells, batch_size: int
    ) -> torch.Tensor:
        loss = super()._joint_loss(network, batch, targets, cells, batch_size)
        for name, pairs in self.pairs.items():
            # each pair once per epoch on average, at most one batch of pairs per step
            n_pairs = min(batch_size, -(-len(pairs) * len(batch.rows) // len(cells)))
            some = pairs[torch.randint(len(pairs), (n_pairs,)).numpy()]
            inputs = [network.autoencoder.add_noise(cells.batch(rows, batch.x.device).x) for rows in some.T]
            first, second = (network.assign(x) for x in inputs)
            loss = loss + self.weights[name] * PAIR_LOSSES[name](first, second)
        return loss
