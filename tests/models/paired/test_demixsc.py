"""DeMixSC: normalisation, discrepant genes and weighted fits of its state, from the cells and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import nnls
from scipy.stats import rankdata

from scdeconv import pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._stats.solvers.discrepancy import find_discrepant_genes
from scdeconv.models import DeMixSC


def known_rows(mdata):
    return mdata["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()


def pseudobulk_by_loops(mdata):
    cells, donors = mdata["sc"], mdata["bulk"].obs["donor"].astype(str)[known_rows(mdata)]
    return np.array(
        [cells.X[(cells.obs["donor"].astype(str) == donor).to_numpy()].toarray().sum(axis=0) for donor in donors]
    )


def normalise_by_loops(samples):
    """Quantile normalisation: ranks are replaced by the mean of the sorted samples."""
    target = np.mean([sorted(sample) for sample in samples], axis=0)
    found = np.zeros(samples.shape)
    for row, sample in zip(found, samples, strict=True):
        for gene, rank in enumerate(rankdata(sample) - 1):
            row[gene] = (target[int(np.floor(rank))] + target[int(np.ceil(rank))]) / 2
    return found


def trained(mdata, **options):
    model = DeMixSC(mdata, **options)
    model.train(held_out=False)
    return model


def test_predictions_equal_a_plain_implementation(pairs):
    known, bulk = known_rows(pairs), pairs["bulk"]
    both = normalise_by_loops(np.vstack([bulk.X[known].astype(float), pseudobulk_by_loops(pairs)]))
    samples = both[: known.sum()]
    factor = np.where(find_discrepant_genes(samples, both[known.sum() :]), 1e-3, 1)
    model = trained(pairs)
    np.testing.assert_array_equal(model.state_.discrepant, factor < 1)
    profiles = pairs["profiles"].X * factor
    for found, sample in zip(model.predict(bulk, in_sample=True).to_numpy()[known], samples, strict=True):
        values = 1e5 * sample / sample.sum() * factor
        weights = np.ones_like(values)
        for _ in range(200):
            solution = nnls((profiles * np.sqrt(weights)).T, values * np.sqrt(weights))[0]
            fitted = solution @ profiles
            weights = 1 / ((values - fitted) ** 2 + fitted**2 + 2)
        # the model stops at a change of 0.001 per type
        np.testing.assert_allclose(found, solution / solution.sum(), atol=0.005)


def test_donors_without_cells_have_expected_pseudobulk(pairs):
    without_cells = make_mudata({name: pairs[name] for name in ("bulk", "profiles")})
    model = trained(without_cells)
    known = known_rows(pairs)
    expected = pairs["bulk"].obsm["measured_fractions"].to_numpy()[known] @ pairs["profiles"].X
    both = normalise_by_loops(np.vstack([pairs["bulk"].X[known].astype(float), expected]))
    found = find_discrepant_genes(both[: known.sum()], both[known.sum() :])
    np.testing.assert_array_equal(model.state_.discrepant, found)


def test_unweighted_residuals_converge(pairs):
    quality = trained(pairs).quality(pairs["bulk"])
    assert quality["converged"].all()


def test_weighted_residuals_are_those_of_the_original(pairs, monkeypatch):
    monkeypatch.setattr("scdeconv._stats.solvers.discrepancy.MAX_ITERATIONS", 20)
    first, second = (trained(pairs, weighted_residuals=flag) for flag in (True, False))
    assert first.parameters_ == {"weighted_residuals": True}
    assert not first.predict(pairs["bulk"], in_sample=True).equals(second.predict(pairs["bulk"], in_sample=True))
    assert not first.quality(pairs["bulk"])["converged"].all()


def test_unexpressed_genes_are_scaled_down(pairs):
    pairs["bulk"].X[:, 7] = 0
    assert trained(pairs).state_.discrepant[7]


def test_missing_genes_are_not_fitted(pairs):
    state = trained(pairs).state_
    expression = pairs["bulk"].X.astype(float)
    shares = state.mean * expression.sum(axis=1, keepdims=True)
    expression[:, :20] = shares[:, :20]
    # the filled values equal the mean of the training bulk
    expression *= 1 / expression.sum(axis=1, keepdims=True)
    missing = expression.copy()
    missing[:, :20] = np.nan
    found = state.predict(missing)
    assert np.isfinite(found).all()
    assert np.abs(found - state.predict(expression)).max() > 0


def test_predictions_do_not_depend_on_the_batch(pairs, cohort):
    model = trained(pairs)
    alone = [model.predict(cohort[1][[row]].copy(), in_sample=True) for row in range(3)]
    pd.testing.assert_frame_equal(pd.concat(alone), model.predict(cohort[1], in_sample=True).iloc[:3], rtol=1e-6)


@pytest.mark.parametrize("seed", [0])
def test_error_is_below_the_mean_composition(cohort, seed):
    mdata = pp.pair(*cohort)
    error, of_mean = tl.train(mdata, "demixsc").held_out_.errors()
    assert error < 0.9 * of_mean
