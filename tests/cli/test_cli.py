from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points, version
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest

from scdeconv import cli, pp, tl
from scdeconv._data.modalities import make_mudata, read_mudata, write_mudata
from scdeconv._nn import Plan
from scdeconv.cli import _demo as demo
from scdeconv.models import load_model

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-m", "scdeconv.cli", *map(str, arguments)]


def shell(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, check=False)


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def files(cohort, tmp_path_factory):
    """The cohort as files: cells as h5ad, a table of counts and a sample sheet."""
    folder = tmp_path_factory.mktemp("laboratory")
    cells, bulk = cohort
    cells.write_h5ad(folder / "cells.h5ad")
    bulk.to_df().T.to_csv(folder / "bulk.tsv.gz", sep="\t", index_label="gene")
    bulk.obs[["donor", "batch"]].to_csv(folder / "samples.csv")
    return folder


@pytest.fixture(scope="module")
def pairs_file(files):
    arguments = ("--bulk", files / "bulk.tsv.gz", "--cells", files / "cells.h5ad", "--samples", files / "samples.csv")
    assert run("pair", *arguments, "-o", files / "pairs.h5mu") == 0
    return files / "pairs.h5mu"


@pytest.fixture(scope="module")
def model(pairs_file):
    folder = pairs_file.with_name("model")
    assert run("train", pairs_file, "--method", "calibrated_nnls", "-o", folder) == 0
    return folder


@pytest.fixture
def expected(cohort):
    """Predictions of the library without the command line."""
    cells, bulk = cohort
    model = tl.train(pp.pair(cells, bulk), "calibrated_nnls", n_genes=120)
    copy = bulk.copy()
    tl.predict(copy, model, coverage=0.8)
    return copy.obsm


def assert_close(path, frame):
    read = pd.read_csv(path, sep="\t", index_col="sample")
    pd.testing.assert_frame_equal(read, frame, check_names=False, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_shell_commands_equal_library_calls(files, expected, tmp_path):
    reading = ("--bulk", files / "bulk.tsv.gz", "--cells", files / "cells.h5ad", "--samples", files / "samples.csv")
    steps = [
        ("pair", *reading, "-o", tmp_path / "pairs.h5mu"),
        (
            "train",
            tmp_path / "pairs.h5mu",
            "--method",
            "calibrated_nnls",
            "--set",
            "n_genes=120",
            "-o",
            tmp_path / "model",
        ),
        (
            "predict",
            tmp_path / "model",
            files / "bulk.tsv.gz",
            "--coverage",
            "0.8",
            "-o",
            tmp_path / "new" / "fractions.tsv",
        ),
    ]
    results = [shell(*step) for step in steps]
    assert [result.returncode for result in results] == [0, 0, 0], results
    # a log has lines instead of progress bars
    assert not any("\r" in result.stdout + result.stderr for result in results)
    assert results[0].stdout.splitlines()[0].startswith("read_bulk: table, 12 samples × 240 genes")
    assert results[0].stdout.splitlines()[1].startswith("paired 10 donors")
    assert results[2].stdout.splitlines()[-1].startswith("wrote")
    assert_close(tmp_path / "new" / "fractions.tsv", expected["fractions"])
    assert_close(tmp_path / "new" / "fractions_lower.tsv", expected["fractions_lower"])
    assert_close(tmp_path / "new" / "fractions_upper.tsv", expected["fractions_upper"])
    read = read_mudata(tmp_path / "pairs.h5mu")
    assert {"bulk", "sc", "profiles"} <= set(read.mod)
    assert read["bulk"].obs["batch"].notna().all()


def test_help_and_version_import_nothing_heavy():
    code = """
import sys
from scdeconv import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0
print([name for name in ("numpy", "pandas", "anndata", "torch", "scvi") if name in sys.modules])
"""
    for arguments in (["--help"], ["train", "--help"], ["--version"]):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == "[]"
    assert result.stdout.splitlines()[0] == f"scdeconv {version('scdeconv')}"


def test_the_command_is_installed():
    (entry,) = entry_points(group="console_scripts", name="scdeconv")
    assert entry.load() is cli.main


def test_linear_methods_do_not_import_torch(pairs_file, tmp_path):
    code = "import sys; from scdeconv import cli; cli.main(sys.argv[1:]); print('torch' in sys.modules)"
    arguments = ["train", str(pairs_file), "--method", "nnls", "-o", str(tmp_path / "model")]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["deconvolve"], "invalid choice: 'deconvolve'"),
        (["train", "pairs.h5mu"], "required: -o"),
        (["pair", "--bulk", "b.csv", "--cells", "c", "--profiles", "p", "-o", "p.h5mu"], "not allowed with argument"),
        (["predict", "model", "bulk.csv", "-o", "fractions.xlsx"], "ends with .tsv, .csv"),
        (["train", "p.h5mu", "-o", "model", "--set", "hidden"], "expected NAME=VALUE, found 'hidden'"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_errors_exit_with_1_and_no_traceback(tmp_path):
    bulk = tmp_path / "bulk.csv"
    bulk.write_text("gene,S1\nACTB,1\n")
    result = shell("predict", tmp_path / "absent", bulk, "-o", tmp_path / "f.tsv")
    assert result.returncode == 1
    assert result.stderr.startswith("scdeconv predict: error: Expected a model with model.json in")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == [bulk]


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="Expected a model"):
        run("predict", tmp_path / "absent", "bulk.csv", "-o", tmp_path / "f.tsv", "--debug")


