"""Weighted sums of cells: equal for every storage, read once, with bounded memory."""

from __future__ import annotations

import os
import threading
import tracemalloc
import weakref

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp

from scdeconv._data import chunks as _chunks
from scdeconv._data.chunks import product

N_CELLS, N_GENES, N_SUMS = 503, 60, 31
rng = np.random.default_rng(0)
COUNTS = rng.poisson(0.3, (N_CELLS, N_GENES)).astype(np.float32)
WEIGHTS = {
    "groups": sp.csr_matrix(
        (np.ones(N_CELLS), (rng.integers(0, N_SUMS, N_CELLS), np.arange(N_CELLS))), (N_SUMS, N_CELLS)
    ),
    "draws": sp.csr_matrix(rng.poisson(3, (N_SUMS, N_CELLS)).astype(np.float32)),
    "few": sp.csr_matrix(([2.0], ([4], [400])), (N_SUMS, N_CELLS)),
}


def lazy(counts, rows, *, sparse=True):
    array = da.from_array(counts, chunks=(rows, -1))
    return (
        array.map_blocks(sp.csr_matrix, dtype=counts.dtype, meta=sp.csr_matrix((0, 0), dtype=counts.dtype))
        if sparse
        else array
    )


FORMS = {
    "dense": COUNTS,
    "csr": sp.csr_matrix(COUNTS),
    "csc": sp.csc_matrix(COUNTS),
    "sparse array": sp.csr_array(COUNTS),
    "lazy csr": lazy(COUNTS, 50),
    "lazy dense": lazy(COUNTS, 50, sparse=False),
    "lazy in tiles": da.from_array(COUNTS, chunks=(70, 13)),
    "lazy, one block": lazy(COUNTS, N_CELLS),
}


@pytest.fixture(params=[10_000, 40])
def block_rows(request, monkeypatch):
    monkeypatch.setattr(_chunks, "BLOCK_ROWS", request.param)
    monkeypatch.setattr(_chunks, "BLOCK_BYTES", request.param * N_GENES * 4)
    monkeypatch.setattr(_chunks, "CACHED_VALUES", 10 * request.param)


def by_loops(weights, counts):
    sums = np.zeros((weights.shape[0], counts.shape[1]))
    for row, cell in np.argwhere(weights.toarray()):
        sums[row] += weights[row, cell] * counts[cell]
    return sums


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("form", FORMS)
def test_sums_equal_plain_loops_for_each_storage(form, weights):
    expected = by_loops(WEIGHTS[weights], COUNTS)
    found, _ = product(WEIGHTS[weights], FORMS[form])
    np.testing.assert_array_equal(found, expected)
    sparse, _ = product(WEIGHTS[weights], FORMS[form], sparse=True)
    assert sparse.has_canonical_format
    np.testing.assert_array_equal(sparse.toarray(), expected)


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("form", FORMS)
def test_blocks_are_inspected_once_in_cell_order(form):
    _, totals = product(WEIGHTS["draws"], FORMS[form], inspect=lambda block: np.asarray(block.sum(axis=1)).ravel())
    np.testing.assert_array_equal(np.concatenate(totals), COUNTS.sum(axis=1))


class Generated:
    """Lazy blocks. Counts the blocks made and the maximum number held at one time."""

    def __init__(self, n_blocks=60, rows=200, n_genes=500, density=0.1):
        self.made, self.alive, self.most, self.lock = [], 0, 0, threading.Lock()
        self.block = sp.random(rows, n_genes, density, format="csr", random_state=0, dtype=np.float32)
        sizes = ((rows,) * n_blocks, (n_genes,))
        meta = sp.csr_matrix((0, 0), dtype=np.float32)
        self.matrix = da.map_blocks(self.make, chunks=sizes, dtype=np.float32, meta=meta)

    def make(self, block_info=None):
        block = self.block.copy()
        with self.lock:
            self.made.append(block_info[None]["chunk-location"][0])
            self.alive += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(block, self.gone)
        return block

    def gone(self):
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("draws_per_cell", [1, 4])
def test_blocks_are_read_once_and_few_held(draws_per_cell, monkeypatch):
    monkeypatch.setattr(_chunks, "BLOCK_ROWS", 200)
    cells = Generated()
    n_cells = cells.matrix.shape[0]
    drawn = np.random.default_rng(0).integers(0, n_cells, draws_per_cell * n_cells)
    weights = sp.csr_matrix((np.ones(len(drawn)), (np.arange(len(drawn)) % 40, drawn)), (40, n_cells))
    with dask.config.set(num_workers=2):
        product(weights, cells.matrix)
    assert sorted(cells.made) == list(range(60))
    assert cells.most <= 4


