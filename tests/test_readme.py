"""The code of the README runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


STRICT = ("-W", "error::FutureWarning", "-W", "error::DeprecationWarning")


def run(code, folder):
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    command = [sys.executable, *STRICT, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_five_lines_run_without_deprecation_warnings(tmp_path):
    imported = run("import matplotlib.pyplot, scanpy, scvi", tmp_path)
    if imported.returncode:
        pytest.skip(f"the dependencies warn when imported: {imported.stderr.splitlines()[-1]}")
    code = re.search(r"## Five lines\n\n```python\n(.*?)```", README.read_text(), flags=re.DOTALL).group(1)
    finished = run(code, tmp_path)
    assert finished.returncode == 0, finished.stderr
    paired, trained, predicted = finished.stdout.splitlines()
    assert paired.startswith("paired 24 donors")
    assert trained.startswith("ensemble: 24 donors")
    assert predicted.startswith("predict: 24 samples were training samples; they get their out-of-fold predictions")
