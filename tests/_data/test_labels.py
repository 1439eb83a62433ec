"""Labels as text, and spellings of one label."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv._data.labels import (
    MISSING_WORDS,
    as_categorical,
    as_flags,
    as_labels,
    changed_labels,
    is_missing,
    near_matches,
    spelling,
    spellings_of_one_label,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], ["1", "2"]),
        ([1.0, 2.0], ["1", "2"]),
        (["1.0", "2.0"], ["1", "2"]),
        (["1.0", "1.1"], ["1.0", "1.1"]),
        ([1.0, np.nan], ["1", np.nan]),
        (["P1.01", "P1.0", "P1", "(-0.023, 7.0]"], ["P1.01", "P1.0", "P1", "(-0.023, 7.0]"]),
        ([" T cell ", "T cell\t"], ["T cell", "T cell"]),
        ([b"D1", "D1"], ["D1", "D1"]),
        (["cafe\u0301", "caf\u00e9"], ["caf\u00e9", "caf\u00e9"]),
        ([None, "D1", pd.NA], [np.nan, "D1", np.nan]),
        (["001", "X1"], ["001", "X1"]),
    ],
)
def test_equal_labels_become_equal_text(values, expected):
    series = pd.Series(values, index=[f"r{i}" for i in range(len(values))], name="donor", dtype=object)
    pd.testing.assert_series_equal(as_labels(series), pd.Series(expected, series.index, dtype=object, name="donor"))
    assert as_labels(pd.Index(values, dtype=object)).equals(pd.Index(expected, dtype=object))


@pytest.mark.parametrize("dtype", ["category", "string", "Int64", float])
def test_labels_do_not_depend_on_the_dtype(dtype):
    values = ["1", "2", "1"] if dtype in ("category", "string") else [1, 2, 1]
    assert list(as_labels(pd.Series(values, dtype=dtype))) == ["1", "2", "1"]


def test_changed_labels_are_those_written_differently():
    values = pd.Series([1.0, 2.0, 1.0])
    assert changed_labels(values, as_labels(values)) == {"1.0": "1", "2.0": "2"}
    assert changed_labels(pd.Series([1, 2]), as_labels(pd.Series([1, 2]))) == {}


def test_categories_keep_their_order_without_unused():
    values = pd.Series(pd.Categorical(["b ", "a", "b"], categories=["unused", "b ", "a", "b"]))
    assert list(as_categorical(values).categories) == ["b", "a"]
    assert list(as_categorical(pd.Series(["b", "a"])).categories) == ["a", "b"]


def test_missing_words_are_found_in_any_case():
    labels = pd.Series([*MISSING_WORDS, *(word.upper() for word in MISSING_WORDS), np.nan])
    assert is_missing(labels).all()
    assert not is_missing(pd.Series(["NA12878", "Unknown", "0", "none of these", "Nan Li"])).any()


SAME = [
    ("T cell", "t.cell"),
    ("T cell", "T_Cell"),
    ("T-cell", "Tcell"),
    ("CD4+ T", "cd4+T"),
    ("D1", "d-01"),
    ("TCGA-02-0001", "tcga.2.1"),
]
OTHER = [
    ("CD16+ mono", "CD16- mono"),
    ("CD4 T", "CD4- T"),
    ("1_1", "11"),
    ("P1-1", "P11"),
    ("Th1", "Th17"),
    ("γδ T", "T"),
    ("D1", "D10"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_case_and_separators_do_not_change_a_spelling(first, second):
    assert spelling(first) == spelling(second)
    assert spellings_of_one_label([first, "other", second, first]) == [[first, second]]


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_signs_and_separated_numbers_change_a_spelling(first, second):
    assert spelling(first) != spelling(second)
    assert spellings_of_one_label([first, second]) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (["001"], ["1", "2"], {"001": "1"}),
        (["X101"], ["101"], {"X101": "101"}),
        (["CD4..T.cells"], ["CD4+ T cells"], {"CD4..T.cells": "CD4+ T cells"}),
        (["D1", "d2"], ["D1", "D2"], {"d2": "D2"}),
        (["d1"], ["D1", "d1"], {}),
        (["Xu", "D1"], ["u", "D11"], {}),
    ],
)
def test_near_matches_are_of_unmatched_labels(ours, theirs, expected):
    assert near_matches(ours, theirs) == expected


@pytest.mark.parametrize("values", [[True, False, None], ["True", "FALSE", np.nan], [1, 0, np.nan], ["1", "0.0", "NA"]])
def test_flags_are_read_in_all_spellings(values):
    assert as_flags(pd.Series(values)).tolist() == [True, False, False]


def test_other_values_are_no_flags():
    with pytest.raises(ValueError, match="Expected True or False, found 'yes'"):
        as_flags(pd.Series(["True", "yes"]))
