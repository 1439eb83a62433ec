"""CIBERSORT against other optimisers, plain loops and mixtures whose composition is known."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import LinearConstraint, minimize
from scipy.stats import rankdata

from scdeconv import pp, tl
from scdeconv.models import CIBERSORT
from scdeconv.models.reference import cibersort

TYPES = ["B cell", "NK cell", "T cell", "Monocyte"]
SIZES = np.array([1.0, 4.0, 10.0, 2.0])
PARITY = Path(__file__).parents[4] / "shared" / "parity"


@pytest.fixture(scope="module")
def profiles():
    """Mean counts per cell of four types of very different size, 80 genes."""
    shares = np.random.default_rng(0).dirichlet(np.full(80, 0.4), size=4)
    adata = AnnData(SIZES[:, None] * 1000 * shares, obs=pd.DataFrame({"cell_type": TYPES}, index=TYPES))
    adata.var_names = [f"G{i}" for i in range(80)]
    return adata


@pytest.fixture(scope="module")
def shares():
    """Shares of RNA."""
    values = np.random.default_rng(1).dirichlet(np.ones(4), size=6)
    values[0] = [0, 0.25, 0.5, 0.25]
    return pd.DataFrame(values, [f"s{i}" for i in range(6)], TYPES)


@pytest.fixture(scope="module")
def bulk(profiles, shares):
    """Noise-free: shares of RNA times the shares of the genes in it."""
    return AnnData(
        1e6 * shares.to_numpy() @ (profiles.X / profiles.X.sum(axis=1, keepdims=True)), shares[[]], profiles.var
    )


@pytest.fixture(scope="module")
def mdata(profiles, bulk):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        return pp.pair(bulk=bulk, profiles=profiles)


def trained(mdata, **options):
    model = CIBERSORT(mdata, **options)
    model.train()
    return model


def primal(profiles, sample, nu):
    """Weights of the nu-SVR whose objective is in the docstring, by a general optimiser."""
    n_types, n_genes = profiles.shape
    # weights, intercept, half-width of the tube, and what each deviation exceeds it by, above and below
    plane = np.vstack([profiles, np.ones(n_genes)]).T
    width, slack = np.ones((n_genes, 1)), np.eye(n_genes)
    room = np.block([[plane, width, slack, 0 * slack], [-plane, width, 0 * slack, slack]])
    cost = np.concatenate([np.zeros(n_types + 1), [nu * n_genes], np.ones(2 * n_genes)])
    quadratic = np.concatenate([np.ones(n_types), np.zeros(len(cost) - n_types)])
    solution = minimize(
        lambda x: cost @ x + quadratic @ x**2 / 2,
        np.concatenate([np.zeros(n_types + 2), np.tile(np.abs(sample), 2)]),
        jac=lambda x: cost + quadratic * x,
        bounds=[(None, None)] * (n_types + 1) + [(0, None)] * (1 + 2 * n_genes),
        constraints=LinearConstraint(room, np.concatenate([sample, -sample])),
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert solution.success, solution.message
    return solution.x[:n_types]


@pytest.mark.parametrize("seed", range(6))
def test_solution_is_that_of_the_primal_problem_with_the_best_nu(seed):
    rng = np.random.default_rng(seed)
    profiles = cibersort.standardise(rng.gamma(1, 1, (3, 14)))
    sample = cibersort.standardise(np.array([0.1, 0.6, 0.3]) @ profiles + rng.normal(0, 0.4, 14))
    best, lowest = None, np.inf
    for nu in (0.25, 0.5, 0.75):
        weights = np.maximum(primal(profiles, sample, nu), 0)
        error = np.sqrt(np.mean((weights / weights.sum() @ profiles - sample) ** 2))
        if error < lowest:
            best, lowest = weights, error
    np.testing.assert_allclose(cibersort.solve_nu_svr(profiles, sample), best, atol=5e-3)


def test_standardisation_is_one_for_the_signature_and_each_samples_own():
    rng = np.random.default_rng(0)
    signature, bulk = rng.gamma(1, 1, (3, 40)), rng.gamma(1, 1, (4, 40))
    expected = cibersort.solve_cibersort(signature, bulk)
    scales = np.array([[1.0], [10.0], [1e3], [1e-2]])
    np.testing.assert_allclose(
        cibersort.solve_cibersort(signature * 7 + 3, bulk * scales + 5 * scales), expected, atol=5e-3
    )
    np.testing.assert_allclose(cibersort.standardise(signature), (signature - signature.mean()) / signature.std(ddof=1))
    for row, sample in zip(cibersort.standardise(bulk, axis=1), bulk, strict=True):
        np.testing.assert_allclose(row, (sample - sample.mean()) / sample.std(ddof=1))
    by_type = cibersort.solve_cibersort(signature * np.array([[1], [3], [9]]), bulk)
    assert np.abs(by_type - expected).max() > 0.05


def test_sample_that_is_constant_or_opposed_to_every_profile_gets_no_weight():
    profile = np.arange(1.0, 21)
    signature = np.stack([profile, profile**2])
    weights = cibersort.solve_cibersort(signature, np.stack([np.full(20, 3.0), -profile, profile]))
    assert weights[:2].sum() == pytest.approx(0, abs=1e-12)
    assert weights[2].sum() > 0
    assert cibersort.goodness_of_fit(signature, np.full((1, 20), 3.0), np.array([[0.5, 0.5]]))[0] == 0


def test_goodness_of_fit_equals_numpy():
    rng = np.random.default_rng(0)
    signature, bulk, fractions = rng.normal(size=(3, 30)), rng.normal(size=(5, 30)), rng.dirichlet(np.ones(3), 5)
    correlation, rmse = cibersort.goodness_of_fit(signature, bulk, fractions)
    for i in range(5):
        fitted = fractions[i] @ signature
        assert correlation[i] == pytest.approx(np.corrcoef(fitted, bulk[i])[0, 1])
        assert rmse[i] == pytest.approx(np.sqrt(np.mean((fitted - bulk[i]) ** 2)))


def test_p_values_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    correlation, null = rng.uniform(-0.5, 1, 20), rng.normal(0, 0.2, 57)
    for value, found in zip(correlation, cibersort.p_values(correlation, null), strict=True):
        place = min(range(57), key=lambda i: abs(sorted(null)[i] - value))
        assert found == pytest.approx(1 - (place + 1) / 57)


def test_null_mixtures_are_pooled_values_drawn_without_replacement():
    bulk = np.arange(12.0).reshape(3, 4)
    drawn = cibersort.draw_null_mixtures(bulk, 200, np.random.default_rng(0))
    assert drawn.shape == (200, 4)
    assert all(len(set(row)) == 4 for row in drawn)
    assert set(drawn.ravel()) == set(bulk.ravel())


def test_quantile_normalisation_equals_a_plain_loop_with_ties_and_missing_genes():
    samples = np.random.default_rng(0).poisson(3, (4, 25)).astype(float)
    target = np.mean([sorted(sample) for sample in samples], axis=0)
    expected = np.empty_like(samples)
    for i, sample in enumerate(samples):
        for j, rank in enumerate(rankdata(sample) - 1):
            expected[i, j] = (target[int(np.floor(rank))] + target[int(np.ceil(rank))]) / 2
    np.testing.assert_allclose(cibersort.quantile_normalise(samples, samples), expected)
    some = samples[:, 5:12].copy()
    some[:, 3] = np.nan
    found = cibersort.quantile_normalise(some, samples)
    np.testing.assert_allclose(np.delete(found, 3, axis=1), np.delete(expected[:, 5:12], 3, axis=1))
    assert np.isnan(found[:, 3]).all()


def test_noise_free_mixtures_are_recovered_as_shares_of_rna(mdata, bulk, shares):
    model = trained(mdata)
    assert model.fraction_kind == "rna"
    assert model.mdata is mdata
    pd.testing.assert_frame_equal(model.predict(bulk), shares, atol=0.02)
    quality = model.quality(bulk)
    assert list(quality.columns) == ["p_value", "correlation", "rmse"]
    assert quality["p_value"].isna().all()
    assert (quality["correlation"] > 0.99).all()


def test_fractions_and_quality_come_from_one_regression(mdata, bulk, monkeypatch):
    model = trained(mdata)
    expected = {"fractions": model.predict(bulk), "quality": model.quality(bulk)}
    samples = []
    solve = cibersort.solve_nu_svr
    monkeypatch.setattr(cibersort, "solve_nu_svr", lambda *given: samples.append(1) or solve(*given))
    found = model.estimate(bulk)
    assert len(samples) == bulk.n_obs
    assert found.keys() == expected.keys()
    for name, table in expected.items():
        pd.testing.assert_frame_equal(found[name], table)


def test_real_mixtures_get_small_p_values_and_noise_large_ones(mdata, bulk):
    rng = np.random.default_rng(0)
    model = trained(mdata, permutations=60)
    noise = AnnData(rng.permuted(np.tile(bulk.X[:1], (8, 1)), axis=1), var=bulk.var)
    assert (model.quality(bulk)["p_value"] < 0.05).all()
    p_value = model.quality(noise)["p_value"]
    assert p_value.mean() > 0.3
    assert p_value.max() > 0.6


def test_p_values_repeat_with_the_seed_and_move_with_another(mdata, bulk):
    noisy = bulk.copy()
    noisy.X = np.random.default_rng(0).permuted(noisy.X, axis=1)
    first, again, other = (trained(mdata, permutations=40, seed=seed).quality(noisy)["p_value"] for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_jobs_give_the_same_numbers(mdata, bulk):
    one, two = (trained(mdata, permutations=10, n_jobs=n) for n in (1, 2))
    pd.testing.assert_frame_equal(two.predict(bulk), one.predict(bulk), check_exact=True)
    pd.testing.assert_frame_equal(two.quality(bulk), one.quality(bulk), check_exact=True)


def test_scores_in_proportion_to_the_genes_of_the_signature(mdata, bulk):
    model = trained(mdata, absolute="sig.score")
    other = AnnData(np.full((6, 100), 50.0), bulk.obs)
    other.var_names = [f"OTHER{i}" for i in range(100)]
    wide = anndata.concat([bulk, other], axis=1)
    scores = model.absolute_scores(wide)
    level = np.median(bulk.X, axis=1) / np.median(wide.X)
    np.testing.assert_allclose(scores, model.predict(wide).to_numpy() * level[:, None])
    wide.X[:, bulk.n_vars :] = 0  # the median of all is zero
    np.testing.assert_allclose(model.absolute_scores(wide).sum(axis=1), np.median(bulk.X, axis=1))


def test_scores_without_a_sum_are_the_weights(mdata, bulk):
    model = trained(mdata, absolute="no.sumto1")
    scores = model.absolute_scores(bulk)
    assert np.abs(scores.sum(axis=1) - 1).max() > 0.01
    np.testing.assert_allclose(scores.div(scores.sum(axis=1), axis=0), model.predict(bulk))


def test_samples_are_normalised_to_each_others_distribution_when_asked(mdata, bulk):
    model = trained(mdata, quantile_normalise=True, absolute="sig.score")
    bent = bulk.copy()
    bent.X = bulk.X**1.3
    target = np.sort(bent.X, axis=1).mean(axis=0)
    ready = AnnData(target[rankdata(bent.X, axis=1, method="ordinal").astype(int) - 1], bulk.obs, bulk.var)
    plain = trained(mdata, absolute="sig.score")
    pd.testing.assert_frame_equal(model.predict(bent), plain.predict(ready), atol=1e-9)
    pd.testing.assert_frame_equal(model.absolute_scores(bent), plain.absolute_scores(ready), atol=1e-9)
    assert not np.allclose(model.predict(bent), plain.predict(bent), atol=1e-3)


def test_intervals_come_with_pairs_unless_the_samples_are_normalised_together(pairs):
    pp.select_genes(pairs, 40)
    lower, upper = trained(pairs).predict_interval(pairs["bulk"], 0.8)
    assert (lower <= upper).all(axis=None)
    assert trained(pairs, quantile_normalise=True).held_out_ is None


def test_options_survive_saving(mdata, bulk, tmp_path):
    model = trained(mdata, permutations=7, absolute="no.sumto1", n_jobs=2, seed=5)
    model.save(tmp_path / "model")
    loaded = CIBERSORT.load(tmp_path / "model")
    assert loaded.parameters_ == model.parameters_
    pd.testing.assert_frame_equal(loaded.quality(bulk), model.quality(bulk), check_exact=True)
    pd.testing.assert_frame_equal(loaded.absolute_scores(bulk), model.absolute_scores(bulk), check_exact=True)


def test_quality_is_written_by_tl_predict(pairs):
    bulk = pairs["bulk"].copy()
    tl.predict(bulk, tl.train(pairs, "cibersort", permutations=5))
    quality = bulk.obsm["fractions_quality"]
    assert list(quality.columns) == ["p_value", "correlation", "rmse"]
    assert quality["p_value"].between(0, 1).all()
    assert bulk.uns["scdeconv"]["fractions"]["fraction_kind"] == "rna"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"permutations": -1}, "permutations of at least 0 and n_jobs other than 0, found -1 and 1"),
        ({"n_jobs": 0}, "found 0 and 0"),
        ({"absolute": "sum"}, r"absolute to be None or one of \('sig.score', 'no.sumto1'\), found 'sum'"),
    ],
)
def test_options_out_of_range_are_refused(mdata, options, message):
    with pytest.raises(ValueError, match=message):
        CIBERSORT(mdata, **options)


def test_absolute_scores_need_a_trained_model_that_was_made_for_them(mdata, bulk):
    with pytest.raises(ValueError, match="absolute='sig.score' or 'no.sumto1', found None"):
        trained(mdata).absolute_scores(bulk)
    with pytest.raises(RuntimeError, match="untrained CIBERSORT"):
        CIBERSORT(mdata, absolute="sig.score").absolute_scores(bulk)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer", "least"), [("finotello", "tpm", 0.5), ("hoek", None, 0.6)])
def test_estimates_of_real_blood_go_with_flow_cytometry(name, layer, least):
    if not (PARITY / name).exists():
        pytest.skip(f"no data in {PARITY / name}")
    cells, bulk = (anndata.read_h5ad(PARITY / name / f"{part}.h5ad") for part in ("sc", "bulk"))
    truth = pd.read_csv(PARITY / name / "truth.csv", index_col=0)
    with pytest.warns(UserWarning, match="paired donors"):
        mdata = pp.pair(cells, bulk, layer=layer)
    model = tl.train(mdata, "cibersort", permutations=30)
    estimate = model.predict(mdata["bulk"]) / mdata["profiles"].obs["cell_size_umi"]
    estimate = estimate.div(estimate.sum(axis=1), axis=0).loc[truth.index, truth.columns]
    assert np.corrcoef(estimate.to_numpy().ravel(), truth.to_numpy().ravel())[0, 1] > least
    assert (model.quality(mdata["bulk"])["p_value"] < 0.05).all()
