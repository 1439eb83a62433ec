"""Preprocessing: pairing, calibration, augmentation, simulation and gene selection."""

from __future__ import annotations

from scdeconv._stats.calibration.cell_sizes import SIZE_SD
from scdeconv._stats.calibration.platform_calibration import BROAD
from scdeconv.io import read_signature

from ._augment import augment
from ._calibrate import calibrate, centred_log_ratio, fit_calibration
from ._calibration import Calibration
from ._combine_references import combine_references
from ._constraints import Constraints, constraints, read_markers
from ._hold_out import hold_out, keep_genes
from ._join import join
from ._merge_reference import merge_pairs, merge_profiles
from ._pair import FEWEST_PAIRS, pair, paired_donors
from ._select_genes import select_genes
from ._signature import signature
from ._simulate import simulate
from ._use_signature import use_signature

# other imports above are internal
__all__ = [
    "Calibration",
    "Constraints",
    "augment",
    "calibrate",
    "centred_log_ratio",
    "combine_references",
    "constraints",
    "hold_out",
    "pair",
    "paired_donors",
    "read_signature",
    "select_genes",
    "signature",
    "simulate",
]
