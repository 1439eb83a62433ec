from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import nnls

from scdeconv import pp, tl
from scdeconv._stats.expression import to_shares
from scdeconv.models import NonNegativeRidge
from scdeconv.models.reference.nnls import solve_nnls
from scdeconv.models.reference.nonnegative_ridge import PENALTIES, choose_penalties, scale_mean, solve_nonnegative_ridge

TYPES = ["B cell", "Mast cell", "NK cell", "T cell"]
MEAN = np.array([0.4, 0.1, 0.2, 0.3])


@pytest.fixture
def mixed():
    """Signature, noisy bulk and weights of 30 samples; the first two types are nearly the same."""
    rng = np.random.default_rng(0)
    signature = rng.gamma(0.5, 1, (4, 120))
    signature[1] = 0.95 * signature[0] + 0.05 * signature[1]
    weights = rng.dirichlet(20 * MEAN, 30)
    return signature, weights @ signature * rng.lognormal(0, 0.4, (30, 120)), weights


@pytest.fixture
def profiles():
    adata = AnnData(np.random.default_rng(0).gamma(0.5, 100, (4, 80)) * [[1], [3], [2], [8]])
    adata.obs_names, adata.var_names = TYPES, [f"G{i}" for i in range(80)]
    adata.obs["cell_type"] = TYPES
    return adata


@pytest.fixture
def shares():
    values = np.random.default_rng(1).dirichlet(np.ones(4), 5)
    values[0] = [0, 0.25, 0, 0.75]
    return pd.DataFrame(values, [f"s{i}" for i in range(5)], TYPES)


def mixtures(profiles, shares, noise=0.0):
    expression = 300 * shares.to_numpy() @ profiles.X
    expression *= np.random.default_rng(2).lognormal(0, noise, expression.shape)
    return AnnData(expression, obs=shares[[]], var=profiles.var)


def train(profiles, bulk, **arguments):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    return tl.train(mdata, "nonnegative_ridge", **arguments)


def plain_penalty(signature, sample, mean):
    """Generalised cross-validation with whole hat matrices, penalty by penalty."""
    n_genes, fitted = len(sample), mean @ signature
    projection = np.outer(fitted, fitted) / (fitted @ fitted)
    largest = np.linalg.norm(signature, 2) ** 2
    scores = []
    for penalty in PENALTIES:
        hat = signature.T @ np.linalg.solve(
            signature @ signature.T + penalty * largest * np.eye(len(signature)), signature
        )
        whole = projection + hat @ (np.eye(n_genes) - projection)
        residual = sample - whole @ sample
        scores.append(n_genes * (residual @ residual) / (n_genes - np.trace(whole)) ** 2)
    return PENALTIES[np.argmin(scores)]


def test_penalties_equal_those_of_full_hat_matrices(mixed):
    signature, bulk, _ = mixed
    chosen = choose_penalties(signature, bulk[:8], MEAN)
    np.testing.assert_allclose(chosen, [plain_penalty(signature, sample, MEAN) for sample in bulk[:8]])
    assert ((chosen > PENALTIES[0]) & (chosen < PENALTIES[-1])).any()


def test_solutions_equal_the_augmented_system(mixed):
    signature, bulk, _ = mixed
    penalty = np.geomspace(1e-4, 1, len(bulk))
    solutions = solve_nonnegative_ridge(signature, bulk, MEAN, penalty)
    roots = np.sqrt(penalty) * np.linalg.norm(signature, 2)
    fitted = MEAN @ signature
    for solution, sample, root in zip(solutions, bulk, roots, strict=True):
        centre = MEAN * (sample @ fitted) / (fitted @ fitted)
        oracle = nnls(np.vstack([signature.T, root * np.eye(4)]), np.append(sample, root * centre))[0]
        np.testing.assert_allclose(solution, oracle, atol=1e-9)


def test_penalty_of_zero_gives_non_negative_least_squares(mixed):
    signature, bulk, _ = mixed
    np.testing.assert_allclose(
        solve_nonnegative_ridge(signature, bulk, MEAN, 0.0), solve_nnls(signature, bulk), atol=1e-6
    )
    np.testing.assert_allclose(
        solve_nonnegative_ridge(signature, bulk, MEAN, 1e-12), solve_nnls(signature, bulk), atol=1e-6
    )


def test_huge_penalty_gives_the_mean_composition(mixed):
    signature, bulk, _ = mixed
    found = solve_nonnegative_ridge(signature, bulk * np.geomspace(1e-3, 1e3, 30)[:, None], MEAN, 1e9)
    np.testing.assert_allclose(to_shares(found), np.tile(MEAN, (30, 1)), atol=1e-7)


