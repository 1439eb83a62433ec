"""One profile per cell type for a group of samples, compared with other programs and planted profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import tl

TYPES = ["B cell", "NK cell", "T cell", "Monocyte"]
LAYERS = ["standard_error", "p_value", "q_value", "geometric_cv", "reliable"]


def make_bulk(noise=0.3, n_samples=40, n_genes=500, kind="rna", seed=0):
    """Bulk of known profiles (counts per million) in known fractions, and the profiles."""
    rng = np.random.default_rng(seed)
    profiles = rng.dirichlet(np.full(n_genes, 0.3), len(TYPES)) * 1e6
    fractions = rng.dirichlet(np.ones(len(TYPES)), n_samples)
    depth = rng.uniform(0.5, 2, (n_samples, 1))
    bulk = AnnData(depth * fractions @ profiles * rng.lognormal(0, noise, (n_samples, n_genes)))
    bulk.obs_names = [f"s{i}" for i in range(n_samples)]
    bulk.obsm["fractions"] = pd.DataFrame(fractions, bulk.obs_names, TYPES)
    bulk.uns["scdeconv"] = {"fractions": {"fraction_kind": kind}}
    return bulk, profiles


@pytest.fixture(scope="module")
def noisy():
    bulk, profiles = make_bulk()
    return bulk, profiles, tl.group_expression(bulk)


def test_noise_free_bulk_recovers_the_planted_profiles():
    bulk, profiles = make_bulk(noise=0)
    found = tl.group_expression(bulk)
    np.testing.assert_allclose(found.X, profiles, rtol=1e-6, atol=1e-3)
    assert found.layers["reliable"][profiles > 1].all()


def test_result_has_cell_types_genes_and_layers(noisy):
    bulk, _, found = noisy
    assert list(found.obs_names) == list(found.obs["cell_type"]) == TYPES
    assert list(found.var_names) == list(bulk.var_names)
    assert set(found.layers) - {None} == set(LAYERS)
    assert found.layers["reliable"].dtype == bool
    record = found.uns["scdeconv"]["group_expression"]
    assert record["fraction_kind"] == "rna"
    assert (record["n_bulk_samples"], record["n_samples"], record["share"]) == (40, 30, 0.5)


def test_reliable_genes_correlate_with_planted_profiles(noisy):
    _, profiles, found = noisy
    truth, estimate, reliable = np.log1p(profiles), np.log1p(found.X), found.layers["reliable"]
    for k in range(len(TYPES)):
        mine = reliable[k]
        assert 0.2 < mine.mean() < 0.9
        correlation = np.corrcoef(truth[k, mine], estimate[k, mine])[0, 1]
        assert correlation > max(0.93, np.corrcoef(truth[k], estimate[k])[0, 1])
    distance = np.abs(truth - estimate)
    assert np.median(distance[reliable]) < 0.2 < np.median(distance[~reliable])


def test_unexpressed_genes_are_rarely_significant():
    rng = np.random.default_rng(0)
    bulk, profiles = make_bulk(n_genes=2000)
    absent = rng.random(profiles.shape) < 0.2
    bulk.X = bulk.obsm["fractions"].to_numpy() @ np.where(absent, 0, profiles + 50) * rng.lognormal(0, 0.2, bulk.shape)
    found = tl.group_expression(bulk)
    assert (found.layers["p_value"][absent] < 0.05).mean() < 0.06
    assert found.layers["reliable"][absent].mean() < 0.02
    assert (found.layers["p_value"][~absent] < 0.05).mean() > 0.5


def test_q_values_are_those_of_benjamini_and_hochberg(noisy):
    _, _, found = noisy
    p_value = found.layers["p_value"][0]
    order = np.argsort(p_value)
    smallest, expected = 1.0, np.empty_like(p_value)
    for rank in range(len(order), 0, -1):
        smallest = min(smallest, p_value[order[rank - 1]] * len(order) / rank)
        expected[order[rank - 1]] = smallest
    np.testing.assert_allclose(found.layers["q_value"][0], expected)


def test_depth_and_storage_do_not_matter(noisy):
    bulk, _, expected = noisy
    other = bulk.copy()
    other.layers["deep"] = sp.csr_matrix(bulk.X * np.random.default_rng(0).uniform(1, 100, (40, 1)))
    other.X = np.log1p(other.X)
    found = tl.group_expression(other, layer="deep")
    np.testing.assert_allclose(found.X, expected.X, rtol=1e-6, atol=1e-6)


def test_subsets_depend_on_the_seed_only(noisy):
    bulk, _, expected = noisy
    np.testing.assert_array_equal(tl.group_expression(bulk).layers["geometric_cv"], expected.layers["geometric_cv"])
    other = tl.group_expression(bulk, seed=1)
    np.testing.assert_array_equal(other.X, expected.X)
    assert not np.allclose(other.layers["geometric_cv"], expected.layers["geometric_cv"])


def test_samples_without_fractions_are_excluded(unchanged):
    bulk, _ = make_bulk()
    expected = tl.group_expression(bulk[:35].copy())
    bulk.obsm["fractions"].iloc[35:] = np.nan
    with unchanged(bulk), pytest.warns(UserWarning, match="5 of 40 samples have no fractions"):
        found = tl.group_expression(bulk)
    np.testing.assert_allclose(found.X, expected.X)
    assert found.uns["scdeconv"]["group_expression"]["n_bulk_samples"] == 35


def test_fractions_of_a_model_give_profiles(pairs):
    bulk = pairs["bulk"]
    tl.predict(bulk, tl.train(pairs, "cibersort"))
    bulk.obsm["fractions"] = (
        bulk.obsm["fractions"].iloc[:, :2].assign(others=bulk.obsm["fractions"].iloc[:, 2:].sum(axis=1))
    )
    found = tl.group_expression(bulk)
    assert found.shape == (3, bulk.n_vars)
    assert (found.X >= 0).all()
    assert found.uns["scdeconv"]["group_expression"]["fraction_kind"] == "rna"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"key": "other"}, KeyError, r"Expected 'other' in adata.obsm, found \['fractions'\]"),
        ({"n_samples": 1}, ValueError, "n_samples to be a whole number of at least 2, found 1"),
        (
            {"share": 0.1},
            ValueError,
            "more samples in a subset than cell types, found 40 samples .4 in a subset. and 4 types",
        ),
        ({"layer": "none"}, KeyError, "Expected layer 'none'"),
    ],
)
def test_wrong_arguments_are_refused(noisy, arguments, error, message, unchanged):
    bulk, _, _ = noisy
    with unchanged(bulk), pytest.raises(error, match=message):
        tl.group_expression(bulk, **arguments)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda bulk: setattr(bulk, "X", np.log1p(bulk.X)), "log-transformed"),
        (lambda bulk: setattr(bulk, "X", -bulk.X), "non-negative"),
        (lambda bulk: bulk.obsm.update(fractions=bulk.obsm["fractions"] * 2), "sum to 1"),
        (
            lambda bulk: bulk.obsm.update(fractions=bulk.obsm["fractions"].assign(None_=0.0)),
            r"only zeros for \['None_'\]",
        ),
        (
            lambda bulk: bulk.obsm.update(fractions=(bulk.obsm["fractions"] / 2).assign(half=0.5)),
            "collinear fractions",
        ),
    ],
)
def test_data_that_cannot_be_regressed_are_refused(spoil, message):
    bulk, _ = make_bulk()
    spoil(bulk)
    with pytest.raises(ValueError, match=message):
        tl.group_expression(bulk)


def test_few_samples_are_refused_with_numbers():
    bulk, _ = make_bulk(n_samples=8)
    with pytest.raises(
        ValueError, match="more samples in a subset than cell types, found 8 samples .4 in a subset. and 4 types"
    ):
        tl.group_expression(bulk)


def test_array_of_fractions_is_refused():
    bulk, _ = make_bulk()
    bulk.obsm["fractions"] = bulk.obsm["fractions"].to_numpy()
    with pytest.raises(TypeError, match="DataFrame of samples"):
        tl.group_expression(bulk)
