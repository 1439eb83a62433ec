from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

import scdeconv
from scdeconv import cli, datasets, pp
from scdeconv._data.modalities import make_mudata, read_mudata, write_mudata
from scdeconv.cli import _demo as demo
from scdeconv.cli._commands.demo import NAMES


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "pairs.h5mu"
    small = datasets.paired_cohort(n_donors=5, n_bulk_only=1, n_genes=200, cells_per_donor=(60, 90))
    write_mudata(pp.pair(*small), path)
    return path


def test_demo_writes_data_table_model_and_figures(pairs_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", str(pairs_file)]) == 0
    written = {item.name for item in (tmp_path / "demo").iterdir()}
    figures = {"fractions.png", "measured_vs_predicted.png", "benchmark.png", "simulation.png"}
    assert written == figures | {"accuracy.csv", "fractions.csv", "model", "pairs.h5mu"}
    assert "mean_composition" in capsys.readouterr().out
    fractions = pd.read_csv(tmp_path / "demo" / "fractions.csv", index_col=0)
    assert fractions["estimate"].value_counts().to_dict() == {"held-out donor": 5, "donor without cells": 1}
    assert fractions.drop(columns="estimate").sum(axis=1).to_numpy() == pytest.approx(1)
    assert scdeconv.load_model(tmp_path / "demo" / "model").is_trained_


def test_demo_keeps_its_input_and_earlier_output(pairs_file, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    folder.mkdir()
    given = folder / "pairs.h5mu"
    given.write_bytes(pairs_file.read_bytes())
    (folder / "fractions.csv").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "compute", lambda *_: pytest.fail("computes"))
    assert cli.main(["demo", str(given)]) == 1
    assert "--force" in capsys.readouterr().err
    (folder / "fractions.csv").unlink()
    (tmp_path / "link.h5mu").symlink_to(given)

    def compute(*_):
        return {name: lambda path: path.write_text("new") for name in NAMES}, SimpleNamespace(
            save=lambda *_, **__: None
        )

    monkeypatch.setattr(demo, "compute", compute)
    assert cli.main(["demo", "link.h5mu"]) == 0
    assert given.read_bytes() == pairs_file.read_bytes()
    assert (folder / "fractions.csv").read_text() == "new"


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
