from __future__ import annotations

import inspect

import pytest

from scdeconv import models, tl
from scdeconv.models import DeconvolutionModel
from scdeconv.tl._methods import METHODS, get_method


def test_methods_are_listed_with_what_they_need():
    table = tl.methods()
    assert table.index.name == "method"
    assert {"simplednn", "scaden", "nnls", "mean_composition"} <= set(table.index)
    assert list(table.columns) == ["learns_from", "kind", "fraction_kind", "stochastic", "reference"]
    assert set(table["learns_from"]) == {"pairs", "simulated", "profiles", "cells"}
    assert set(table["fraction_kind"]) == {"cell", "rna"}
    assert table["stochastic"].to_dict() == {
        name: "seed" in inspect.signature(METHODS[name].load_class().train).parameters for name in table.index
    }
    assert {"simplednn", "scaden", "simulation_ridge"} <= set(table.index[table["stochastic"]])


@pytest.mark.parametrize(
    ("name", "learns_from", "fraction_kind"),
    [
        ("simplednn", "pairs", "cell"),
        ("ridge", "pairs", "cell"),
        ("simulation_ridge", "pairs", "cell"),
        ("bisque", "pairs", "cell"),
        ("ensemble", "pairs", "cell"),
        ("mean_composition", "pairs", "cell"),
        ("scaden", "simulated", "cell"),
        ("nnls", "profiles", "cell"),
        ("robust_nnls", "profiles", "cell"),
        ("calibrated_nnls", "profiles", "cell"),
        ("cibersort", "profiles", "rna"),
        ("cibersortx", "profiles", "rna"),
        ("bayesprism", "profiles", "rna"),
        ("music", "cells", "cell"),
        ("bseqsc", "cells", "cell"),
    ],
)
def test_table_says_what_a_method_learns_from_and_of_what_its_fractions_are(name, learns_from, fraction_kind):
    assert tl.methods().loc[name, ["learns_from", "fraction_kind"]].tolist() == [learns_from, fraction_kind]


@pytest.mark.parametrize("name", METHODS)
def test_record_and_class_agree(name):
    method = get_method(name)
    cls = method.load_class()
    assert issubclass(cls, DeconvolutionModel)
    assert cls.method == method.name == name
    assert cls.fraction_kind == method.fraction_kind
    assert method.class_name in models.__all__
    if method.kind == "network":
        assert cls.learns_from == method.learns_from


def test_unknown_method_is_refused_with_the_known_names():
    with pytest.raises(
        ValueError, match=r"Expected a method out of \[.*'mean_composition', .*'nnls', .*found 'simple_dnn'"
    ):
        get_method("simple_dnn")


def test_unknown_class_of_models_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'SimplestDNN'"):
        _ = models.SimplestDNN
