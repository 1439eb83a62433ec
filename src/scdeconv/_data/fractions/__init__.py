"""Tables of fractions: alignment of measured and predicted fractions, sums of cell types, and parts of the metrics."""

from __future__ import annotations

from .align import Table, align_compositions, align_distance, align_fractions, align_tables
from .colors import store_colors, stored_colors, written_colors, written_names
from .complete import complete_by, complete_fractions, has_measured
from .given import Rest, cell_probabilities, given_fractions
from .known import align_known
from .metric_parts import by_column, documented
from .tables import (
    compared_tables,
    get_fractions,
    level_sums,
    levels_of,
    measured_shares,
    merge_levels,
    scored_tables,
    sum_types,
)
