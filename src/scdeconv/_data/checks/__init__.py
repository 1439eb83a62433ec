"""Checks of the user's input. All problems of one input are reported in one error."""

from __future__ import annotations

from .expression import Examined, check_expression, examine, report_expression
from .fractions import SUM_TOLERANCE, check_fractions, check_numeric_table, check_whole_rows, unit_problem
from .names import check_cell_type_names, check_key, check_names
from .near_names import as_labels, near_matches, report_differences
from .problems import Problems, examples
