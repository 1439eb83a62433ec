"""Checks of the user's input. All problems of one input are reported in one error."""

from __future__ import annotations

from .expression import Examined, check_expression, examine, report_expression
from .fractions import check_fractions
from .names import check_cell_type_names, check_key, check_names
from .paired import UNKNOWN_SIZES, check_cell_sizes, check_paired, remember_values
from .problems import Problems, examples
