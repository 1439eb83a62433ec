"""Non-negative least squares after calibration, against mixtures whose composition and shift are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import minimize

from scdeconv import pp, tl
from scdeconv._stats.compositions import to_fractions
from scdeconv.models import NNLS, CalibratedNNLS, PairedData
from scdeconv.models.paired.calibrated_nnls import solve_generalised_nnls

TYPES = ["B cell", "NK cell", "T cell", "Monocyte"]


def mixtures(shift_sd, n_donors=20, n_genes=300, seed=0):
    """Paired bulk without noise (TPM), every gene multiplied by its own factor, and the fractions."""
    rng = np.random.default_rng(seed)
    shares = np.exp(rng.normal(0, 0.8, n_genes) + rng.normal(0, 0.8, (4, n_genes)))
    shares /= shares.sum(axis=1, keepdims=True)
    fractions = rng.dirichlet(np.full(4, 2.0), n_donors)
    values = fractions @ shares * np.exp(rng.normal(0, shift_sd, n_genes))
    genes = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    obs = pd.DataFrame({"donor": [f"D{i}" for i in range(n_donors)]}, index=[f"bulk{i}" for i in range(n_donors)])
    bulk = AnnData(1e6 * values / values.sum(axis=1, keepdims=True), obs=obs, var=genes)
    truth = pd.DataFrame(fractions, index=obs.index, columns=TYPES)
    bulk.obsm["measured_fractions"] = truth
    return pp.pair(bulk=bulk, profiles=AnnData(1000 * shares, obs=pd.DataFrame(index=TYPES), var=genes)), truth


def trained(cls, mdata, **kwargs):
    model = cls(mdata)
    model.train(**kwargs)
    return model


def worst(model, mdata, truth):
    return float((model.predict(mdata["bulk"], in_sample=True) - truth).abs().max(axis=None))


def problem(seed=0, n_types=4, n_genes=40):
    rng = np.random.default_rng(seed)
    signature = rng.gamma(1, 1, (n_types, n_genes)) / n_genes
    weights = rng.dirichlet(np.ones(n_types))
    shares = weights @ signature * np.exp(rng.normal(0, 0.4, n_genes))
    return signature, shares / shares.sum(), rng.uniform(0.05, 0.3, n_genes), 0.2 * rng.normal(size=(2, n_genes))


@pytest.mark.parametrize("depth", [1e6, np.inf])
def test_noise_free_mixture_is_solved_in_any_metric(depth):
    signature, _, variance, factors = problem()
    for weights in ([0.4, 0.3, 0.2, 0.1], [0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]):
        shares = weights @ signature
        total = shares.sum()
        found = solve_generalised_nnls(signature, shares / total, variance, factors, depth)
        np.testing.assert_allclose(found * total, weights, atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("depth", [300.0, np.inf])
def test_solution_minimises_the_metric_of_its_fit(seed, depth):
    """A fixed point: a general optimiser with the dense covariance at the solution finds the solution."""
    signature, shares, variance, factors = problem(seed)
    found = solve_generalised_nnls(signature, shares, variance, factors, depth)
    fitted = found @ signature
    scale = fitted + 1 / (10 * 40)
    covariance = (factors.T @ factors + np.diag(variance)) * np.outer(scale, scale) + np.diag(fitted / depth)
    inverse = np.linalg.inv(covariance)
    loss = lambda w: (shares - w @ signature) @ inverse @ (shares - w @ signature)
    gradient = lambda w: -2 * signature @ inverse @ (shares - w @ signature)
    best = minimize(loss, found + 0.1, jac=gradient, bounds=[(0, None)] * 4, tol=1e-12, options={"maxiter": 5000}).x
    np.testing.assert_allclose(found, best, atol=2e-3)
    assert (found >= 0).all()


def test_noisy_genes_have_lower_weight():
    """An outlier gene has less influence if its noise variance is larger."""
    signature, _, _, _ = problem(3)
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    shares = weights @ signature
    gene = int(np.argmax(signature[0] / signature.sum(axis=0)))
    wrong = shares.copy()
    wrong[gene] *= 3
    errors = []
    for of_gene in (0.1, 1.0, 100.0):
        variance = np.full(40, 0.1)
        variance[gene] = of_gene
        found = solve_generalised_nnls(signature, wrong, variance, np.empty((0, 40)), np.inf)
        errors.append(np.abs(found / found.sum() - weights).max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_known_noise_factor_does_not_change_the_estimate():
    signature, _, variance, factors = problem(1)
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    shares = weights @ signature * np.exp(0.3 * factors[0])
    shares /= shares.sum()
    errors = []
    for known in (np.empty((0, 40)), 20 * factors[:1]):
        found = solve_generalised_nnls(signature, shares, variance, known, np.inf)
        errors.append(np.abs(found / found.sum() - weights).max())
    assert errors[1] < 0.2 * errors[0]


def test_noise_free_mixtures_are_recovered():
    mdata, truth = mixtures(shift_sd=0.0)
    assert worst(trained(CalibratedNNLS, mdata, held_out=False), mdata, truth) < 1e-3


def test_known_shift_does_not_affect_noise_free_mixtures():
    """The planted shift recovers the fractions; the learned shift is on the log1p scale."""
    mdata, truth = mixtures(shift_sd=0.4)
    model = trained(CalibratedNNLS, mdata, held_out=False)
    shares = (mdata["bulk"].X / mdata["bulk"].X.sum(axis=1, keepdims=True)).T
    fitted = (truth.to_numpy() @ mdata["profiles"].X).T
    # the planted factor of each gene, up to a factor per sample
    level = np.median(shares / fitted, axis=0)
    planted = mdata["profiles"].X * (shares / fitted / level).mean(axis=1)
    predicted = to_fractions(replace(model.state_, signature=planted).predict(mdata["bulk"].X))
    np.testing.assert_allclose(predicted, truth, atol=1e-3)


@pytest.mark.parametrize("shift_sd", [0.2, 0.4])
def test_shift_learned_from_pairs_is_removed(shift_sd):
    mdata, truth = mixtures(shift_sd)
    learned, blind = (worst(trained(cls, mdata, held_out=False), mdata, truth) for cls in (CalibratedNNLS, NNLS))
    assert learned < 0.03
    assert learned < 0.25 * blind


def test_fit_is_the_calibration_of_its_genes(pairs):
    pp.select_genes(pairs, 100)
    model = trained(CalibratedNNLS, pairs, held_out=False)
    genes = pairs["bulk"].var_names[pairs["bulk"].var["selected"]]
    calibration = pp.fit_calibration(PairedData(pairs, genes), (), batch_key=None)
    shifted = calibration.profiles * np.exp(calibration.platform_shift)
    np.testing.assert_allclose(model.state_.signature / model.state_.signature.sum(), shifted / shifted.sum())
    np.testing.assert_allclose(model.state_.variance, calibration.noise_variance())
    assert list(model.genes_) == list(genes)


def test_batches_of_calibrate_are_modelled_separately(pairs):
    """Two batches add two factors to the covariance."""
    without = trained(CalibratedNNLS, pairs, held_out=False).state_.factors
    pp.calibrate(pairs, batch_key="batch")
    assert len(trained(CalibratedNNLS, pairs, held_out=False).state_.factors) == len(without) + 2


def test_tl_train_models_batches_separately(pairs):
    pp.calibrate(pairs, batch_key="batch")
    expected = trained(CalibratedNNLS, pairs, held_out=False)
    pp.select_genes(pairs, pairs["bulk"].n_vars)
    model = tl.train(pairs, "calibrated_nnls", held_out=False)
    assert list(model.genes_) == list(expected.genes_)
    np.testing.assert_allclose(model.state_.factors, expected.state_.factors)


def test_no_pairs_are_needed(cohort):
    cells, bulk = cohort
    other = bulk.copy()
    other.obs["donor"] = [f"somebody else {letter}" for letter in "ABCDEFGHIJKL"]
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        mdata = pp.pair(cells, other)
    model = trained(CalibratedNNLS, mdata)
    np.testing.assert_allclose(model.predict(bulk, in_sample=True).sum(axis=1), 1)
    assert model.summary_ == "0 donors, 4 profiles, 240 genes"
    with pytest.raises(ValueError, match="at least 4 paired donors"):
        model.predict_interval(bulk, in_sample=True)


def test_depth_affects_counts_only(pairs):
    """Low counts of a shallow sample have larger variance; TPM do not contain the depth."""
    counts = trained(CalibratedNNLS, pairs, held_out=False)
    assert counts.state_.counts
    mdata, _ = mixtures(0.2)
    tpm = trained(CalibratedNNLS, mdata, held_out=False)
    assert not tpm.state_.counts
    deeper = mdata["bulk"].copy()
    deeper.X = deeper.X * 1e-3
    pd.testing.assert_frame_equal(
        tpm.predict(deeper, in_sample=True), tpm.predict(mdata["bulk"], in_sample=True), atol=1e-9
    )


def test_held_out_predictions_equal_hold_out(pairs):
    model = trained(CalibratedNNLS, pairs)
    for row in (1, 6):
        rest, own = pp.hold_out(pairs, [model.held_out_.donors[row]])
        again = trained(CalibratedNNLS, rest, held_out=False).predict(own)
        np.testing.assert_allclose(model.held_out_.predicted[row], again.iloc[0], atol=1e-6)


def test_single_donor_with_cells_can_be_held_out(cohort):
    """Cells of one donor, fractions of all: the fold without cells must not fail."""
    cells, bulk = (adata.copy() for adata in cohort)
    bulk.obsm["measured_fractions"] = bulk.obsm["true_fractions"]
    counts = cells.obs["donor"].value_counts()
    donor = next(d for d in counts.index if d in set(bulk.obs["donor"]))
    cells = cells[(cells.obs["donor"] == donor).to_numpy()].copy()
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.remove_unused_categories()
    if cells.obs["cell_type"].nunique() < 4:
        pytest.skip("the donor lacks a type")
    model = trained(CalibratedNNLS, pp.pair(cells, bulk))
    assert model.predict(bulk, in_sample=True).notna().all(axis=None)
    # without a reference the donor has no prediction
    of_donor = model.held_out_.donors == donor
    np.testing.assert_allclose(model.held_out_.predicted[of_donor], 0.25)
    assert (model.held_out_.predicted[~of_donor].std(axis=1) > 0).all()


def test_saved_model_gives_the_same_predictions_and_intervals(pairs, cohort, tmp_path):
    model = trained(CalibratedNNLS, pairs)
    model.save(tmp_path / "model")
    loaded = CalibratedNNLS.load(tmp_path / "model")
    assert loaded.state_.counts is True
    pd.testing.assert_frame_equal(
        loaded.predict(cohort[1], in_sample=True), model.predict(cohort[1], in_sample=True), check_exact=True
    )
    bounds, again = (m.predict_interval(cohort[1], 0.8, in_sample=True) for m in (model, loaded))
    for first, second in zip(bounds, again, strict=True):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
