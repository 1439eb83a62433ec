"""Network input: sparse counts are converted to dense, normalised and scaled per mini-batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scdeconv._data.checks import examples
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.genes import find_genes
from scdeconv._data.matrix import Matrix
from scdeconv._nn import inference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData


# cells per dense chunk outside training, limits memory; set by hand
CHUNK_CELLS = 2048


@dataclass(frozen=True)
class Scaling:
    """Transformation of counts to network input: library-size normalisation, log1p, centring and scaling by gene.

    Parameters
    ----------
    total
        Total count that each cell is normalised to: the median over the training cells.
    mean
        Mean log expression that is subtracted, batches × genes; one row if batches are scaled together.
    sd
        Divisor of each gene after centring, batches × genes.
    clip
        Maximum absolute value of the result; None: no clipping.
    """

    total: float
    mean: np.ndarray
    sd: np.ndarray
    clip: float | None = None

    @classmethod
    def learn(
        cls, counts: Matrix, batches: np.ndarray, scale: Literal["pareto", "unit"] | None, *, clip: float | None = None
    ) -> Scaling:
        """Estimate the scaling in one pass over the cells.

        Parameters
        ----------
        counts
            Cells × genes.
        batches
            Batch code of each cell; selects mean and standard deviation.
        scale
            ``"unit"`` divides each gene by its standard deviation, so that rarely detected genes have the same weight as
            others. ``"pareto"`` (van den Berg et al. 2006) divides by the square root of the standard deviation, and all
            genes by a common factor that makes their mean variance 1. None leaves log expression unchanged.
        clip
            Maximum absolute value of the network input; None: no clipping.

        Returns
        -------
        The scaling. It maps a constant gene to 0.
        """
        n_genes, n_batches = counts.shape[1], int(batches.max()) + 1
        totals = _totals(counts)
        total = float(np.median(totals))
        mean, sd = np.zeros((n_batches, n_genes)), np.ones((n_batches, n_genes))
        if scale is not None:
            for batch in range(n_batches):
                members = np.flatnonzero(batches == batch)
                squares = np.zeros(n_genes)
                for rows in _chunks(members):
                    logs = _log_expression(counts[rows], totals[rows] / total)
                    mean[batch] += np.asarray(logs.sum(axis=0)).ravel() / len(members)
                    squares += np.asarray(logs.multiply(logs).sum(axis=0)).ravel() / len(members)
                variance = squares - mean[batch] ** 2
                # rounding errors: the variance of a constant gene may differ from 0
                varies = variance > 1e-12 * np.maximum(squares, 1e-12)
                sd[batch, varies] = np.sqrt(variance[varies])
                if scale == "pareto" and varies.any():
                    sd[batch, varies] = np.sqrt(sd[batch, varies] * sd[batch, varies].mean())
        return cls(total, mean, sd, clip)

    def log_expression(self, counts: Matrix) -> tuple[sp.csr_matrix, np.ndarray]:
        """Return log expression before centring, sparse, and the size factor of each cell."""
        factors = _totals(counts) / self.total
        return _log_expression(counts, factors), factors

    def apply(self, counts: Matrix, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the network input, dense, cells × genes, and the size factor of each cell."""
        logs, factors = self.log_expression(counts)
        x = (logs.toarray() - self.mean[batches]) / self.sd[batches]
        return x if self.clip is None else np.clip(x, -self.clip, self.clip), factors


def _totals(counts: Matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1), dtype=float).ravel()


def _log_expression(counts: Matrix, factors: np.ndarray) -> sp.csr_matrix:
    # cells without counts in the model's genes would divide by 0
    inverse = np.divide(1, factors, out=np.zeros_like(factors), where=factors > 0)
    return sp.csr_matrix(sp.diags(inverse) @ sp.csr_matrix(counts)).log1p()


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    yield from (rows[start : start + CHUNK_CELLS] for start in range(0, len(rows), CHUNK_CELLS))


@dataclass(frozen=True)
class CellBatch:
    """Cells as tensors.

    Parameters
    ----------
    rows
        Index of each cell.
    x
        Network input, cells × genes.
    counts
        Cells × genes.
    size_factors
        Total count of each cell, divided by the total of the scaling.
    batches
        Number of the batch of each cell.
    """

    rows: torch.Tensor
    x: torch.Tensor
    counts: torch.Tensor
    size_factors: torch.Tensor
    batches: torch.Tensor


