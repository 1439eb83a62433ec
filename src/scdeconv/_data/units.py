"""Detection of the expression unit."""

from __future__ import annotations

import numpy as np

from .matrix import Matrix, is_integer

COUNTS, TPM = "counts", "TPM"


def unit_of(expression: Matrix) -> str:
    """Return the likely unit of bulk expression over all genes: counts, TPM or estimated counts."""
    if is_integer(expression):
        return COUNTS
    totals = np.asarray(expression.sum(axis=1))
    return TPM if ((totals >= 0.3e6) & (totals <= 1.05e6)).all() else "estimated counts (not whole numbers)"
