"""What the documentation derives from the code is complete."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from scdeconv import models

DOCS = Path(__file__).parent.parent / "docs"


def load(name):
    specification = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return load("score_table")


def test_every_method_has_a_card():
    assert set(load("method_table").find_cards()) == set(models.built_in_methods())


def test_table_has_a_row_per_record():
    table = load("method_table").method_table()
    assert len(table.splitlines()) == 2 + len(models.built_in_methods())
    assert all(f'`"{key}"`' in table for key in models.built_in_methods())


def test_api_page_lists_all_models():
    listed = re.findall(r"^   models\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(listed) == sorted(models.__all__)


def test_texts_name_existing_errors(scores):
    texts = [
        name for page in DOCS.rglob("*.md") for name in re.findall(r"{rmse}`(.*?)`", page.read_text(encoding="utf-8"))
    ]
    assert texts
    for text in texts:
        assert re.fullmatch(r"\d\.\d{3}", scores.find_score(text))


def test_missing_error_names_the_text(scores):
    with pytest.raises(ValueError, match="found 'nnls, whole-blood arrays'"):
        scores.find_score("nnls, whole-blood arrays")


def test_overview_has_every_mean_composition(scores):
    rows = [line for line in scores.score_table().splitlines() if line.startswith(f"| **[{scores.MEAN}]")]
    assert len(rows) == len(scores.GROUPS)
    assert not any("–" in row for row in rows)


def test_errors_are_read_from_their_section(scores, monkeypatch, tmp_path):
    page = "# Page\n\n## First\n\n| m | RMSE |\n| --- | --- |\n| NNLS | 0.9 |\n\n## Second, 3 samples\n\n"
    page += "| m | CCC | RMSE |\n| --- | --- | --- |\n| CalibratedMAP (default) | 0.5 | 0.0239 (0.02–0.03) |\n"
    page += "| mean composition, in hindsight | 0.4 | 0.0438 |\n| Other program | 0.3 | 0.1 |\n"
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    monkeypatch.setattr(scores, "PAGES", tmp_path)
    found = scores.read_scores(scores.DataSet("page", "Second"))
    assert found == {"calibrated_map": "0.0239", "mean_composition": "0.0438"}
