from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pooch
import pytest
import requests
from census_stores import POSITIONS, STUDIES, make_tables, write_census
from pandas.testing import assert_frame_equal

from scdeconv import pp
from scdeconv.datasets import census_reference, paired_cohort
from scdeconv.datasets._census_query import COLUMNS, filter_of, select_cells
from scdeconv.datasets._fetch import VARIABLE

WITHOUT = "tiledbsoma is not installed (pip install 'scdeconv[census]')"
QUERY = {"suspension_type": "cell", "assays": None, "cell_types": None}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache and no SCDECONV_DATA_DIR."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    return tmp_path / "scdeconv" / "census"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("tiledbsoma", reason=WITHOUT)
    return write_census(tmp_path_factory.mktemp("census") / "store")


@pytest.mark.parametrize(
    "text", ["lung", "it's", 'a "b"', "x' or is_primary_data == False or tissue == 'y", "a\\", "a\nb"]
)
def test_filter_quotes_any_text(text):
    found = [
        node.value for node in ast.walk(ast.parse(filter_of(text, text), mode="eval")) if isinstance(node, ast.Constant)
    ]
    assert Counter(found) == Counter([True, "tissue", text, text, text])


@pytest.mark.parametrize("dtype", [str, "category"])
def test_wanted_cells_are_selected_and_counted(dtype):
    obs = make_tables()[0].astype(dict.fromkeys(COLUMNS, dtype))
    seen = {name: Counter() for name in ("suspension_type", "assay", "cell_type")}
    found = pd.concat(select_cells([obs.iloc[:50], obs.iloc[50:]], QUERY, seen))
    assert set(found["cell_type"]) == {"T cell", "B cell", "monocyte"}
    assert set(found["donor"].str.replace("census:", "")) == {
        *(f"{donor}:{dataset[:8]}" for dataset, donors, *_ in STUDIES for donor in donors)
    } - {"N1:cccccccc", "S1:dddddddd"}
    assert seen["suspension_type"] == Counter(obs["suspension_type"].astype(str))
    assert set(seen["assay"]) == {"10x 3' v3", "10x 5' v1", "10x 3' v2", "Smart-seq2"}
    assert "unknown" in seen["cell_type"]


@pytest.mark.parametrize(("package", "uri"), [("cellxgene_census", None), ("tiledbsoma", "store")])
def test_missing_package_is_named_before_work(monkeypatch, package, uri):
    # Python's sign of a module that cannot be imported
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"Expected the package {package} .* pip install 'scdeconv\[census\]'"):
        census_reference("lung", uri=uri)


def test_alias_is_replaced_by_its_date(monkeypatch, cache):
    package = SimpleNamespace(get_census_version_description={"stable": {"release_build": "2026-07-07"}}.__getitem__)
    monkeypatch.setitem(sys.modules, "cellxgene_census", package)
    paths = []
    monkeypatch.setattr("scdeconv.datasets._census._read", paths.append)
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    for version in ("stable", "2026-07-07"):
        census_reference("lung", census_version=version)
    assert paths[0] == paths[1]


