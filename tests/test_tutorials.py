"""The tutorials run, and the notebooks match the texts."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.md"))


@pytest.mark.parametrize("text", TUTORIALS, ids=lambda path: path.stem)
def test_notebook_matches_its_text_with_outputs(text):
    cells, shown = jupytext.read(text).cells, jupytext.read(text.with_suffix(".ipynb")).cells
    assert [(cell.cell_type, cell.source) for cell in shown] == [(cell.cell_type, cell.source) for cell in cells]
    counts = [cell.execution_count for cell in shown if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("text", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(text, tmp_path):
    if text.stem == "survival":
        # of the group doc, because it requires pandas 2
        pytest.importorskip("lifelines")
    NotebookClient(jupytext.read(text), timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
