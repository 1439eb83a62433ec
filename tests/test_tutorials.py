"""The tutorials run, and the notebooks match the texts."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.md"))
MAX_MINUTES = 2
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.parametrize("text", TUTORIALS, ids=lambda path: path.stem)
def test_notebook_matches_its_text_with_outputs(text):
    cells, shown = jupytext.read(text).cells, jupytext.read(text.with_suffix(".ipynb")).cells
    assert [(cell.cell_type, cell.source) for cell in shown] == [(cell.cell_type, cell.source) for cell in cells]
    counts = [cell.execution_count for cell in shown if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("text", TUTORIALS, ids=lambda path: path.stem)
def test_line_below_the_title_has_link_and_usage(text):
    title, blank, line = text.read_text(encoding="utf-8").partition("\n# ")[2].split("\n")[:3]
    assert title
    assert not blank
    link = re.escape(f"{{download}}`Download this notebook <{text.stem}.ipynb>`")
    minutes = re.fullmatch(rf"{link}: ([0-9.]+) minutes on one core, [0-9.]+ GB of memory\.", line)
    assert minutes
    assert float(minutes[1]) <= MAX_MINUTES


@pytest.mark.slow
@pytest.mark.parametrize("text", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(text, tmp_path, monkeypatch):
    if text.stem == "survival":
        # of the group doc, because it requires pandas 2
        pytest.importorskip("lifelines")
    if SHARED.is_dir():
        monkeypatch.setenv("SCDECONV_DATA_DIR", str(SHARED))
    try:
        NotebookClient(jupytext.read(text), timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    except CellExecutionError as error:
        if error.ename == "ConnectionError":
            pytest.skip(f"no network to download the data: {error.evalue}")
        raise
