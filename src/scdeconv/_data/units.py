"""The unit of expression, as its values show it."""

from __future__ import annotations

import numpy as np

from .matrix import Matrix, is_integer

COUNTS, TPM = "counts", "TPM"


def unit_of(expression: Matrix) -> str:
    """Return the unit that bulk of all genes seems to be in."""
    if is_integer(expression):
        return COUNTS
    totals = np.asarray(expression.sum(axis=1))
    return TPM if ((totals >= 0.3e6) & (totals <= 1.05e6)).all() else "estimated counts (not whole numbers)"
