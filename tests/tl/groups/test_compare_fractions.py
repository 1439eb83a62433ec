"""Comparison of fractions between groups, with effects of known size and other programs."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from scdeconv import tl

TYPES = ["A", "B", "C", "D", "E"]
MEAN = np.log([0.4, 0.3, 0.15, 0.1, 0.05])


def make_samples(n_samples=24, rise=0.0, sd=0.3, seed=0, donors=None):
    """Samples in two groups; in group "p", type C rises by a factor exp(rise). Donors have own compositions."""
    rng = np.random.default_rng(seed)
    adata = AnnData(obs=pd.DataFrame(index=[f"s{i}" for i in range(n_samples)]))
    adata.obs["state"] = np.resize(["c", "p"], n_samples)
    logs = MEAN + rng.normal(0, sd, (n_samples, len(TYPES)))
    if donors is not None:
        adata.obs["donor"] = donors
        logs += rng.normal(0, 0.8, (max(donors) + 1, len(TYPES)))[donors]
    logs[:, 2] += rise * (adata.obs["state"] == "p")
    adata.obsm["fractions"] = pd.DataFrame(np.exp(logs), adata.obs_names, TYPES)
    adata.obsm["fractions"] = adata.obsm["fractions"].div(adata.obsm["fractions"].sum(axis=1), axis=0)
    return adata


def add_intervals(adata, se, coverage=0.9):
    """Add intervals of standard errors on the scale arcsin(sqrt(fraction))."""
    table = adata.obsm["fractions"]
    angle, width = np.arcsin(np.sqrt(table)), stats.norm.ppf((1 + (coverage or 0.9)) / 2) * np.asarray(se)[:, None]
    adata.obsm["fractions_lower"] = np.sin((angle - width).clip(lower=0)) ** 2
    adata.obsm["fractions_upper"] = np.sin((angle + width).clip(upper=np.pi / 2)) ** 2
    adata.uns["scdeconv"] = {"fractions": {} if coverage is None else {"coverage": coverage}}
    return adata


def of_type(table, name):
    return table.set_index("cell_type").loc[name]


def test_known_factor_is_found_and_nothing_else():
    table = tl.compare_fractions(make_samples(60, rise=np.log(2)), "state")
    found = of_type(table, "C")
    assert found.ratio_lower < 2 < found.ratio_upper
    assert found.q_value < 1e-6
    assert (table["q_value"] < 0.05).sum() == 1
    assert table["in_reference"].tolist() == [True, True, False, True, True]


def test_points_are_the_difference_of_mean_fractions():
    adata = make_samples(31, rise=0.5)
    found = tl.compare_fractions(adata, "state").set_index("cell_type")
    expected = 100 * adata.obsm["fractions"].groupby(adata.obs["state"]).mean().diff().loc["p"]
    np.testing.assert_allclose(found["points"], expected)
    assert (found["points_lower"] < expected).all()
    assert (expected < found["points_upper"]).all()


def test_slope_of_a_continuous_variable_is_found():
    adata = make_samples(80)
    adata.obs["age"] = np.random.default_rng(1).uniform(20, 60, 80)
    table = adata.obsm["fractions"]
    table["B"] *= np.exp(0.03 * adata.obs["age"])
    adata.obsm["fractions"] = table.div(table.sum(axis=1), axis=0)
    found = tl.compare_fractions(adata, "age", covariates=["state"])
    assert (found["contrast"] == "age").all()
    assert of_type(found, "B").effect == pytest.approx(0.03, abs=0.01)
    assert (found["q_value"] < 0.05).sum() == 1


def test_confounder_has_no_effect_after_adjustment():
    adata = make_samples(60)
    adata.obs["site"] = np.where(np.random.default_rng(0).uniform(size=60) < 0.85, adata.obs["state"], "c")
    table = adata.obsm["fractions"]
    table["A"] *= np.where(adata.obs["site"] == "p", 3, 1)
    adata.obsm["fractions"] = table.div(table.sum(axis=1), axis=0)
    assert of_type(tl.compare_fractions(adata, "state"), "A").q_value < 0.01
    assert of_type(tl.compare_fractions(adata, "state", covariates=["site"]), "A").q_value > 0.05


def test_three_groups_are_compared_with_the_first():
    adata = make_samples(60)
    adata.obs["stage"] = pd.Categorical(np.resize(["mid", "late", "early"], 60), ["early", "mid", "late"])
    table = adata.obsm["fractions"]
    table["D"] *= np.where(adata.obs["stage"] == "late", 2.5, 1)
    adata.obsm["fractions"] = table.div(table.sum(axis=1), axis=0)
    found = tl.compare_fractions(adata, "stage")
    assert len(found) == 2 * len(TYPES)
    rise = of_type(found, "D").set_index("contrast")
    assert rise.loc["late - early", "q_value"] < 1e-4
    assert rise.loc["mid - early", "q_value"] > 0.05
    assert (rise["q_overall"] < 1e-4).all()
    assert (found[found["cell_type"] != "D"]["q_overall"] > 0.05).all()


def test_pairs_within_donors_are_blocks():
    adata = make_samples(24, rise=0.5, donors=np.repeat(np.arange(12), 2))
    # constant within donors
    adata.obs["sex"] = np.repeat(["f", "m"], 12)
    found = tl.compare_fractions(adata, "state", paired_by="donor", covariates=["sex"])
    record = adata.uns["scdeconv"]["compare_fractions"]
    assert record["donors"] == "donors as blocks"
    inside = found.set_index("cell_type")["in_reference"]
    logs = np.log(adata.obsm["fractions"] + 0.0005)
    ratios = logs["C"] - logs[list(inside[inside].index)].mean(axis=1)
    expected = stats.ttest_rel(ratios[1::2], ratios[::2])
    assert of_type(found, "C").p_value == pytest.approx(expected.pvalue)
    assert of_type(found, "C").p_value < of_type(tl.compare_fractions(adata, "state"), "C").p_value


def test_repeated_samples_do_not_count_as_donors():
    donors = np.repeat(np.arange(8), 5)
    rejected = {None: 0, "donor": 0}
    for seed in range(12):
        adata = make_samples(40, donors=donors, seed=seed)
        adata.obs["state"] = np.where(donors < 4, "c", "p")
        for paired_by in rejected:
            table = tl.compare_fractions(adata, "state", paired_by=paired_by)
            rejected[paired_by] += (table["p_value"] < 0.05).sum()
    assert adata.uns["scdeconv"]["compare_fractions"]["donors"] == "random intercept of donors"
    n_tests = 12 * len(TYPES)
    assert rejected["donor"] / n_tests < 0.1
    assert rejected[None] / n_tests > 0.2


def test_permuted_groups_give_uniform_p_values():
    rng, found = np.random.default_rng(0), []
    for seed in range(60):
        adata = make_samples(12, seed=seed)
        error = rng.uniform(0.01, 0.06, 12)
        angle = np.arcsin(np.sqrt(adata.obsm["fractions"])) + error[:, None] * rng.normal(size=(12, len(TYPES)))
        shares = np.sin(angle.clip(0.01)) ** 2
        adata.obsm["fractions"] = shares.div(shares.sum(axis=1), axis=0)
        found.append(tl.compare_fractions(add_intervals(adata, error), "state")["p_value"])
    assert stats.kstest(np.concatenate(found), "uniform").pvalue > 0.01
    assert 0.01 < (np.array(found) < 0.05).mean() < 0.09


def test_uncertain_samples_have_less_weight():
    adata = make_samples(40, rise=0.7, sd=0.15)
    noisy = np.arange(40) % 4 >= 2
    logs = np.log(adata.obsm["fractions"]) + 1.5 * np.random.default_rng(0).normal(size=(40, 5)) * noisy[:, None]
    adata.obsm["fractions"] = np.exp(logs).div(np.exp(logs).sum(axis=1), axis=0)
    plain = of_type(tl.compare_fractions(adata, "state"), "C")
    weighted = of_type(tl.compare_fractions(add_intervals(adata, np.where(noisy, 0.3, 0.005)), "state"), "C")
    assert weighted.se < 0.6 * plain.se
    assert weighted.ratio_lower < np.exp(0.7) < weighted.ratio_upper
    assert weighted.error_share > plain.error_share == 0
    assert adata.uns["scdeconv"]["compare_fractions"]["errors"] == "intervals"


def test_estimates_of_a_model_are_compared(cohort_estimates):
    adata = cohort_estimates
    table = tl.compare_fractions(adata, "state")
    assert table.notna().all(axis=None)
    assert (table["error_share"] > 0).all()


@pytest.fixture(scope="module")
def cohort_estimates():
    from scdeconv import datasets, pp

    cells, bulk = datasets.paired_cohort(n_donors=8, n_bulk_only=12, n_genes=300, cells_per_donor=(50, 100))
    mdata = pp.pair(cells, bulk)
    new = bulk[~bulk.obs["donor"].isin(pp.paired_donors(mdata))].copy()
    tl.predict(new, tl.train(mdata, "ridge"), coverage=0.8)
    new.obs["state"] = np.resize(["c", "p"], new.n_obs)
    return new


def test_result_is_kept_in_h5ad_files(tmp_path):
    adata = add_intervals(make_samples(donors=np.repeat(np.arange(12), 2)), np.full(24, 0.03))
    table = tl.compare_fractions(adata, "state", covariates=[], paired_by="donor")
    adata.write_h5ad(tmp_path / "result.h5ad")
    read = anndata.read_h5ad(tmp_path / "result.h5ad").uns["scdeconv"]["compare_fractions"]
    pd.testing.assert_frame_equal(
        read["table"].set_axis(table.index), table, check_dtype=False, check_column_type=False, check_index_type=False
    )
    assert dict(zip(read["groups"], read["group_sizes"], strict=True)) == {"c": 12, "p": 12}
    assert 0 < read["p_value"] < 1


def test_samples_without_estimate_are_named_and_ignored():
    adata = make_samples(25)
    expected = tl.compare_fractions(adata[:24].copy(), "state")
    adata.obsm["fractions"].iloc[24] = np.nan
    adata.obs.iloc[24, 0] = None
    with pytest.warns(UserWarning, match="1 of 25 samples have no fractions .*'s24'"):
        found = tl.compare_fractions(adata, "state")
    pd.testing.assert_frame_equal(found, expected)


def test_absent_types_are_named_and_left_out(capsys):
    adata = make_samples()
    expected = tl.compare_fractions(adata, "state")
    adata.obsm["fractions"]["F"] = 0.0
    pd.testing.assert_frame_equal(tl.compare_fractions(adata, "state"), expected)
    assert "1 cell types are 0 in all samples and left out: 'F'" in capsys.readouterr().out


def test_mostly_zero_types_are_left_out():
    adata = make_samples()
    adata.obsm["fractions"]["F"] = np.where(np.arange(24) < 3, 0.002, 0.0)
    with pytest.warns(UserWarning, match=r"below 0\.001 in most samples and left out.*'F'"):
        table = tl.compare_fractions(adata, "state")
    assert table["cell_type"].tolist() == TYPES


def test_type_of_one_group_is_tested():
    adata = make_samples(60)
    adata.obs["state"] = np.where(np.arange(60) % 5 == 0, "p", "c")
    adata.obsm["fractions"]["F"] = np.where(adata.obs["state"] == "p", 0.01, 0.0)
    adata.obsm["fractions"] = adata.obsm["fractions"].div(adata.obsm["fractions"].sum(axis=1), axis=0)
    assert of_type(tl.compare_fractions(adata, "state"), "F").q_value < 0.001


def test_in_sample_fits_are_warned_about():
    adata = make_samples()
    adata.uns["scdeconv"] = {"fractions": {"in_sample": np.array(["s3", "s4"], dtype=object)}}
    with pytest.warns(UserWarning, match="2 samples were training samples"):
        tl.compare_fractions(adata, "state")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda adata: adata.obs.rename(columns={"state": "State"}), "Did you mean 'State'"),
        (lambda adata: adata.obs.assign(donor="d", state="c"), "'c' in all 24"),
        (lambda adata: adata.obs.assign(donor=adata.obs_names), "24 donors of 24 samples. Omit paired_by"),
        (lambda adata: adata.obs.assign(donor=adata.obs["state"]), "2 donors of .* in every group"),
        (lambda adata: adata.obs.assign(donor=[None, *"ab" * 11, "a"]), "1 of 24 without: 's0'"),
    ],
)
def test_wrong_columns_are_refused(change, message):
    adata = make_samples(donors=np.repeat(np.arange(12), 2))
    adata.obs = change(adata)
    with pytest.raises(ValueError, match=message):
        tl.compare_fractions(adata, "state", paired_by="donor")
    assert "scdeconv" not in adata.uns


def test_wrong_fractions_are_refused():
    adata = make_samples()
    with pytest.raises(KeyError, match="'other' in adata.obsm"):
        tl.compare_fractions(adata, "state", key="other")
    with pytest.raises(ValueError, match="tl.predict"):
        tl.compare_fractions(add_intervals(adata, np.full(24, 0.1), coverage=None), "state")
    adata.obsm["fractions"] *= 100
    with pytest.raises(ValueError, match="Divide the table by 100"):
        tl.compare_fractions(adata, "state")


def test_one_name_is_no_list_of_covariates():
    with pytest.raises(TypeError, match=r"\['age'\]"):
        tl.compare_fractions(make_samples(), "state", covariates="age")
