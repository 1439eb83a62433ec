from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp

from scdeconv import pp
from scdeconv._stats.draws import draw_cells
from scdeconv.pp import _simulate


@pytest.fixture
def drawn(monkeypatch):
    """Record which cells simulate draws."""
    records = []

    def recording(n_cells, pools, n_total, rng):
        weights = draw_cells(n_cells, pools, n_total, rng)
        records.append((n_cells.copy(), weights.copy()))
        return weights

    monkeypatch.setattr(_simulate, "draw_cells", recording)
    monkeypatch.setattr(_simulate, "ROWS_AT_ONCE", 4)
    return records


@pytest.mark.parametrize("across_donors", [False, True])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_samples_are_sums_of_their_cells(inputs, drawn, form, across_donors):
    cells, bulk = inputs
    cells.X = form(cells.X.toarray().astype(np.float32))
    mdata = pp.pair(cells, bulk)
    pp.simulate(mdata, 31, cells_per_sample=20, across_donors=across_donors, seed=3)
    simulated, counts = mdata["simulated"], np.asarray(mdata["sc"].to_df())
    weights = sp.vstack([weights for _, weights in drawn]).toarray()
    n_cells = np.vstack([n_cells for n_cells, _ in drawn])
    obs = mdata["sc"].obs
    for sample in range(31):
        total, types, donors = np.zeros(mdata.n_vars), Counter(), set()
        for cell in np.flatnonzero(weights[sample]):
            for _ in range(int(weights[sample, cell])):
                total += counts[cell]
                types[obs["cell_type"].iloc[cell]] += 1
                donors.add(obs["donor"].iloc[cell])
        np.testing.assert_array_equal(simulated.X[sample], total)
        assert [types[kind] for kind in simulated.obsm["measured_fractions"]] == n_cells[sample].tolist()
        if across_donors:
            assert simulated.obs["donor"].iloc[sample] == "all donors"
        else:
            assert donors == {simulated.obs["donor"].iloc[sample]}
    if across_donors:
        used = weights.sum(axis=0) > 0
        assert set(obs["donor"][used]) == set(obs["donor"])


@pytest.mark.parametrize("exact_labels", [False, True])
def test_cell_counts_are_floored_drawn_fractions(mdata, drawn, exact_labels):
    pp.simulate(mdata, 40, cells_per_sample=30, seed=4)
    labels = mdata["simulated"].obsm["measured_fractions"].to_numpy()
    n_cells = np.vstack([n_cells for n_cells, _ in drawn])
    np.testing.assert_array_equal(n_cells, np.floor(labels * 30))
    assert (n_cells.sum(axis=1) <= 30).all()
    assert (n_cells.sum(axis=1) >= 30 - 2).all()
    assert n_cells.sum() < 40 * 30
    if exact_labels:
        before = mdata["simulated"].X.copy()
        pp.simulate(mdata, 40, cells_per_sample=30, exact_labels=True, seed=4)
        exact = mdata["simulated"].obsm["measured_fractions"]
        np.testing.assert_allclose(exact, n_cells / n_cells.sum(axis=1, keepdims=True))
        np.testing.assert_array_equal(mdata["simulated"].X, before)
    np.testing.assert_allclose(labels.sum(axis=1), 1)


