"""Simulated cohorts with known parameters and loaders of public paired data sets."""

from __future__ import annotations

from ._blood_arrays import whole_blood_arrays
from ._census import census_reference
from ._cohort import paired_cohort
from ._demixsc import ovarian_pairs, retina_pairs
from ._mixology import cell_line_mixtures
from ._platform_shifts import platform_shift_prior

__all__ = [
    "census_reference",
    "cell_line_mixtures",
    "ovarian_pairs",
    "paired_cohort",
    "platform_shift_prior",
    "retina_pairs",
    "whole_blood_arrays",
]
