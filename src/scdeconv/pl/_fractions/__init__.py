"""Bars, heat map and boxes of fractions."""

from __future__ import annotations

from .fractions import fractions
