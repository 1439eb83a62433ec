"""Weighted sums of cells in one pass over in-memory or lazy matrices."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from scdeconv._data.matrix import BLOCK_BYTES, CACHED_VALUES, Matrix, is_lazy
from scdeconv._data.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# maximum rows per block of a lazy sparse matrix: its size in bytes is unknown before reading (set by hand)
BLOCK_ROWS = 10_000
# maximum blocks read in parallel on one machine: bounds the memory (set by hand)
MAX_READ_THREADS = 8
# density of a sparse product above which dense addition is used (set by hand)
MIN_SHARE_TO_ADD_DENSE = 0.2


def product(
    weights: Matrix,
    matrix: Matrix,
    *,
    description: str = "adding up cells",
    dtype: type = np.float64,
    sparse: bool = False,
    inspect: Callable[[Matrix], Any] | None = None,
) -> tuple[Any, list[Any]]:
    """Multiply sparse weights by a cells × genes matrix and read every cell once.

    A lazy matrix is computed with ``dask.compute``, one window of blocks at a time. A connected Dask cluster is used.
    Memory holds the result, the blocks of one window and their products. A product is never larger than its block.

    Parameters
    ----------
    weights
        Sums × cells, sparse.
    matrix
        Cells × genes: dense array, CSR matrix or Dask array of either.
    description
        Text of the progress bar.
    dtype
        Data type of the result.
    sparse
        Return a CSR matrix. A sum is compressed after its last cell is read. Cells sorted by donor need little memory.
    inspect
        Function that is called once for each block of rows.

    Returns
    -------
    sums
        Sums × genes.
    inspected
        Return values of ``inspect`` in row order; None for each block without ``inspect``.

    Raises
    ------
    OSError
        If a block of a lazy matrix cannot be read.
    """
    lazy = is_lazy(matrix)
    look = partial(_check_and_inspect, inspect) if lazy else inspect
    by_cell = sp.csc_matrix(weights)
    sums = _Sums(by_cell, matrix.shape[1], dtype, sparse=sparse)
    learned: list[Any] = []
    with progress(matrix.shape[0], description) as bar:
        for window in _windows(matrix):
            start, stop = window[0][0].start, window[-1][0].stop
            parts = [by_cell[:, cells].tocsr() for cells, _ in window]
            blocks: Any = [block for _, block in window]
            # simulated samples reuse cells: several turns keep the product as small as its block
            n_turns = max(1, *(-(-part.nnz // part.shape[1]) for part in parts))
            shares = [np.array_split(np.flatnonzero(np.diff(part.indptr)), n_turns) for part in parts]
            if n_turns > 1 and lazy:
                blocks = _persisted_blocks(blocks, start, stop)
            for turn in range(n_turns):
                rows = [share[turn] for share in shares]
                tasks = [(part[mine], block) for part, mine, block in zip(parts, rows, blocks, strict=True)]
                first = look if turn == 0 else None
                found = _compute(tasks, first, start, stop) if lazy else [_multiply(*tasks[0], first)]
                for mine, (part, _) in zip(rows, found, strict=True):
                    sums.add(mine, part)
                learned += [seen for _, seen in found] if turn == 0 else []
            sums.finish(stop)
            bar.update(stop - start)
    return sums.result(), learned


class _Sums:
    """Running sums; with ``sparse``, a sum is compressed after its last cell."""

    def __init__(self, by_cell: sp.csc_matrix, n_genes: int, dtype: type, *, sparse: bool) -> None:
        self.shape, self.dtype, self.sparse = (by_cell.shape[0], n_genes), dtype, sparse
        self.rows: Any = {} if sparse else np.zeros(self.shape, dtype)
        self.finished: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.last = np.full(by_cell.shape[0], -1)
        np.maximum.at(self.last, by_cell.indices, np.repeat(np.arange(by_cell.shape[1]), np.diff(by_cell.indptr)))

    def add(self, rows: np.ndarray, part: Matrix) -> None:
        if self.sparse:
            self.rows |= {row: np.zeros(self.shape[1], self.dtype) for row in rows if row not in self.rows}
        # dense addition is faster than index lookup at high density
        if sp.issparse(part) and part.nnz > MIN_SHARE_TO_ADD_DENSE * np.prod(part.shape):
            part = part.toarray()
        for i, row in enumerate(rows):
            if sp.issparse(part):
                entries = slice(part.indptr[i], part.indptr[i + 1])
                self.rows[row][part.indices[entries]] += part.data[entries]
            else:
                self.rows[row] += part[i]

    def finish(self, stop: int) -> None:
        for row in [row for row in self.rows if self.last[row] < stop] if self.sparse else []:
            values = self.rows.pop(row)
            genes = np.flatnonzero(values)
            self.finished[row] = genes.astype(np.int32), values[genes]

    def result(self) -> Matrix:
        if not self.sparse:
            return self.rows
        nothing: Any = np.empty(0, np.int32), np.empty(0, self.dtype)
        rows = [self.finished.get(row, nothing) for row in range(self.shape[0])]
        genes, values = (np.concatenate(column) for column in zip(nothing, *rows, strict=True))
        return sp.csr_matrix((values, genes, np.cumsum([0, *(len(row[0]) for row in rows)])), shape=self.shape)


def _multiply(weights: sp.csr_matrix, block: Matrix, look: Callable[[Matrix], Any] | None) -> tuple[Matrix, Any]:
    return _weighted_sums(weights, block), None if look is None else look(block)


def _weighted_sums(weights: sp.csr_matrix, block: Matrix) -> Matrix:
    """Return ``weights @ block``; dense if the sparse product would be nearly full."""
    shape = weights.shape[0], block.shape[1]
    by_rows = sp.issparse(block) and block.format == "csr"
    if not by_rows or np.diff(block.indptr)[weights.indices].sum() <= np.prod(shape):
        return weights @ block
    # concatenated cells form one CSR row with duplicate genes: toarray sums the duplicates
    product = np.zeros(shape, np.result_type(weights.dtype, block.dtype))
    n_stored = np.diff(block.indptr)
    ends = np.cumsum(np.append(0, n_stored[weights.indices]))[weights.indptr]
    for some in np.split(np.arange(shape[0]), np.flatnonzero(np.diff(ends[:-1] // CACHED_VALUES)) + 1):
        drawn = slice(weights.indptr[some[0]], weights.indptr[some[-1] + 1])
        cells = block[weights.indices[drawn]]
        values = cells.data * np.repeat(weights.data[drawn], np.diff(cells.indptr))
        rows = weights.indptr[some[0] : some[-1] + 2] - weights.indptr[some[0]]
        product[some] = sp.csr_matrix((values, cells.indices, cells.indptr[rows]), (len(some), shape[1])).toarray()
    return product


def _check_and_inspect(inspect: Callable[[Matrix], Any] | None, block: Matrix) -> Any:
    """Return ``inspect(block)``; raise ``OSError`` if the block has the zeros that zarr returns for missing chunks."""
    if sp.issparse(block):
        # new object: the cached has_canonical_format flag of the reader may be wrong
        block = sp.csr_matrix((block.data, block.indices, block.indptr), block.shape)
        in_order = block.has_canonical_format or block.sorted_indices().has_canonical_format
        all_zero = np.asarray(abs(block).sum(axis=1)).ravel() == 0
        if not in_order or (all_zero & (np.diff(block.indptr) > 0)).any():
            msg = "cells store a gene twice or only zeros, which happens if a part of the file is missing"
            raise OSError(msg)
    return None if inspect is None else inspect(block)


def _windows(matrix: Matrix) -> Iterator[list[tuple[slice, Matrix]]]:
    """Yield windows of row blocks with their positions; the blocks of a window are read in parallel."""
    n_rows = matrix.shape[0]
    if not is_lazy(matrix):
        n_bytes = matrix.data.nbytes + matrix.indices.nbytes if sp.issparse(matrix) else matrix.nbytes
        size = max(1, int(BLOCK_BYTES * n_rows / max(n_bytes, 1)))
        for start in range(0, n_rows, size):
            cells = slice(start, min(start + size, n_rows))
            yield [(cells, matrix[cells])]
        return
    matrix = in_rows(matrix)
    ends = np.cumsum(matrix.chunks[0]).tolist()
    blocks = matrix.to_delayed().ravel().tolist()
    # group small blocks: otherwise the scheduling overhead exceeds the reading time
    wanted = _n_threads() * _rows_at_once(matrix)
    window: list[tuple[slice, Matrix]] = []
    for start, stop, block in zip([0, *ends], ends, blocks, strict=False):
        if window and stop - window[0][0].start > wanted:
            yield window
            window = []
        window.append((slice(start, stop), block))
    if window:
        yield window


def in_rows(matrix: Matrix) -> Matrix:
    """Return a Dask array with blocks of whole rows and a limited number of rows per block."""
    if sp.issparse(matrix._meta) and matrix.numblocks[1] > 1:
        msg = (
            f"Expected sparse cells in blocks of rows, found {matrix.numblocks[1]} blocks of genes. Store them as CSR: "
            "run adata.X = adata.X.tocsr() before writing."
        )
        raise ValueError(msg)
    most = _rows_at_once(matrix)
    sizes = [min(most, size - start) for size in matrix.chunks[0] for start in range(0, size, most)]
    return matrix.rechunk((tuple(sizes), -1))


def first_rows(matrix: Matrix) -> Matrix:
    """Return the first block of a lazy matrix, or the whole in-memory matrix."""
    if not is_lazy(matrix):
        return matrix
    first = in_rows(matrix).blocks[0]
    return _call_or_report_rows(lambda block: (block.compute(),), [first], 0, first.shape[0])[0]


def _rows_at_once(matrix: Matrix) -> int:
    if sp.issparse(matrix._meta):
        return BLOCK_ROWS
    return max(1, BLOCK_BYTES // (matrix.shape[1] * matrix.dtype.itemsize))


def _n_threads() -> int:
    import dask.system

    if "distributed" in sys.modules:
        from distributed import default_client

        try:
            return sum(default_client().nthreads().values())
        except ValueError:
            pass
    return min(dask.config.get("num_workers", dask.system.CPU_COUNT), MAX_READ_THREADS)


def _compute(tasks: list[tuple[Any, ...]], inspect: Any, start: int, stop: int) -> tuple[Any, ...]:
    import dask

    multiply = dask.delayed(_multiply)
    return _call_or_report_rows(dask.compute, [multiply(*task, inspect) for task in tasks], start, stop)


def _persisted_blocks(blocks: list[Any], start: int, stop: int) -> tuple[Any, ...]:
    """Return blocks that are computed once and stay on the workers of a cluster."""
    import dask

    return _call_or_report_rows(dask.persist, blocks, start, stop)


def _call_or_report_rows(
    function: Callable[..., tuple[Any, ...]], tasks: list[Any], start: int, stop: int
) -> tuple[Any, ...]:
    try:
        return function(*tasks)
    except (OSError, RuntimeError, ValueError) as error:
        msg = (
            f"Expected readable rows {start} to {stop} of the cells, found an error: {error}. All earlier rows were "
            "read and nothing was changed. Copy or write the file again and repeat the call."
        )
        raise OSError(msg) from error
