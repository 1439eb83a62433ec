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
    assert set(table["learns_from"]) <= {"pairs", "simulated", "reference"}
    assert table.loc["nnls", "learns_from"] == "reference"
    assert table.loc["scaden", "learns_from"] == "simulated"
    assert table["stochastic"].to_dict() == {
        name: "seed" in inspect.signature(METHODS[name].load_class().train).parameters for name in table.index
    }
    assert {"simplednn", "scaden", "simulation_ridge"} <= set(table.index[table["stochastic"]])


@pytest.mark.parametrize("name", METHODS)
def test_record_and_class_agree(name):
    method = get_method(name)
    cls = method.load_class()
    assert issubclass(cls, DeconvolutionModel)
    assert cls.method == method.name == name
    assert method.class_name in models.__all__
    if method.kind == "network":
        assert cls.learns_from == method.learns_from


def test_unknown_method_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"Expected a method out of \[.*'mean_composition', 'nnls', .*found 'dwls'"):
        get_method("dwls")


def test_unknown_class_of_models_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'CIBERSORT'"):
        _ = models.CIBERSORT
