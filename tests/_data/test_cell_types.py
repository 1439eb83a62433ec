from __future__ import annotations

import pytest

from scdeconv._data.checks import near_types
from scdeconv._data.checks.cell_types import finer_types

SAME = [
    ("CD4+ T cells", "T CD4"),
    ("CD4+ T cells", "CD4..T.cells"),
    ("CD4T", "CD4 T cell"),
    ("Bcells", "B-cell"),
    ("NKcells", "NK"),
    ("NK", "Natural killer cells"),
    ("Tregs", "T cells regulatory"),
    ("DC", "Dendritic cells"),
    ("Monocytes", "mono"),
    ("CD14+ Monocytes", "CD14.Mono"),
    ("T lymphocytes", "T cells"),
    ("Neutrophils", "NEUTROPHIL"),
    ("Neutrophills", "Neutrophil"),
    ("NaiveB", "B naive"),
    ("Plasma_cells", "Plasma cell"),
]
DIFFERENT = [
    ("CD4 T", "CD8 T"),
    ("CD4 naive T", "CD8 naive T"),
    ("CD8- T", "CD8 T"),
    ("Th1", "Th2"),
    ("Basophil", "Eosinophil"),
    ("Monocyte", "Myocyte"),
    ("B memory", "T memory"),
    ("B", "T"),
    ("Lymphocyte", "Monocyte"),
    ("cDC1", "cDC2"),
]


@pytest.mark.parametrize(("name", "other"), SAME)
def test_other_spellings_match_nearly(name, other):
    assert near_types([name, "Mast"], ["Eosinophil", other]) == {name: other}
    assert near_types([other], [name]) == {other: name}


@pytest.mark.parametrize(("name", "other"), DIFFERENT)
def test_other_types_do_not_match(name, other):
    assert near_types([name], [other]) == {}


def test_equal_names_are_not_near_matches():
    assert near_types(["NK", "NK cell"], ["NK", "B"]) == {}


def test_ambiguous_names_are_not_proposed():
    assert near_types(["NK cells"], ["NK", "nk"]) == {}


def test_finer_types_contain_the_coarse_words():
    fine = ["CD4 naive T", "CD4 memory T", "CD8 T", "B naive"]
    assert finer_types(["CD4 T cells", "B"], fine) == {"CD4 T cells": ["CD4 naive T", "CD4 memory T"]}
