"""Preparing data: pairing, augmentation, simulation, gene selection."""

from __future__ import annotations

from ._augment import augment
from ._hold_out import hold_out
from ._pair import FEWEST_PAIRS, make_mudata, pair, paired_donors
from ._select_genes import select_genes
from ._simulate import simulate

__all__ = ["FEWEST_PAIRS", "augment", "hold_out", "make_mudata", "pair", "paired_donors", "select_genes", "simulate"]