def test_small_blocks_are_read_together(monkeypatch):
    windows = []
    original = _chunks._compute
    monkeypatch.setattr(
        _chunks, "_compute", lambda tasks, *more: (windows.append(len(tasks)), original(tasks, *more))[1]
    )
    cells = Generated()
    with dask.config.set(num_workers=2):
        product(sp.csr_matrix(np.ones((1, cells.matrix.shape[0]))), cells.matrix)
    assert windows == [60]


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_depends_on_block_size_only(monkeypatch):
    monkeypatch.setattr(_chunks, "BLOCK_ROWS", 200)
    n_draws, peaks = 1000, []
    for n_blocks in (5, 250):
        cells = Generated(n_blocks)
        rows, drawn = np.arange(n_draws) % 20, np.random.default_rng(0).integers(0, cells.matrix.shape[0], n_draws)
        weights = sp.csr_matrix((np.ones(n_draws), (rows, drawn)), (20, cells.matrix.shape[0]))
        with dask.config.set(num_workers=2):
            peaks.append(peak_of(lambda weights=weights, cells=cells: product(weights, cells.matrix)))
    stored = cells.block.data.nbytes + cells.block.indices.nbytes
    assert peaks[1] < 20 * stored
    assert peaks[1] - peaks[0] < 10 * stored < 250 * stored / 20


def test_products_are_no_larger_than_a_block():
    n_sums, n_genes = 1000, 1000
    cells = lazy(np.random.default_rng(0).poisson(0.1, (100, n_genes)).astype(np.float32), 100)
    weights = sp.csr_matrix(np.random.default_rng(1).poisson(0.2, (n_sums, 100)).astype(np.float32))
    dense = n_sums * n_genes * 4
    assert peak_of(lambda: product(weights, cells, dtype=np.float32)) < 1.5 * dense


def test_contiguous_sums_stay_sparse(monkeypatch):
    monkeypatch.setattr(_chunks, "BLOCK_ROWS", 200)
    n_groups, n_genes, per_group = 2000, 5000, 5
    cells = Generated(n_groups * per_group // 200, 200, n_genes, 0.005).matrix
    group = np.repeat(np.arange(n_groups), per_group)
    weights = sp.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), (n_groups, len(group)))
    results = []
    peak = peak_of(lambda: results.append(product(weights, cells, sparse=True)[0]))
    assert results[0].shape == (n_groups, n_genes)
    assert results[0].nnz > 0.02 * n_groups * n_genes
    assert peak < 0.3 * n_groups * n_genes * 8


def broken(block, block_info=None):
    if block_info[0]["chunk-location"][0] == 3:
        msg = "inflate() failed"
        raise OSError(msg)
    return block


def test_unreadable_block_is_named_by_its_rows(monkeypatch):
    monkeypatch.setattr(_chunks, "BLOCK_ROWS", 50)
    cells = FORMS["lazy csr"].map_blocks(broken, dtype=np.float32, meta=FORMS["lazy csr"]._meta)
    with (
        dask.config.set(num_workers=1),
        pytest.raises(OSError, match="rows 150 to 200 of the cells.*inflate") as caught,
    ):
        product(WEIGHTS["groups"], cells)
    assert "Copy or write the file again" in str(caught.value)


def test_sparse_cells_in_blocks_of_genes_are_refused():
    cells = da.from_array(COUNTS, chunks=(-1, 20)).map_blocks(
        sp.csc_matrix, dtype=np.float32, meta=sp.csc_matrix((0, 0))
    )
    with pytest.raises(ValueError, match=r"blocks of rows, found 3 blocks of genes. Store them as CSR"):
        product(WEIGHTS["groups"], cells)


def test_unsorted_gene_indices_are_accepted():
    block = sp.csr_matrix((np.array([1.0, 2, 3]), np.array([5, 2, 0]), np.array([0, 3])), (1, 6))
    cells = da.map_blocks(lambda: block, chunks=((1,), (6,)), dtype=float, meta=sp.csr_matrix((0, 0)))
    np.testing.assert_array_equal(product(sp.csr_matrix([[1.0]]), cells)[0], [[3, 0, 2, 0, 0, 1]])


@pytest.mark.slow
def test_dask_cluster_equals_one_process():
    distributed = pytest.importorskip("distributed")
    counts, weights = rng.gamma(0.2, 1, (400, 50)).astype(np.float32), sp.csr_matrix(rng.random((7, 400)))
    cells = lazy(counts, 30)
    alone = product(weights, cells)[0], product(weights, cells, sparse=True)[0].toarray()
    with distributed.Client(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None):
        assert _chunks._n_threads() == 2
        together = product(weights, cells)[0], product(weights, cells, sparse=True)[0].toarray()
        processes = product(weights, cells, inspect=lambda _: os.getpid())[1]
    assert len(set(processes)) == 2
    assert os.getpid() not in processes
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second)