def test_mean_is_scaled_to_fit_each_sample_best(mixed):
    signature, bulk, _ = mixed
    scaled = scale_mean(signature, bulk, MEAN)
    oracle = [np.linalg.lstsq((MEAN @ signature)[:, None], sample, rcond=None)[0][0] for sample in bulk]
    np.testing.assert_allclose(scaled, np.outer(oracle, MEAN))


def test_errors_are_below_least_squares_and_mean(mixed):
    signature, rng = mixed[0], np.random.default_rng(1)
    truth = rng.dirichlet(5 * MEAN, 30)
    bulk = truth @ signature * rng.lognormal(0, 0.4, (30, 120))
    penalty = choose_penalties(signature, bulk, MEAN)
    found = to_shares(solve_nonnegative_ridge(signature, bulk, MEAN, penalty))
    error, plain, constant = (
        np.sqrt(((estimate - truth) ** 2).mean()) for estimate in (found, to_shares(solve_nnls(signature, bulk)), MEAN)
    )
    assert error < 0.9 * min(plain, constant)


def test_noise_free_fractions_of_cells_are_recovered(profiles, shares):
    bulk = mixtures(profiles, shares)
    pd.testing.assert_frame_equal(train(profiles, bulk).predict(bulk), shares, atol=1e-6)


def test_depth_and_other_samples_do_not_matter(profiles, shares):
    bulk = mixtures(profiles, shares, noise=0.3)
    model = train(profiles, bulk)
    expected = model.predict(bulk)
    pd.testing.assert_frame_equal(model.predict(bulk[[2]].copy()), expected.iloc[[2]], atol=1e-9)
    bulk.X = bulk.X * 1e3
    pd.testing.assert_frame_equal(model.predict(bulk), expected, atol=1e-9)


def test_mean_weights_paired_donors_equally(repeated_pairs):
    """Donors have one, two and three samples."""
    model = tl.train(repeated_pairs, "nonnegative_ridge", held_out=False)
    expected = tl.train(repeated_pairs, "mean_composition", held_out=False)
    np.testing.assert_allclose(model.state_.mean, expected.state_.mean)
    assert "mean of 10 paired donors" in model.summary_


def test_mean_of_a_fold_leaves_its_donors_out(pairs):
    model = tl.train(pairs, "nonnegative_ridge", penalty=1e9)
    measured, donors = model.held_out_.measured, model.held_out_.donors
    assert len(np.unique(donors)) == len(donors) == 10
    others = (measured.sum(axis=0) - measured) / 9
    np.testing.assert_allclose(model.held_out_.predicted, others, atol=1e-6)


def test_mean_without_pairs_is_that_of_solutions(profiles, shares):
    bulk = mixtures(profiles, shares, noise=0.3)
    model = train(profiles, bulk)
    expected = to_shares(solve_nnls(model.state_.signature, np.asarray(bulk[:, model.genes_].X))).mean(axis=0)
    np.testing.assert_allclose(model.state_.mean, expected)
    assert model.summary_.endswith("mean of 5 bulk samples")


def test_given_penalty_is_used_and_kept(profiles, shares, tmp_path):
    bulk = mixtures(profiles, shares, noise=0.3)
    model = train(profiles, bulk, penalty=1e9)
    np.testing.assert_allclose(model.predict(bulk), np.tile(model.state_.mean, (5, 1)), atol=1e-6)
    model.save(tmp_path / "model")
    assert NonNegativeRidge.load(tmp_path / "model").parameters_ == {"penalty": 1e9}


def test_sample_without_expression_gets_nan(profiles, shares):
    model = train(profiles, mixtures(profiles, shares))
    empty = np.zeros((1, len(model.genes_)))
    np.testing.assert_array_equal(model.state_.predict(empty), 0)
    assert np.isnan(model.state_.estimate(empty).fractions).all()


def test_identical_types_share_as_the_mean_does():
    rng = np.random.default_rng(0)
    signature = rng.gamma(0.5, 1, (4, 100))
    signature[1] = signature[0]
    bulk = rng.dirichlet(np.ones(4), 6) @ signature * rng.lognormal(0, 0.3, (6, 100))
    found = solve_nonnegative_ridge(signature, bulk, MEAN, 1e-3)
    ratio = found[:, 0] - found[:, 1]
    np.testing.assert_allclose(ratio, scale_mean(signature, bulk, MEAN) @ [1, -1, 0, 0], atol=1e-6)
    assert np.isfinite(choose_penalties(signature, bulk, MEAN)).all()
