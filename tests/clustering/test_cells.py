from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scdeconv.clustering import _cells
from scdeconv.clustering._cells import Cells, Scaling

CPU = torch.device("cpu")
SCALES = ["pareto", "unit", None]


@pytest.fixture
def counts():
    """40 cells × 25 genes; the last two genes are never seen."""
    rng = np.random.default_rng(0)
    values = rng.poisson(1 + rng.gamma(1, 2, 25), (40, 25)).astype(float)
    values[:, -2:] = 0
    return values


@pytest.fixture
def batches():
    return np.random.default_rng(1).integers(0, 3, 40)


@pytest.fixture
def small_chunks(monkeypatch):
    """Means are summed over several chunks, the last of which is small."""
    monkeypatch.setattr(_cells, "CHUNK_CELLS", 7)


def expected_input(counts, batches, scale, clip=np.inf):
    """Total of the median cell, log1p, then each gene in each batch, one after the other."""
    totals = counts.sum(axis=1)
    logs = np.log1p(counts / totals[:, None] * np.median(totals))
    if scale is None:
        return logs
    x = np.zeros_like(logs)
    for batch in set(batches):
        members = batches == batch
        deviations = [logs[members, gene].std() for gene in range(logs.shape[1])]
        mean_sd = np.mean([sd for sd in deviations if sd > 0])
        for gene, sd in enumerate(deviations):
            centred = logs[members, gene] - logs[members, gene].mean()
            divisor = {"unit": sd, "pareto": np.sqrt(sd * mean_sd)}[scale]
            x[members, gene] = centred / divisor if sd > 0 else 0
    return np.clip(x, -clip, clip)


# scaling


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_input_equals_an_oracle_for_every_storage(counts, batches, scale, storage, small_chunks):
    for members in (np.zeros_like(batches), batches):
        scaling = Scaling.learn(storage(counts), members, scale)
        x, factors = scaling.apply(storage(counts), members)
        np.testing.assert_allclose(x, expected_input(counts, members, scale), rtol=1e-9, atol=1e-9)
        totals = counts.sum(axis=1)
        np.testing.assert_allclose(factors, totals / np.median(totals))
        assert scaling.mean.shape == scaling.sd.shape == (members.max() + 1, 25)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16])
def test_dtype_of_the_counts_does_not_matter(counts, batches, dtype):
    expected = Scaling.learn(counts, batches, "pareto")
    scaling = Scaling.learn(sp.csr_matrix(counts.astype(dtype)), batches, "pareto")
    for name in ("total", "mean", "sd"):
        np.testing.assert_allclose(getattr(scaling, name), getattr(expected, name), rtol=1e-12)


