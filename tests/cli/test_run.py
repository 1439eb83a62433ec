"""What all commands share: --dry-run, --json, log lines, and the standard output."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pandas as pd
import pytest

from scdeconv import cli, tl
from scdeconv._data.modalities import read_mudata
from scdeconv.cli._parser import COMMANDS, make_parser


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_model):
    """Inputs, pairs, and a model with its fractions."""
    folder = tmp_path_factory.mktemp("run")
    write_model(folder)
    predict = ("predict", folder / "model", folder / "counts.tsv", "--coverage", 0.8)
    assert run(*predict, "-o", folder / "fractions.tsv") == 0
    return folder


def commands(folder, out):
    """One call of every command that writes, without the demonstration."""
    pairs, fractions = folder / "pairs.h5mu", folder / "fractions.tsv"
    return {
        "pair": ("--bulk", folder / "counts.tsv", "--cells", folder / "cells.h5ad", "-o", out / "p.h5mu"),
        "train": (pairs, "-o", out / "model"),
        "predict": (folder / "model", folder / "counts.tsv", "-o", out / "f.tsv"),
        "evaluate": (fractions, folder / "measured.tsv", "-o", out / "e.tsv"),
        "benchmark": (pairs, "-o", out / "b.tsv"),
        "tune": (pairs, "-o", out / "t.tsv"),
        "cluster": (folder / "cells.h5ad", "-o", out / "c.h5ad"),
        "simulate": (pairs, "-o", out / "s.tsv"),
        "plot": ("fractions", fractions, "-o", out / "f.png"),
        "report": (fractions, "-o", out / "r.html"),
    }


def test_every_writing_command_is_listed(folder, tmp_path):
    assert set(commands(folder, tmp_path)) == set(COMMANDS) - {"methods", "demo"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"methods", "demo"}))
def test_dry_run_names_files_and_writes_nothing(name, folder, tmp_path, capsys):
    arguments = commands(folder, tmp_path)[name]
    assert run(name, *arguments, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"would write {arguments[-1]}" in lines
    inputs = [item for item in arguments[:-1] if str(item).startswith(str(folder))]
    assert {f"would read {item}" for item in inputs} <= set(lines)
    assert run(name, *arguments, "--dry-run", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["dry_run"]
    assert str(arguments[-1]) in summary["outputs"]
    assert not list(tmp_path.iterdir())


def test_dry_run_reports_all_problems(folder, tmp_path, capsys):
    (tmp_path / "p.h5mu").write_text("earlier")
    absent = ("--bulk", tmp_path / "no.tsv", "--samples", tmp_path / "none.tsv", "--cells", tmp_path / "nothing.h5ad")
    assert run("pair", *absent, "-o", tmp_path / "p.h5mu", "--dry-run") == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("no.tsv", "none.tsv", "nothing.h5ad", "p.h5mu"))


def test_json_is_all_of_the_standard_output(folder, tmp_path, capsys):
    output = tmp_path / "f.tsv"
    arguments = ("predict", folder / "model", folder / "counts.tsv", "--coverage", 0.8, "-o", output)
    assert run(*arguments, "--json") == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["command"] == "predict"
    assert set(summary["outputs"]) == {str(path) for path in tmp_path.iterdir()}
    assert summary["inputs"] == [str(folder / "model"), str(folder / "counts.tsv")]
    assert summary["counts"] == {"samples": 12, "cell_types": 7}
    assert summary["complete"]
    assert {"python", "numpy", "pandas"} <= set(summary["versions"])
    # what is printed otherwise is logged
    assert re.search(r"^\d\d:\d\d:\d\d read_bulk: table", captured.err, flags=re.M)


def test_json_has_warnings_seed_and_table(folder, tmp_path, capsys):
    arguments = ("--method", "ridge", "--seed", 3, "--set", "cv=3", "--json")
    assert run("benchmark", folder / "pairs.h5mu", *arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["seed"] == [3]
    assert summary["arguments"] == {"cv": 3}
    assert {row["method"] for row in summary["result"]} == {"ridge", "mean_composition"}
    predict = ("predict", folder / "model", folder / "counts.tsv", "--set", "in_sample=true", "--json")
    assert run(*predict, "-o", tmp_path / "f.h5ad") == 0
    captured = capsys.readouterr()
    (warning,) = json.loads(captured.out)["warnings"]
    assert "get the fit" in warning
    assert warning in captured.err


def test_tables_on_stdout_can_be_piped(folder, capsys):
    table = tl.benchmark(read_mudata(folder / "pairs.h5mu"), ["nnls"], cv=3)
    calls = {
        "sample": ("predict", folder / "model", folder / "counts.tsv", "-o", "-"),
        "cell_type": ("evaluate", folder / "fractions.tsv", folder / "measured.tsv"),
        "method": ("benchmark", folder / "pairs.h5mu", "--method", "nnls", "--set", "cv=3"),
    }
    for first, arguments in calls.items():
        capsys.readouterr()
        assert run(*arguments) == 0
        read = pd.read_csv(io.StringIO(capsys.readouterr().out), sep="\t")
        assert read.columns[0] == first
    pd.testing.assert_frame_equal(read.drop(columns="seconds"), table.drop(columns="seconds"), rtol=1e-5)


def test_log_lines_have_the_time(folder, tmp_path, capsys):
    assert run("simulate", folder / "pairs.h5mu", "--samples", 5, "-o", tmp_path / "s.tsv") == 0
    captured = capsys.readouterr()
    assert all(re.match(r"\d\d:\d\d:\d\d .* \.\.\.$", line) for line in captured.err.splitlines())
    assert f"reading {folder / 'pairs.h5mu'} ..." in captured.err


def test_home_is_expanded_and_empty_refused(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("evaluate", folder / "fractions.tsv", folder / "measured.tsv", "-o", "~/e.tsv") == 0
    assert (tmp_path / "e.tsv").exists()
    with pytest.raises(SystemExit) as caught:
        run("train", folder / "pairs.h5mu", "-o", "")
    assert caught.value.code == 2
    assert "expected a path, found an empty text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pair", "--bulk", "b.tsv", "-o", "p.h5mu"), "--cells --profiles --fractions is required"),
        (
            ("pair", "--bulk", "b.tsv", "--fractions", "f.tsv", "--cell-annotation", "a", "-o", "p.h5mu"),
            "needs --cells",
        ),
        (("predict", "m", "b.tsv", "--coverage", "0.9", "-o", "-"), "need a file name in -o"),
        (("plot", "pie", "f.tsv", "-o", "f.png"), "invalid choice"),
        (("plot", "simulation", "pairs.h5mu", "-o", "f.png"), "expected pairs, simulated bulk, h5ad, found 1 files"),
        (("tune", "p.h5mu", "--search", "n_genes=50"), "expected NAME=[CHOICE,CHOICE], found 'n_genes=50'"),
        (("report", "f.tsv", "-o", "report.pdf"), "ends with .html"),
        (("report", "f.tsv", "--covariates", "age", "-o", "r.html"), "need --group"),
    ],
)
def test_wrong_combinations_exit_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_of_every_command_imports_nothing_heavy():
    code = f"""
import sys
from scdeconv import cli
for name in {COMMANDS}:
    try:
        cli.main([name, "--help"])
    except SystemExit as end:
        assert end.code == 0
print([name for name in ("numpy", "pandas", "h5py", "anndata", "torch", "jinja2", "matplotlib") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert result.stderr == ""


def test_names_of_options_are_the_same():
    for name in COMMANDS:
        text = make_parser()._subparsers._group_actions[0].choices[name].format_help()
        assert "--json" in text
        assert name == "methods" or "--force" in text
