"""DeMixSC: genes that differ between bulk and pseudobulk of the same samples, and weighted least squares."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control, ttest_rel

from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import solve_weighted
from scdeconv._stats.rounding import without_rounding

# sum of each sample; the constant of the weights is relative to it. Values of this section: defaults of DeMixSC
SCALE = 1e5
# constant of the weights 1 / (residual^2 + fitted^2 + constant)
WEIGHT_CONSTANT = 2.0
MAX_FDR, MIN_LOG2_CHANGE = 0.05, 0.75
# maximum number of discrepant genes, those with the highest expression
MAX_GENES = 5000
# convergence: sum of absolute changes of the fractions per cell type
TOLERANCE, MAX_ITERATIONS = 1e-3, 2000


def find_discrepant_genes(bulk: np.ndarray, pseudobulk: np.ndarray) -> np.ndarray:
    """Return the genes whose mean differs between bulk and pseudobulk, by paired t-tests.

    Parameters
    ----------
    bulk, pseudobulk
        The same samples × genes, normalised.

    Returns
    -------
    Mask of the genes with a false discovery rate of at most 5 % and an absolute log2 change of at least 0.75; the 5,000
    with the highest mean if there are more.
    """
    first, second = SCALE * to_shares(bulk), SCALE * to_shares(pseudobulk)
    difference = without_rounding(first - second, np.maximum(first, second))
    tested = np.ptp(difference, axis=0) > 0
    rate = np.ones(bulk.shape[1])
    if tested.any():
        rate[tested] = false_discovery_control(ttest_rel(first[:, tested], second[:, tested]).pvalue)
    means = first.mean(axis=0), second.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.log2(means[0] / means[1]))
    found = np.flatnonzero((rate <= MAX_FDR) & (change >= MIN_LOG2_CHANGE))
    order = np.argsort(-(means[0] + means[1])[found], kind="stable")
    mask = np.zeros(bulk.shape[1], dtype=bool)
    mask[found[order[:MAX_GENES]]] = True
    return mask


def solve_discrepancy_weighted(
    signature: np.ndarray, bulk: np.ndarray, *, weighted_residuals: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Solve by non-negative least squares with weights ``1 / (residual^2 + fitted^2 + 2)``.

    The iteration starts at equal weights. It ends when the fractions change by less than 0.001 per cell type in sum, or
    after 2,000 iterations.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes, of sum ``SCALE``.
    weighted_residuals
        Compute the weights from the weighted residuals and fitted values of the previous iteration, as the original.

    Returns
    -------
    weights
        Weights of the cell types, samples × cell types, not normalised.
    converged
        Whether the iteration of a sample has converged.
    """
    root = np.ones_like(bulk)
    solution, fractions = np.zeros((len(bulk), len(signature))), np.full((len(bulk), len(signature)), np.inf)
    active = np.arange(len(bulk))
    # the first solution has equal weights; the original compares the second solution with the third
    for iteration in range(MAX_ITERATIONS + 2):
        solution[active] = solve_weighted(signature, bulk[active], root[active] ** 2)
        new, fitted = to_shares(solution[active]), solution[active] @ signature
        scale = root[active] if weighted_residuals else 1.0
        squares = ((bulk[active] - fitted) * scale) ** 2 + (fitted * scale) ** 2
        root[active] = 1 / np.sqrt(squares + WEIGHT_CONSTANT)
        change = np.abs(new - fractions[active]).sum(axis=1)
        fractions[active] = new
        moving = (change >= TOLERANCE * len(signature)) | (iteration < 2)
        active = active[moving]
        if not len(active):
            break
    return solution, ~np.isin(np.arange(len(bulk)), active)
