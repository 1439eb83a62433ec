"""Checks of arguments: one rule for each name, applied before every public function."""

from __future__ import annotations

from .checked import PATHS, RESOLUTIONS, RULES, WIDTHS, check_keywords, check_values, checked, rules_of
from .objects import ANY_CELLS, CELLS, FRACTIONS, SAMPLES_ONLY, check_order
from .rules import Rule, choice, nearest, whole
