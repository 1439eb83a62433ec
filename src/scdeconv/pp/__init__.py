"""Preparing data: pairing, calibration, augmentation, simulation, gene selection."""

from __future__ import annotations

from ._augment import augment
from ._calibrate import calibrate, centred_log_ratio, fit_calibration
from ._calibration import BROAD, CalibratedModel, Calibration
from ._hold_out import hold_out
from ._pair import FEWEST_PAIRS, make_mudata, pair, paired_donors
from ._reference import Reference
from ._select_genes import GENES_PER_TYPE, select_genes
from ._simulate import simulate

__all__ = [
    "BROAD",
    "FEWEST_PAIRS",
    "GENES_PER_TYPE",
    "Calibration",
    "CalibratedModel",
    "Reference",
    "augment",
    "calibrate",
    "centred_log_ratio",
    "fit_calibration",
    "hold_out",
    "make_mudata",
    "pair",
    "paired_donors",
    "select_genes",
    "simulate",
]