def test_input_problems_are_reported(files, pairs_file, model, tmp_path, capsys):
    bad = tmp_path / "bad.csv"
    bad.write_text("gene,S1,S2\nACTB,1,2\nCD4,3,many\n")
    (tmp_path / "sheet.csv").write_text("sample,donor\nbulk_D001,D001\n")
    only_bulk = tmp_path / "bulk.h5mu"
    write_mudata(make_mudata({"bulk": read_mudata(pairs_file)["bulk"]}), only_bulk)
    pairing = ("pair", "--cells", files / "cells.h5ad", "-o", tmp_path / "p.h5mu", "--bulk")
    cases = {
        ("predict", model, bad, "-o", tmp_path / "f.tsv"): "many (line 3, row CD4, column S2)",
        (*pairing, files / "bulk.tsv.gz", "--samples", tmp_path / "sheet.csv"): "found 11 missing: 'bulk_D0",
        (*pairing, files / "bulk.tsv.gz", "--donor-key", "patient"): "Expected the donor of each cell",
        ("train", only_bulk, "--method", "nnls", "-o", tmp_path / "m"): "Expected a reference (cells or profiles)",
        ("train", tmp_path / "absent.h5mu", "-o", tmp_path / "m"): "Create it with scdeconv pair",
        ("train", pairs_file, "--method", "guess", "-o", tmp_path / "m"): "Expected method to be one of",
        ("train", pairs_file, "--method", "nnls", "--set", "hiden=3", "-o", tmp_path / "m"): "found ['hiden']",
        ("cluster", bad, "-o", tmp_path / "c.h5ad"): "many (line 3, row CD4, column S2)",
    }
    before = set(tmp_path.iterdir())
    for arguments, message in cases.items():
        assert run(*arguments) == 1
        assert message in capsys.readouterr().err, arguments
    assert set(tmp_path.iterdir()) == before


def test_existing_output_is_kept_without_force(files, model, pairs_file, tmp_path, capsys):
    output, lower = tmp_path / "f.tsv", tmp_path / "f_lower.tsv"
    predict = ("predict", model, files / "bulk.tsv.gz", "-o", output)
    lower.write_text("of the user")
    assert run(*predict) == 1
    captured = capsys.readouterr()
    assert "--force" in captured.err
    assert captured.out == ""
    assert not output.exists()
    assert run(*predict, "--force") == 0
    assert output.exists()
    assert lower.read_text() == "of the user"
    train = ("train", pairs_file, "--method", "nnls", "-o")
    assert run(*train, model) == 1
    assert run(*train, tmp_path, "--force") == 1
    assert "Expected only a saved model" in capsys.readouterr().err
    assert output.exists()


def test_failed_write_keeps_the_old_file(files, model, tmp_path, monkeypatch, capsys):
    output = tmp_path / "f.tsv"
    output.write_text("old")

    def fail(self, path, **_):
        path.write_text("half a ta")
        message = "No space left on device"
        raise OSError(message)

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    assert run("predict", model, files / "bulk.tsv.gz", "-o", output, "--force") == 1
    assert "No space left" in capsys.readouterr().err
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


