"""tl.predict with coverage: prediction intervals."""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from io import StringIO

import anndata
import pandas as pd
import pytest

from scdeconv import pp, tl
from scdeconv.models import NNLS

METHODS = {
    "residual_dnn": {"max_epochs": 2, "hidden": (4,), "n_members": 2, "simulate": 50},
    "ridge": {},
    "bisque": {},
}
# of simplednn: samples with an estimate of unusual composition
pytestmark = pytest.mark.filterwarnings("ignore:.*are outside the range of the training donors")


@pytest.fixture(scope="module")
def trained(cohort):
    with redirect_stdout(StringIO()):
        mdata = pp.pair(*cohort)
        return {name: tl.train(mdata, name, **arguments) for name, arguments in METHODS.items()}


@pytest.fixture
def bulk(cohort):
    return cohort[1].copy()


@pytest.mark.parametrize("name", METHODS)
def test_bounds_contain_the_estimate(trained, bulk, name):
    tl.predict(bulk, trained[name], coverage=0.9)
    estimate, lower, upper = (bulk.obsm[f"fractions{side}"] for side in ("", "_lower", "_upper"))
    for bound in (lower, upper):
        assert bound.index.equals(estimate.index)
        assert bound.columns.equals(estimate.columns)
    assert ((lower >= 0) & (lower <= estimate + 1e-12)).all(axis=None)
    assert ((estimate <= upper + 1e-12) & (upper <= 1)).all(axis=None)
    assert (upper > lower).all(axis=None)
    expected = trained[name].predict_interval(bulk, 0.9)
    pd.testing.assert_frame_equal(lower, expected[0])
    pd.testing.assert_frame_equal(upper, expected[1])


@pytest.mark.parametrize("name", METHODS)
def test_only_the_documented_keys_are_written(trained, bulk, name, unchanged):
    keys = {"mine", "mine_lower", "mine_upper", "mine_quality"}
    with unchanged(bulk):
        before = set(bulk.obsm)
        tl.predict(bulk, trained[name], coverage=0.5, key_added="mine")
        assert set(bulk.obsm) - before == keys
        assert set(bulk.uns["scdeconv"]) == {"mine"}
        assert bulk.uns["scdeconv"]["mine"]["coverage"] == 0.5
        for key in keys:
            del bulk.obsm[key]
        del bulk.uns["scdeconv"]


def test_estimate_is_the_same_with_and_without_bounds(trained, bulk):
    tl.predict(bulk, trained["residual_dnn"], coverage=0.9)
    tl.predict(bulk, trained["residual_dnn"], key_added="alone")
    pd.testing.assert_frame_equal(bulk.obsm["alone"], bulk.obsm["fractions"])
    assert not {"alone_lower", "alone_upper"} & set(bulk.obsm)


def test_more_coverage_means_wider_bounds(trained, bulk):
    for key, coverage in (("some", 0.5), ("most", 0.9)):
        tl.predict(bulk, trained["ridge"], coverage=coverage, key_added=key)
    assert (bulk.obsm["most_lower"] <= bulk.obsm["some_lower"]).all(axis=None)
    assert (bulk.obsm["most_upper"] >= bulk.obsm["some_upper"]).all(axis=None)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("coverage", [0.91, 0.95])
def test_unsupported_coverage_is_refused_before_writing(trained, bulk, name, coverage, unchanged):
    with unchanged(bulk), pytest.raises(ValueError, match=rf"at most 0\.909, .*10 held-out donors, found {coverage}"):
        tl.predict(bulk, trained[name], coverage=coverage)


def test_error_names_the_highest_possible_coverage(trained, bulk):
    tl.predict(bulk, trained["bisque"], coverage=10 / 11)
    assert "fractions_upper" in bulk.obsm


def test_model_without_held_out_errors_is_refused(pairs, bulk, unchanged):
    model = NNLS(pairs)
    model.train(held_out=False)
    with unchanged(bulk), pytest.raises(ValueError, match="held-out donors, found one without"):
        tl.predict(bulk, model, coverage=0.5)


def test_layer_is_read_for_bounds_too(trained, bulk):
    expected = trained["ridge"].predict_interval(bulk, 0.8)
    bulk.layers["counts"], bulk.X = bulk.X, bulk.X[:, ::-1].copy()
    tl.predict(bulk, trained["ridge"], coverage=0.8, layer="counts")
    pd.testing.assert_frame_equal(bulk.obsm["fractions_lower"], expected[0])
    pd.testing.assert_frame_equal(bulk.obsm["fractions_upper"], expected[1])


@pytest.mark.parametrize("name", METHODS)
def test_saved_model_gives_the_same_bounds(trained, bulk, name, tmp_path):
    del bulk.uns["cohort"]
    model = trained[name]
    model.save(tmp_path / "model")
    with warnings.catch_warnings():
        tl.predict(bulk, type(model).load(tmp_path / "model"), coverage=0.9)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    for side, expected in zip(("lower", "upper"), model.predict_interval(bulk, 0.9), strict=True):
        pd.testing.assert_frame_equal(read.obsm[f"fractions_{side}"], expected, check_names=False)
