"""scDCC (Tian et al. 2021): scDeepCluster with pairs of cells that must, or must not, be in one cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scdeconv._validation import examples
from scdeconv.nn import cannot_link_loss, must_link_loss

from ._scdeepcluster import ScDeepCluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scdeconv.pp import Constraints

    from ._cells import CellBatch, Cells


class ScDCC(ScDeepCluster):
    """scDeepCluster that is told pairs of cells which belong together, or apart.

    Each step of the second phase also takes some pairs, in turn: of must-links the log-probability that both cells are
    in one cluster, and their reconstruction; of cannot-links the log-probability that they are not.

    Parameters
    ----------
    adata
        Cells × genes, counts, after :meth:`setup_anndata`.
    constraints
        From :func:`scdeconv.pp.constraints`; without any, this is :class:`ScDeepCluster`.
    must_link_weight, cannot_link_weight
        Weights of the constraints beside reconstruction and clustering loss.
    n_clusters, resolution, n_latent, hidden, noise, likelihood, gamma, scale
        As in :class:`ScDeepCluster`.

    Notes
    -----
    The original takes steps of its own for the constraints after each epoch; here they share the steps of the cells. In
    its scripts the weight of the must-links overwrites that of the cannot-links; not here.
    """

    method = "scdcc"

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
        if adata is not None and constraints is not None:
            rows = adata.obs_names.get_indexer(constraints.cells)
            for name in self.weights:
                pairs = rows[getattr(constraints, name)]
                if (pairs < 0).any():
                    unknown = constraints.cells[getattr(constraints, name)[pairs < 0]].unique()
                    msg = f"Expected constraints of cells in adata, found {len(unknown)} others: {examples(unknown)}."
                    raise ValueError(msg)
                if len(pairs):
                    self.pairs[name] = pairs

    def _joint_loss(self, batch: CellBatch, targets: torch.Tensor, cells: Cells) -> torch.Tensor:
        loss = super()._joint_loss(batch, targets, cells)
        for name, pairs in self.pairs.items():
            # each pair once in an epoch, or a full batch where there are many
            n_pairs = min(self.batch_size, -(-len(pairs) * len(batch.rows) // len(cells)))
            some = pairs[torch.randint(len(pairs), (n_pairs,)).numpy()]
            ends = [cells.batch(rows, batch.x.device) for rows in some.T]
            first, second = (self.module["clusters"](self._encode(end.x)) for end in ends)
            if name == "must_link":
                loss = loss + self.weights[name] * must_link_loss(first, second)
                loss = loss + self.weights[name] * sum(self._reconstruction(end) for end in ends)
            else:
                loss = loss + self.weights[name] * cannot_link_loss(first, second)
        return loss
