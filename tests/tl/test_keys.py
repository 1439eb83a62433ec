"""Functions with a key argument refuse keys that files cannot store."""

from __future__ import annotations

import inspect

import pytest

from scdeconv import models, tl

WRITERS = [
    name
    for name in tl.__all__
    if callable(getattr(tl, name)) and "key_added" in inspect.signature(getattr(tl, name)).parameters
]


def call(name, pairs, key):
    function, bulk, cells = getattr(tl, name), pairs["bulk"], pairs["sc"]
    arguments = {
        "predict": (bulk, models.NNLS()),
        "expression": (bulk, models.NNLS()),
        "convert_fractions": (bulk, {}),
        "cluster": (cells,),
        "compare_fractions": (bulk, "batch"),
        "differential_expression": (bulk, "batch"),
        "reference_fit": (pairs,),
        "name_clusters": (cells, "cell_type"),
    }
    options = {"to": "rna"} if name == "convert_fractions" else {}
    return function(*arguments[name], key_added=key, **options)


def test_all_writers_are_known():
    groups = {"compare_fractions", "differential_expression", "reference_fit"}
    assert set(WRITERS) == groups | {"predict", "expression", "convert_fractions", "cluster", "name_clusters"}


@pytest.mark.parametrize("key", ["a/b", ""])
@pytest.mark.parametrize("name", WRITERS)
def test_keys_with_a_slash_are_refused_before_computing(name, key, pairs, unchanged):
    with (
        unchanged(pairs),
        pytest.raises(ValueError, match=rf"Expected key_added to be non-empty text without '/'.*, found '{key}'"),
    ):
        call(name, pairs, key)