def test_unit_scaling_gives_variance_1_per_batch(counts, batches):
    x, _ = Scaling.learn(counts, batches, "unit").apply(counts, batches)
    for batch in range(3):
        np.testing.assert_allclose(x[batches == batch].mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(x[batches == batch, :-2].var(axis=0), 1)


def test_pareto_scaling_gives_mean_variance_1(counts):
    together = np.zeros(40, dtype=int)
    x, _ = Scaling.learn(counts, together, "pareto").apply(counts, together)
    raw, _ = Scaling.learn(counts, together, None).apply(counts, together)
    variance, before = x[:, :-2].var(axis=0), raw[:, :-2].var(axis=0)
    assert variance.mean() == pytest.approx(1)
    assert list(variance.argsort()) == list(before.argsort())
    # proportional to the square root of the former variance
    np.testing.assert_allclose(variance / np.sqrt(before), (variance / np.sqrt(before))[0])


@pytest.mark.parametrize("scale", SCALES)
def test_constant_genes_become_0(scale):
    """Cells of equal total: equal counts give equal expression up to rounding."""
    counts = np.array([[1.0, 2, 7, 0], [3, 0, 7, 0], [0, 3, 7, 0], [2, 1, 7, 0]]) * 1001
    together = np.zeros(4, dtype=int)
    x, _ = Scaling.learn(counts, together, scale).apply(counts, together)
    assert np.isfinite(x).all()
    assert not x[:, 3].any()
    if scale is not None:
        np.testing.assert_allclose(x[:, 2], 0, atol=1e-12)
        assert x[:, :2].any()


@pytest.mark.parametrize("scale", SCALES)
def test_identical_cells_give_finite_input(scale):
    counts, together = np.tile([[1.0, 5.0, 0.0]], (6, 1)), np.zeros(6, dtype=int)
    x, factors = Scaling.learn(counts, together, scale).apply(counts, together)
    assert np.isfinite(x).all()
    assert (factors == 1).all()


def test_input_is_clipped(counts, batches):
    counts[0, 3] = 1e5
    scaling = Scaling.learn(counts, batches, "unit", clip=2.0)
    x, _ = scaling.apply(counts, batches)
    assert np.abs(x).max() == 2
    np.testing.assert_allclose(x, expected_input(counts, batches, "unit", clip=2), rtol=1e-9, atol=1e-9)


def test_cell_depth_does_not_change_the_input(counts, batches):
    scaling = Scaling.learn(counts, batches, "unit")
    x, factors = scaling.apply(counts, batches)
    deep, deep_factors = scaling.apply(5 * counts, batches)
    np.testing.assert_allclose(deep, x, atol=1e-12)
    np.testing.assert_allclose(deep_factors, 5 * factors)


# cells


def make_data(counts, batches, scaled_by=None, present=None, storage=sp.csr_matrix):
    scaling = Scaling.learn(counts, np.zeros_like(batches) if scaled_by is None else scaled_by, "unit")
    return Cells(storage(counts), batches, scaling, np.ones(25, dtype=bool) if present is None else present)


@pytest.mark.parametrize("by_batch", [False, True])
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix])
def test_batch_holds_the_requested_rows(counts, batches, by_batch, storage):
    scaled_by = batches if by_batch else np.zeros_like(batches)
    rows = np.array([5, 0, 39, 5])
    batch = make_data(counts, batches, scaled_by, storage=storage).batch(rows, CPU)
    assert batch.rows.tolist() == [5, 0, 39, 5]
    np.testing.assert_allclose(batch.x, expected_input(counts, scaled_by, "unit")[rows], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.counts, counts[rows])
    np.testing.assert_allclose(
        batch.size_factors, (counts.sum(axis=1) / np.median(counts.sum(axis=1)))[rows], rtol=1e-6
    )
    assert batch.batches.tolist() == list(batches[rows])
    assert {batch.x.dtype, batch.counts.dtype, batch.size_factors.dtype} == {torch.float32}


def test_missing_genes_are_0_the_mean(counts, batches):
    present = np.arange(25) % 4 != 0
    known = counts * present
    data = replace(make_data(counts, batches, present=present), counts=sp.csr_matrix(known))
    x = data.batch(np.arange(40), CPU).x.numpy()
    assert not x[:, ~present].any()
    # an unexpressed gene differs from a missing gene
    assert (x[:, present][known[:, present] == 0] != 0).any()


def test_chunks_are_all_cells_in_order(counts, batches, small_chunks):
    data = make_data(counts, batches)
    chunks = list(data.chunks())
    assert [len(chunk.rows) for chunk in chunks] == [7, 7, 7, 7, 7, 5]
    assert torch.cat([chunk.rows for chunk in chunks]).tolist() == list(range(40))
    assert torch.equal(torch.cat([chunk.x for chunk in chunks]), data.batch(np.arange(40), CPU).x)
    assert len(data) == 40


def test_at_most_one_chunk_is_dense(counts, batches, small_chunks, monkeypatch):
    n_rows = {"dense": [], "transformed": []}
    for cls in (sp.csr_matrix, sp.csc_matrix, sp.coo_matrix):
        for name in ("toarray", "todense"):
            method = getattr(cls, name)

            def record(self, *args, method=method, **kwargs):
                n_rows["dense"].append(self.shape[0])
                return method(self, *args, **kwargs)

            monkeypatch.setattr(cls, name, record)
    transform = _cells._log_expression
    monkeypatch.setattr(
        _cells,
        "_log_expression",
        lambda rows, factors: n_rows["transformed"].append(len(factors)) or transform(rows, factors),
    )
    data = make_data(sp.csr_matrix(counts), batches)
    data = replace(data, scaling=Scaling.learn(data.counts, batches, "pareto"))
    list(data.chunks())
    data.batch(np.arange(3), CPU)
    assert max(n_rows["dense"]) == max(n_rows["transformed"]) == 7