def test_data_folder_disables_the_download(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Expected .*census/lung_\w+\.h5ad, found no such file"):
        census_reference("lung")


def test_cached_cells_need_no_package(monkeypatch, cache):
    monkeypatch.setattr("scdeconv.datasets._census.open_store", _offline)
    with pytest.raises(ConnectionError):
        census_reference("lung")
    paths = []
    monkeypatch.setattr("scdeconv.datasets._census._read", lambda path: paths.append(path) or "cells")
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    results = [census_reference("lung", seed=seed) for seed in (0, 1, 0)]
    assert results == ["cells"] * 3
    assert paths[0] == paths[2] != paths[1]
    assert paths[0].parent == cache


def _offline(*args):
    msg = "no network"
    raise ConnectionError(msg)


def test_offline_error_says_what_to_do(monkeypatch):
    pytest.importorskip("tiledbsoma", reason=WITHOUT)

    def refuse(**_):
        msg = "no route to host"
        raise requests.exceptions.ConnectionError(msg)

    monkeypatch.setitem(sys.modules, "cellxgene_census", SimpleNamespace(open_soma=refuse))
    with pytest.raises(
        ConnectionError, match=r"Expected to read release 2025-11-08 .* no route .* Check the connection"
    ):
        census_reference("lung")


def test_counts_are_those_of_the_store(store, capsys):
    cells = census_reference("lung", uri=store.uri, max_cells_per_type=20, min_cells=5)
    ids = cells.obs_names.str.removeprefix("census-").astype(int)
    genes = [store.var["feature_id"].tolist().index(name) for name in cells.var_names]
    assert np.array_equal(cells.X.toarray(), store.counts[ids][:, genes].toarray())
    assert cells.var["feature_name"].tolist() == [f"G{number}" for number in genes]
    assert cells.obs["cell_type"].tolist() == store.obs["cell_type"][ids].tolist()
    assert "'monocyte'" in capsys.readouterr().out


def test_only_wanted_primary_data_are_used(store):
    cells = census_reference("lung", uri=store.uri, min_cells=5)
    rows = store.obs.loc[cells.obs_names.str.removeprefix("census-").astype(int)]
    assert rows["is_primary_data"].all()
    for column, value in {
        "tissue_type": "tissue",
        "tissue_general": "lung",
        "disease": "normal",
        "suspension_type": "cell",
    }.items():
        assert set(rows[column]) == {value}
    assert set(rows["assay"]) == {"10x 3' v3", "10x 5' v1"}


def test_genes_are_measured_in_all_data_sets(store):
    cells = census_reference("lung", uri=store.uri, min_cells=5)
    position = dict(zip((study[0] for study in STUDIES), POSITIONS, strict=True))
    rows = [position[name] for name in cells.obs["dataset_id"].unique()]
    assert list(cells.var_names) == list(store.var["feature_id"][store.presence[rows].all(axis=0)])
    assert "eeeeeeee-5" not in set(cells.obs["dataset_id"])


def test_donors_have_equal_shares(store):
    cells = census_reference("lung", uri=store.uri, max_cells_per_type=20, min_cells=5)
    sizes = cells.obs.groupby(["cell_type", "donor"], observed=True).size()
    assert sizes["T cell"].tolist() == [4] * 5
    assert sizes["B cell"].sum() == 20


def test_second_call_reads_the_cache(store, cache, monkeypatch):
    first = census_reference("lung", uri=store.uri)
    monkeypatch.setattr("scdeconv.datasets._census.open_store", _offline)
    second = census_reference("lung", uri=store.uri)
    assert len(list(cache.iterdir())) == 1
    assert_frame_equal(first.obs, second.obs)
    assert_frame_equal(first.var, second.var)
    assert_frame_equal(first.uns["census"].pop("datasets"), second.uns["census"].pop("datasets"))
    assert first.uns == second.uns
    assert (first.X != second.X).nnz == 0
    with pytest.raises(ConnectionError):
        census_reference("lung", uri=store.uri, seed=1)


def test_changed_store_is_read_again(tmp_path):
    pytest.importorskip("tiledbsoma", reason=WITHOUT)
    first = census_reference("lung", uri=write_census(tmp_path / "store").uri)
    (tmp_path / "store").rename(tmp_path / "old")
    second = census_reference("lung", uri=write_census(tmp_path / "store", seed=1).uri)
    assert (first.X != second.X).nnz


def test_record_has_version_query_and_studies(store):
    record = census_reference("lung", uri=store.uri, min_cells=5, seed=3).uns["census"]
    assert record["census_version"] == "2026-01-31"
    assert record["query"] == filter_of("lung", "normal")
    assert json.loads(record["arguments"])["seed"] == 3
    assert record["datasets"]["collection_doi"].to_dict() == {"aaaaaaaa-1": "10.1/0", "bbbbbbbb-2": "10.1/1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tissue": "lungg"}, r"tissue_general 'lungg' .* has 'blood', 'lung'\. Did you mean 'lung'\?"),
        ({"tissue": "lung", "disease": "colds"}, r"disease 'colds' .* has \"it's ill\", 'normal'\."),
        (
            {"tissue": "blood", "suspension_type": "nucleus"},
            r"suspension_type 'nucleus', found 'cell \(5\)'\. Pass suspension_type=",
        ),
        ({"tissue": "lung", "assays": ["Drop-seq"]}, r"assay 'Drop-seq', found \"10x 3' v3 \(97\)\".* Pass assays="),
        ({"tissue": "lung", "cell_types": ["NK"]}, r"cell_type 'NK', found 'T cell \(62\)'.* Pass cell_types="),
        (
            {"tissue": "lung", "min_cells": 1000},
            r"at least 1000 cells, found 'T cell \(50\)'.* Pass a smaller min_cells",
        ),
        ({"tissue": "lung", "organism": "mus_musculus"}, r"Expected 'mus_musculus' .* found 'homo_sapiens'"),
    ],
)
def test_empty_results_name_what_there_is(store, arguments, message):
    with pytest.raises(ValueError, match=message):
        census_reference(uri=store.uri, **arguments)


def test_other_folders_are_refused(store, tmp_path):
    with pytest.raises(ConnectionError, match=r"Expected to read the Census in .*empty, found DoesNotExistError"):
        census_reference("lung", uri=tmp_path / "empty")
    with pytest.raises(ValueError, match=r"Expected 'census_info', 'census_data' in .* found 'homo_sapiens'"):
        census_reference("lung", uri=f"{store.uri}/census_data")


@pytest.mark.parametrize("donor_key", ["donor", "donor_id"])
def test_cells_are_ready_for_pairing(store, donor_key, capsys):
    cells = census_reference("lung", uri=store.uri, min_cells=5)
    bulk = anndata.AnnData(np.random.default_rng(0).poisson(50.0, (3, store.var.shape[0])).astype(np.float32))
    # a bulk sample with the name of a donor of the Census is no pair
    bulk.obs_names, bulk.var_names = ["D1", "D2", "x"], store.var["feature_id"]
    with pytest.warns(UserWarning, match="paired donors"):
        mdata = pp.pair(cells, bulk, donor_key=donor_key, cell_type_key="cell_type")
    assert pp.paired_donors(mdata) == []
    assert list(mdata["profiles"].obs_names) == ["B cell", "T cell"]


def test_symbols_in_bulk_give_an_advice(store):
    cells = census_reference("lung", uri=store.uri, min_cells=5)
    _, bulk = paired_cohort(n_donors=3, n_genes=30, cells_per_donor=(30, 40))
    bulk.var_names = store.var["feature_name"].to_numpy()
    with pytest.raises(ValueError, match=r"cells\.var_names = cells\.var\['feature_name'\]"):
        pp.pair(cells, bulk)


def test_missing_types_warn_in_every_call(store):
    for _ in range(2):
        with pytest.warns(UserWarning, match="found fewer or none of 'NK', 'monocyte'"):
            cells = census_reference("lung", uri=store.uri, cell_types=["T cell", "NK", "monocyte"], min_cells=5)
        assert set(cells.obs["cell_type"]) == {"T cell"}
