from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import scdeconv
from scdeconv import models, tl
from scdeconv.models import DeconvolutionModel, Method, get_record, load_class, records, register

METHODS = list(records())


@pytest.fixture
def registered():
    """Forget the methods that a test registers."""
    from scdeconv.models import _registry

    before = dict(_registry._registered)
    yield
    _registry._registered.clear()
    _registry._registered.update(before)


def test_methods_are_listed_with_what_they_need():
    table = tl.methods()
    assert table.index.name == "method"
    assert {"residual_dnn", "scaden", "nnls", "mean_composition"} <= set(table.index)
    assert list(table.columns) == [
        "family",
        "needs",
        "needs_reference",
        "fraction_kind",
        "stochastic",
        "summary",
        "reference",
    ]
    assert set(table["family"]) == {"paired", "reference", "simulated"}
    assert set(table["fraction_kind"]) == {"cell", "rna"}
    assert table.notna().all(axis=None)


@pytest.mark.parametrize(
    ("name", "family", "needs", "fraction_kind"),
    [
        ("calibrated_map", "paired", "pairs, profiles", "cell"),
        ("residual_dnn", "paired", "pairs, profiles", "cell"),
        ("simplednn", "paired", "pairs", "cell"),
        ("ridge", "paired", "pairs", "cell"),
        ("bisque", "paired", "pairs, profiles", "cell"),
        ("calibrated_nnls", "paired", "profiles", "cell"),
        ("mean_composition", "paired", "pairs", "cell"),
        ("simulation_ridge", "simulated", "pairs, profiles", "cell"),
        ("scaden", "simulated", "simulated", "cell"),
        ("nnls", "reference", "profiles", "cell"),
        ("cibersort", "reference", "profiles", "rna"),
        ("bayesprism", "reference", "profiles", "rna"),
        ("music", "reference", "cells", "cell"),
    ],
)
def test_records_say_family_needs_and_kind_of_fractions(name, family, needs, fraction_kind):
    assert tl.methods().loc[name, ["family", "needs", "fraction_kind"]].tolist() == [family, needs, fraction_kind]


@pytest.mark.parametrize("name", METHODS)
def test_record_class_and_file_agree(name):
    record, cls = get_record(name), load_class(name)
    assert issubclass(cls, DeconvolutionModel)
    assert cls.record == record
    assert cls.method == record.key == name
    assert cls.fraction_kind == record.fraction_kind
    assert cls.__name__ in models.__all__
    assert Path(inspect.getfile(cls)).parts[-2:] == (record.family, f"{name}.py")


@pytest.mark.parametrize("name", METHODS)
def test_stochastic_methods_are_those_that_take_a_seed(name):
    cls = load_class(name)
    takes_seed = any("seed" in inspect.signature(function).parameters for function in (cls.__init__, cls.train))
    assert get_record(name).stochastic == takes_seed


def test_methods_are_listed_without_torch():
    code = "import sys, scdeconv; scdeconv.tl.methods(); print([m for m in ('torch', 'scvi') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_methods_are_named_in_few_other_files():
    """Beside its own file: defaults of tl, the spaces of tl.tune, the baseline, the demonstration."""
    source = Path(scdeconv.__file__).parent
    naming = {}
    for path in source.rglob("*.py"):
        strings = {
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
        } & set(METHODS)
        if strings:
            naming[path.relative_to(source).as_posix()] = strings
    own = {f"models/{record.family}/{key}.py" for key, record in records().items()}
    assert set(naming) - own <= {
        "_data/keys.py",
        "tl/_train.py",
        "tl/_benchmark.py",
        "tl/_tuning/search.py",
        "tl/_tuning/space.py",
        "cli/_demo.py",
    }


def test_every_method_accepts_a_seed(pairs):
    first, second = (tl.train(pairs, "nnls", seed=seed).predict(pairs["bulk"]) for seed in (0, 1))
    assert first.equals(second)


@pytest.mark.usefixtures("registered")
def test_registered_method_is_trained_and_compared_like_others(pairs):
    @register
    class Plain(models.NNLS):
        record = Method(key="plain", family="reference", needs=("profiles",), summary="NNLS", reference="test")

    assert tl.methods().loc["plain", "summary"] == "NNLS"
    model = tl.train(pairs, "plain")
    assert model.predict(pairs["bulk"]).equals(tl.train(pairs, "nnls").predict(pairs["bulk"]))
    table = tl.benchmark(pairs, ["plain", "nnls"], cv=2)
    errors = table.set_index("method")["rmse"]
    assert (errors["plain"].to_numpy() == errors["nnls"].to_numpy()).all()


def test_invalid_or_duplicate_methods_are_refused():
    with pytest.raises(TypeError, match=r"Expected a class attribute record .*, found none in Without"):

        @register
        class Without(models.NNLS):
            pass

    with pytest.raises(ValueError, match=r"Expected a new key in Same.record, found 'nnls'"):

        @register
        class Same(models.NNLS):
            record = get_record("nnls")


def test_unknown_method_is_refused_with_the_known_names():
    with pytest.raises(
        ValueError, match=r"Expected method to be one of \[.*'mean_composition', .*'nnls', .*found 'simple_dnn'"
    ):
        get_record("simple_dnn")


def test_unknown_class_of_models_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'SimplestDNN'"):
        _ = models.SimplestDNN
