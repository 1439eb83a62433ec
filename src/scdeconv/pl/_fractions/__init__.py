"""Bars, heat map and boxes of fractions."""

from __future__ import annotations

from .columns import read_groups
from .fractions import fractions
