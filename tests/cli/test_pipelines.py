"""The workflows under docs/pipelines: Snakemake runs, and the commands of both parse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from scdeconv.cli._parser import make_parser

PIPELINES = Path(__file__).parents[2] / "docs" / "pipelines"
# outputs of the rules and processes, in place of the variables
VALUES = {"params.seed": "0", "params.coverage": "0.8"}


def nextflow_commands():
    """Return process and command of each script block."""
    text = (PIPELINES / "main.nf").read_text(encoding="utf-8")
    return dict(re.findall(r'process (\w+) \{.*?"""\n(.*?)\n *"""', text, flags=re.DOTALL))


def parsed(command):
    words = shlex.split(command)
    words = words[: words.index(">")] if ">" in words else words
    return make_parser().parse_args(words[1:])


def test_every_nextflow_process_has_a_command():
    text = (PIPELINES / "main.nf").read_text(encoding="utf-8")
    assert set(nextflow_commands()) == set(re.findall(r"process (\w+)", text))
    assert text.count("{") == text.count("}")
    workflow = text[text.index("workflow {") :]
    assert set(re.findall(r"\b([A-Z]+)\(", workflow)) == set(nextflow_commands())


@pytest.mark.parametrize("process", nextflow_commands())
def test_nextflow_commands_parse(process):
    template = nextflow_commands()[process].strip()
    command = re.sub(r"\$\{([\w.]+)\}", lambda found: VALUES.get(found[1], found[1]), template)
    args = parsed(command)
    assert args.command == process.lower()
    # the output of the process is the output of the command
    text = (PIPELINES / "main.nf").read_text(encoding="utf-8")
    block = text[text.index(f"process {process} ") :]
    outputs = re.findall(r"path '([^']+)'", block[block.index("output:") : block.index("script:")])
    assert any(Path(args.output.name).match(output) for output in outputs)


@pytest.mark.slow
def test_snakefile_runs_from_tables_to_report(tmp_path, write_inputs):
    pytest.importorskip("snakemake")
    write_inputs(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    # the tested sources, also if another version is installed
    command = programs / "scdeconv"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m scdeconv.cli "$@"\n')
    command.chmod(0o755)
    names = {
        "bulk": "salmon.merged.gene_counts.tsv",
        "samples": "samples.csv",
        "cells": "filtered_feature_bc_matrix",
        "cell_annotation": "cells.csv",
        "new_samples": "salmon.merged.gene_counts.tsv",
    }
    (tmp_path / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in names.items()))
    arguments = ("--snakefile", PIPELINES / "Snakefile", "--configfile", "config.yaml", "--cores", "1")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results"
    assert pd.read_csv(results / "fractions.tsv", sep="\t").shape == (12, 8)
    html = (results / "report.html").read_text(encoding="utf-8")
    assert all(f"<code>scdeconv {name}</code>" in html for name in ("pair", "train", "predict"))
    assert "reading" in (tmp_path / "logs" / "train.log").read_text()
