"""Single cells as the networks see them: sparse counts that become dense, normalised and scaled batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scdeconv._data.matrix import Matrix

# cells that are made dense at once outside training
CHUNK = 2048


@dataclass
class Scaling:
    """How counts become input: brought to one total, log1p, then centred and scaled gene by gene.

    Parameters
    ----------
    total
        Total to which each cell is brought: the median over the cells it was learned from.
    mean, sd
        What is taken from each gene's log expression, and what it is divided by: batches × genes (one row where batches
        are scaled together).
    clip
        Largest absolute value afterwards.
    """

    total: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    clip: np.ndarray

    @classmethod
    def learn(
        cls, counts: Matrix, batches: np.ndarray, scale: Literal["pareto", "unit"] | None, *, clip: float = np.inf
    ) -> Scaling:
        """Learn from counts (cells × genes) in one pass; ``batches`` numbers the batch whose mean and sd a cell gets.

        ``"unit"`` divides each gene by its standard deviation, so that genes that are hardly seen weigh as much as any;
        ``"pareto"`` (van den Berg et al. 2006) by its square root, and all genes by what makes their mean variance 1.
        Without, log expression stays as it is. A constant gene becomes 0.
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
                # what rounding leaves of a constant gene is no variance
                varies = variance > 1e-12 * np.maximum(squares, 1e-12)
                sd[batch, varies] = np.sqrt(variance[varies])
                if scale == "pareto" and varies.any():
                    sd[batch, varies] = np.sqrt(sd[batch, varies] * sd[batch, varies].mean())
        return cls(np.array(total), mean, sd, np.array(clip))

    def log_expression(self, counts: Matrix) -> tuple[sp.csr_matrix, np.ndarray]:
        """Return log expression before it is centred, still sparse, and the size factor of each cell."""
        factors = _totals(counts) / self.total
        return _log_expression(counts, factors), factors

    def apply(self, counts: Matrix, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the input (dense, cells × genes) and the size factor of each cell."""
        logs, factors = self.log_expression(counts)
        x = (logs.toarray() - self.mean[batches]) / self.sd[batches]
        return np.clip(x, -self.clip, self.clip), factors


def _totals(counts: Matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1), dtype=float).ravel()


def _log_expression(counts: Matrix, factors: np.ndarray) -> sp.csr_matrix:
    # a new cell may have none of the model's genes
    inverse = np.divide(1, factors, out=np.zeros_like(factors), where=factors > 0)
    return sp.csr_matrix(sp.diags(inverse) @ sp.csr_matrix(counts)).log1p()


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    yield from (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


@dataclass
class CellBatch:
    """Some cells as tensors: which they are, network input, counts, size factors, batch numbers."""

    rows: torch.Tensor
    x: torch.Tensor
    counts: torch.Tensor
    size_factors: torch.Tensor
    batches: torch.Tensor


@dataclass
class Cells:
    """Counts (cells × genes, sparse or dense), the batch of each cell, and how they become input.

    Genes that are not ``present`` are unknown in these cells: their input is 0, the mean.
    """

    counts: Matrix
    batches: np.ndarray
    scaling: Scaling
    present: np.ndarray

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def batch(self, rows: np.ndarray, device: torch.device) -> CellBatch:
        """Return these cells, on the device."""
        counts = self.counts[rows]
        codes = self.batches[rows]
        # one batch's mean serves all where they were scaled together
        x, factors = self.scaling.apply(counts, codes if len(self.scaling.mean) > 1 else np.zeros_like(codes))
        x[:, ~self.present] = 0
        dense = counts.toarray() if sp.issparse(counts) else counts

        def tensor(values: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        return CellBatch(tensor(rows, torch.long), tensor(x), tensor(dense), tensor(factors), tensor(codes, torch.long))

    def chunks(self) -> Iterator[CellBatch]:
        """Return all cells in order, a chunk at a time, on the CPU."""
        yield from (self.batch(rows, torch.device("cpu")) for rows in _chunks(np.arange(len(self))))
