"""Outputs: checked before computing, only own files are replaced, and all files of a result appear together."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from scdeconv import cli, tl
from scdeconv.cli._outputs import beside, free_names, is_of_earlier_run, write_table


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def model(laboratory):
    return laboratory / "model"


@pytest.fixture
def pairs_file(laboratory):
    return laboratory / "pairs.h5mu"


@pytest.fixture
def bulk_file(laboratory):
    return laboratory / "counts.tsv"


@pytest.fixture
def no_computing(monkeypatch):
    for name in ("train", "predict", "benchmark", "cluster", "tune"):
        monkeypatch.setattr(tl, name, lambda *_, **__: pytest.fail("computes"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# before computing


def test_input_is_not_overwritten(model, bulk_file, pairs_file, tmp_path, no_computing, capsys):
    bulk = tmp_path / "bulk.tsv"
    bulk.write_bytes(bulk_file.read_bytes())
    (tmp_path / "link.tsv").symlink_to(bulk)
    for output in (bulk, tmp_path / "link.tsv", tmp_path / "." / "bulk.tsv"):
        assert run("predict", model, bulk, "--force", "-o", output) == 1
        assert "found the input" in capsys.readouterr().err
    assert bulk.read_bytes() == bulk_file.read_bytes()


def test_all_problems_are_in_one_report(tmp_path, no_computing, capsys):
    (tmp_path / "file").write_text("mine")
    assert (
        run("predict", tmp_path / "absent", "absent.tsv", "--coverage", "0.8", "-o", tmp_path / "file" / "x.tsv") == 1
    )
    message = capsys.readouterr().err
    for part in ("Expected a model", "absent.tsv", f"Expected a directory at {tmp_path / 'file'}"):
        assert part in message


@pytest.mark.parametrize("name", ["x" * 300 + ".tsv", "ü" * 200 + ".tsv"])
def test_too_long_names_are_refused(model, bulk_file, tmp_path, no_computing, capsys, name):
    assert run("predict", model, bulk_file, "-o", tmp_path / name) == 1
    assert "too long" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_readonly_folder_is_refused(pairs_file, small_disk, no_computing, capsys):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert run("train", pairs_file, "--method", "ridge", "-o", small_disk / "deep" / "model") == 1
    assert "Read-only" in capsys.readouterr().err


def test_output_inside_a_model_is_refused(model, bulk_file, no_computing, capsys):
    before = sorted(model.iterdir())
    assert run("predict", model, bulk_file, "-o", model / "x.tsv") == 1
    assert "outside saved models" in capsys.readouterr().err
    assert sorted(model.iterdir()) == before


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_model_needs_a_name(pairs_file, tmp_path, monkeypatch, no_computing, name):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run("train", pairs_file, "--force", "-o", name) == 1


def test_pipes_and_folders_are_no_outputs(model, bulk_file, tmp_path, no_computing):
    os.mkfifo(tmp_path / "pipe.tsv")
    (tmp_path / "folder.tsv").mkdir()
    for name in ("pipe.tsv", "folder.tsv"):
        assert run("predict", model, bulk_file, "--force", "-o", tmp_path / name) == 1


# names


def test_longest_name_has_tables_beside_it(model, bulk_file, tmp_path):
    output = tmp_path / ("ü" * 125 + "x.tsv")
    assert run("predict", model, bulk_file, "-o", output) == 0
    assert output in set(tmp_path.iterdir())
    assert run("predict", model, bulk_file, "--force", "-o", output) == 0


@pytest.mark.parametrize(
    "name", ["x.tsv", "x.y.csv", "x.tsv.gz", "model", "x" * 251 + ".tsv", "x" * 249 + ".tsv.gz"[:7]]
)
def test_names_beside_an_output_fit(name):
    found = beside(Path(name), "by_level_lower")
    assert len(found.name.encode()) <= 255
    assert found.suffixes[-1:] == Path(name).suffixes[-1:]
    assert found.name.startswith(name[:1])


def test_long_names_beside_differ():
    assert beside(Path("x" * 250 + "a.tsv"), "lower") != beside(Path("x" * 250 + "b.tsv"), "lower")


def test_links_of_the_user_stay(model, bulk_file, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "x.tsv").symlink_to(store / "y.tsv")
    assert run("predict", model, bulk_file, "-o", tmp_path / "x.tsv") == 0
    assert (tmp_path / "x.tsv").is_symlink()
    assert (store / "y.tsv").is_file()


# --force


def tables(folder, index, **columns):
    for name, values in columns.items():
        write_table(pd.DataFrame({"T cell": values}, index=index), folder / f"{name}.tsv", index_label="sample")


def test_tables_of_an_earlier_run_are_recognised(tmp_path):
    tables(tmp_path, ["S1", "S2"], x=[0.1, 0.2], x_lower=[0.0, 0.1])
    tables(tmp_path, ["S1", "S3"], x_upper=[0.0, 0.1])
    (tmp_path / "x_quality.tsv").write_text("a table of the user\n")
    main = tmp_path / "x.tsv"
    found = {path.stem: is_of_earlier_run(path, main) for path in tmp_path.iterdir()}
    assert found == {"x": True, "x_lower": True, "x_upper": False, "x_quality": False}
    assert not is_of_earlier_run(tmp_path / "x_lower.tsv", tmp_path / "absent.tsv")


def test_only_own_tables_are_removed(model, bulk_file, tmp_path, capsys):
    output = tmp_path / "x.tsv"
    assert run("predict", model, bulk_file, "--coverage", "0.5", "-o", output) == 0
    (tmp_path / "x_upper.tsv").write_text("mine")
    capsys.readouterr()
    assert run("predict", model, bulk_file, "--force", "-o", output) == 0
    said = capsys.readouterr()
    assert f"removed {tmp_path / 'x_lower.tsv'} of an earlier run" in said.out
    assert not (tmp_path / "x_lower.tsv").exists()
    assert (tmp_path / "x_upper.tsv").read_text() == "mine"


def test_bounds_do_not_replace_foreign_files(model, bulk_file, tmp_path, no_computing, capsys):
    (tmp_path / "x_lower.tsv").write_text("mine")
    assert run("predict", model, bulk_file, "--coverage", "0.5", "--force", "-o", tmp_path / "x.tsv") == 1
    assert "x_lower.tsv" in capsys.readouterr().err
    assert contents(tmp_path) == {"x_lower.tsv": b"mine"}


def test_foreign_table_of_quality_is_kept(model, bulk_file, tmp_path, capsys):
    (tmp_path / "x_quality.tsv").write_text("mine")
    assert run("predict", model, bulk_file, "--force", "-o", tmp_path / "x.tsv") == 0
    assert "x_quality.tsv, found another file, which is kept" in capsys.readouterr().err
    assert (tmp_path / "x_quality.tsv").read_text() == "mine"


# full disk


def fill(filler):
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"0" * 4096):
            pass


def test_full_disk_keeps_earlier_files(model, bulk_file, small_disk, capsys):
    output = small_disk / "x.tsv"
    assert run("predict", model, bulk_file, "--coverage", "0.5", "-o", output) == 0
    before = contents(small_disk)
    for left in (0, 4096):
        filler = small_disk / "filler"
        fill(filler)
        os.truncate(filler, filler.stat().st_size - left)
        capsys.readouterr()
        assert run("predict", model, bulk_file, "--coverage", "0.8", "--force", "-o", output) == 1
        assert "No space left" in capsys.readouterr().err
        filler.unlink()
        assert contents(small_disk) == before


def test_full_disk_is_told_without_traces(laboratory, small_disk):
    inputs = {"--bulk": "counts.tsv", "--cells": "cells.h5ad", "--samples": "samples.tsv"}
    arguments = [word for option, name in inputs.items() for word in (option, laboratory / name)]
    command = [sys.executable, "-m", "scdeconv.cli", "pair", *arguments, "-o", small_disk / "pairs.h5mu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(small_disk.iterdir())


def test_free_names_never_exist(tmp_path):
    (tmp_path / "model_interrupted").mkdir()
    assert free_names([tmp_path / "model"]) == [tmp_path / "model_interrupted2"]
