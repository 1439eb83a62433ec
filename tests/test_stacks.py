"""Files written with older and newer releases of the dependencies give the same numbers."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import scdeconv
from scdeconv import models, tl
from scdeconv._data.modalities import read_mudata, write_mudata

STACKS = Path(__file__).parent / "data" / "stacks"


def _make():
    specification = importlib.util.spec_from_file_location("make", STACKS / "make.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


MAKE = _make()
stacks = pytest.mark.parametrize("stack", sorted(STACKS.glob("pandas-*")), ids=lambda path: path.name)
methods = pytest.mark.parametrize("method", MAKE.METHODS)


def predictions(stack, method):
    return pd.read_csv(stack / f"{method}.csv", index_col=0)


def assert_predicted(found, expected):
    assert list(found.columns) == list(expected.columns)
    assert list(found.index) == list(expected.index)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def load(stack, method):
    name = json.loads((stack / method / "model.json").read_text())["class"]
    return getattr(models, name).load(stack / method)


def test_archives_cover_two_major_pandas_releases():
    versions = [json.loads(path.read_text())["pandas"] for path in STACKS.glob("*/versions.json")]
    assert {version.split(".")[0] for version in versions} == {"2", "3"}


@stacks
@methods
def test_archived_model_gives_the_archived_predictions(stack, method):
    bulk = anndata.read_h5ad(stack / "bulk.h5ad")
    assert_predicted(load(stack, method).predict(bulk), predictions(stack, method))


@stacks
@pytest.mark.parametrize("method", [name for name in MAKE.METHODS if name not in ("simplednn", "residual_dnn")])
def test_model_trained_on_archived_pairs_predicts_equally(stack, method):
    mdata, bulk = read_mudata(stack / "pairs.h5mu"), anndata.read_h5ad(stack / "bulk.h5ad")
    found = tl.train(mdata, method, **MAKE.METHODS[method]).predict(bulk)
    assert_predicted(found, predictions(stack, method))


@stacks
@pytest.mark.parametrize("name", MAKE.CLUSTERING)
def test_archived_clustering_model_gives_its_latent_space(stack, name):
    cells = read_mudata(stack / "pairs.h5mu")["sc"][:20].copy()
    latent = getattr(scdeconv.clustering, name).load(stack / name).get_latent_representation(cells)
    np.testing.assert_allclose(latent, predictions(stack, name), rtol=1e-4, atol=1e-5)


@stacks
def test_archived_pairs_are_equal_on_each_stack(stack):
    mdata = read_mudata(stack / "pairs.h5mu")
    bulk = mdata["bulk"]
    assert set(mdata.mod) == {"bulk", "sc", "sums", "profiles", "pseudobulk"}
    assert mdata.obs.shape[1] == mdata.var.shape[1] == 0
    assert bulk.obs["sex"].tolist() == ["female", "male"] * 4
    assert bulk.obs["group"].isna().tolist() == [False, True, False, False, False, True, False, False]
    assert bulk.obs["age"].isna().sum() == 1
    assert bulk.obs["donor"].tolist() == [name.removeprefix("bulk_") for name in bulk.obs_names]
    assert bulk.uns["scdeconv"]["fractions"]["method"] == "calibrated_map"
    fractions, lower = bulk.obsm["fractions"], bulk.obsm["fractions_lower"]
    assert list(fractions.columns) == list(bulk.obsm["measured_fractions"].columns)
    assert (lower.to_numpy() <= fractions.to_numpy()).all()
    np.testing.assert_allclose(fractions.sum(axis=1), 1)
    calibration = scdeconv.pp.Calibration.of(mdata)
    assert list(calibration.genes.index) == list(mdata["bulk"].var_names)


@stacks
def test_archived_cells_and_bulk_are_paired_equally(stack):
    mdata, bulk = read_mudata(stack / "pairs.h5mu"), anndata.read_h5ad(stack / "bulk.h5ad")
    again = scdeconv.pp.pair(mdata["sc"], bulk)
    for name in ("profiles", "pseudobulk"):
        assert list(again[name].obs_names) == list(mdata[name].obs_names)
        np.testing.assert_allclose(again[name].X, mdata[name].X, rtol=1e-6)
    np.testing.assert_array_equal(again["bulk"].obsm["measured_fractions"], mdata["bulk"].obsm["measured_fractions"])


@stacks
def test_archived_pairs_can_be_written_again(stack, tmp_path):
    mdata = read_mudata(stack / "pairs.h5mu")
    write_mudata(mdata, tmp_path / "pairs.h5mu")
    again = read_mudata(tmp_path / "pairs.h5mu")
    pd.testing.assert_frame_equal(again["bulk"].obs, mdata["bulk"].obs)
    assert tl.train(again, "nnls").predict(again["bulk"]).equals(tl.train(mdata, "nnls").predict(mdata["bulk"]))


@stacks
def test_archived_tuning_study_can_be_resumed(stack, tmp_path):
    study = shutil.copy(stack / "study.sqlite", tmp_path)
    mdata = read_mudata(stack / "pairs.h5mu")
    kept = tl.tune(mdata, "nonnegative_ridge", MAKE.SPACE, n_trials=MAKE.N_TRIALS, study=study).trials
    anew = tl.tune(mdata, "nonnegative_ridge", MAKE.SPACE, n_trials=MAKE.N_TRIALS + 1).trials
    more = tl.tune(mdata, "nonnegative_ridge", MAKE.SPACE, n_trials=MAKE.N_TRIALS + 1, study=study).trials
    columns = ["rmse", "penalty"]
    np.testing.assert_allclose(more[columns], anew[columns], rtol=1e-6)
    np.testing.assert_allclose(more[columns][: len(kept)], kept[columns])
