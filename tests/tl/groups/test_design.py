"""Design matrices of groups and covariates, compared with those of patsy, and their refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import patsy
import pytest

from scdeconv._data.checks import Problems
from scdeconv.tl._groups.design import make_design


@pytest.fixture
def obs():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "state": ["b", "a", "c", "a", "b", "c", "a", "b", "c", "a"],
            "age": rng.uniform(20, 60, 10),
            "sex": pd.Categorical(["m", "f"] * 5, categories=["m", "f", "x"]),
            "treated": [True, False, False, True, True, False, True, False, True, False],
        },
        index=[f"s{i}" for i in range(10)],
    )


def refusal(obs, group, *covariates):
    problems = Problems("title")
    assert make_design(problems, obs, group, covariates) is None
    return "\n".join(problems.messages)


def make(obs, group, *covariates):
    problems = Problems("title")
    design = make_design(problems, obs, group, covariates)
    problems.raise_if_any()
    return design


@pytest.mark.parametrize(
    ("variables", "formula"),
    [
        (("state", "age", "sex"), "C(state) + standardize(age) + C(sex, levels=['m', 'f'])"),
        (("age",), "standardize(age)"),
        (("treated", "state"), "treated + C(state)"),
    ],
)
def test_matrix_equals_that_of_patsy(obs, variables, formula):
    design = make(obs, *variables)
    expected = patsy.dmatrix(formula, obs, return_type="dataframe")
    order = sorted(expected, key=lambda name: [name != "Intercept", *(part not in name for part in variables)])
    np.testing.assert_allclose(design.matrix, expected[order])


def test_first_category_is_the_reference(obs):
    assert make(obs, "state").contrasts == ["b - a", "c - a"]
    assert make(obs, "sex").contrasts == ["f - m"]
    assert make(obs, "treated").contrasts == ["True - False"]
    obs["state"] = pd.Categorical(obs["state"], ["c", "a", "b"])
    assert make(obs, "state").contrasts == ["a - c", "b - c"]


def test_continuous_variables_have_no_groups(obs):
    design = make(obs, "age", "state")
    assert design.groups is None
    assert design.contrasts == ["age"]
    assert design.tested.tolist() == [1]


def test_all_problems_are_reported_at_once(obs):
    obs["age"] = obs["age"].mask(obs.index == "s3")
    obs["one"] = "same"
    found = refusal(obs, "stat", "age", "one", "one")
    for part in ("Did you mean 'state'?", "1 of 10 without: 's3'", "'same' in all 10", "'one' more than once"):
        assert part in found


@pytest.mark.parametrize("missing", [None, np.nan, "NA", pd.NA, ""])
def test_missing_labels_are_refused(obs, missing):
    obs["state"] = obs["state"].astype(object)
    obs.loc["s4", "state"] = missing
    assert "1 of 10 without: 's4'" in refusal(obs, "state")


def test_infinite_numbers_are_refused(obs):
    obs.loc["s2", "age"] = np.inf
    assert "1 of 10 without: 's2'" in refusal(obs, "age")


def test_groups_of_one_sample_are_refused(obs):
    obs["state"] = ["a"] * 5 + ["b"] * 4 + ["c"]
    assert "1 of 3 groups with one: 'c (1 sample)'" in refusal(obs, "state")
    assert ".astype(float)" in refusal(obs.assign(age=obs["age"].astype(str)), "age")


def test_collinear_covariates_are_named(obs):
    obs["months"] = 12 * obs["age"] + 3
    assert "'months' follows from 'age'" in refusal(obs, "age", "months")
    obs["site"] = obs["state"].map({"a": "x", "b": "y", "c": "y"})
    assert "'site' follows from 'state', 'age'" in refusal(obs, "state", "age", "site")


def test_units_do_not_make_variables_collinear(obs):
    obs["tiny"] = np.random.default_rng(1).normal(size=10) * 1e-9
    obs["year"] = 2020 + np.arange(10) % 2
    assert make(obs, "tiny", "age", "year").matrix.shape == (10, 4)


def test_more_columns_than_samples_are_refused(obs):
    assert "found 4 samples and 5 columns" in refusal(obs.iloc[:4].assign(sex=list("abcd")), "treated", "sex")
