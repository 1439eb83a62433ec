"""Checks of the user's input. All problems of one input are reported in one error."""

from __future__ import annotations

from .arguments import PATHS, RESOLUTIONS, RULES, WIDTHS, check_keywords, check_values, checked, rules_of
from .expression import Examined, check_expression, examine, report_expression
from .fractions import check_fractions
from .names import check_cell_type_names, check_names
from .objects import ANY_CELLS, CELLS, SAMPLES_ONLY, check_order
from .problems import Problems, examples
from .rules import Rule, choice, nearest, whole
