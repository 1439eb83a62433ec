"""Standard streams that nobody reads, or on a full disk: they cost no result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
TABLES = {"x.tsv", "x_quality.tsv", "x_lower.tsv", "x_upper.tsv"}


@pytest.fixture
def predict(laboratory, tmp_path):
    inputs = [laboratory / "model", laboratory / "counts.tsv", "--coverage", "0.5"]
    return [sys.executable, "-m", "scdeconv.cli", "predict", *inputs, "-o", tmp_path / "x.tsv"]


def test_reader_that_goes_away_costs_no_result(predict, tmp_path):
    process = subprocess.Popen(predict, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait() == 0, said
    assert {path.name for path in tmp_path.iterdir()} == TABLES
    assert "rror" not in said


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_full_log_costs_no_result(predict, tmp_path, stream):
    with FULL.open("wb") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run(predict, check=False, **streams)
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == TABLES
    if stream == "stdout":
        assert b"could not write to the standard output: No space left" in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_result_on_a_full_stdout_is_an_error():
    with FULL.open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "scdeconv.cli", "methods"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1


def test_closed_streams_cost_no_result(predict, tmp_path):
    line = " ".join(f"'{word}'" for word in predict)
    assert subprocess.run(["sh", "-c", f"{line} >&- 2>&-"], check=False).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == TABLES
