"""DeMixSC against DeMixSC 0.9.0 @ 697cc95: benchmark mode, and its mode for new samples with ComBat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv._stats.batch_correction import _remove_batches
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.expression import quantile_normalise, to_shares
from scdeconv._stats.solvers.discrepancy import SCALE, find_discrepant_genes, solve_discrepancy_weighted
from scdeconv.models.paired.demixsc import ADJUSTMENT


@pytest.fixture(scope="module")
def aligned(paired, bulk):
    """New bulk, paired bulk and pseudobulk as the original normalises them."""
    pairs, n_new = paired["bulk"], bulk.n_obs
    pseudobulk = paired["pseudobulk"][pairs.obs["donor"].astype(str).to_numpy()].X.astype(float)
    both = np.vstack([bulk.X, pairs.X.astype(float)])
    corrected = _remove_batches(quantile_normalise(both, both), [slice(n_new), slice(n_new, None)])
    every = np.vstack([corrected, pseudobulk])
    return np.split(quantile_normalise(every, every), [n_new, n_new + pairs.n_obs])


@pytest.fixture(scope="module")
def of_original(paired, train):
    """Fractions of the pairs with weighted residuals, and whether they have converged."""
    model = train("DeMixSC", paired, weighted_residuals=True)
    weights, converged = model.state_.solve(paired["bulk"].X.astype(float))
    return pd.DataFrame(to_fractions(weights), paired["bulk"].obs_names, model.cell_types_), converged


def test_fractions_of_the_pairs_equal_the_original(of_original, assert_equals_original):
    # measured 5.1e-10: the rounding of the table, in the solution of iteration 2,000
    assert_equals_original(of_original[0], "demixsc_pairs", atol=1e-8)
    assert not of_original[1].any()


def test_unweighted_residuals_converge_with_a_smaller_error(paired, train, of_original):
    model, measured = train("DeMixSC", paired), paired["bulk"].obsm["measured_fractions"]
    assert model.quality(paired["bulk"])["converged"].all()
    tables = model.predict(paired["bulk"], in_sample=True), of_original[0]
    errors = [float(np.sqrt(((table[measured.columns] - measured) ** 2).mean(axis=None))) for table in tables]
    # in-sample, measured 0.0230 and 0.0939
    np.testing.assert_allclose(errors, [0.0230, 0.0939], atol=0.0005)


def test_discrepant_genes_equal_the_original(aligned, bulk, read_original):
    found = find_discrepant_genes(*aligned[1:])
    assert set(bulk.var_names[found]) == set(read_original("demixsc_discrepancy_genes").index)


def test_aligned_bulk_is_close_to_the_original(aligned, bulk, read_original):
    """The iteration of ComBat stops at another round, which moves samples between neighbouring quantiles."""
    factor = np.where(find_discrepant_genes(*aligned[1:]), 1 / ADJUSTMENT, 1)
    expected = read_original("demixsc_target_adjusted", bulk.obs_names, bulk.var_names)
    # measured 1.6 % at most
    np.testing.assert_allclose(SCALE * to_shares(aligned[0]) * factor, expected, rtol=0.02)


def test_solutions_equal_the_original_on_its_aligned_bulk(aligned, bulk, paired, read_original, assert_equals_original):
    profiles = paired["profiles"]
    factor = np.where(find_discrepant_genes(*aligned[1:]), 1 / ADJUSTMENT, 1)
    target = read_original("demixsc_target_adjusted", bulk.obs_names, bulk.var_names).to_numpy()
    weights, converged = solve_discrepancy_weighted(profiles.X * factor, target, weighted_residuals=True)
    # one of ten samples converges
    assert converged.sum() == 1
    table = pd.DataFrame(to_fractions(weights), bulk.obs_names, list(profiles.obs["cell_type"]))
    assert_equals_original(table, "demixsc", atol=1e-4)
