"""Mean profile of each cell type, by regression of bulk on fractions."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.least_squares import solve_nonnegative


def regress_on_fractions(fractions: np.ndarray, bulk: np.ndarray) -> np.ndarray:
    """Regress the bulk expression of each gene on the fractions by non-negative least squares.

    Parameters
    ----------
    fractions
        Samples × cell types.
    bulk
        Samples × genes.

    Returns
    -------
    Coefficients, cell types × genes.
    """
    return solve_nonnegative(fractions.T @ fractions, bulk.T @ fractions).T
