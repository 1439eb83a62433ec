"""Comparison of groups with unusual and faulty input: right results, NaN with a warning, or an error."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from scdeconv import tl

TYPES = list("ABCDEF")


@pytest.fixture
def adata():
    """Samples of pairs of donors in two groups and three stages, with intervals."""
    rng = np.random.default_rng(3)
    adata = AnnData(obs=pd.DataFrame(index=[f"s{i}" for i in range(30)]))
    adata.obs["state"] = np.resize(["c", "p"], 30)
    adata.obs["stage"] = np.resize(["x", "y", "z"], 30)
    adata.obs["donor"] = np.repeat(np.arange(15), 2)
    adata.obs["age"] = rng.uniform(20, 60, 30)
    shares = rng.dirichlet(np.full(len(TYPES), 4.0), 30)
    shares[:, 0] *= np.where(adata.obs["stage"] == "z", 2.5, 1)
    shares /= shares.sum(axis=1, keepdims=True)
    adata.obsm["fractions"] = pd.DataFrame(shares, adata.obs_names, TYPES)
    angle, width = np.arcsin(np.sqrt(shares)), stats.norm.ppf(0.95) * rng.uniform(0.01, 0.08, (30, 1))
    for side, bound in (("lower", angle - width), ("upper", angle + width)):
        values = np.sin(bound.clip(0, np.pi / 2)) ** 2
        adata.obsm[f"fractions_{side}"] = pd.DataFrame(values, adata.obs_names, TYPES)
    adata.uns["scdeconv"] = {"fractions": {"coverage": 0.9}}
    return adata


@pytest.mark.parametrize(("factor", "offset"), [(1e18, 0), (1e-18, 0), (1, 1e9), (1e9, 1.6e18)])
def test_units_of_variables_do_not_matter(adata, factor, offset):
    adata.obs["other"] = factor * adata.obs["age"] + offset
    expected, found = (tl.compare_fractions(adata, "state", covariates=[name]) for name in ("age", "other"))
    np.testing.assert_allclose(found["p_value"], expected["p_value"], rtol=1e-3)
    expected, found = (tl.compare_fractions(adata, name, paired_by="donor") for name in ("age", "other"))
    np.testing.assert_allclose(found["p_value"], expected["p_value"], rtol=1e-3)
    np.testing.assert_allclose(factor * found["effect"], expected["effect"], rtol=1e-3)
    np.testing.assert_allclose(factor * found["points_upper"], expected["points_upper"], rtol=1e-3)


def test_level_order_does_not_change_the_reference(adata):
    for seed in range(6):
        draws = (
            np.random.default_rng(seed).normal(0, 0.4, (30, len(TYPES)))
            + 0.8 * (adata.obs[["stage"]] == "z").to_numpy()
        )
        draws[:, 3:] -= 0.8 * (adata.obs[["stage"]] == "x").to_numpy()
        adata.obsm["drawn"] = pd.DataFrame(np.exp(draws), adata.obs_names, TYPES)
        adata.obsm["drawn"] = adata.obsm["drawn"].div(adata.obsm["drawn"].sum(axis=1), axis=0)
        tables = []
        for order in (["x", "y", "z"], ["z", "x", "y"], ["y", "z", "x"]):
            adata.obs["stage"] = pd.Categorical(adata.obs["stage"], order)
            table = tl.compare_fractions(adata, "stage", key="drawn").drop_duplicates("cell_type")
            tables.append(table[["cell_type", "in_reference", "p_overall"]].reset_index(drop=True))
        for table in tables[1:]:
            pd.testing.assert_frame_equal(table, tables[0])


@pytest.mark.parametrize("variable", ["state", "age"])
def test_identical_samples_have_no_p_values(adata, variable):
    adata.obsm["same"] = pd.DataFrame([[0.37, 0.13, 0.11, 0.17, 0.12, 0.1]] * 30, adata.obs_names, TYPES)
    with pytest.warns(UserWarning, match="explain 6 cell types exactly"):
        table = tl.compare_fractions(adata, variable, key="same")
    assert table[["p_value", "q_value", "p_overall"]].isna().all(axis=None)
    np.testing.assert_allclose(table[["effect", "points"]], 0, atol=1e-12)


def test_single_donor_gives_no_p_values(adata):
    adata.obs["donor"] = "d"
    with pytest.warns(UserWarning, match="samples of other donors"):
        assert tl.compare_fractions(adata, "age", paired_by="donor")["p_value"].isna().all()


def test_too_few_samples_for_joint_tests_warn(adata):
    adata.obs["donor"] = adata.obs["donor"].astype(str)
    with pytest.warns(UserWarning, match="joint test of 14 contrasts, found too few"):
        table = tl.compare_fractions(adata, "donor")
    assert table["p_overall"].isna().all()
    assert table["p_value"].notna().all()


def test_intervals_of_numbered_types_are_used(adata):
    expected = tl.compare_fractions(adata, "state")
    for key in list(adata.obsm):
        adata.obsm[key].columns = range(len(TYPES))
    found = tl.compare_fractions(adata, "state")
    pd.testing.assert_frame_equal(found.drop(columns="cell_type"), expected.drop(columns="cell_type"))


def exchange(adata):
    adata.obsm["fractions_lower"], adata.obsm["fractions_upper"] = (
        adata.obsm["fractions_upper"],
        adata.obsm["fractions_lower"],
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (exchange, "lower bound above the upper"),
        (lambda adata: adata.obsm.update(fractions_lower=100 * adata.obsm["fractions_lower"]), "intervals from 0 to 1"),
        (
            lambda adata: adata.obsm.update(fractions_lower=adata.obsm["fractions_lower"][["B", "A"]]),
            "found no 'C', 'D'",
        ),
        (lambda adata: adata.uns["scdeconv"]["fractions"].update(coverage=90.0), "between 0 and 1, .* found 90"),
        (lambda adata: adata.obsm.update(fractions=adata.obsm["fractions"] * np.nan), "found 30 rows of NaN"),
        (lambda adata: adata.obsm.update(fractions=adata.obsm["fractions"].replace(0, 1) + np.inf), "infinite values"),
        (lambda adata: adata.obs.insert(0, "state", "a", allow_duplicates=True), "one column 'state' .* found 2"),
        (
            lambda adata: adata.obs.insert(0, "state", adata.obs.pop("state").replace("c", "none")),
            "If 'none' is a group, rename it",
        ),
    ],
)
def test_faulty_input_is_refused(adata, spoil, message, unchanged):
    spoil(adata)
    with unchanged(adata), pytest.raises(ValueError, match=message):
        tl.compare_fractions(adata, "state")


def test_rounding_errors_are_no_variable(adata):
    adata.obs["dose"] = np.resize([0.3, 0.1 + 0.2], 30)
    with pytest.raises(ValueError, match=r"\['dose'\], found 0.3 in all 30 samples"):
        tl.compare_fractions(adata, "state", covariates=["dose"])


@pytest.mark.parametrize("key", ["fractions", "fractions_lower", "colors"])
def test_records_of_others_are_kept(adata, key, unchanged):
    with unchanged(adata), pytest.raises(ValueError, match=f"found '{key}', whose record would be lost"):
        tl.compare_fractions(adata, "state", key_added=key)


def test_spellings_of_a_group_are_warned_about(adata):
    adata.obs["state"] = np.resize(["Control", "control", "case"], 30)
    with pytest.warns(UserWarning, match=r"adata.obs\['state'\], found several: 'Control' and 'control'"):
        tl.compare_fractions(adata, "state")


@pytest.mark.filterwarnings("ignore:Trying to modify attribute")
def test_results_of_a_view_stay_in_it(adata, unchanged):
    view = adata[:20]
    with unchanged(adata):
        tl.compare_fractions(view, "state")
    assert view.uns["scdeconv"]["compare_fractions"]["n_samples"] == 20


def test_groups_with_slashes_are_kept_in_files(adata, tmp_path):
    adata.obs["state"] = np.resize(["a/b", "a/c"], 30)
    tl.compare_fractions(adata, "state")
    adata.write_h5ad(tmp_path / "result.h5ad")
    read = anndata.read_h5ad(tmp_path / "result.h5ad").uns["scdeconv"]["compare_fractions"]
    assert list(read["groups"]) == ["a/b", "a/c"]


@pytest.fixture
def bulk(adata):
    rng = np.random.default_rng(0)
    expected = adata.obsm["fractions"][["A", "B"]].to_numpy() @ rng.gamma(2, 50, (2, 40))
    bulk = AnnData(rng.poisson(expected).astype(float), obs=adata.obs)
    bulk.var_names = [f"G{i}" for i in range(40)]
    bulk.obsm["fractions"] = adata.obsm["fractions"][["A", "B"]].div(
        adata.obsm["fractions"][["A", "B"]].sum(axis=1), axis=0
    )
    return bulk


def test_units_of_variables_do_not_change_genes(bulk):
    expected = tl.differential_expression(bulk, "age")
    bulk.obs["age"] = 1e15 * bulk.obs["age"] + 1e18
    found = tl.differential_expression(bulk, "age")
    np.testing.assert_allclose(found["p_value"], expected["p_value"], rtol=1e-6)
    np.testing.assert_allclose(1e15 * found["se"], expected["se"], rtol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda bulk: bulk, {"n_factors": 30}, "at least 37 samples .* found 30"),
        (lambda bulk: bulk[:, :9].copy(), {}, "at least 10 expressed genes, .* found 9"),
        (lambda bulk: AnnData(bulk.X * 0 + 7, obs=bulk.obs, obsm=dict(bulk.obsm)), {}, "found the same in all"),
        (
            lambda bulk: AnnData(
                bulk.X, obs=bulk.obs, obsm={"fractions": pd.DataFrame(np.eye(2)[[0, 1] * 15], bulk.obs_names)}
            ),
            {},
            "mean fractions of at least 0.005 in every group, found none",
        ),
        (lambda bulk: bulk, {"key_added": "fractions"}, "whose record would be lost"),
    ],
)
@pytest.mark.filterwarnings("ignore:Expected mean fractions")
def test_genes_that_cannot_be_tested_are_refused(bulk, spoil, arguments, message):
    with pytest.raises(ValueError, match=message):
        tl.differential_expression(spoil(bulk), "state", **arguments)


def test_groups_smaller_than_the_types_are_refused(adata):
    bulk = AnnData(np.random.default_rng(0).poisson(100, (30, 40)).astype(float), obs=adata.obs, obsm=dict(adata.obsm))
    bulk.obs["state"] = ["c"] * 25 + ["p"] * 5
    with pytest.raises(ValueError, match=r"at least 6 samples in every group, .* found 'p \(5 samples\)'"):
        tl.differential_expression(bulk, "state")


def test_repeated_gene_names_are_warned_about(bulk):
    bulk.var_names = ["G0", "G0", *bulk.var_names[2:]]
    with pytest.warns(UserWarning, match="unique gene names in adata, found 1 repeated: 'G0'"):
        tl.differential_expression(bulk, "state")
