from __future__ import annotations

import subprocess
import sys

import anndata
import numpy as np
import pytest
from scipy.sparse import issparse
from scipy.stats import nbinom
from sklearn.linear_model import RidgeCV

from scdeconv.datasets import paired_cohort
from scdeconv.datasets._cohort import _negative_binomial, _sequence_bulk

SMALL = {"n_donors": 5, "n_bulk_only": 2, "n_reference_only": 1, "n_genes": 120, "cells_per_donor": (30, 60)}


@pytest.fixture(scope="module")
def cohort():
    return paired_cohort()


def measured(cells, bulk):
    """Fractions and log CPM of the pairs."""
    shares = cells.obs.groupby("donor", observed=True)["cell_type"].value_counts(normalize=True).unstack(fill_value=0)
    paired = bulk[bulk.obs["donor"].isin(shares.index)]
    fractions = shares.loc[paired.obs["donor"], list(cells.obs["cell_type"].cat.categories)].to_numpy()
    return fractions, np.log1p(1e6 * paired.X / paired.X.sum(axis=1, keepdims=True))


def test_cohort_depends_on_the_seed_only():
    (cells, bulk), (again, bulk_again), (_, other) = (paired_cohort(**SMALL, seed=s) for s in (3, 3, 4))
    assert (cells.X != again.X).nnz == 0
    assert cells.obs.equals(again.obs)
    assert np.array_equal(bulk.X, bulk_again.X)
    assert not np.array_equal(bulk.X, other.X)


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].copy()
    paired_cohort(**SMALL)
    assert np.array_equal(before, np.random.get_state()[1])


def test_donors_overlap_as_requested_in_another_order():
    cells, bulk = paired_cohort(**SMALL)
    with_cells, with_bulk = set(cells.obs["donor"]), set(bulk.obs["donor"])
    assert (len(with_cells & with_bulk), len(with_bulk - with_cells), len(with_cells - with_bulk)) == (5, 2, 1)
    assert cells.obs["donor"].drop_duplicates().tolist() != bulk.obs["donor"].tolist()
    assert cells.var_names.equals(bulk.var_names)


def test_counts_are_sparse_integers_with_realistic_zeros(cohort):
    cells, bulk = cohort
    assert issparse(cells.X)
    assert cells.X.format == "csr"
    assert cells.X.dtype == bulk.X.dtype == np.int32
    assert 0.05 < cells.X.nnz / np.prod(cells.shape) < 0.25
    assert 10_000 < cells.n_obs < 30_000
    depth = bulk.X.sum(axis=1)
    assert depth.min() > 2e6
    assert depth.max() < 45e6
    assert depth[bulk.obs["batch"] == "batch1"].min() > depth[bulk.obs["batch"] == "batch2"].max()


def test_fractions_have_dominant_and_rare_types(cohort):
    cells, bulk = cohort
    truth = bulk.obsm["true_fractions"]
    assert truth.index.equals(bulk.obs_names)
    assert list(truth.columns) == list(cells.obs["cell_type"].cat.categories)
    assert np.allclose(truth.sum(axis=1), 1)
    assert truth.mean().idxmax() == "Macrophage"
    assert truth.mean()["Macrophage"] > 0.4
    assert 0.003 < truth["Mast cell"].mean() < 0.03
    assert not any("/" in name for name in truth.columns)


def test_cells_are_a_multinomial_sample_of_the_tissue(cohort):
    cells, bulk = cohort
    truth = bulk.obsm["true_fractions"].set_axis(bulk.obs["donor"], axis=0)
    counts = cells.obs.groupby("donor", observed=True)["cell_type"].value_counts().unstack(fill_value=0)
    counts = counts.loc[counts.index.intersection(truth.index), truth.columns]
    expected = truth.loc[counts.index].mul(counts.sum(axis=1), axis=0)
    chi_square = ((counts - expected) ** 2 / expected).to_numpy().sum()
    assert chi_square / (len(counts) * (truth.shape[1] - 1)) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("seed", range(5))
def test_small_cohorts_have_cells_of_every_type(seed):
    cells, _ = paired_cohort(**{**SMALL, "cells_per_donor": (5, 8)}, seed=seed)
    assert cells.obs["cell_type"].value_counts().min() >= 1


