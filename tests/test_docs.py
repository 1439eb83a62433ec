"""What the documentation derives from the code is complete."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from scdeconv import models

DOCS = Path(__file__).parent.parent / "docs"


def load(name):
    specification = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_method_has_a_card():
    assert set(load("method_table").find_cards()) == set(models.built_in_methods())


def test_table_has_a_row_per_record():
    table = load("method_table").method_table()
    assert len(table.splitlines()) == 2 + len(models.built_in_methods())
    assert all(f'`"{key}"`' in table for key in models.built_in_methods())


def test_api_page_lists_all_models():
    listed = re.findall(r"^   models\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(listed) == sorted(models.__all__)