def test_one_cell_samples_have_the_commonest_type(mdata, drawn):
    pp.simulate(mdata, 30, cells_per_sample=1, across_donors=True)
    n_cells = np.vstack([n_cells for n_cells, _ in drawn])
    labels = mdata["simulated"].obsm["measured_fractions"].to_numpy()
    assert (n_cells.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(n_cells.argmax(axis=1), labels.argmax(axis=1))
    assert (mdata["simulated"].X.sum(axis=1) > 0).all()


def test_donors_give_equal_numbers_of_samples(mdata):
    pp.simulate(mdata, 52)
    donors = mdata["simulated"].obs["donor"]
    assert donors.value_counts().to_dict() == {"C1": 11, "D1": 11, "D2": 10, "D3": 10, "D4": 10}
    fractions = mdata["simulated"].obsm["measured_fractions"]
    # the first donor has no cell of the last type
    assert (fractions["T cell"][donors == "D1"] == 0).all()
    assert (fractions["T cell"][donors != "D1"] > 0).any()


@pytest.mark.parametrize("n_samples", [5, 10, 50, 51, 200])
@pytest.mark.parametrize("sparse_share", [0.0, 0.3, 0.5, 1.0])
def test_sparse_share_holds_over_all_donors(make_inputs, n_samples, sparse_share):
    # the first donor lacks a type, so it is left out
    cells, bulk = make_inputs(cell_donors=("D0", "D1", "D2", "D3", "D4", "D5"), bulk_donors=("D1", "D2", "D3"))
    mdata = pp.pair(cells[cells.obs["donor"] != "D0"].copy(), bulk)
    assert (mdata["bulk"].obsm["measured_cells"] > 0).all(axis=None)
    pp.simulate(mdata, n_samples, sparse_share=sparse_share)
    sparse = (mdata["simulated"].obsm["measured_fractions"] == 0).any(axis=1)
    assert sparse.sum() == int(sparse_share * n_samples)


def test_fewer_samples_than_donors_are_possible(mdata):
    pp.simulate(mdata, 2)
    assert mdata["simulated"].n_obs == 2
    assert mdata["simulated"].obs["donor"].nunique() == 2


def test_simulated_bulk_is_a_modality_of_its_own(mdata, assert_same):
    before = {name: adata.copy() for name, adata in mdata.mod.items()}
    pp.simulate(mdata, 12, cells_per_sample=30, sparse_share=0.25, seed=9)
    simulated = mdata["simulated"]
    assert simulated.shape == (12, 40)
    assert simulated.X.dtype == np.float32
    assert simulated.obs_names.is_unique
    assert simulated.var_names.equals(mdata["bulk"].var_names)
    assert simulated.obsm["measured_fractions"].index.equals(simulated.obs_names)
    assert list(simulated.obsm["measured_fractions"].columns) == list(mdata["profiles"].obs_names)
    assert mdata.uns["scdeconv"]["simulate"] == {
        "n_samples": 12,
        "cells_per_sample": 30,
        "sparse_share": 0.25,
        "across_donors": False,
        "exact_labels": False,
        "seed": 9,
    }
    for name, copy in before.items():
        assert_same(mdata[name], copy)
    pp.simulate(mdata, 7)
    assert mdata["simulated"].n_obs == 7
    assert mdata.n_obs == sum(adata.n_obs for adata in mdata.mod.values())


def test_same_seed_same_samples_and_global_state_untouched(mdata):
    state = np.random.get_state()[1].copy()
    runs = []
    for seed in (1, 1, 2):
        pp.simulate(mdata, 15, seed=seed)
        runs.append(mdata["simulated"].copy())
    np.testing.assert_array_equal(runs[0].X, runs[1].X)
    assert runs[0].obsm["measured_fractions"].equals(runs[1].obsm["measured_fractions"])
    assert not np.array_equal(runs[0].X, runs[2].X)
    assert np.array_equal(state, np.random.get_state()[1])


def test_a_single_cell_type_is_possible(make_inputs):
    mdata = pp.pair(*make_inputs(cell_types=["B cell"]))
    pp.simulate(mdata, 10, cells_per_sample=12, sparse_share=1.0)
    assert (mdata["simulated"].obsm["measured_fractions"] == 1).all(axis=None)
    expected = 12 * mdata["profiles"].X[0].sum()
    assert mdata["simulated"].X.sum(axis=1).mean() == pytest.approx(expected, rel=0.1)


def test_profiles_give_poisson_samples_around_their_mixture(reference_inputs):
    mdata = pp.pair(**reference_inputs)
    profiles = mdata["profiles"].X
    pp.simulate(mdata, 3000, cells_per_sample=50, seed=2)
    simulated = mdata["simulated"]
    assert set(simulated.obs["donor"]) == {"profiles"}
    labels = simulated.obsm["measured_fractions"].to_numpy()
    assert ((labels == 0).any(axis=1)).sum() == 1500
    mean = np.floor(labels * 50) @ profiles
    np.testing.assert_array_equal(simulated.X, np.rint(simulated.X))
    z = ((simulated.X - mean) / np.sqrt(mean))[:, mean.min(axis=0) > 0]
    assert z.shape[1] > 35
    # mean 0 and variance 1 within five standard errors, for each gene
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(3000)
    assert np.abs(z.var(axis=0) - 1).max() < 0.25
    assert z.var() == pytest.approx(1, abs=0.02)


LARGE = """
import resource, time
import numpy as np, pandas as pd, scipy.sparse as sp
from anndata import AnnData
from scdeconv import pp

rng = np.random.default_rng(0)
n_cells, n_genes, per_cell = 50_000, 20_000, 800
# popular genes first, as in real cells; a gene may be hit twice, which leaves about 3.5 % of the values
genes = (n_genes * rng.random((n_cells, per_cell), dtype=np.float32) ** 1.5).astype(np.int32)
genes.sort(axis=1)
counts = rng.integers(1, 4, genes.size, dtype=np.int32)
matrix = sp.csr_matrix((counts, genes.ravel(), np.arange(0, genes.size + 1, per_cell)), shape=(n_cells, n_genes))
matrix.sum_duplicates()
del genes, counts
obs = pd.DataFrame(
    {"donor": [f"D{i}" for i in rng.integers(0, 20, n_cells)], "cell_type": [f"T{i}" for i in rng.integers(0, 10, n_cells)]},
    index=[f"c{i}" for i in range(n_cells)],
)
var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
cells = AnnData(matrix, obs=obs, var=var)
bulk = AnnData(rng.poisson(50, (20, n_genes)), obs=pd.DataFrame(index=[f"D{i}" for i in range(20)]), var=var)
mdata = pp.pair(cells, bulk)
start = time.perf_counter()
pp.simulate(mdata, 10_000)
seconds = time.perf_counter() - start
assert mdata["simulated"].shape == (10_000, n_genes)
expected = np.floor(100 * mdata["simulated"].obsm["measured_fractions"].to_numpy()).sum() * matrix.sum() / n_cells
assert abs(mdata["simulated"].X.sum(dtype=float) / expected - 1) < 0.01
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
print(f"density {matrix.nnz / n_cells / n_genes:.3f}, {seconds:.0f} s")
print(f"peak {peak:.2f} GB")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the peak memory is that of Linux")
def test_large_simulations_need_less_than_four_gigabytes():
    result = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    print(result.stdout)
    peak = float(result.stdout.split("peak ")[1].split(" GB")[0])
    assert peak < 4
