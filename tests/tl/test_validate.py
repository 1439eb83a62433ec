"""Train on one cohort and test on another one: tl.validate and tl.benchmark(test=)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv import datasets, metrics, pp, tl
from scdeconv._data.checks import Problems
from scdeconv.tl._cohorts.match_types import match_types

pytestmark = [
    pytest.mark.filterwarnings("ignore:Expected an out-of-fold RMSE below"),
    pytest.mark.filterwarnings("ignore:.*are outside the range of the training donors"),
]


@pytest.fixture(scope="module")
def cohorts():
    """Cells and bulk of 12 donors, and bulk with measured fractions of 12 others."""
    cells, bulk = datasets.paired_cohort(
        n_donors=12, n_bulk_only=12, n_reference_only=0, n_genes=300, n_cell_types=4, cells_per_donor=(100, 150), seed=4
    )
    known = bulk.obs["donor"].isin(cells.obs["donor"]).to_numpy()
    other = bulk[~known].copy()
    other.obsm["measured_fractions"] = other.obsm["true_fractions"]
    return cells, bulk[known].copy(), other


@pytest.fixture(scope="module")
def training(cohorts):
    return pp.pair(*cohorts[:2])


@pytest.fixture
def other(cohorts):
    return cohorts[2].copy()


def test_table_equals_errors_by_hand(training, other, unchanged):
    with unchanged(other):
        table = tl.validate(training, other, method="ridge")
    truth = other.obsm["true_fractions"]
    predicted = tl.train(training, "ridge").predict(other)
    expected = metrics.table(truth, predicted[truth.columns])
    np.testing.assert_allclose(table.loc[expected.index, expected.columns], expected, atol=1e-12)
    mean = training["bulk"].obsm["measured_fractions"].mean()[truth.columns]
    rows = table.loc[truth.columns]
    np.testing.assert_allclose(rows["rmse_training_mean"], np.sqrt(((truth - mean) ** 2).mean()))
    np.testing.assert_allclose(rows["rmse_mean_composition"], truth.std(ddof=0))
    pooled = np.sqrt(((truth - truth.mean()) ** 2).mean(axis=None))
    np.testing.assert_allclose(table.loc["all entries", "rmse_mean_composition"], pooled)


def test_intervals_are_those_of_the_model(training, other):
    table = tl.validate(training, other, method="calibrated_map")
    truth, model = other.obsm["true_fractions"], tl.train(training, "calibrated_map")
    lower, upper = (side[truth.columns] for side in model.predict_interval(other, 0.9))
    np.testing.assert_allclose(table.loc[truth.columns, "coverage"], ((lower <= truth) & (truth <= upper)).mean())
    np.testing.assert_allclose(table.loc["all entries", "width"], (upper - lower).mean(axis=None))


def test_model_gives_the_table_of_its_method(training, other):
    first = tl.validate(training, other, method="ridge")
    second = tl.validate(tl.train(training, "ridge"), other)
    pd.testing.assert_frame_equal(first, second)


def test_other_cohort_beats_both_means(training, other):
    row = tl.validate(training, other).loc["all entries"]
    assert row["rmse"] < 0.7 * min(row["rmse_training_mean"], row["rmse_mean_composition"])


def test_benchmark_scores_methods_and_both_means(training, other):
    table = tl.benchmark(training, ["nnls", "ridge"], test=other, seeds=(0, 1))
    pooled = table[table["cell_type"] == "all entries"].set_index("method")["rmse"]
    assert list(pooled.index) == ["nnls", "ridge", "mean_composition", "mean_composition_in_hindsight"]
    expected = tl.validate(training, other, method="ridge").loc["all entries"]
    found = pooled[["ridge", "mean_composition", "mean_composition_in_hindsight"]]
    np.testing.assert_allclose(found, expected[["rmse", "rmse_training_mean", "rmse_mean_composition"]].astype(float))


def test_tuning_uses_the_training_cohort(training, other):
    arguments = {"method": "ridge", "tune": {"n_trials": 2, "search_space": {"n_genes": [40, 80]}, "cv": 3}}
    table = tl.benchmark(training, {"tuned": arguments}, test=other)
    assert np.isfinite(table.loc[table["method"] == "tuned", "rmse"]).all()


@pytest.mark.parametrize("as_model", [False, True])
def test_training_donors_are_left_out_by_name(training, other, as_model):
    other.obs["donor"] = other.obs["donor"].astype(str)
    other.obs.iloc[:3, other.obs.columns.get_loc("donor")] = pp.paired_donors(training)[:3]
    expected = other[3:].copy()
    source = tl.train(training, "ridge") if as_model else training
    options = {} if as_model else {"method": "ridge"}
    with pytest.warns(UserWarning, match="Left out 3 of 12 test samples"):
        table = tl.validate(source, other, **options)
    np.testing.assert_allclose(table["rmse"], tl.validate(source, expected, **options)["rmse"])


@pytest.mark.parametrize("as_model", [False, True])
def test_training_samples_are_left_out_by_expression(training, cohorts, other, as_model):
    import anndata

    repeated = cohorts[1][:2].copy()
    repeated.obsm["measured_fractions"] = repeated.obsm["true_fractions"]
    repeated.obs["donor"] = repeated.obs_names = ["new1", "new2"]
    both = anndata.concat([other, repeated])
    source = tl.train(training, "ridge") if as_model else training
    with pytest.warns(UserWarning, match=r"equal expression: 2\): 'new1', 'new2'"):
        tl.validate(source, both, **({} if as_model else {"method": "ridge"}))


def test_cohort_of_training_donors_only_is_refused(training, cohorts):
    same = cohorts[1].copy()
    same.obsm["measured_fractions"] = same.obsm["true_fractions"]
    with pytest.raises(ValueError, match="donors that are not in the training cohort, found none in 12 samples"):
        tl.validate(training, same)


def test_finer_types_are_added_up(training, other, capsys):
    types = list(other.obsm["measured_fractions"])
    whole = tl.validate(training, other, method="ridge")
    table = other.obsm["measured_fractions"]
    parts = table.drop(columns=types[0]).assign(
        **{f"{types[0]} naive": 0.3 * table[types[0]], f"{types[0]} other": 0.7 * table[types[0]]}
    )
    other.obsm["measured_fractions"] = parts
    found = tl.validate(training, other, method="ridge")
    np.testing.assert_allclose(found.loc[whole.index, whole.columns], whole, atol=1e-12)
    assert f"{types[0]} naive + {types[0]} other (test)" in capsys.readouterr().out


def test_types_of_one_cohort_are_left_out(training, other):
    types = list(other.obsm["measured_fractions"])
    table = other.obsm["measured_fractions"].drop(columns=types[3]).assign(Stranger=0.0)
    other.obsm["measured_fractions"] = table.div(table.sum(axis=1), axis=0)
    found = tl.validate(training, other, method="ridge")
    assert list(found.index) == [
        *[t for t in training["profiles"].obs["cell_type"] if t != types[3]],
        "all entries",
        "mean of types",
    ]
    predicted = tl.train(training, "ridge").predict(other)[types[:3]]
    predicted = predicted.div(predicted.sum(axis=1), axis=0)
    truth = other.obsm["measured_fractions"][types[:3]]
    np.testing.assert_allclose(found.loc["all entries", "rmse"], metrics.rmse(truth, predicted))
    assert found["coverage"].isna().all()


def test_named_groups_are_used(training, other):
    types = list(other.obsm["measured_fractions"])
    other.obsm["measured_fractions"] = other.obsm["measured_fractions"].rename(
        columns={types[0]: "alpha", types[1]: "beta"}
    )
    table = tl.validate(
        training, other, method="ridge", groups={"first": [types[0], "alpha"], "second": [types[1], "beta"]}
    )
    assert {"first", "second", *types[2:]} <= set(table.index)


def test_unit_is_handled_by_gene_shifts(training, other, capsys):
    """Gene effects of another platform are removed."""
    rng = np.random.default_rng(0)
    before = tl.validate(training, other, method="ridge").loc["all entries", "rmse"]
    other.X = np.asarray(other.X.toarray() if hasattr(other.X, "toarray") else other.X, dtype=float) + 0.5
    other.X = other.X * rng.lognormal(0, 1, other.n_vars)
    other.X = other.X / other.X.sum(axis=1, keepdims=True) * 1e6
    table = tl.validate(training, other, method="ridge")
    assert "the test bulk is in TPM, the training bulk in counts" in capsys.readouterr().out
    row = table.loc["all entries"]
    assert row["rmse"] < max(1.5 * before, 0.7 * row["rmse_training_mean"])
    with pytest.raises(ValueError, match="Expected test bulk in counts"):
        tl.validate(tl.train(training, "ridge"), other)
    with pytest.raises(ValueError, match="at least 3 test samples"):
        tl.validate(training, other[:2].copy(), method="ridge")


def test_shared_genes_are_used(training, other):
    fewer = other[:, other.var_names[::-2]].copy()
    row = tl.validate(training, fewer, method="calibrated_map").loc["all entries"]
    assert row["rmse"] < row["rmse_training_mean"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda bulk: bulk.obsm.update(measured_fractions=bulk.obsm["measured_fractions"] * 100),
            "Divide the table by 100",
        ),
        (lambda bulk: bulk.obsm.pop("measured_fractions"), "measured fractions in bulk.obsm"),
        (
            lambda bulk: setattr(
                bulk, "X", np.log1p(np.asarray(bulk.X.todense() if hasattr(bulk.X, "todense") else bulk.X))
            ),
            "log",
        ),
        (lambda bulk: setattr(bulk, "var_names", [f"ENSG{i:011d}" for i in range(bulk.n_vars)]), "Ensembl identifiers"),
        (
            lambda bulk: bulk.obsm.update(
                measured_fractions=bulk.obsm["measured_fractions"].set_axis(list("wxyz"), axis=1)
            ),
            "at least two cell types that both cohorts have",
        ),
    ],
)
def test_bad_cohorts_are_refused(training, other, change, message):
    change(other)
    with pytest.raises(ValueError, match=message):
        tl.validate(training, other, method="ridge")


def test_arguments_with_a_model_are_refused(training, other):
    with pytest.raises(TypeError, match="no method and no arguments with a trained model"):
        tl.validate(tl.train(training, "ridge"), other, method="nnls")
    with pytest.raises(TypeError, match="n_gene"):
        tl.validate(training, other, method="ridge", n_gene=3)


def test_samples_without_all_common_types_are_ignored(training, other):
    other.obsm["measured_fractions"].iloc[:4, 1] = np.nan
    with pytest.warns(UserWarning, match="Left out 4 of 12 test samples, in which common types were not measured"):
        table = tl.validate(training, other, method="nnls")
    assert table.loc["all entries", "n"] == 8 * 4


def test_few_genes_of_the_test_are_reported(training, other):
    with pytest.warns(UserWarning, match="most of the 300 genes .*found 40 genes"):
        tl.validate(training, other[:, :40].copy(), method="ridge")


def test_data_without_records_are_validated(training, other):
    expected = tl.validate(training, other, method="nnls")
    bare = training.copy()
    del bare.uns["scdeconv"]
    pd.testing.assert_frame_equal(tl.validate(bare, other, method="nnls"), expected)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"x": ["a", "b"], "y": ["b", "c"]}, "each cell type once in groups"),
        ({"x": ["a", "a", "b"]}, "each cell type once in groups"),
        ({"c": ["a", "b"]}, "a new name of group 'c'"),
        ({"x": []}, "an empty list"),
    ],
)
def test_groups_that_lose_types_are_refused(groups, message):
    problems = Problems("")
    match_types(problems, list("abc"), list("abc"), groups)
    assert any(message in text for text in problems.messages)


FINOTELLO = [
    "NK cells",
    "B cells",
    "Tregs",
    "mDC",
    "Monocytes",
    "Neutrophils",
    "T cells CD8",
    "T cells CD4 conv",
    "Other",
]


def test_types_of_real_cohorts_match():
    problems = Problems("")
    found = match_types(problems, FINOTELLO, ["T", "Mono", "B", "DC", "NK", "Unmeasured"], None)
    assert found.training == {
        "NK cells": ["NK cells"],
        "B cells": ["B cells"],
        "T": ["Tregs", "T cells CD8", "T cells CD4 conv"],
        "Monocytes": ["Monocytes"],
    }
    assert list(found.test.values()) == [["NK"], ["B"], ["T"], ["Mono"]]
    assert not found.complete
    back = match_types(problems, ["T", "Mono", "B", "DC", "NK"], FINOTELLO, {"DC": ["DC", "mDC"]})
    assert back.test["DC"] == ["mDC"]
    assert back.test["T"] == ["Tregs", "T cells CD8", "T cells CD4 conv"]
    assert not problems.messages


def test_group_of_one_cohort_is_refused():
    problems = Problems("")
    match_types(problems, ["a", "b"], ["a", "b"], {"x": ["a", "stranger"]})
    match_types(problems, ["a", "b", "c"], ["a", "b"], {"x": ["c"]})
    assert len(problems.messages) == 2
