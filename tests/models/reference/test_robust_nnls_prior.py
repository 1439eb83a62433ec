"""Platform shifts of other data sets as the prior of RobustNNLS."""

from __future__ import annotations

import numpy as np
import pytest
from robust_nnls_data import make_bulk, make_mdata, rmse

from scdeconv import datasets
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.solvers.platform_shift import PlatformShift, learn_shift, solve_robust_nnls
from scdeconv.models import RobustNNLS
from scdeconv.models.reference import _platform_prior


def biased_bulk(seed):
    """Bulk whose markers of one type share a shift, which no robust weight can find, and the shift of all genes."""
    signature, _, fractions, _ = make_bulk(seed, 20)
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 0.4, signature.shape[1])
    shift[signature.argmax(axis=0) == 0] += 1.0
    bulk = fractions @ signature * np.exp(shift)
    return signature, bulk / bulk.sum(axis=1, keepdims=True), fractions, shift - np.median(shift)


def solve(signature, bulk, predictors):
    shift = learn_shift(signature, bulk, counts=False, predictors=predictors)
    return to_fractions(solve_robust_nnls(signature, bulk, shift, counts=False)), shift


def test_true_shifts_lower_the_error():
    errors = []
    for seed in range(6):
        signature, bulk, fractions, shift = biased_bulk(seed)
        noisy = shift + np.random.default_rng(seed).normal(0, 0.2, len(shift))
        known, learned = solve(signature, bulk, noisy[None])
        assert learned.slopes[0] > 0.5
        errors.append([rmse(known, fractions), rmse(solve(signature, bulk, None)[0], fractions)])
    with_prior, without = np.mean(errors, axis=0)
    assert with_prior < 0.7 * without


@pytest.mark.parametrize("seed", range(3))
def test_unrelated_shifts_have_little_effect(seed):
    signature, bulk, fractions, _ = make_bulk(seed, 20, shift_sd=0.4, n_far=3, n_genes=400)
    unrelated = np.random.default_rng(seed + 10).normal(0, 0.5, 400)
    plain, _ = solve(signature, bulk, None)
    found, learned = solve(signature, bulk, unrelated[None])
    assert learned.slopes[0] < 0.25
    assert rmse(found, fractions) < rmse(plain, fractions) + 0.01


def test_zero_predictors_change_nothing():
    signature, bulk, _, _ = make_bulk(1, shift_sd=0.4, n_far=3)
    plain, shift = solve(signature, bulk, None)
    found, same = solve(signature, bulk, np.zeros((1, signature.shape[1])))
    np.testing.assert_allclose(found, plain, atol=1e-6)
    assert same.sd == pytest.approx(shift.sd, rel=1e-4)


def test_expected_shift_scales_the_profiles():
    signature, bulk, _, _ = make_bulk(2, shift_sd=0.3)
    expected = np.random.default_rng(0).normal(size=signature.shape[1])
    shift = PlatformShift(0.3, np.ones(signature.shape[1]), expected)
    found = solve_robust_nnls(signature, bulk, shift, counts=False)
    plain = PlatformShift(0.3, shift.trust)
    np.testing.assert_allclose(found, solve_robust_nnls(signature * np.exp(expected), bulk, plain, counts=False))


@pytest.fixture
def named():
    """A model of bulk whose genes are in the table, by symbol and by Ensembl identifier."""
    table = datasets.platform_shift_prior().dropna()
    signature, bulk, _, _ = make_bulk(0, shift_sd=0.3)

    def train(names, **arguments):
        mdata = make_mdata(signature, bulk * 1e6)
        for modality in mdata.mod.values():
            modality.var_names = names
        mdata.update()
        model = RobustNNLS(mdata, **arguments)
        model.train()
        return model

    return table.iloc[: signature.shape[1]], train


def test_genes_are_found_by_symbol_or_identifier(named):
    table, train = named
    by_symbol, by_identifier = train(list(table.index)), train(list(table["gene_id"]))
    assert by_symbol.state_.shift.slopes.shape == (1,)
    np.testing.assert_allclose(
        by_symbol.state_.shift.expected, by_symbol.state_.shift.slopes[0] * table["expected"], atol=1e-12
    )
    np.testing.assert_allclose(by_symbol.state_.shift.expected, by_identifier.state_.shift.expected)


def test_prior_can_be_turned_off(named):
    table, train = named
    off, unknown = train(list(table.index), platform_prior=None), train([f"G{i}" for i in range(len(table))])
    assert off.state_.shift.expected is None
    assert unknown.state_.shift.expected is None
    np.testing.assert_allclose(off.state_.shift.trust, unknown.state_.shift.trust)
    assert train(list(table.index), platform_prior="10x 3' nuclei").state_.shift.expected is not None


def test_counts_have_the_length_as_second_predictor(named):
    table, _ = named
    data = type("Data", (), {"bulk_unit": "counts", "samples": [1], "genes": table.index, "is_counts": True})()
    predictors = _platform_prior.shift_predictors(data, "10x 3'")
    np.testing.assert_allclose(predictors, table[["expected", "log_length"]].to_numpy().T)
