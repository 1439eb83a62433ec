"""Numbers and arguments as text."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSING = "\N{EN DASH}"


def number(value: Any) -> str:
    """Return a number with three decimals, and a whole number as it is."""
    if pd.isna(value):
        return MISSING
    # z: no sign before a rounded zero
    return str(value) if isinstance(value, Integral) else f"{value:z.3f}"


def p_value(value: float) -> str:
    """Return a p value with two digits."""
    return MISSING if pd.isna(value) else f"{value:.2g}"


def listed(arguments: Mapping[str, Any]) -> str:
    """Return arguments with their values."""
    return ", ".join(f"{name} = {value}" for name, value in arguments.items())
