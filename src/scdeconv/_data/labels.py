"""Names and labels as text, the same on every release of pandas."""

from __future__ import annotations

from typing import TypeVar

import pandas as pd

Values = TypeVar("Values", pd.Series, pd.Index)


def as_text(values: Values) -> Values:
    """Return values as text. Missing ones become ``"nan"``, which pandas 3 would leave missing and pandas 2 not."""
    return values.astype(object).where(values.notna(), "nan").astype(str)
