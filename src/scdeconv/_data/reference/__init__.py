"""Fractions, profiles and pseudobulk computed from single cells."""

from __future__ import annotations

from .averages import average_cells
from .reference import Reference, make_profiles, make_pseudobulk, mean_profiles
from .sizes import restore_cell_sizes
from .states import CellStates
from .sums import count_cells, expect_cells, indicator, membership, round_counts, sum_cells, sum_pairs, sum_shares
