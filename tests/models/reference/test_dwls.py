from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from dwls_data import TYPES, make_profiles

from scdeconv import pp, tl
from scdeconv._stats.expression import to_shares
from scdeconv.models import DWLS

SIZES = np.array([3.0, 2.0, 1.0, 4.0, 1.5, 1.0])
OPTIONS = [{}, {"hierarchical": True}, {"unknown": True}, {"unknown": True, "hierarchical": True}]


def as_profiles(counts, names=TYPES):
    adata = AnnData(counts, obs=pd.DataFrame({"cell_type": list(names)}, index=list(names)))
    adata.var_names = [f"G{i}" for i in range(adata.n_vars)]
    return adata


def as_bulk(expression):
    bulk = AnnData(np.asarray(expression, dtype=float))
    bulk.obs_names = [f"s{i}" for i in range(len(expression))]
    bulk.var_names = [f"G{i}" for i in range(bulk.n_vars)]
    return bulk


def train(profiles, bulk, **options):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    return tl.train(mdata, "dwls", **options)


@pytest.fixture(scope="module")
def profiles():
    return as_profiles(1000 * SIZES[:, None] * make_profiles())


@pytest.fixture(scope="module")
def fractions():
    values = np.random.default_rng(1).dirichlet(np.full(len(TYPES), 2.0), 6)
    values[0] = [0, 0.2, 0.3, 0.1, 0, 0.4]
    return pd.DataFrame(values, [f"s{i}" for i in range(6)], TYPES)


