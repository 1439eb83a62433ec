from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import lsq_linear

from scdeconv import pp, tl
from scdeconv.models import NNLS
from scdeconv.models.reference.nnls import solve_nnls

TYPES = ["B cell", "NK cell", "T cell"]
SIZES = np.array([1.0, 4.0, 10.0])


def mixtures(profiles, shares, cells=300):
    """Noise-free bulk: sums of the given numbers of cells per type."""
    return AnnData(cells * shares.to_numpy() @ profiles.X, obs=shares[[]], var=profiles.var)


def train(profiles, bulk):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    return tl.train(mdata, "nnls")


def test_solution_equals_the_bounded_least_squares_of_scipy():
    rng = np.random.default_rng(0)
    signature, bulk = rng.gamma(1, 1, (4, 30)), rng.gamma(1, 5, (6, 30))
    for weights, sample in zip(solve_nnls(signature, bulk), bulk, strict=True):
        oracle = lsq_linear(signature.T, sample, bounds=(0, np.inf), tol=1e-14).x
        np.testing.assert_allclose(weights, oracle, atol=1e-5)
        assert (weights >= 0).all()


def test_solution_fulfils_the_conditions_of_optimality():
    """The gradient is zero where a weight is positive and points outwards where it is zero (Karush-Kuhn-Tucker)."""
    rng = np.random.default_rng(1)
    signature, bulk = rng.gamma(1, 1, (6, 40)), rng.gamma(1, 1, (20, 40))
    weights = solve_nnls(signature, bulk)
    gradient = (weights @ signature - bulk) @ signature.T
    assert (weights == 0).any()
    np.testing.assert_allclose(gradient[weights > 0], 0, atol=1e-9)
    assert (gradient[weights == 0] > -1e-9).all()


def test_noise_free_fractions_of_cells_are_recovered(profiles, shares):
    """RNA content differs tenfold between types, so RNA fractions would have a large error."""
    bulk = mixtures(profiles, shares)
    model = train(profiles, bulk)
    pd.testing.assert_frame_equal(model.predict(bulk), shares, atol=1e-6)
    assert model.fraction_kind == "cell"
    rna = shares * SIZES / (shares * SIZES).sum(axis=1).to_numpy()[:, None]
    assert (rna - shares).abs().max(axis=None) > 0.2


def test_cell_sizes_convert_profiles_to_counts(profiles, shares):
    bulk = mixtures(profiles, shares)
    profiles.obs["cell_size_umi"] = profiles.X.sum(axis=1)
    profiles.X = profiles.X / profiles.X.sum(axis=1, keepdims=True) * 1e6
    pd.testing.assert_frame_equal(train(profiles, bulk).predict(bulk), shares, atol=1e-6)


def test_sample_depth_does_not_matter(profiles, shares):
    bulk = mixtures(profiles, shares)
    model = train(profiles, bulk)
    for factor in (0.1, 1e3):
        deeper = bulk.copy()
        deeper.X = bulk.X * factor
        pd.testing.assert_frame_equal(model.predict(deeper), model.predict(bulk), atol=1e-9)


def test_scale_of_all_profiles_does_not_matter(profiles, shares):
    bulk = mixtures(profiles, shares)
    expected = train(profiles, bulk).predict(bulk)
    profiles.X = profiles.X * 1e-4
    pd.testing.assert_frame_equal(train(profiles, bulk).predict(bulk), expected, atol=1e-9)


def test_mixtures_are_recovered_with_missing_genes(profiles, shares):
    bulk = mixtures(profiles, shares)
    model = train(profiles, bulk)
    with pytest.warns(UserWarning, match="20 of the model's 60 genes"):
        predicted = model.predict(bulk[:, 20:].copy())
    pd.testing.assert_frame_equal(predicted, shares, atol=1e-6)


def test_sample_without_any_signal_becomes_nan(profiles, shares):
    bulk = mixtures(profiles, shares)
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    mdata["bulk"].var["selected"] = np.arange(60) < 30
    bulk.X[0, :30] = 0
    model = tl.train(mdata, "nnls")
    with pytest.warns(UserWarning, match="no reads"):
        assert model.predict(bulk).iloc[0].isna().all()


def test_type_without_remaining_cells_is_zero(cohort):
    cells, bulk = (adata.copy() for adata in cohort)
    donor = cells.obs["donor"].astype(str)
    only = next(d for d in donor[cells.obs["cell_type"] == "Mast cell"] if d in set(bulk.obs["donor"]))
    cells = cells[(donor == only) | (cells.obs["cell_type"] != "Mast cell").to_numpy()].copy()
    train_part, held_out = pp.hold_out(pp.pair(cells, bulk), [only])
    predicted = tl.train(train_part, "nnls").predict(held_out)
    assert predicted.notna().all(axis=None)
    assert predicted["Mast cell"].tolist() == [0.0]


def test_selected_genes_are_used_else_all(pairs):
    pp.select_genes(pairs, 40)
    chosen = list(pairs["bulk"].var_names[pairs["bulk"].var["selected"]])
    assert list(tl.train(pairs, "nnls").genes_) == chosen
    del pairs["bulk"].var["selected"]
    model = NNLS(pairs)
    model.train()
    assert list(model.genes_) == list(pairs["bulk"].var_names)


def test_pairs_are_not_needed(cohort):
    cells, bulk = cohort
    other = bulk.copy()
    other.obs["donor"] = [f"somebody else {letter}" for letter in "ABCDEFGHIJKL"]
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        mdata = pp.pair(cells, other)
    assert tl.train(mdata, "nnls").method == "nnls"