def test_two_t_cell_types_are_the_most_similar(cohort):
    profiles = np.log(cohort[1].uns["cohort"]["profiles"])
    similarity = np.corrcoef(profiles) - np.eye(len(profiles))
    assert set(np.unravel_index(similarity.argmax(), similarity.shape)) == {1, 2}


def test_cells_of_larger_types_have_more_molecules(cohort):
    cells, bulk = cohort
    molecules = np.asarray(cells.X.sum(axis=1)).ravel()
    mean = cells.obs.assign(molecules=molecules).groupby("cell_type", observed=True)["molecules"].mean()
    size = bulk.uns["cohort"]["cell_size"]
    assert size.max() / size.min() == pytest.approx(4)
    assert np.corrcoef(np.log(mean), np.log(size))[0, 1] > 0.98


def test_planted_truth_survives_h5ad(cohort, tmp_path):
    bulk = cohort[1]
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    again = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    assert set(again.uns["cohort"]) == set(bulk.uns["cohort"])
    for key, value in bulk.uns["cohort"].items():
        assert np.array_equal(again.uns["cohort"][key], value)
    assert np.allclose(again.obsm["true_fractions"], bulk.obsm["true_fractions"])


def test_negative_binomial_has_the_closed_form_distribution():
    rng = np.random.default_rng(0)
    mean, dispersion, depth = np.array([0.7, 3.0]), np.array([0.8, 0.3]), 1.5
    counts = _negative_binomial(rng, mean, np.full(40_000, depth), dispersion).toarray()
    for gene in range(2):
        size = depth / dispersion[gene]
        expected = nbinom.pmf(np.arange(8), size, size / (size + depth * mean[gene]))
        found = np.bincount(counts[:, gene], minlength=8)[:8] / len(counts)
        assert np.allclose(found, expected, atol=0.01)


def test_bulk_has_the_planted_distortions():
    rng = np.random.default_rng(0)
    profiles = rng.dirichlet(np.full(400, 5.0), 3)
    rna = np.repeat(profiles[None] * np.array([0.5, 0.3, 0.2])[:, None], 60, axis=0)
    planted, batch, counts = _sequence_bulk(rng, rna, profiles)
    captured = (rna[0] * np.exp(planted["platform_shift_of_type"])).sum(axis=0)
    departure = np.log(counts + 0.5) - np.log(captured) - planted["platform_shift"] - planted["batch_shift"][batch]
    departure -= departure.mean(axis=1, keepdims=True)
    expected = np.sqrt((planted["noise_loadings"] ** 2).sum(axis=0) + planted["noise_sd"] ** 2)
    assert np.median(departure.std(axis=0) / expected) == pytest.approx(1, abs=0.1)
    assert abs(departure.mean()) < 0.02


def test_regression_beats_the_mean_composition(cohort):
    fractions, bulk = measured(*cohort)
    donors = np.arange(len(fractions))
    ridge, mean = np.empty_like(fractions), np.empty_like(fractions)
    for donor in donors:
        train = donors != donor
        model = RidgeCV(alphas=np.logspace(1, 6, 11)).fit(bulk[train], fractions[train])
        ridge[donor], mean[donor] = model.predict(bulk[[donor]]), fractions[train].mean(axis=0)
    ratio = np.sqrt(np.mean((ridge - fractions) ** 2) / np.mean((mean - fractions) ** 2))
    assert 0.45 < ratio < 0.8


@pytest.mark.parametrize("n_cell_types", [4, 16])
def test_any_number_of_cell_types_has_unique_names(n_cell_types):
    cells, bulk = paired_cohort(**SMALL, n_cell_types=n_cell_types)
    assert bulk.obsm["true_fractions"].columns.is_unique
    assert bulk.obsm["true_fractions"].shape[1] == cells.obs["cell_type"].cat.categories.size == n_cell_types


def test_importing_datasets_loads_neither_torch_nor_downloaders():
    code = "import sys, scdeconv.datasets; print([m for m in ('torch', 'scvi', 'scanpy', 'pooch', 'rdata') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
