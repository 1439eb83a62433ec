"""Bisque against a literal transcription of its original, gene by gene and sample by sample."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from scdeconv import pp, tl
from scdeconv._data.chunks import product
from scdeconv._data.reference import sums as _sums
from scdeconv.models import Bisque, PairedData


def signature_by_loops(mdata):
    """Mean over a type's cells of each cell's share of its total."""
    cells = mdata["sc"]
    shares, rows = cells.X.toarray() / cells.obs["total"].to_numpy()[:, None], []
    for name in mdata["profiles"].obs["cell_type"]:
        mine = (cells.obs["cell_type"] == name).to_numpy()
        rows.append(shares[mine].mean(axis=0))
    return np.array(rows)


def bisque_by_hand(mdata, new):
    """Jew et al. 2020: z-scores of bulk and of what the reference predicts, one regression for each gene, then least
    squares with non-negative weights that sum to one, by a general optimiser.
    """
    bulk = mdata["bulk"]
    measured = bulk.obsm["measured_fractions"]
    known = measured.notna().all(axis=1).to_numpy()
    train = bulk.X[known] / bulk.X[known].sum(axis=1, keepdims=True)
    pred = new / new.sum(axis=1, keepdims=True)
    signature = signature_by_loops(mdata)
    target = measured.to_numpy()[known] @ signature
    transformed, used = np.zeros(pred.shape), []
    for gene in range(train.shape[1]):
        sd = train[:, gene].std(ddof=1)
        if sd == 0:
            continue
        used.append(gene)
        x = (train[:, gene] - train[:, gene].mean()) / sd
        y_sd = target[:, gene].std(ddof=1)
        y = (target[:, gene] - target[:, gene].mean()) / y_sd
        beta = (x * y).sum() / (x * x).sum()
        x_new = (pred[:, gene] - train[:, gene].mean()) / sd
        transformed[:, gene] = beta * x_new * y_sd + target[:, gene].mean()
    scale = signature.mean()
    design = signature[:, used].T / scale
    result = []
    for sample in transformed[:, used] / scale:
        loss = lambda w, sample=sample: ((design @ w - sample) ** 2).sum()
        gradient = lambda w, sample=sample: 2 * design.T @ (design @ w - sample)
        start = np.full(len(signature), 1 / len(signature))
        fit = minimize(
            loss, start, jac=gradient, method="SLSQP", bounds=[(0, 1)] * len(signature),
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14, "maxiter": 1000},
        )  # fmt: skip
        result.append(fit.x)
    return np.array(result)


def assert_same_state(first, second):
    for name, value in vars(first).items():
        np.testing.assert_array_equal(getattr(second, name), value)


def trained(mdata, **kwargs):
    model = Bisque(mdata)
    model.train(**kwargs)
    return model


def test_predictions_equal_a_plain_implementation(pairs):
    new = pairs["bulk"].copy()
    new.X = np.random.default_rng(0).permuted(new.X, axis=0)
    model = trained(pairs, held_out=False)
    for bulk in (pairs["bulk"], new):
        predicted = model.predict(bulk, in_sample=True)
        np.testing.assert_allclose(predicted, bisque_by_hand(pairs, bulk.X), atol=2e-4)
        np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert (model.predict(new, in_sample=True) < 1e-6).any(axis=None)  # the bound is active


def test_weights_sum_to_one_before_normalisation(pairs):
    model = trained(pairs, held_out=False)
    weights = model.state_.predict(pairs["bulk"].X.astype(float))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-4)


def test_gene_without_variance_is_not_used(pairs):
    bulk = pairs["bulk"]
    bulk.X[:, 7] = 0
    model = trained(pairs, held_out=False)
    assert not model.state_.used[7]
    assert model.state_.used.sum() == bulk.n_vars - 1
    before = model.predict(bulk, in_sample=True)
    np.testing.assert_allclose(before, bisque_by_hand(pairs, bulk.X), atol=2e-4)
    assert "239 genes" in model.summary_


def test_samples_without_fractions_do_not_influence_the_fit(pairs):
    before = trained(pairs)
    unknown = pairs["bulk"].obsm["measured_fractions"].isna().any(axis=1).to_numpy()
    assert unknown.sum() == 2
    pairs["bulk"].X[unknown] = np.random.default_rng(0).poisson(1e5, pairs["bulk"].X[unknown].shape)
    after = trained(pairs)
    assert_same_state(before.state_, after.state_)
    np.testing.assert_array_equal(after.held_out_.predicted, before.held_out_.predicted)


def test_held_out_predictions_equal_hold_out(pairs):
    """Ten donors give ten folds: each held-out prediction equals that of a model trained after hold_out."""
    model = trained(pairs)
    known = pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    donors = pairs["bulk"].obs["donor"].astype(str)[known].to_numpy()
    np.testing.assert_array_equal(model.held_out_.donors, donors)
    for row in (0, 4):
        rest, own = pp.hold_out(pairs, [donors[row]])
        np.testing.assert_allclose(
            model.held_out_.predicted[row], trained(rest, held_out=False).predict(own).iloc[0], rtol=1e-6, atol=1e-9
        )


def test_held_out_bulk_does_not_affect_other_samples(pairs):
    donor = pp.paired_donors(pairs)[3]
    rows = (pairs["bulk"].obs["donor"] == donor).to_numpy()
    states = []
    for factor in (1, 1000):
        pairs["bulk"].X[rows, :100] *= factor
        states.append(Bisque(pairs).fit(PairedData(pairs, pairs["bulk"].var_names), [donor]))
    assert_same_state(*states)


def test_platform_shift_of_a_gene_is_removed(pairs):
    """The regression removes a gene-wise factor that is equal in all samples."""
    state = trained(pairs, held_out=False).state_
    counts = pairs["bulk"].X / pairs["bulk"].X.sum(axis=1, keepdims=True)
    factor = np.exp(np.random.default_rng(0).normal(0, 0.5, counts.shape[1]))
    shifted = replace(state, slope=state.slope / factor, reference=state.reference * factor)
    transformed = shifted.level + (counts * factor - shifted.reference) * shifted.slope
    np.testing.assert_allclose(transformed, state.level + (counts - state.reference) * state.slope, rtol=1e-10)
    assert state.predict(counts).shape == (12, 4)


def test_mean_training_sample_gets_the_mean_composition(pairs):
    """The regression lines pass through the means."""
    model = trained(pairs, held_out=False)
    known = pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    shares = pairs["bulk"].X[known] / pairs["bulk"].X[known].sum(axis=1, keepdims=True)
    measured = pairs["bulk"].obsm["measured_fractions"][known]
    weights = model.state_.predict(shares.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(weights[0], measured.mean(), atol=1e-4)


def test_error_is_close_to_the_mean_composition(pairs, cohort):
    donors = pp.paired_donors(pairs)
    train, held_out = pp.hold_out(pairs, donors[:3])
    truth = cohort[1].obsm["true_fractions"].loc[held_out.obs_names]
    error = {
        name: ((tl.train(train, name).predict(held_out) - truth) ** 2).mean(axis=None)
        for name in ("bisque", "mean_composition")
    }
    assert error["bisque"] < 1.5 * error["mean_composition"]


def test_given_mean_shares_replace_the_cells(pairs):
    profiles = pairs["profiles"].copy()
    profiles.X = signature_by_loops(pairs) * profiles.obs["cell_size_umi"].to_numpy()[:, None]
    bulk = pairs["bulk"].copy()
    known = bulk.obsm["measured_fractions"].notna().all(axis=1)
    from_profiles = pp.pair(bulk=bulk, profiles=profiles)
    np.testing.assert_array_equal(from_profiles["bulk"].obsm["measured_fractions"].notna().all(axis=1), known)
    first, second = (trained(mdata, held_out=False).predict(bulk, in_sample=True) for mdata in (pairs, from_profiles))
    pd.testing.assert_frame_equal(first, second, atol=1e-6)


def test_given_profiles_are_divided_by_their_totals(pairs):
    without_cells = pp.pair(bulk=pairs["bulk"], profiles=pairs["profiles"])
    profiles = pairs["profiles"].X / pairs["profiles"].obs["cell_size_umi"].to_numpy()[:, None]
    np.testing.assert_allclose(trained(without_cells, held_out=False).state_.signature, profiles, rtol=1e-5)


def test_cells_are_read_once_for_all_folds(pairs, monkeypatch):
    reads = []
    monkeypatch.setattr(_sums, "product", lambda *args, **kwargs: reads.append(args) or product(*args, **kwargs))
    trained(pairs)
    assert len(reads) == 1


def test_lazy_cells_give_the_same_reference(pairs):
    expected = trained(pairs, held_out=False).state_.signature
    cells = pairs["sc"]
    blocks = [da.from_array(cells.X[i : i + 100], chunks=-1, asarray=False) for i in range(0, cells.n_obs, 100)]
    cells.X = da.concatenate(blocks)
    np.testing.assert_allclose(trained(pairs, held_out=False).state_.signature, expected, rtol=1e-12)


def test_missing_genes_take_the_training_mean(pairs):
    model = trained(pairs, held_out=False)
    fewer = pairs["bulk"][:, 60:].copy()
    with pytest.warns(UserWarning, match="60 of the model's 240 genes"):
        predicted = model.predict(fewer, in_sample=True)
    shares = pairs["bulk"].X / pairs["bulk"].X.sum(axis=1, keepdims=True)
    reference = model.state_.reference / model.state_.reference.sum()
    covered = reference[60:].sum()
    filled = np.tile(reference, (12, 1))
    filled[:, 60:] = shares[:, 60:] / shares[:, 60:].sum(axis=1, keepdims=True) * covered
    np.testing.assert_allclose(predicted, bisque_by_hand(pairs, filled), atol=5e-4)


def test_saved_model_gives_the_same_predictions_and_intervals(pairs, cohort, tmp_path):
    model = trained(pairs)
    model.save(tmp_path / "model")
    loaded = Bisque.load(tmp_path / "model")
    pd.testing.assert_frame_equal(
        loaded.predict(cohort[1], in_sample=True), model.predict(cohort[1], in_sample=True), check_exact=True
    )
    for first, second in zip(
        loaded.predict_interval(cohort[1], 0.8, in_sample=True),
        model.predict_interval(cohort[1], 0.8, in_sample=True),
        strict=True,
    ):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
