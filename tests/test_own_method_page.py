"""The page "Add your method" runs as it is printed."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from scdeconv import models, tl

PAGE = Path(__file__).parent.parent / "docs" / "user_guide" / "own_method.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture
def own_module(monkeypatch):
    """A module for the code of the page, and a registry that forgets its methods."""
    module = types.ModuleType("own_method_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(models._registry, "_registered", {})
    return vars(module)


def test_page_runs_as_printed(own_module, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        exec(block, own_module)
    assert "poisson_nnls" in tl.methods().index
    assert "poisson_nnls: 300 genes" in capsys.readouterr().out
    assert set(own_module["table"]["method"]) == {"calibrated_map", "poisson_nnls", "mean_composition"}
    assert {"fractions", "fractions_lower", "fractions_upper"} <= set(own_module["mdata"]["bulk"].obsm)


def test_minimal_method_is_about_a_dozen_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip() and not line.startswith(("from", "import"))]
    assert len(lines) <= 16
