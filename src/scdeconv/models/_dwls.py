"""DWLS: least squares on relative errors, as far as the weights stay stable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._nonnegative import solve_weighted
from ._robust_regression import normal_equations, solve_least_squares

if TYPE_CHECKING:
    from collections.abc import Callable

# a weight is at most 2^0, 2^1, ... times the smallest; the last one as in Rectangle, beyond all that data support
MOST_CAPS = 40
N_HALVES = 100
# share of the new solution in the running mean
STEP = 1 / 5
# change of the solution (sum of absolute differences) that ends the iteration, in percent of its sum
TOLERANCE = 0.01
MAX_ITERATIONS = 1000


def relative_weights(signature: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """Return ``1 / fitted^2`` over the smallest of each sample (samples × genes), infinite where nothing is fitted."""
    fitted = solution @ signature
    with np.errstate(divide="ignore"):
        return (fitted.max(axis=1, keepdims=True) / fitted) ** 2


def choose_caps(signature: np.ndarray, bulk: np.ndarray, start: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Choose how far the weights of genes may differ: so far that solutions from halves of the genes vary least.

    Each sample is solved by weighted least squares (of either sign) with 100 random halves of the genes and weights of up
    to 1, 2, 4, ... times the smallest. Solutions are brought to the sum of ``start``; the cap is taken whose variance
    between halves is smallest, on average over cell types.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    start
        Solutions that give the weights, samples × cell types; none is all zero.
    seed
        Of the halves, which are the same for all samples and caps.

    Returns
    -------
    Largest weight over the smallest, length samples.
    """
    rng, n_genes = np.random.default_rng(seed), signature.shape[1]
    halves = [rng.permutation(n_genes)[: n_genes // 2] for _ in range(N_HALVES)]
    weights = relative_weights(signature, start)
    largest = np.where(np.isinf(weights), 1, weights).max(axis=1)
    n_caps = np.clip(np.ceil(np.log2(largest)), 1, MOST_CAPS).astype(int)
    variance = np.full((n_caps.max(initial=1), len(bulk)), np.inf)
    for power in range(len(variance)):
        rows = np.flatnonzero(n_caps > power)
        capped, total = np.minimum(weights[rows], 2.0**power), start[rows].sum(axis=1, keepdims=True)
        solutions = []
        for half in halves:
            equations = normal_equations(signature[:, half], bulk[rows][:, half], capped[:, half])
            solution = solve_least_squares(*equations)
            solutions.append(solution * total / solution.sum(axis=1, keepdims=True))
        variance[power, rows] = np.var(solutions, axis=0, ddof=1).mean(axis=1)
    return 2.0 ** variance.argmin(axis=0)


def solve_dwls(
    signature: np.ndarray,
    bulk: np.ndarray,
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Solve by dampened weighted least squares (Tsoucas et al. 2019).

    A gene fitted as m has the weight ``1 / m^2``, capped as :func:`choose_caps` finds. Weights and solution are found in
    turn, the solution as a running mean, ``(new + 4 old) / 5``.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    solve
        Solves samples (their positions) with weights (samples × genes); ``x >= 0`` is the only constraint by default.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    if solve is None:

        def solve(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
            return solve_weighted(signature, bulk[rows], weights)

    solution = solve(np.arange(len(bulk)), np.ones_like(bulk))
    active = np.flatnonzero((solution @ signature).any(axis=1))
    caps = choose_caps(signature, bulk[active], solution[active])[:, None]
    unit = solution[active].sum(axis=1) / 100
    for _ in range(MAX_ITERATIONS):
        if not len(active):
            break
        old = solution[active]
        new = solve(active, np.minimum(relative_weights(signature, old), caps))
        solution[active] = old + STEP * (new - old)
        moving = STEP * np.abs(new - old).sum(axis=1) > TOLERANCE * unit
        active, caps, unit = active[moving], caps[moving], unit[moving]
    return solution
