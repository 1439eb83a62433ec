"""CIBERSORT on mixtures whose composition is known."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
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


def test_scale_of_signature_and_samples_does_not_matter():
    rng = np.random.default_rng(0)
    signature, bulk = rng.gamma(1, 1, (3, 40)), rng.gamma(1, 1, (4, 40))
    expected = cibersort.solve_cibersort(signature, bulk)
    scales = np.array([[1.0], [10.0], [1e3], [1e-2]])
    np.testing.assert_allclose(
        cibersort.solve_cibersort(signature * 7 + 3, bulk * scales + 5 * scales), expected, atol=5e-3
    )
    by_type = cibersort.solve_cibersort(signature * np.array([[1], [3], [9]]), bulk)
    assert np.abs(by_type - expected).max() > 0.05


def test_constant_and_opposed_samples_are_zero():
    profile = np.arange(1.0, 21)
    signature = np.stack([profile, profile**2])
    weights = cibersort.solve_cibersort(signature, np.stack([np.full(20, 3.0), -profile, profile]))
    assert weights[:2].sum() == pytest.approx(0, abs=1e-12)
    assert weights[2].sum() > 0


def test_noise_free_fractions_of_rna_are_recovered(mdata, bulk, shares):
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


def test_p_values_separate_mixtures_from_noise(mdata, bulk):
    rng = np.random.default_rng(0)
    model = trained(mdata, permutations=60)
    noise = AnnData(rng.permuted(np.tile(bulk.X[:1], (8, 1)), axis=1), var=bulk.var)
    assert (model.quality(bulk)["p_value"] < 0.05).all()
    p_value = model.quality(noise)["p_value"]
    assert p_value.mean() > 0.3
    assert p_value.max() > 0.6


def test_p_values_depend_on_the_seed(mdata, bulk):
    noisy = bulk.copy()
    noisy.X = np.random.default_rng(0).permuted(noisy.X, axis=1)
    first, again, other = (trained(mdata, permutations=40, seed=seed).quality(noisy)["p_value"] for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_number_of_jobs_does_not_matter(mdata, bulk):
    one, two = (trained(mdata, permutations=10, n_jobs=n) for n in (1, 2))
    pd.testing.assert_frame_equal(two.predict(bulk), one.predict(bulk), check_exact=True)
    pd.testing.assert_frame_equal(two.quality(bulk), one.quality(bulk), check_exact=True)


def test_signature_scores_are_relative_to_all_genes(mdata, bulk):
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


def test_quantile_normalised_samples_share_one_distribution(mdata, bulk):
    model = trained(mdata, quantile_normalise=True, absolute="sig.score")
    bent = bulk.copy()
    bent.X = bulk.X**1.3
    target = np.sort(bent.X, axis=1).mean(axis=0)
    ready = AnnData(target[rankdata(bent.X, axis=1, method="ordinal").astype(int) - 1], bulk.obs, bulk.var)
    plain = trained(mdata, absolute="sig.score")
    pd.testing.assert_frame_equal(model.predict(bent), plain.predict(ready), atol=1e-9)
    pd.testing.assert_frame_equal(model.absolute_scores(bent), plain.absolute_scores(ready), atol=1e-9)
    assert not np.allclose(model.predict(bent), plain.predict(bent), atol=1e-3)


def test_quantile_normalised_models_have_no_intervals(pairs):
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
    assert list(quality.columns) == ["p_value", "correlation", "rmse", "few_reads"]
    assert quality["p_value"].between(0, 1).all()
    assert bulk.uns["scdeconv"]["fractions"]["fraction_kind"] == "rna"


def test_absolute_scores_need_training_and_the_option(mdata, bulk):
    with pytest.raises(ValueError, match="Expected absolute='sig.score' or 'no.sumto1', found None. Create the model"):
        trained(mdata).absolute_scores(bulk)
    with pytest.raises(RuntimeError, match="untrained CIBERSORT"):
        CIBERSORT(mdata, absolute="sig.score").absolute_scores(bulk)


@pytest.mark.parametrize(("name", "layer", "least"), [("finotello", "tpm", 0.5), ("hoek", None, 0.6)])
def test_blood_estimates_agree_with_flow_cytometry(name, layer, least):
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