@pytest.fixture(scope="module")
def bulk(profiles, fractions):
    """Noise-free sums of 300 cells."""
    return as_bulk(300 * fractions.to_numpy() @ profiles.X)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_noise_free_fractions_of_cells_are_recovered(profiles, bulk, fractions, options):
    predicted = train(profiles, bulk, **options).predict(bulk)
    if "unknown" in options:
        np.testing.assert_allclose(predicted.pop("Unknown"), 0, atol=1e-6)
    pd.testing.assert_frame_equal(predicted, fractions, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_depth_and_other_samples_do_not_matter(profiles, bulk, options):
    noisy = bulk.copy()
    noisy.X = bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape)
    model = train(profiles, noisy, **options)
    expected = model.predict(noisy)
    pd.testing.assert_frame_equal(model.predict(noisy[[2]].copy()), expected.iloc[[2]], atol=1e-8)
    noisy.X = noisy.X * 1e5
    pd.testing.assert_frame_equal(model.predict(noisy), expected, atol=1e-8)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_saved_model_predicts_the_same(profiles, bulk, options, tmp_path):
    noisy = bulk.copy()
    noisy.X = bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape)
    model = train(profiles, noisy, **options)
    model.save(tmp_path / "model")
    loaded = DWLS.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(noisy), model.predict(noisy), check_exact=True)
    assert loaded.parameters_ == {"unknown": False, "hierarchical": False} | options


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_empty_sample_is_nan_without_warning(profiles, bulk, options):
    model = train(profiles, bulk, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expression = bulk[:, model.genes_].X[:2].copy()
        expression[0] = 0
        predicted = model.state_.estimate(expression).fractions
    assert np.isnan(predicted[0]).all()
    np.testing.assert_allclose(predicted[1], model.predict(bulk).iloc[1], atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_types_with_identical_profiles_share_their_weight(options):
    signature = make_profiles(similar=0.0)
    bulk = as_bulk(1e6 * np.random.default_rng(0).dirichlet(np.ones(6), 5) @ signature)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*paired donors|.*no donor is paired")
        predicted = tl.train(pp.pair(bulk=bulk, profiles=as_profiles(1e4 * signature)), "dwls", **options).predict(bulk)
    assert np.isfinite(predicted).all(axis=None)
    np.testing.assert_allclose(predicted["Alpha cell"], predicted["Beta cell"], atol=1e-3)


def test_intervals_need_a_model_without_unknown_content(pairs, cohort):
    pp.select_genes(pairs, 100)
    model = tl.train(pairs, "dwls", hierarchical=True)
    lower, upper = model.predict_interval(cohort[1], 0.8)
    assert (lower <= upper).all(axis=None)
    model = tl.train(pairs, "dwls", unknown=True)
    assert list(model.predict(cohort[1]).columns) == [*pairs["profiles"].obs["cell_type"], "Unknown"]
    with pytest.raises(ValueError, match="Expected a model with held-out donors"):
        model.predict_interval(cohort[1])


def test_three_types_are_not_clustered(profiles, bulk, fractions):
    few, shares = profiles[[0, 2, 3]].copy(), fractions.iloc[:, [0, 2, 3]]
    shares = shares.div(shares.sum(axis=1), axis=0)
    mixtures = as_bulk(300 * shares.to_numpy() @ few.X)
    model = train(few, mixtures, hierarchical=True)
    assert model.summary_.endswith("3 clusters")
    pd.testing.assert_frame_equal(model.predict(mixtures), shares, atol=1e-6)


@pytest.mark.slow
def test_clusters_help_with_nearly_identical_types():
    """Each type has few markers; the similar types share many."""
    errors = {"flat": [], "hierarchical": []}
    for seed in range(4):
        rng = np.random.default_rng(seed + 100)
        profiles, truth = make_profiles(seed, similar=0.05), rng.dirichlet(np.full(6, 1.5), 20)
        noise = np.exp(rng.normal(0, 0.6, (20, 800)) + rng.normal(0, 0.6, 800))
        bulk, reference = as_bulk(1e6 * (truth @ profiles) * noise), profiles * rng.lognormal(0, 0.1, profiles.shape)
        with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
            mdata = pp.pair(bulk=bulk, profiles=as_profiles(1e4 * to_shares(reference)))
        pp.select_genes(mdata, 60)
        for name, squares in errors.items():
            predicted = tl.train(mdata, "dwls", hierarchical=name == "hierarchical").predict(bulk).to_numpy()
            squares.append((predicted[:, :2].sum(axis=1) - truth[:, :2].sum(axis=1)) ** 2)
    assert np.mean(errors["hierarchical"]) < 0.8 * np.mean(errors["flat"])


# unknown content


def unknown_of(seed, missing, shift):
    """Return the estimates for samples with 0, 10 and 30 % of a type that the reference lacks, 10 of each."""
    rng, profiles = np.random.default_rng(seed + 100), make_profiles(seed, 2000, similar=0.8)
    known = np.arange(6) != missing
    platform = np.exp(shift * (rng.normal(size=2000) - 0.3 * np.log(profiles.mean(axis=0) * 2000)))
    shares = np.zeros((30, 6))
    lacking = np.repeat([0, 0.1, 0.3], 10)
    shares[:, known] = (1 - lacking)[:, None] * np.tile(rng.dirichlet(np.full(5, 3.0), 10), (3, 1))
    shares[:, missing] = lacking
    bulk = as_bulk(rng.poisson(1e7 * to_shares(shares @ profiles * platform)))
    names = [name for name, there in zip(TYPES, known, strict=True) if there]
    model = train(as_profiles(1e4 * profiles[known], names), bulk, unknown=True)
    return model.predict(bulk)["Unknown"].to_numpy().reshape(3, 10)


@pytest.mark.parametrize("missing", [3, 4, 5])
def test_unknown_content_is_found_within_one_platform(missing):
    found = unknown_of(0, missing, shift=0)
    assert found[0].max() < 0.02
    assert (np.diff(found, axis=0) > 0.04).all()
    np.testing.assert_allclose(found.mean(axis=1), [0, 0.1, 0.3], atol=0.06)


@pytest.mark.slow
def test_unknown_content_is_found_across_platforms_on_average():
    """Platform factors of genes have a standard deviation of log 1.6; high expression is dampened."""
    found = np.stack([unknown_of(seed, 3 + seed % 3, shift=0.5) for seed in range(6)])
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_allclose(found.mean(axis=(0, 2)), [0, 0.1, 0.3], atol=0.07)


def test_unknown_content_does_not_change_ratios_of_types(profiles, bulk):
    noisy = as_bulk(bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape))
    without = train(profiles[:5].copy(), noisy).predict(noisy)
    beside = train(profiles[:5].copy(), noisy, unknown=True).predict(noisy)
    share = beside.pop("Unknown").to_numpy()[:, None]
    pd.testing.assert_frame_equal(beside, without * (1 - share), atol=1e-9)
    assert share.max() > 0.05


def test_sample_without_any_marker_is_all_unknown(profiles, bulk):
    model = train(profiles, bulk, unknown=True)
    sample = np.where(model.state_.markers, 0, bulk.X[:1])
    np.testing.assert_allclose(model.predict(as_bulk(sample)).iloc[0], [0] * 6 + [1])


@pytest.mark.parametrize(("background", "found"), [(0.01, "60 markers and 0"), (1.0, "0 markers and 60")])
def test_unknown_content_needs_markers_and_other_genes(background, found):
    profiles = np.kron(np.eye(3), np.ones(20)) + background
    message = f"Expected marker genes and at least 50 other genes with unknown=True, found {found} other genes. Pass all genes"
    with pytest.raises(ValueError, match=message):
        train(as_profiles(1000 * profiles, TYPES[:3]), as_bulk(1e5 * profiles), unknown=True)


def test_unknown_content_needs_three_types(profiles, bulk):
    with pytest.raises(
        ValueError, match="Expected at least 3 cell types with unknown=True, found 2. Set unknown=False."
    ):
        train(profiles[:2].copy(), bulk, unknown=True)


def test_type_called_unknown_is_refused(profiles, bulk):
    named = as_profiles(profiles.X, [*TYPES[:5], "Unknown"])
    with pytest.raises(ValueError, match="Expected no cell type named 'Unknown' with unknown=True"):
        train(named, bulk, unknown=True)
