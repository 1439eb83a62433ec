"""Cells on disk: the same results as in memory, one reading, and clear errors."""

from __future__ import annotations

import os

import anndata
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import pp, tl
from scdeconv._data import chunks as _chunks
from scdeconv._data import matrix as _matrix
from scdeconv._data.modalities import make_mudata, read_mudata, write_mudata

FORMS = ["backed", "backed dense", "zarr", "zarr dense", "lazy csr", "lazy dense"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
    pytest.mark.filterwarnings("ignore:Did not read zarr as consolidated"),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks even for small data; block limits are within donors."""
    monkeypatch.setattr(_chunks, "BLOCK_ROWS", 23)
    for module in (_chunks, _matrix):
        monkeypatch.setattr(module, "BLOCK_BYTES", 23 * 40 * 4)


def as_lazy(matrix, rows=23):
    array = da.from_array(matrix.toarray() if sp.issparse(matrix) else matrix, chunks=(rows, -1))
    if sp.issparse(matrix):
        array = array.map_blocks(sp.csr_matrix, dtype=matrix.dtype, meta=sp.csr_matrix((0, 0), dtype=matrix.dtype))
    return array


@pytest.fixture
def store(tmp_path):
    """Return a function that moves cells to disk."""

    def make(cells, form):
        cells = cells.copy()
        if "dense" in form:
            cells.X = cells.X.toarray()
        if form.startswith("backed"):
            cells.write_h5ad(tmp_path / "cells.h5ad")
            return anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        if form.startswith("zarr"):
            cells.write_zarr(tmp_path / "cells.zarr")
            return anndata.experimental.read_lazy(tmp_path / "cells.zarr")
        cells.X = as_lazy(cells.X)
        return cells

    return make


def in_memory(mdata):
    """Return the data with the cells read."""
    cells = mdata["sc"].copy()
    cells.X = sp.csr_matrix(cells.X.compute())
    return make_mudata({**mdata.mod, "sc": cells})


@pytest.mark.parametrize("form", FORMS)
def test_pairing_gives_the_same_as_from_memory(inputs, store, form, assert_same):
    cells, bulk = inputs
    expected, found = pp.pair(cells, bulk), pp.pair(store(cells, form), bulk)
    assert _matrix.is_lazy(found["sc"].X)
    uns, found = found.uns, in_memory(found)
    found.uns = uns
    assert_same(found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_later_steps_equal_those_from_memory(inputs, store, form, assert_same):
    cells, bulk = inputs
    expected, found = pp.pair(cells, bulk), pp.pair(store(cells, form), bulk)
    for mdata in (expected, found):
        pp.calibrate(mdata)
        pp.simulate(mdata, 40, cells_per_sample=300, seed=2)
        pp.select_genes(mdata, 12)
    pd.testing.assert_frame_equal(*(pp.Calibration.of(mdata).genes for mdata in (expected, found)), check_exact=True)
    assert_same(found["simulated"], expected["simulated"])
    for criterion, more in (("ratio", {}), ("moderated", {"min_cells": 2}), ("fold_change", {"fraction": 0.3})):
        first, second = (pp.signature(mdata, 6, criterion=criterion, **more) for mdata in (expected, found))
        assert_same(second, first)
    donors = ["D2", "B1"]
    (first, _), (second, _) = (pp.hold_out(mdata, donors) for mdata in (expected, found))
    assert _matrix.is_lazy(second["sc"].X)
    for name in first.mod:
        assert_same(in_memory(second)[name], first[name])


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("music", {}),
        ("bseqsc", {}),
        ("bayesprism", {"cell_state_key": "state"}),
        ("cibersortx", {"batch_correction": "S"}),
    ],
)
def test_cell_based_methods_train_equally_from_disk(pairs_with_states, store, method, arguments):
    cells, bulk = pairs_with_states
    models = [tl.train(pp.pair(kind, bulk), method, **arguments) for kind in (cells, store(cells, "backed"))]
    first, second = (model.predict(bulk) for model in models)
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.fixture
def pairs_with_states(make_inputs):
    cells, bulk = make_inputs(bulk_donors=("D1", "D2", "D3", "D4", "B1"), cells_per_donor=40)
    half = np.random.default_rng(0).choice(["a", "b"], cells.n_obs)
    cells.obs["state"] = cells.obs["cell_type"].astype(str) + half
    return cells, bulk


def test_views_of_cells_on_disk_are_read(inputs, store, assert_same):
    cells, bulk = inputs
    rows, genes = (cells.obs["donor"] != "D2").to_numpy(), cells.var_names[[30, 2, 5, 7, 0, 11]]
    expected = pp.pair(cells[rows, genes].copy(), bulk)
    for form in ("backed", "zarr"):
        found = pp.pair(store(cells, form)[rows, genes], bulk)
        for name in ("sums", "profiles", "pseudobulk", "bulk"):
            assert_same(found[name], expected[name])


@pytest.mark.parametrize("form", ["zarr", "lazy csr"])
def test_layers_duplicates_and_spike_ins_are_handled(inputs, store, form, assert_same):
    cells, bulk = inputs
    genes = [*cells.var_names[:-3], "G5", "ERCC-00002", "ERCC-00003"]
    for adata in (cells, bulk):
        adata.var_names = genes
        adata.layers["counts"] = adata.X.copy()
        adata.X = adata.X * 0.5
    apart = cells.copy()
    if form == "lazy csr":
        apart.layers["counts"] = as_lazy(apart.layers["counts"])
    expected = pp.pair(cells, bulk, layer="counts", duplicates="sum")
    found = pp.pair(store(apart, form), bulk, layer="counts", duplicates="sum")
    uns, found = found.uns, in_memory(found)
    found.uns = uns
    assert found.uns["scdeconv"]["pair"]["n_spike_ins"] == 2
    assert_same(found, expected)


def test_probabilities_on_disk_are_read(inputs, store):
    cells, bulk = inputs
    table = np.random.default_rng(0).dirichlet(np.ones(3), cells.n_obs)
    cells.obsm["soft"] = pd.DataFrame(table, cells.obs_names, list(cells.obs["cell_type"].cat.categories))
    both = [pp.pair(kind, bulk, probabilities_key="soft") for kind in (cells, store(cells, "zarr"))]
    first, second = (mdata["bulk"].obsm["measured_fractions"] for mdata in both)
    pd.testing.assert_frame_equal(first, second)


# one reading


@pytest.fixture
def read(monkeypatch):
    """Record which rows of a backed file are read."""
    starts, original = [], _matrix._read_rows

    def recording(path, name, block_info=None):
        if block_info:
            starts.append(block_info[None]["array-location"][0][0])
        return original(path, name, block_info=block_info)

    monkeypatch.setattr(_matrix, "_read_rows", recording)
    return starts


def test_each_step_reads_the_cells_at_most_once(inputs, store, read):
    cells, bulk = inputs
    cells = store(cells, "backed")
    mdata = pp.pair(cells, bulk)
    blocks = sorted(set(read))
    assert len(blocks) > 4
    # the first block is read for the checks of values and of library sizes before computing
    assert sorted(read) == sorted([blocks[0], blocks[0], *blocks])
    for step, n_readings in (
        (lambda: pp.calibrate(mdata), 0),
        (lambda: pp.select_genes(mdata, 9), 0),
        (lambda: pp.signature(mdata, 6), 0),
        (lambda: pp.signature(mdata, 6, criterion="moderated", min_cells=2), 0),
        (lambda: pp.signature(mdata, 6, criterion="fold_change"), 1),
        (lambda: tl.train(mdata, "music"), 0),
        (lambda: tl.train(mdata, "bseqsc"), 1),
        (lambda: pp.simulate(mdata, 50, cells_per_sample=500), 1),
        (lambda: tl.train(mdata, "nnls"), 0),
    ):
        read.clear()
        step()
        assert sorted(read) == n_readings * blocks
    del mdata.mod["simulated"]
    del mdata.uns["scdeconv"]["simulate"]
    read.clear()
    pp.hold_out(mdata, ["D1"])
    assert not read


# bad input


def with_late(cells, value, gene=7):
    """Put a value into the last cell."""
    counts = cells.X.toarray().astype(np.float32)
    counts[-1, gene] = value
    cells.X = sp.csr_matrix(counts)
    return cells


@pytest.mark.parametrize("form", ["backed", "zarr", "lazy dense"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -3, 0.25])
def test_the_last_block_is_checked_like_the_first(inputs, store, form, value):
    cells, bulk = inputs
    bad = store(with_late(cells, value), form)
    messages = []
    for kind in (cells, bad):
        with pytest.raises(ValueError, match="cells") as caught:
            pp.pair(kind, bulk)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "1 problem" in messages[0]


def test_rows_of_zeros_are_found_in_every_block(inputs, store):
    cells, bulk = inputs
    counts = cells.X.toarray()
    counts[[3, 60, -1]] = 0
    cells.X = sp.csr_matrix(counts)
    for form in ("backed", "lazy dense"):
        with pytest.raises(ValueError, match="found 3 rows of zeros: 'cell3', 'cell60', 'cell124'. Remove these rows."):
            pp.pair(store(cells, form), bulk)


def test_first_block_problems_are_reported_early(inputs, store, read):
    cells, bulk = inputs
    counts = cells.X.toarray().astype(float)
    counts[0, 4] = -1
    cells.X = sp.csr_matrix(counts)
    bulk.X[2, 3] = -5
    with pytest.raises(ValueError, match="2 problems") as caught:
        pp.pair(store(cells, "backed"), bulk)
    assert "non-negative values in bulk" in str(caught.value)
    assert "non-negative values in the first" in str(caught.value)
    assert len(read) == 1


def test_columns_on_disk_are_refused(inputs, store):
    cells, bulk = inputs
    cells.X = cells.X.tocsc()
    with pytest.raises(ValueError, match="in .*cells.h5ad.*, found csc_matrix.*Write it as CSR"):
        pp.pair(store(cells, "backed"), bulk)


# faults


def test_truncated_file_is_named(inputs, store, tmp_path):
    cells, bulk = inputs
    backed, path = store(cells, "backed"), tmp_path / "cells.h5ad"
    mdata = pp.pair(backed, bulk)
    before = mdata["sums"].X.copy()
    with h5py.File(path) as file:
        values = file["X/data"].id.get_chunk_info(0)
    # while the file is open, HDF5 reads zeros beyond its end
    os.truncate(path, values.byte_offset + values.size // 2)
    with pytest.raises(
        OSError, match=r"rows \d+ to \d+ of the cells, found .*cells.h5ad.*Copy or write the file again"
    ):
        pp.simulate(mdata, 10)
    assert "simulated" not in mdata.mod
    assert (before != mdata["sums"].X).nnz == 0
    # a file of its own: anndata may still hold the old one open
    path.unlink()
    store(cells, "backed")
    pp.simulate(mdata, 10)
    assert mdata["simulated"].n_obs == 10


@pytest.mark.parametrize("part", ["data", "indices"])
@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_missing_zarr_chunks_are_not_read_as_zeros(inputs, tmp_path, part, damage):
    cells, bulk = inputs
    cells.write_zarr(tmp_path / "cells.zarr")
    lazy = anndata.experimental.read_lazy(tmp_path / "cells.zarr")
    # zarr 2 has chunks beside its hidden metadata, zarr 3 in folders below "c"
    folder = tmp_path / "cells.zarr" / "X" / part
    (chunk,) = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "zarr.json"))]
    chunk.unlink() if damage == "missing" else chunk.write_bytes(b"xx")
    with pytest.raises(OSError, match=r"rows 0 to \d+ of the cells, found an error"):
        pp.pair(lazy, bulk)


def test_ctrl_c_does_not_change_the_data(inputs, monkeypatch):
    cells, bulk = inputs
    mdata = pp.pair(cells, bulk)

    def interrupted(block, block_info=None):
        if block_info and block_info[0]["chunk-location"][0] == 2:
            raise KeyboardInterrupt
        return block

    lazy = as_lazy(cells.X)
    mdata["sc"].X = lazy.map_blocks(interrupted, dtype=lazy.dtype, meta=lazy._meta)
    with pytest.raises(KeyboardInterrupt):
        pp.simulate(mdata, 10)
    assert "simulated" not in mdata.mod
    assert "simulate" not in mdata.uns["scdeconv"]


def test_input_object_is_unchanged(inputs, store, assert_same):
    cells, bulk = inputs
    backed = store(cells, "backed")
    before = backed.to_memory()
    pp.simulate(pp.pair(backed, bulk), 10)
    assert backed.isbacked
    assert_same(backed.to_memory(), before)


@pytest.mark.parametrize("form", ["backed", "zarr", "lazy csr"])
def test_pairs_from_disk_survive_a_file(inputs, store, form, tmp_path):
    cells, bulk = inputs
    mdata = pp.pair(store(cells, form), bulk)
    write_mudata(mdata, tmp_path / "pairs.h5mu")
    again = read_mudata(tmp_path / "pairs.h5mu")
    assert (again["sc"].X != cells.X).nnz == 0


def test_bulk_on_disk_is_read_into_memory(inputs, tmp_path, assert_same):
    cells, bulk = inputs
    expected = pp.pair(cells, bulk)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    found = pp.pair(cells, anndata.read_h5ad(tmp_path / "bulk.h5ad", backed="r"))
    assert_same(found["bulk"], expected["bulk"])
    found = tl.train(expected, "nnls").predict(anndata.read_h5ad(tmp_path / "bulk.h5ad", backed="r"))
    pd.testing.assert_frame_equal(found, tl.train(expected, "nnls").predict(bulk))


# size


def test_many_cells_donors_and_types_are_counted(monkeypatch):
    """No loop over donors, types or cells reads all cells."""
    for module in (_chunks, _matrix):
        monkeypatch.setattr(module, "BLOCK_BYTES", 10**7)
    monkeypatch.setattr(_chunks, "BLOCK_ROWS", 10_000)
    n_cells, n_donors, n_types, genes = 100_000, 500, 40, pd.DataFrame(index=["G0", "G1", "G2"])
    rng = np.random.default_rng(0)
    donor, kind = np.sort(rng.integers(0, n_donors, n_cells)), rng.integers(0, n_types, n_cells)
    obs = pd.DataFrame({"donor": donor, "cell_type": kind}, index=[f"cell{i}" for i in range(n_cells)]).astype(str)
    cells = AnnData(sp.csr_matrix(rng.integers(1, 30, (n_cells, 3))), obs=obs, var=genes)
    bulk = AnnData(
        rng.integers(1, 999, (n_donors, 3)), obs=pd.DataFrame(index=np.arange(n_donors).astype(str)), var=genes
    )
    mdata = pp.pair(cells, bulk)
    pp.simulate(mdata, 600, cells_per_sample=10)
    pp.hold_out(mdata, ["0"])
    assert mdata["sums"].obs["n_cells"].sum() == n_cells


@pytest.mark.slow
def test_dask_cluster_gives_the_same_results(inputs, store):
    distributed = pytest.importorskip("distributed")
    cells, bulk = inputs
    results = []
    lazy = store(cells, "backed")
    for on_cluster in (False, True):
        client = (
            distributed.Client(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None)
            if on_cluster
            else None
        )
        mdata = pp.pair(lazy, bulk)
        pp.simulate(mdata, 20, cells_per_sample=200)
        results.append((mdata["sums"].X.toarray(), mdata["simulated"].X))
        if client is not None:
            client.close()
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
