"""Genes that differ between groups in a cell type: planted effects, result, and refusals."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from scdeconv import tl

TYPES = ["B cell", "T cell", "Monocyte"]


def make_bulk(n_samples=60, n_genes=300, seed=0, fold=4.0):
    """Return counts in two groups; the first 20 genes change in B cells of patients."""
    rng = np.random.default_rng(seed)
    fractions = rng.dirichlet([6, 3, 3], n_samples)
    profiles = rng.gamma(2, 1, (3, n_genes))
    state = np.arange(n_samples) % 2
    rna = fractions @ profiles
    rna[:, :20] += (fold - 1) * np.outer(state * fractions[:, 0], profiles[0, :20])
    noise = np.exp(0.2 * np.outer(rng.normal(size=n_samples), rng.normal(size=n_genes)))
    shares = rna * noise * rng.lognormal(0, 0.1, rna.shape)
    counts = rng.poisson(1e6 * shares / shares.sum(axis=1, keepdims=True))
    bulk = AnnData(counts, obs=pd.DataFrame(index=[f"s{i}" for i in range(n_samples)]))
    bulk.var_names = [f"G{i}" for i in range(n_genes)]
    bulk.obs["state"] = np.where(state == 1, "patient", "control")
    bulk.obs["age"] = 40.0 + 20 * state + rng.normal(0, 1e-3, n_samples)
    bulk.obs["arm"] = pd.Categorical(
        np.array(["placebo", "low", "high"])[np.arange(n_samples) % 3], ["placebo", "low", "high"]
    )
    bulk.obsm["fractions"] = pd.DataFrame(fractions, bulk.obs_names, TYPES)
    return bulk


@pytest.fixture(scope="module")
def tested():
    bulk = make_bulk()
    return bulk, tl.differential_expression(bulk, "state")


def of_type(table, cell_type):
    return table[table["cell_type"] == cell_type].set_index("gene")


def test_planted_genes_are_found_in_their_type(tested):
    _, table = tested
    found = table[table["q_value"] < 0.05]
    in_b = found[found["cell_type"] == "B cell"]["gene"]
    planted = {f"G{i}" for i in range(20)}
    assert len(planted & set(in_b)) >= 18
    false = len(set(in_b) - planted) + (found["cell_type"] != "B cell").sum()
    assert false <= 2
    folds = of_type(table, "B cell")["log2_fold_change"].iloc[:20]
    assert folds.median() == pytest.approx(2, abs=0.4)


def test_bulk_differences_from_composition_are_not_called():
    """Patients have more B cells. Bulk expression of most genes differs, but that of no type."""
    bulk = make_bulk(n_samples=120, fold=1.0)
    fractions, patient = bulk.obsm["fractions"].to_numpy(), (bulk.obs["state"] == "patient").to_numpy()
    kept = np.flatnonzero((fractions[:, 0] > 0.5) == patient)
    bulk = bulk[kept].copy()
    table = tl.differential_expression(bulk, "state")
    assert (table["q_value"] < 0.05).sum() <= 3
    # one type with fraction 1 is bulk differential expression
    bulk.obsm["one"] = pd.DataFrame({"bulk": 1.0}, index=bulk.obs_names)
    of_bulk = tl.differential_expression(bulk, "state", key="one", n_factors=0, key_added="bulk")
    record = bulk.uns["scdeconv"]["bulk"]
    inflation = record["cell_types"]["inflation"].iloc[0]
    p_values = 2 * stats.t.sf(of_bulk["t"].abs() * inflation, record["df"])
    assert inflation > 2
    assert (stats.false_discovery_control(p_values) < 0.05).mean() > 0.3


def test_table_has_one_row_per_type_and_gene(tested):
    bulk, table = tested
    assert list(table["cell_type"].unique()) == TYPES
    assert list(table["gene"]) == 3 * list(bulk.var_names)
    assert set(table["contrast"]) == {"patient - control"}
    known = table["p_value"].notna()
    for name in ("effect", "se", "t", "q_value"):
        assert (table[name].notna() == known).all()
    np.testing.assert_allclose(table["t"], table["effect"] / table["se"])
    assert table["mean"].notna().all()


def test_record_survives_h5ad(tested, tmp_path):
    bulk, table = tested
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    record = anndata.read_h5ad(tmp_path / "bulk.h5ad").uns["scdeconv"]["differential_expression"]
    pd.testing.assert_frame_equal(record["table"].reset_index(drop=True), table, check_dtype=False)
    assert (record["key"], record["group"], record["n_samples"]) == ("fractions", "state", 60)
    types = record["cell_types"].set_index("cell_type")
    assert types.loc["B cell", "n_significant"] >= 18
    assert (types["inflation"] >= 1).all()
    assert types.loc["B cell", "samples_needed"] < types.loc["Monocyte", "samples_needed"]


def test_number_of_genes_is_printed(capsys):
    tl.differential_expression(make_bulk(), "state", n_factors=0, fold_change=3)
    printed = capsys.readouterr().out
    assert "60 samples, 3 cell types, 0 latent factors" in printed
    assert "(samples needed for a 3-fold change)" in printed


def test_continuous_variable_equals_groups():
    bulk = make_bulk()
    groups = of_type(tl.differential_expression(bulk, "state", n_factors=0), "B cell")
    ages = of_type(tl.differential_expression(bulk, "age", n_factors=0, key_added="age"), "B cell")
    np.testing.assert_allclose(20 * ages["effect"], groups["effect"], rtol=0.02, atol=0.02 * groups["se"].max())
    assert set(ages["contrast"]) == {"age"}
    needed = [bulk.uns["scdeconv"][key]["cell_types"]["samples_needed"] for key in ("differential_expression", "age")]
    np.testing.assert_allclose(needed[0], needed[1], rtol=0.02)


def test_groups_are_compared_with_the_first():
    bulk = make_bulk(n_samples=90)
    table = tl.differential_expression(bulk, "arm", covariates=["state"], n_factors=0)
    assert list(table["contrast"].unique()) == ["low - placebo", "high - placebo"]
    assert len(table) == 3 * 2 * 300
    assert (table["q_value"] < 0.05).mean() < 0.01
    # expression of the reference is the same in both contrasts
    tables = [of_type(table[table["contrast"] == name], "T cell") for name in table["contrast"].unique()]
    reference = [part["effect"] / (2 ** part["log2_fold_change"] - 1) for part in tables]
    both = np.isfinite(reference[0]) & np.isfinite(reference[1])
    np.testing.assert_allclose(reference[0][both], reference[1][both], rtol=1e-6)


def test_rare_types_are_not_tested():
    bulk = make_bulk()
    table = bulk.obsm["fractions"] * 0.999
    bulk.obsm["fractions"] = table.assign(rare=0.001)
    with pytest.warns(UserWarning, match="found less for 'rare'. Genes are not tested"):
        found = tl.differential_expression(bulk, "state")
    assert of_type(found, "rare").drop(columns=["cell_type", "contrast"]).isna().all(axis=None)
    plain = tl.differential_expression(make_bulk(), "state")
    np.testing.assert_allclose(of_type(found, "B cell")["p_value"], of_type(plain, "B cell")["p_value"], rtol=1e-6)


def test_nearly_collinear_types_give_a_warning():
    bulk = make_bulk()
    table = bulk.obsm["fractions"]
    noise = 1 + 0.05 * np.random.default_rng(0).normal(size=60)
    table["B cell 2"] = table["B cell"] * 0.5 * noise
    table["B cell"] -= table["B cell 2"]
    with pytest.warns(UserWarning, match=r"Samples needed for a 2-fold change: \d+ for B cell"):
        tl.differential_expression(bulk, "state")


def test_samples_without_fractions_are_ignored():
    bulk = make_bulk()
    expected = tl.differential_expression(bulk[:50].copy(), "state")
    bulk.obsm["fractions"].iloc[50:] = np.nan
    bulk.obs.loc[bulk.obs_names[55:], "state"] = None
    with pytest.warns(UserWarning, match="10 of 60 samples have no fractions"):
        found = tl.differential_expression(bulk, "state")
    pd.testing.assert_frame_equal(found, expected)


def test_genes_without_expression_are_not_tested():
    bulk = make_bulk()
    bulk.X[:, 5] = 0
    table = tl.differential_expression(bulk, "state")
    assert table[table["gene"] == "G5"][["mean", "p_value", "q_value"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda bulk: None, {"group": "stage"}, r"Expected 'stage' in adata.obs"),
        (lambda bulk: None, {"group": "state", "covariates": ["age", "nobody"]}, "Expected 'nobody'"),
        (lambda bulk: setattr(bulk, "X", np.log1p(bulk.X)), {"group": "state"}, "log-transformed"),
        (
            lambda bulk: bulk.obsm.update(
                fractions=(bulk.obsm["fractions"] * [1, 1, 0.5]).assign(half=bulk.obsm["fractions"]["Monocyte"] / 2)
            ),
            {"group": "state"},
            "collinear ones: 'Monocyte', 'half'",
        ),
    ],
)
def test_wrong_input_is_refused(change, arguments, message, unchanged):
    bulk = make_bulk()
    change(bulk)
    with unchanged(bulk), pytest.raises(ValueError, match=message):
        tl.differential_expression(bulk, **arguments)


def test_few_samples_are_refused_with_the_number():
    with pytest.raises(ValueError, match=r"Expected at least 9 samples with fractions for 3 cell types .* found 8"):
        tl.differential_expression(make_bulk(n_samples=8), "state")
