from __future__ import annotations

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pooch
import pytest
import requests
from anndata import AnnData

from scdeconv.datasets import _demixsc, _fetch, _mixology, ovarian_pairs, retina_pairs

URL = "https://example.org/0123456789012345678901234567890123456789"


def convert(files):
    value = float(files["original.txt"].read_text())
    return {"one.h5ad": AnnData(np.full((2, 3), value, dtype=np.float32))}


SOURCE = _fetch.Source(folder="toy", prepared=("one.h5ad",), url=URL, originals=("original.txt",), convert=convert)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache and no SCDECONV_DATA_DIR."""
    monkeypatch.delenv(_fetch.VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    return tmp_path / "scdeconv"


@pytest.fixture
def web(monkeypatch):
    """A fake web with one file; returns the requested URLs."""
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append(url)
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_text("7")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return asked


@pytest.fixture
def offline(monkeypatch):
    def retrieve(*args, **kwargs):
        msg = "no route to host"
        raise requests.exceptions.ConnectionError(msg)

    monkeypatch.setattr(pooch, "retrieve", retrieve)


def test_a_download_happens_once_and_is_kept_converted(cache, web):
    for _ in range(2):
        (adata,) = _fetch.load(SOURCE)
        assert adata.X.tolist() == [[7.0] * 3] * 2
    assert web == [f"{URL}/original.txt"]
    kept = {path.name for path in (cache / "toy").iterdir()}
    assert kept == {"original.txt", "original.txt.sha256", "one.h5ad", "one.h5ad.sha256"}


def test_cache_layout_is_a_valid_data_directory(cache, web, monkeypatch):
    _fetch.load(SOURCE)
    monkeypatch.setenv(_fetch.VARIABLE, str(cache))
    monkeypatch.setattr(pooch, "retrieve", None)
    assert _fetch.load(SOURCE)[0].X[0, 0] == 7


def test_offline_error_names_url_folder_and_variable(cache, offline):
    with pytest.raises(ConnectionError) as error:
        _fetch.load(SOURCE)
    for text in (
        f"{URL}/original.txt",
        str(cache / "toy"),
        "download the file manually",
        "SCDECONV_DATA_DIR",
        "no route",
    ):
        assert text in str(error.value)


def test_http_error_is_a_connection_error(cache, monkeypatch):
    def retrieve(*args, **kwargs):
        msg = "404 Client Error"
        raise requests.exceptions.HTTPError(msg)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(ConnectionError, match="404 Client Error"):
        _fetch.load(SOURCE)


def test_manually_cached_file_is_used(cache, offline):
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "original.txt").write_text("5")
    assert _fetch.load(SOURCE)[0].X[0, 0] == 5


@pytest.mark.parametrize("changed", ["original.txt", "one.h5ad"])
def test_changed_file_in_the_cache_is_refused(cache, web, changed):
    _fetch.load(SOURCE)
    with (cache / "toy" / changed).open("ab") as file:
        file.write(b"0")
    if changed == "original.txt":
        (cache / "toy" / "one.h5ad").unlink()
    with pytest.raises(ValueError, match=rf"Expected SHA-256 [0-9a-f]{{64}} of .*{changed}.*Delete {changed}"):
        _fetch.load(SOURCE)


def test_recorded_checksum_is_the_sha256_of_the_file(cache, web):
    _fetch.load(SOURCE)
    # printf 7 | sha256sum
    expected = "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451"
    assert (cache / "toy" / "original.txt.sha256").read_text().strip() == expected


def test_interrupted_conversion_leaves_no_prepared_file(cache, web, monkeypatch):
    def write_half(self, path, **kwargs):
        Path(path).write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AnnData, "write_h5ad", write_half)
        with pytest.raises(KeyboardInterrupt):
            _fetch.load(SOURCE)
    assert not (cache / "toy" / "one.h5ad").exists()
    assert _fetch.load(SOURCE)[0].X[0, 0] == 7


@pytest.mark.parametrize("folder", ["", "toy"])
def test_data_directory_is_read_without_writing(monkeypatch, tmp_path, folder):
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path))
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "original.txt").write_text("3")
    before = sorted(tmp_path.rglob("*"))
    assert _fetch.load(SOURCE)[0].X[0, 0] == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_file_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        _fetch.load(SOURCE)
    for text in (str(tmp_path / "toy" / "one.h5ad"), "original.txt", "SCDECONV_DATA_DIR", URL, "unset"):
        assert text in str(error.value)


@pytest.mark.parametrize("source", [_demixsc._RETINA, _demixsc._OVARIAN, _mixology._SOURCE])
def test_urls_use_https_and_a_full_commit(source):
    assert pd.Series([source.url]).str.fullmatch(
        r"https://raw\.githubusercontent\.com/\w+/\w+/[0-9a-f]{40}/data(/csv)?"
    )[0]


@pytest.mark.parametrize("loader", [retina_pairs, ovarian_pairs])
def test_loaders_report_being_offline(cache, offline, loader):
    with pytest.raises(ConnectionError, match="697cc9551502460413ad5939d35415968562b04a"):
        loader()


def test_data_directory_can_be_a_cache_copy(cache, web, tmp_path, monkeypatch):
    _fetch.load(SOURCE)
    shutil.copytree(cache, tmp_path / "copy")
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path / "copy"))
    assert isinstance(_fetch.load(SOURCE)[0], anndata.AnnData)


@pytest.mark.parametrize("damage", [b"", b"no h5ad", None])
def test_unreadable_prepared_file_is_named(monkeypatch, tmp_path, damage):
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path))
    path = tmp_path / "toy" / "one.h5ad"
    path.parent.mkdir()
    AnnData(np.ones((2, 3), dtype=np.float32)).write_h5ad(path)
    path.write_bytes(path.read_bytes()[:3000] if damage is None else damage)
    with pytest.raises(OSError, match=f"{path}, found an unreadable file"):
        _fetch.load(SOURCE)


@pytest.mark.parametrize("source", [_demixsc._RETINA, _demixsc._OVARIAN, _mixology._SOURCE])
def test_prepared_files_of_other_data_are_refused(monkeypatch, tmp_path, cohort, source):
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path))
    (tmp_path / source.folder).mkdir()
    for name in source.prepared:
        cohort[0][:3].copy().write_h5ad(tmp_path / source.folder / name)
    with pytest.raises(ValueError, match=f"of {source.folder} in .*found a file with"):
        _fetch.load(source)
