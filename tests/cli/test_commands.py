"""Each command gives what the function of the library gives."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from scdeconv import cli, pp, tl
from scdeconv._data.modalities import read_mudata


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_model):
    folder = tmp_path_factory.mktemp("commands")
    write_model(folder)
    for name in ("f.tsv", "f.h5ad"):
        assert run("predict", folder / "model", folder / "counts.tsv", "--coverage", 0.8, "-o", folder / name) == 0
    return folder


@pytest.fixture
def mdata(folder):
    return read_mudata(folder / "pairs.h5mu")


def test_methods_prints_the_table(folder, capsys, mdata):
    assert run("methods") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["method", *tl.methods().index]
    assert run("methods", folder / "pairs.h5mu") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(tl.methods(mdata))


@pytest.mark.parametrize("cells", ["filtered_feature_bc_matrix", "cell_counts.tsv"])
def test_pairs_do_not_depend_on_the_format(cells, folder, tmp_path, mdata):
    reading = ("--bulk", folder / "counts.tsv", "--samples", folder / "samples.tsv", "--cells", folder / cells)
    annotation = ("--cell-annotation", folder / "annotation.csv")
    assert run("pair", *reading, *annotation, "-o", tmp_path / "p.h5mu") == 0
    read = read_mudata(tmp_path / "p.h5mu")
    for name in ("bulk", "profiles"):
        # the categories of an h5ad have an order, text is sorted
        expected = mdata[name].to_df()
        found = read[name].to_df().loc[expected.index, expected.columns]
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    expected = mdata["bulk"].obsm["measured_fractions"]
    pd.testing.assert_frame_equal(read["bulk"].obsm["measured_fractions"][expected.columns], expected)


@pytest.mark.parametrize("names", [("101", "102"), ("001", "002"), ("1.0", "2.0"), ("1e3", "NA1")])
def test_numeric_names_match_in_all_files(names, folder, tmp_path):
    sheet = pd.read_csv(folder / "samples.csv", dtype=str)
    paired = sheet[sheet["donor"].isin(pd.read_csv(folder / "annotation.csv", dtype=str)["donor"])][:2]
    donors, samples = (dict(zip(paired[column], names, strict=True)) for column in ("donor", "sample"))
    (tmp_path / "c.csv").write_text(
        pd.read_csv(folder / "annotation.csv", dtype=str).replace(donors).to_csv(index=False)
    )
    sheet.replace({**donors, **samples}).to_csv(tmp_path / "s.csv", index=False)
    bulk = pd.read_csv(folder / "counts.tsv", sep="\t", index_col=0).rename(columns=samples)
    bulk.to_csv(tmp_path / "b.tsv", sep="\t")
    reading = ("--bulk", tmp_path / "b.tsv", "--samples", tmp_path / "s.csv", "--cell-annotation", tmp_path / "c.csv")
    matrix = ("--cells", folder / "filtered_feature_bc_matrix")
    assert run("pair", *reading, *matrix, "-o", tmp_path / "p.h5mu") == 0
    read = read_mudata(tmp_path / "p.h5mu")
    assert len(pp.paired_donors(read)) == 6
    assert set(names) <= set(read["bulk"].obs_names)
    assert run("predict", folder / "model", tmp_path / "b.tsv", "-o", tmp_path / "f.tsv") == 0
    assert set(names) <= set(pd.read_csv(tmp_path / "f.tsv", sep="\t", dtype=str, keep_default_na=False)["sample"])
    assert run("evaluate", tmp_path / "f.tsv", tmp_path / "p.h5mu", "-o", tmp_path / "e.tsv") == 0
    assert pd.read_csv(tmp_path / "e.tsv", sep="\t")["n"].iloc[0] == 6


@pytest.mark.parametrize("estimate", ["f.tsv", "f.h5ad"])
@pytest.mark.parametrize("measured", ["pairs.h5mu", "measured.tsv"])
def test_evaluate_equals_the_function(estimate, measured, folder, tmp_path):
    assert run("evaluate", folder / estimate, folder / measured, "-o", tmp_path / "e.tsv") == 0
    adata = anndata.read_h5ad(folder / "f.h5ad")
    if measured == "pairs.h5mu":
        table = read_mudata(folder / measured)["bulk"].obsm["measured_fractions"]
    else:
        table = pd.read_csv(folder / measured, sep="\t", index_col=0)
    adata.obsm["measured_fractions"] = table.loc[adata.obs_names]
    expected = tl.evaluate(adata)
    read = pd.read_csv(tmp_path / "e.tsv", sep="\t", index_col=0)
    pd.testing.assert_frame_equal(read, expected, check_names=False, rtol=1e-3, atol=1e-5)


def test_evaluate_needs_common_samples_and_truth(folder, tmp_path, capsys):
    table = pd.read_csv(folder / "measured.tsv", sep="\t", index_col=0)
    table.set_axis([f"x{i}" for i in range(len(table))]).to_csv(tmp_path / "other.tsv", sep="\t", index_label="sample")
    assert run("evaluate", folder / "f.tsv", tmp_path / "other.tsv") == 1
    assert "Use the same names in both" in capsys.readouterr().err
    assert run("evaluate", folder / "f.tsv") == 1
    assert "Name their file, too" in capsys.readouterr().err


def test_tune_prints_options_and_continues(folder, tmp_path, capsys, mdata):
    space = ("--search", "n_genes=[50,100]", "--set", "cv=3", "--study", tmp_path / "s.db")
    assert run("tune", folder / "pairs.h5mu", "--method", "ridge", *space, "--trials", 2) == 0
    (line,) = capsys.readouterr().out.splitlines()
    expected = tl.tune(mdata, "ridge", {"n_genes": [50, 100]}, n_trials=2, cv=3)
    assert line == f"--method ridge --set n_genes={expected.best_params['n_genes']}"
    assert run("train", folder / "pairs.h5mu", *line.split(), "-o", tmp_path / "model") == 0
    assert run("tune", folder / "pairs.h5mu", "--method", "ridge", *space, "--trials", 3, "-o", tmp_path / "t.tsv") == 0
    trials = pd.read_csv(tmp_path / "t.tsv", sep="\t")
    assert len(trials) == 3
    np.testing.assert_allclose(trials["rmse"][:2], expected.trials["rmse"], rtol=1e-5)


def test_simulated_tables_equal_the_function(folder, tmp_path, mdata):
    arguments = ("--samples", 8, "--seed", 3)
    assert run("simulate", folder / "pairs.h5mu", *arguments, "-o", tmp_path / "s.csv") == 0
    assert run("simulate", folder / "pairs.h5mu", *arguments, "--calibrated", "-o", tmp_path / "s.h5ad") == 0
    pp.simulate(mdata, 8, seed=3)
    expected = mdata["simulated"]
    np.testing.assert_allclose(pd.read_csv(tmp_path / "s.csv", index_col=0).T, expected.to_df(), rtol=1e-5)
    fractions = pd.read_csv(tmp_path / "s_fractions.csv", index_col=0)
    np.testing.assert_allclose(fractions, expected.obsm["measured_fractions"], rtol=1e-5)
    pp.simulate(mdata, 8, calibration=pp.calibrate(mdata), seed=3)
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "s.h5ad").X, mdata["simulated"].X)


def test_equal_plots_are_equal_files(folder, tmp_path):
    for name in ("a.png", "b.png"):
        assert run("plot", "intervals", folder / "f.tsv", folder / "measured.tsv", "-o", tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    for ending, start in ((".svg", b"<?xml"), (".pdf", b"%PDF"), (".png", b"\x89PNG")):
        path = tmp_path / f"c{ending}"
        assert run("plot", "fractions", folder / "f.h5ad", "--set", "kind=heatmap", "-o", path) == 0
        assert path.read_bytes().startswith(start)


def test_fractions_of_two_runs_are_refused(folder, tmp_path, capsys):
    for name in ("f.tsv", "f_lower.tsv", "f_upper.tsv"):
        table = pd.read_csv(folder / name, sep="\t")
        table.iloc[: 5 if name == "f.tsv" else None].to_csv(tmp_path / name, sep="\t", index=False)
    assert run("report", tmp_path / "f.tsv", "-o", tmp_path / "r.html") == 1
    assert "once in each of its tables" in capsys.readouterr().err


def test_plots_of_models_without_history(folder, tmp_path, capsys):
    assert run("plot", "history", folder / "model", "-o", tmp_path / "h.png") == 1
    assert "Only networks have one" in capsys.readouterr().err


def test_report_compares_groups_of_a_sheet(folder, tmp_path, capsys):
    fractions = pd.read_csv(folder / "f.tsv", sep="\t", index_col=0)
    ages = range(10, 10 + len(fractions))
    sheet = pd.DataFrame({"state": ["ill", "well"] * (len(fractions) // 2), "age": ages}, fractions.index)
    sheet.to_csv(tmp_path / "sheet.csv", index_label="sample")
    asked = ("--samples", tmp_path / "sheet.csv", "--group", "state", "--covariates", "age")
    assert run("report", folder / "f.h5ad", *asked, "-o", tmp_path / "r.html") == 0
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    adata = anndata.read_h5ad(folder / "f.h5ad")
    adata.obs = adata.obs.join(sheet)
    row = tl.compare_fractions(adata, "state", covariates=["age"]).sort_values("p_value").iloc[0]
    assert f"{row['ratio']:.3f} <small>{row['ratio_lower']:.3f} to {row['ratio_upper']:.3f}" in html
    # written again together with the files of MultiQC
    assert run("report", folder / "f.h5ad", "-o", tmp_path / "r.html") == 1
    assert "Add --force" in capsys.readouterr().err
    assert run("report", folder / "f.h5ad", "-o", tmp_path / "r.html", "--force") == 0
    assert {path.name for path in tmp_path.glob("r*")} == {"r.html", "r_fractions_mqc.json", "r_quality_mqc.json"}


def test_groups_of_a_table_need_its_coverage(folder, tmp_path, capsys):
    fractions = pd.read_csv(folder / "f.tsv", sep="\t", index_col=0)
    sheet = pd.DataFrame({"state": ["ill", "well"] * (len(fractions) // 2)}, fractions.index)
    sheet.to_csv(tmp_path / "sheet.csv", index_label="sample")
    asked = ("--samples", tmp_path / "sheet.csv", "--group", "state")
    assert run("report", folder / "f.tsv", *asked, "-o", tmp_path / "r.html") == 1
    assert "Pass that of scdeconv predict, such as --coverage 0.9" in capsys.readouterr().err
    assert run("report", folder / "f.tsv", *asked, "--coverage", 0.8, "-o", tmp_path / "r.html") == 0
    assert run("report", folder / "f.h5ad", *asked, "-o", tmp_path / "h.html") == 0
    tables = [
        (tmp_path / name).read_text(encoding="utf-8").split('id="comparison"')[1].split("<figure>")[0]
        for name in ("r.html", "h.html")
    ]
    assert tables[0] == tables[1]
    assert run("report", folder / "f.h5ad", "--coverage", 0.9, "-o", tmp_path / "x.html") == 1
    assert "found a coverage of 0.8" in capsys.readouterr().err
