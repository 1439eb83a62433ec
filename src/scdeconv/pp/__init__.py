"""Preparing data: pairing, calibration, augmentation, simulation, gene selection."""

from __future__ import annotations

from ._augment import augment
from ._calibrate import SIZE_SD, calibrate, centred_log_ratio, fit_calibration
from ._calibrated_model import CalibratedModel
from ._calibration import BROAD, Calibration
from ._constraint_inputs import read_markers
from ._constraints import Constraints
from ._hold_out import hold_out
from ._make_constraints import constraints
from ._pair import FEWEST_PAIRS, make_mudata, pair, paired_donors
from ._read_signature import read_signature
from ._reference import Reference, count_cells, indicator, membership, sum_pairs
from ._select_genes import GENES_PER_TYPE, best_per_type, marker_ratio, select_genes
from ._signature import signature
from ._simulate import simulate
from ._use_signature import use_signature

__all__ = [
    "BROAD",
    "FEWEST_PAIRS",
    "GENES_PER_TYPE",
    "SIZE_SD",
    "Calibration",
    "CalibratedModel",
    "Constraints",
    "Reference",
    "augment",
    "best_per_type",
    "calibrate",
    "centred_log_ratio",
    "constraints",
    "count_cells",
    "fit_calibration",
    "hold_out",
    "indicator",
    "make_mudata",
    "marker_ratio",
    "membership",
    "pair",
    "paired_donors",
    "read_markers",
    "read_signature",
    "select_genes",
    "signature",
    "simulate",
    "sum_pairs",
    "use_signature",
]
