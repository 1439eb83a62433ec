"""The two ridge models: on pairs, and on bulk simulated from the calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.linear_model import Ridge as ScikitRidge

from scdeconv import pp, tl
from scdeconv._stats.ridge import FLOOR, LEAST_SD, PENALTIES
from scdeconv.models import PairedData, Ridge, SimulationRidge

MODELS = [Ridge, SimulationRidge]


def trained(cls, mdata, *, held_out=False, n_simulated=150, **kwargs):
    model = cls(mdata) if cls is Ridge else cls(mdata, n_simulated=n_simulated)
    model.train(held_out=held_out, **kwargs)
    return model


def ridge_by_hand(expression, fractions, groups, new):
    """Standardised log expression to log-ratios by scikit-learn, the penalty by the best left-out fractions."""
    log = lambda values: np.log(1 + 10 * values.shape[1] * values / values.sum(axis=1, keepdims=True))
    x = log(expression)
    centre, scale = x.mean(axis=0), x.std(axis=0) + LEAST_SD
    x, x_new = (x - centre) / scale, (log(new) - centre) / scale
    y = np.log(np.maximum(fractions, FLOOR))
    y -= y.mean(axis=1, keepdims=True)
    unit = (x**2).sum() / len(x)
    errors = []
    for penalty in PENALTIES:
        predicted = np.empty_like(y)
        for group in np.unique(groups):
            out = groups == group
            predicted[out] = ScikitRidge(alpha=penalty * unit).fit(x[~out], y[~out]).predict(x[out])
        errors.append(((softmax(predicted, axis=1) - fractions) ** 2).mean())
    best = PENALTIES[int(np.argmin(errors))]
    return softmax(ScikitRidge(alpha=best * unit).fit(x, y).predict(x_new), axis=1), best


def known_rows(mdata):
    bulk = mdata["bulk"]
    known = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    return (
        bulk.X[known].astype(float),
        bulk.obsm["measured_fractions"].to_numpy()[known],
        bulk.obs["donor"].to_numpy()[known].astype(str),
    )


def test_ridge_equals_scikit_learn_on_the_pairs(pairs, cohort):
    expected, penalty = ridge_by_hand(*known_rows(pairs), cohort[1].X.astype(float))
    model = trained(Ridge, pairs)
    np.testing.assert_allclose(model.predict(cohort[1], in_sample=True), expected, rtol=1e-6)
    assert model.summary_ == f"10 samples, 240 genes, penalty {penalty:.2g}"


def test_ridge_leaves_whole_donors_out(repeated_pairs, cohort):
    expected, _ = ridge_by_hand(*known_rows(repeated_pairs), cohort[1].X.astype(float))
    np.testing.assert_allclose(trained(Ridge, repeated_pairs).predict(cohort[1], in_sample=True), expected, rtol=1e-5)


def test_simulation_ridge_equals_scikit_learn_on_its_draws(pairs, cohort):
    calibration = pp.fit_calibration(PairedData(pairs, pairs["bulk"].var_names), (), batch_key=None)
    rng = np.random.default_rng(5)
    fractions = calibration.draw_compositions(60, pp.BROAD, rng)
    expression = calibration.draw_bulk(fractions, rng)
    expected, _ = ridge_by_hand(expression, fractions, np.arange(60), cohort[1].X.astype(float))
    model = SimulationRidge(pairs, n_simulated=60)
    model.train(held_out=False, seed=5)
    np.testing.assert_allclose(model.predict(cohort[1], in_sample=True), expected, rtol=1e-5)


def test_seed_determines_the_simulation_ridge(pairs, cohort):
    first, again, other = (
        trained(SimulationRidge, pairs, seed=seed).predict(cohort[1], in_sample=True) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not first.equals(other)
    assert (first - other).abs().max(axis=None) < 0.2


def test_seed_and_number_of_simulations_are_stored(pairs, tmp_path):
    model = SimulationRidge(pairs, n_simulated=123)
    model.train(held_out=False, seed=9)
    assert model.summary_.startswith("123 samples, 240 genes, penalty")
    model.save(tmp_path / "model")
    loaded = SimulationRidge.load(tmp_path / "model")
    assert loaded.seed_ == 9
    assert loaded.parameters_ == {"n_simulated": 123}


def test_global_random_state_is_unchanged(pairs, global_state_untouched):
    with global_state_untouched():
        trained(SimulationRidge, pairs, n_simulated=100, seed=1)


@pytest.mark.parametrize("cls", MODELS)
def test_sample_depth_does_not_matter(cls, pairs, cohort):
    model = trained(cls, pairs)
    deeper = cohort[1].copy()
    deeper.X = deeper.X * 13.0
    pd.testing.assert_frame_equal(
        model.predict(deeper, in_sample=True), model.predict(cohort[1], in_sample=True), rtol=1e-8
    )


@pytest.mark.parametrize("cls", MODELS)
def test_new_donors_are_predicted_better_than_by_mean(cls):
    from scdeconv import datasets

    cells, bulk = datasets.paired_cohort(
        n_donors=24, n_bulk_only=20, n_reference_only=0, n_genes=400, n_cell_types=4, cells_per_donor=(100, 200), seed=2
    )
    mdata = pp.pair(cells, bulk)
    truth = bulk.obsm["true_fractions"]
    new = mdata["bulk"].obsm["measured_fractions"].isna().any(axis=1).to_numpy()
    error = lambda model: ((model.predict(bulk, in_sample=True) - truth)[new] ** 2).mean(axis=None)
    assert error(trained(cls, mdata, n_simulated=1000)) < 0.7 * error(tl.train(mdata, "mean_composition"))


@pytest.mark.parametrize("cls", MODELS)
def test_samples_without_fractions_do_not_affect_the_fit(cls, pairs, cohort):
    """The simulation uses their depths, but not their expression."""
    before = trained(cls, pairs).predict(cohort[1], in_sample=True)
    rng = np.random.default_rng(0)
    unknown = pairs["bulk"].obsm["measured_fractions"].isna().any(axis=1).to_numpy()
    pairs["bulk"].X[unknown] = rng.permuted(pairs["bulk"].X[unknown], axis=1)
    pd.testing.assert_frame_equal(trained(cls, pairs).predict(cohort[1], in_sample=True), before, check_exact=True)


@pytest.mark.parametrize("cls", MODELS)
def test_held_out_predictions_equal_hold_out(cls, pairs):
    model = trained(cls, pairs, held_out=True, n_simulated=60)
    for row in (2, 5):
        rest, own = pp.hold_out(pairs, [model.held_out_.donors[row]])
        again = trained(cls, rest, n_simulated=60).predict(own)
        np.testing.assert_allclose(model.held_out_.predicted[row], again.iloc[0], atol=1e-6)


@pytest.mark.parametrize("cls", MODELS)
def test_missing_genes_take_the_training_mean(cls, pairs, cohort):
    model = trained(cls, pairs)
    mean = model.state_.reference
    if cls is Ridge:
        rows, _, _ = known_rows(pairs)
        np.testing.assert_allclose(mean, (rows / rows.sum(axis=1, keepdims=True)).mean(axis=0))
    fewer = cohort[1][:, 50:].copy()
    shares = fewer.X / fewer.X.sum(axis=1, keepdims=True) * mean[50:].sum()
    filled = cohort[1].copy()
    filled.X = 1e6 * np.column_stack([np.tile(mean[:50], (len(shares), 1)), shares])
    with pytest.warns(UserWarning, match="50 of the model's 240 genes"):
        predicted = model.predict(fewer, in_sample=True)
    pd.testing.assert_frame_equal(predicted, model.predict(filled, in_sample=True), rtol=1e-6)


@pytest.mark.parametrize("cls", MODELS)
def test_saved_model_gives_the_same_predictions_and_intervals(cls, pairs, cohort, tmp_path):
    model = trained(cls, pairs, held_out=True, n_simulated=60)
    model.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model")
    pd.testing.assert_frame_equal(
        loaded.predict(cohort[1], in_sample=True), model.predict(cohort[1], in_sample=True), check_exact=True
    )
    bounds, again = (m.predict_interval(cohort[1], 0.85, in_sample=True) for m in (model, loaded))
    for first, second in zip(bounds, again, strict=True):
        pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_mixtures_change_the_fit_but_not_the_penalty(pairs):
    plain, mixed, again = (tl.train(pairs, "ridge", mix=mix) for mix in (0, 1, 1))
    assert mixed.summary_.split("penalty")[1].split(";")[0] == plain.summary_.split("penalty")[1].split(";")[0]
    np.testing.assert_array_equal(mixed.state_.coefficients, again.state_.coefficients)
    assert not np.allclose(mixed.state_.coefficients, plain.state_.coefficients)


def test_recorded_mixtures_are_used(pairs):
    expected = tl.train(pairs, "ridge", mix=1).state_.coefficients
    pp.augment(pairs, mix=1)
    np.testing.assert_array_equal(tl.train(pairs, "ridge").state_.coefficients, expected)
