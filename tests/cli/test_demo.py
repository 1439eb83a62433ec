from __future__ import annotations

import pandas as pd
import pytest

import scdeconv
from scdeconv import datasets, pp
from scdeconv._data.modalities import make_mudata, read_mudata, write_mudata
from scdeconv.cli import _demo as demo


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "pairs.h5mu"
    small = datasets.paired_cohort(n_donors=5, n_bulk_only=1, n_genes=200, cells_per_donor=(60, 90))
    write_mudata(pp.pair(*small), path)
    return path


def test_demo_writes_data_table_model_and_figures(pairs_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demo.main(pairs_file)
    written = {item.name for item in (tmp_path / "demo").iterdir()}
    figures = {"fractions.png", "measured_vs_predicted.png", "benchmark.png", "simulation.png"}
    assert written == figures | {"accuracy.csv", "fractions.csv", "model", "pairs.h5mu"}
    assert "mean_composition" in capsys.readouterr().out
    fractions = pd.read_csv(tmp_path / "demo" / "fractions.csv", index_col=0)
    assert fractions["estimate"].value_counts().to_dict() == {"held-out donor": 5, "donor without cells": 1}
    assert fractions.drop(columns="estimate").sum(axis=1).to_numpy() == pytest.approx(1)
    assert scdeconv.load_model(tmp_path / "demo" / "model").is_trained_


def test_demo_reads_profiles_instead_of_cells(pairs_file, tmp_path):
    full = read_mudata(pairs_file)
    without_cells = make_mudata({name: full[name] for name in ("bulk", "profiles", "pseudobulk")})
    write_mudata(without_cells, tmp_path / "profiles.h5mu")
    read = demo.read_pairs(tmp_path / "profiles.h5mu", seed=0)
    assert set(read.mod) == {"bulk", "profiles", "pseudobulk"}
    assert pp.paired_donors(read) == pp.paired_donors(full)


def test_demo_error_names_the_required_content(pairs_file, tmp_path):
    with pytest.raises(FileNotFoundError, match="make demo DATA="):
        demo.read_pairs(tmp_path / "absent.h5mu", seed=0)
    write_mudata(make_mudata({"bulk": read_mudata(pairs_file)["bulk"]}), tmp_path / "bulk.h5mu")
    with pytest.raises(ValueError, match="'sc'"):
        demo.read_pairs(tmp_path / "bulk.h5mu", seed=0)
