"""Checks of the user's input. All problems of one input are reported in one error."""

from __future__ import annotations

from .arguments import (
    ANY_CELLS,
    CELLS,
    PATHS,
    RESOLUTIONS,
    RULES,
    SAMPLES_ONLY,
    WIDTHS,
    Rule,
    check_keywords,
    check_order,
    check_values,
    checked,
    choice,
    nearest,
    rules_of,
    whole,
)
from .cell_sizes import check_expressed, check_positive_sizes
from .cell_types import finer_types, near_types, report_differences, rest_columns
from .donors import check_donors_match, columns_of_donors
from .expression import Examined, check_expression, examine, report_expression
from .fractions import SUM_TOLERANCE, check_fractions, check_numeric_table, check_whole_rows, unit_problem
from .genes import MOSTLY_SHARED, check_shared_genes
from .groups import check_groups, check_hierarchy
from .labels import check_cell_type_names, check_labels, check_spellings
from .names import check_key_added, check_names
from .paired import UNKNOWN_SIZES, cell_sizes_known, check_cell_sizes, check_paired
from .problems import Problems, examples
from .remembered import remember_values
from .training import check_training_samples
