"""SQUID against a transcription of its equations, gene by gene."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdeconv import tl
from scdeconv._stats.solvers.dampened_weights import solve_dwls
from scdeconv.models import SQUID


def known_rows(mdata):
    return mdata["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()


def transform_by_hand(mdata, expression):
    """Avila Cobos et al. 2023: z-scores of bulk take the mean and the shrunken SD of profiles times fractions."""
    known = known_rows(mdata)
    cells, types = mdata["sc"], list(mdata["profiles"].obs["cell_type"])
    counts = cells.X.toarray()
    profiles = np.array([counts[(cells.obs["cell_type"] == name).to_numpy()].mean(axis=0) for name in types])
    target = mdata["bulk"].obsm["measured_fractions"].loc[known, types].to_numpy() @ profiles
    bulk = [row / row.sum() for row in mdata["bulk"].X[known].astype(float)]
    transformed = np.zeros(expression.shape)
    for gene in range(expression.shape[1]):
        values, wanted, n_pairs = [row[gene] for row in bulk], target[:, gene], known.sum()
        sd = np.std(wanted, ddof=1) * np.sqrt((n_pairs - 1) / (n_pairs + 1))
        z = (expression[:, gene] / expression.sum(axis=1) - np.mean(values)) / np.std(values, ddof=1)
        transformed[:, gene] = [max(value, 0) for value in z * sd + wanted.mean()]
    return profiles, transformed


def trained(mdata, **kwargs):
    model = SQUID(mdata)
    model.train(**kwargs)
    return model


def test_predictions_equal_a_plain_implementation(pairs):
    bulk = pairs["bulk"]
    model = trained(pairs, held_out=False)
    profiles, transformed = transform_by_hand(pairs, bulk.X.astype(float))
    np.testing.assert_allclose(
        model.state_.moments.transform(bulk.X / bulk.X.sum(axis=1, keepdims=True)), transformed, rtol=1e-5, atol=1e-9
    )
    weights = solve_dwls(profiles, transformed)
    predicted = model.predict(bulk, in_sample=True)
    np.testing.assert_allclose(predicted, weights / weights.sum(axis=1, keepdims=True), atol=1e-3)


def test_transformed_pairs_have_the_moments_of_pseudobulk(pairs):
    state, known = trained(pairs, held_out=False).state_, known_rows(pairs)
    shares = pairs["bulk"].X[known] / pairs["bulk"].X[known].sum(axis=1, keepdims=True)
    target = pairs["bulk"].obsm["measured_fractions"].to_numpy()[known] @ state.signature
    transformed = state.moments.transform(shares)
    positive = (transformed > 0).all(axis=0)
    assert positive.sum() > 50
    np.testing.assert_allclose(transformed.mean(axis=0)[positive], target.mean(axis=0)[positive])
    n_pairs = known.sum()
    expected = target.var(axis=0, ddof=1) * (n_pairs - 1) / (n_pairs + 1)
    np.testing.assert_allclose(transformed.var(axis=0, ddof=1)[positive], expected[positive])


def test_genes_without_variance_are_not_used(pairs):
    pairs["bulk"].X[:, 7] = 0
    state = trained(pairs, held_out=False).state_
    assert not state.moments.usable[7]
    expression = pairs["bulk"].X.astype(float)
    before = state.predict(expression)
    expression[:, 7] = np.nan
    np.testing.assert_allclose(state.predict(expression), before, rtol=1e-9)


def test_samples_without_fractions_do_not_influence_the_fit(pairs):
    before = trained(pairs, held_out=False).state_
    pairs["bulk"].X[~known_rows(pairs)] = np.random.default_rng(0).poisson(1e4, (2, pairs["bulk"].n_vars))
    after = trained(pairs, held_out=False).state_
    for name in ("mean", "sd", "target_mean", "target_sd"):
        np.testing.assert_array_equal(getattr(after.moments, name), getattr(before.moments, name))


def test_predictions_do_not_depend_on_the_batch(pairs, cohort):
    model = trained(pairs, held_out=False)
    alone = [model.predict(cohort[1][[row]].copy(), in_sample=True) for row in range(3)]
    pd.testing.assert_frame_equal(pd.concat(alone), model.predict(cohort[1], in_sample=True).iloc[:3], rtol=1e-6)


def test_error_is_below_the_mean_composition(pairs):
    """Out-of-fold errors on ten donors; measured ratio in the assertion below with a margin."""
    error, of_mean = tl.train(pairs, "squid").held_out_.errors()
    assert error < 0.9 * of_mean
