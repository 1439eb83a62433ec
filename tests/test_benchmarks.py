"""The scripts in benchmarks/ run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "benchmarks"


def lines_of(page: str, model: str) -> list[list[str]]:
    """Return the cells of every table line that starts with the model's name."""
    return [line.split(" | ") for line in page.splitlines() if line.startswith(f"| {model} ")]


@pytest.mark.slow
def test_paper_table_compares_both_splits(tmp_path):
    page = tmp_path / "paper_table.md"
    command = [sys.executable, SCRIPTS / "paper_table.py", "--quick", "--seeds", "0", "--output", page]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

    text = page.read_text()
    assert text in result.stdout
    assert text.startswith("# ")
    # a table of rows and one of donors, expression and noise in each
    assert len(lines_of(text, "ResidualDNN on ridge, pairs alone")) == 4
    assert len(lines_of(text, "mean composition")) == 2
    (look_up,) = lines_of(text, "look-up table")
    assert float(look_up[3]) == pytest.approx(1, abs=0.3)
    row_split, donor_split = lines_of(text, "ResidualDNN on ridge, pairs alone")[::2]
    assert float(donor_split[2]) > 10 * float(row_split[2])


@pytest.mark.slow
def test_tuning_compares_networks_on_unseen_donors(tmp_path):
    page = tmp_path / "tuning.md"
    small = ["--quick", "--seeds", "0", "--trials", "2", "--folds", "2", "--output", page]
    result = subprocess.run([sys.executable, SCRIPTS / "tuning.py", *small], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    text = page.read_text()
    for model in ("ResidualDNN (defaults)", "ResidualDNN (tuned in each fold)", "mean_composition"):
        assert len(lines_of(text, model)) == 1
    assert lines_of(text, "hidden")


@pytest.mark.slow
def test_many_donors_reports_factors_time_and_memory():
    command = [sys.executable, SCRIPTS / "many_donors.py", "--donors", "120"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "120 donors: 100 factors, calibrate" in result.stdout
    assert " MB before)" in result.stdout