@dataclass(frozen=True)
class Cells:
    """Counts of cells, and their transformation to network input.

    Parameters
    ----------
    counts
        Cells × genes, sparse or dense.
    batches
        Number of the batch of each cell.
    scaling
        The transformation.
    present
        Whether each gene of the model was measured. The input of missing genes is 0, the mean.
    """

    counts: Matrix
    batches: np.ndarray
    scaling: Scaling
    present: np.ndarray

    @classmethod
    def to_train_on(cls, counts: Matrix, batches: np.ndarray, scaling: Scaling) -> Cells:
        """Return training cells, in which all genes are present."""
        return cls(counts, batches, scaling, np.ones(counts.shape[1], dtype=bool))

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def batch(self, rows: np.ndarray, device: torch.device) -> CellBatch:
        """Return cells by index, on the device."""
        counts = self.counts[rows]
        codes = self.batches[rows]
        # batches that are scaled together share the first row
        x, factors = self.scaling.apply(counts, codes if len(self.scaling.mean) > 1 else np.zeros_like(codes))
        x[:, ~self.present] = 0
        dense = counts.toarray() if sp.issparse(counts) else counts

        def tensor(values: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        return CellBatch(tensor(rows, torch.long), tensor(x), tensor(dense), tensor(factors), tensor(codes, torch.long))

    def chunks(self) -> Iterator[CellBatch]:
        """Yield all cells in order, one chunk at a time, on the CPU."""
        yield from (self.batch(rows, torch.device("cpu")) for rows in _chunks(np.arange(len(self))))


@dataclass(frozen=True)
class Scores:
    """Principal components of the training cells, cells × components."""

    values: torch.Tensor

    def batch(self, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return cells by index, on the device."""
        return self.values[rows].to(device)


def read_cells(
    adata: AnnData,
    scaling: Scaling,
    *,
    genes: pd.Index,
    batch_key: str | None,
    batches: Sequence[str],
    layer: str | None = None,
) -> Cells:
    """Return new cells for a trained model.

    Parameters
    ----------
    adata
        Cells × genes. Not changed.
    scaling
        Transformation of the model.
    genes
        Genes of the model, matched by name.
    batch_key
        Column of ``obs`` with the batch; needed if batches were scaled separately.
    batches
        Names of the batches of the model.
    layer
        Layer to read instead of ``X``.

    Raises
    ------
    ValueError
        If the cells cannot be read, lack half of the genes, or are of unknown batches.
    KeyError
        If the column with the batch is missing.
    """
    counts, columns = find_genes(adata, strip_versions(genes), layer=layer)
    present = columns >= 0
    counts = counts[:, columns * present]
    if not present.all():
        counts = sp.csr_matrix(counts) @ sp.diags(present.astype(float))
    empty = adata.obs_names[np.asarray(counts.sum(axis=1)).ravel() == 0]
    if len(empty):
        msg = (
            f"Expected counts in every cell in the genes of the model, found none in {len(empty)} cells: "
            f"{examples(empty)}. Remove these cells."
        )
        raise ValueError(msg)
    together = len(scaling.mean) == 1
    codes = np.zeros(adata.n_obs, dtype=int) if together else _batch_codes(adata, batch_key, batches)
    return Cells(counts, codes, scaling, present)


def _batch_codes(adata: AnnData, key: str | None, batches: Sequence[str]) -> np.ndarray:
    if key not in adata.obs:
        msg = (
            f"Expected obs[{key!r}] in adata with the batches {examples(batches)}, found {list(adata.obs)}. Add the "
            "column."
        )
        raise KeyError(msg)
    codes = pd.Index(batches).get_indexer(adata.obs[key].astype(str))
    if (codes < 0).any():
        unknown = adata.obs[key][codes < 0].unique()
        msg = f"Expected the batches {examples(batches)} in obs[{key!r}], found {examples(unknown)}. Train again."
        raise ValueError(msg)
    return codes


class Encoder(Protocol):
    """A network with a latent representation."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent representation of network input, cells × dimensions."""


@inference()
def encode_cells(network: Encoder, cells: Cells) -> np.ndarray:
    """Return the latent representation of all cells."""
    return np.concatenate([network.encode(batch.x).numpy() for batch in cells.chunks()])