def test_ctrl_c_exits_with_130_without_output(files, tmp_path):
    # opening a pipe blocks until another process writes to it
    os.mkfifo(tmp_path / "samples.csv")
    reading = ("--bulk", files / "bulk.tsv.gz", "--cells", files / "cells.h5ad", "--samples", tmp_path / "samples.csv")
    process = subprocess.Popen(
        command("pair", *reading, "-o", tmp_path / "pairs.h5mu"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    # the line is printed even if the output is not a terminal
    assert process.stdout.readline().startswith("read_bulk:")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.endswith("scdeconv pair: interrupted, nothing was written\n")
    assert "Traceback" not in errors
    assert [item.name for item in tmp_path.iterdir()] == ["samples.csv"]


def test_an_interrupted_training_is_kept_and_told_apart(pairs_file, tmp_path, monkeypatch, interrupt_after, capsys):
    on_fit_start = Plan.on_fit_start
    monkeypatch.setattr(Plan, "on_fit_start", lambda self: (interrupt_after(0.5), on_fit_start(self))[1])
    endless = ("--set", "max_epochs=1000000", "--set", "patience=1000000", "--set", "hidden=[4]")
    assert run("train", pairs_file, "--method", "simplednn", "-o", tmp_path / "model", *endless) == 130
    assert load_model(tmp_path / "model").interrupted_
    assert "interrupted, the results so far were written" in capsys.readouterr().err


def test_predict_writes_csv_and_h5ad_too(files, model, tmp_path):
    bulk = files / "bulk.tsv.gz"
    assert run("predict", model, bulk, "-o", tmp_path / "f.csv.gz", "--coverage", "0.8") == 0
    assert run("predict", model, bulk, "-o", tmp_path / "f.h5ad", "--set", "key_added=ours") == 0
    assert {"f.csv.gz", "f_lower.csv.gz", "f_upper.csv.gz", "f.h5ad"} <= {item.name for item in tmp_path.iterdir()}
    table = pd.read_csv(tmp_path / "f.csv.gz", index_col=0)
    adata = anndata.read_h5ad(tmp_path / "f.h5ad")
    np.testing.assert_allclose(adata.obsm["ours"], table, rtol=1e-5)
    assert adata.uns["scdeconv"]["ours"]["method"] == "calibrated_nnls"


def test_training_samples_get_out_of_fold_predictions(files, model, tmp_path, capsys):
    arguments = ("predict", model, files / "bulk.tsv.gz")
    assert run(*arguments, "-o", tmp_path / "held_out.tsv") == 0
    assert "predict: 10 samples were training samples; they get their out-of-fold" in capsys.readouterr().out
    assert run(*arguments, "-o", tmp_path / "fit.tsv", "--set", "in_sample=true") == 0
    assert "10 samples were training samples and get the fit" in capsys.readouterr().err
    held_out, fit = (
        pd.read_csv(tmp_path / f"{name}.tsv", sep="\t", index_col="sample") for name in ("held_out", "fit")
    )
    assert ((held_out - fit).abs().max(axis=1) > 1e-6).sum() == 10
    predicted = load_model(model).held_out_.predicted
    distance = np.abs(held_out.to_numpy()[:, None] - predicted).max(axis=2)
    assert (distance.min(axis=0) < 1e-6).all()


def test_seed_and_arguments_reach_the_method(pairs_file, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tl, "train", lambda _, method, **kwargs: seen.append((method, kwargs)) or SimpleNamespace(save=save)
    )

    def save(*_, **__):
        return None

    arguments = ("--set", "hidden=[8, 4]", "--set", "train_on=pairs", "--set", "refit=false")
    assert run("train", pairs_file, "-o", tmp_path / "m", "--seed", 7, *arguments) == 0
    assert run("train", pairs_file, "-o", tmp_path / "m", "--seed", 7, "--method", "nnls") == 0
    expected = {"seed": 7, "hidden": [8, 4], "train_on": "pairs", "refit": False}
    assert seen == [("ensemble", expected), ("nnls", {"seed": 7})]


def test_benchmark_writes_the_table(pairs_file, tmp_path):
    output = tmp_path / "table.tsv"
    assert run("benchmark", pairs_file, "--method", "nnls", "--seed", 3, "--set", "cv=5", "-o", output) == 0
    expected = tl.benchmark(read_mudata(pairs_file), ["nnls"], cv=5, seeds=[3])
    read = pd.read_csv(output, sep="\t")
    pd.testing.assert_frame_equal(read.drop(columns="seconds"), expected.drop(columns="seconds"), rtol=1e-5)


def test_interrupted_benchmark_is_written_with_a_warning(pairs_file, tmp_path, monkeypatch):
    part = tl.benchmark(read_mudata(pairs_file), ["nnls"], cv=2)

    def interrupted(*_, **__):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return part[part["method"] == "nnls"]

    monkeypatch.setattr(tl, "benchmark", interrupted)
    assert run("benchmark", pairs_file, "--method", "nnls", "-o", tmp_path / "table.tsv") == 130
    assert set(pd.read_csv(tmp_path / "table.tsv", sep="\t")["method"]) == {"nnls"}


def test_profiles_and_measured_fractions_replace_cells(cohort, files, tmp_path):
    cells, bulk = cohort
    profiles = pp.pair(cells, bulk)["profiles"]
    (profiles.to_df().T * 100).to_csv(tmp_path / "profiles.csv")
    truth = bulk.obsm["true_fractions"].iloc[::-1].iloc[:5]
    truth.to_csv(tmp_path / "truth.tsv", sep="\t")
    reading = ("--bulk", files / "bulk.tsv.gz", "--profiles", tmp_path / "profiles.csv")
    assert run("pair", *reading, "--fractions", tmp_path / "truth.tsv", "-o", tmp_path / "pairs.h5mu") == 0
    measured = read_mudata(tmp_path / "pairs.h5mu")["bulk"].obsm["measured_fractions"]
    assert list(measured.index) == list(bulk.obs_names)
    np.testing.assert_allclose(measured.loc[truth.index, truth.columns], truth, rtol=1e-5)
    assert measured.notna().all(axis=1).sum() == 5


def test_numeric_donor_ids_keep_leading_zeros(cohort, files, tmp_path):
    cells, bulk = (adata.copy() for adata in cohort)
    for adata in (cells, bulk):
        adata.obs["donor"] = adata.obs["donor"].astype(str).str.removeprefix("D")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    bulk.obs[["donor"]].to_csv(tmp_path / "samples.tsv", sep="\t")
    reading = (
        "--bulk",
        files / "bulk.tsv.gz",
        "--cells",
        tmp_path / "cells.h5ad",
        "--samples",
        tmp_path / "samples.tsv",
    )
    assert run("pair", *reading, "-o", tmp_path / "pairs.h5mu") == 0
    assert len(pp.paired_donors(read_mudata(tmp_path / "pairs.h5mu"))) == 10


def test_cluster_writes_cells_and_labels(files, tmp_path):
    settings = ("n_clusters=4", "pretrain_epochs=2", "max_epochs=2")
    chosen = [part for setting in settings for part in ("--set", setting)]
    arguments = ("--method", "scdeepcluster", "--seed", 1, *chosen)
    assert run("cluster", files / "cells.h5ad", "-o", tmp_path / "clustered.h5ad", *arguments) == 0
    cells = anndata.read_h5ad(tmp_path / "clustered.h5ad")
    labels = pd.read_csv(tmp_path / "clustered.tsv", sep="\t", index_col="cell", dtype=str)
    assert labels["scdeepcluster"].tolist() == cells.obs["scdeepcluster"].tolist()
    assert cells.uns["scdeconv"]["scdeepcluster"]["seed"] == 1


def test_warnings_are_printed_on_one_line(capsys, monkeypatch):
    monkeypatch.setattr(tl, "methods", lambda *_: __import__("warnings").warn("few donors", stacklevel=1))
    run("methods")
    assert capsys.readouterr().err.startswith("scdeconv: warning: few donors\n")


def test_log_has_a_line_per_step(files, pairs_file, tmp_path, capsys):
    assert run("benchmark", pairs_file, "--method", "nnls", "--seed", 0, "-o", tmp_path / "table.tsv") == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.endswith(" ...") for line in lines)
    assert not any("\r" in line or "it/s" in line for line in lines)


def test_demo_takes_a_seed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(demo, "compute", lambda path, seed: seen.append((path, seed)))
    run("demo", "--seed", 3)
    assert seen == [(None, 3)]


def test_tables_may_be_excel_with_other_columns(files, cohort, tmp_path):
    _, bulk = cohort
    table = bulk.to_df().T.rename_axis("gene")
    table.insert(0, "tss", np.arange(len(table)) * 10**6)
    table.to_excel(tmp_path / "bulk.xlsx")
    bulk.obs[["donor"]].rename_axis("sample").to_excel(tmp_path / "samples.xlsx")
    reading = (
        "--bulk",
        tmp_path / "bulk.xlsx",
        "--cells",
        files / "cells.h5ad",
        "--samples",
        tmp_path / "samples.xlsx",
    )
    assert run("pair", *reading, "-o", tmp_path / "pairs.h5mu") == 1
    assert run("pair", *reading, "--annotation", "tss", "-o", tmp_path / "pairs.h5mu") == 0
    read = read_mudata(tmp_path / "pairs.h5mu")["bulk"]
    assert list(read.obs_names) == list(bulk.obs_names)


@pytest.mark.parametrize("turned", [False, True])
def test_fractions_need_samples_in_rows(cohort, tmp_path, turned, capsys):
    _, bulk = cohort
    bulk.to_df().T.to_csv(tmp_path / "bulk.csv", index_label="gene")
    fractions = pd.DataFrame({"B": "0,25", "T": "0,75"}, bulk.obs_names.rename("Mixture"))
    (fractions.T if turned else fractions).to_csv(tmp_path / "truth.csv", sep=";")
    profiles = pd.DataFrame({"B": range(1, 241), "T": range(240, 0, -1)}, bulk.var_names)
    profiles.to_csv(tmp_path / "profiles.csv", index_label="gene")
    reading = (
        "--bulk",
        tmp_path / "bulk.csv",
        "--profiles",
        tmp_path / "profiles.csv",
        "--fractions",
        tmp_path / "truth.csv",
    )
    assert run("pair", *reading, "-o", tmp_path / "pairs.h5mu") == int(turned)
    if turned:
        assert "Transpose the table" in capsys.readouterr().err
