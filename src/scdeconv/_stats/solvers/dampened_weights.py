"""Dampened weighted least squares (DWLS): choice of the weight cap and iterative solution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._process import one_blas_thread
from scdeconv._stats.least_squares import solve_least_squares, solve_weighted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# number of candidate caps 2^0, 2^1, ... of the weights relative to the smallest weight, as in Rectangle
MAX_CAPS = 40
# first and maximum number of random halves of the genes; the number is doubled while several caps remain.
# Chosen on tests/data/parity_small: over 10 seeds, fractions differed by up to 0.151 (all genes) and 0.037 (signature)
# with 100 halves, by 0.083 and 0.033 with 1,000, and by 0.0065 and 0.0115 with up to 6,400 (2.3 and 1.0 times the time)
FEWEST_HALVES, MOST_HALVES = 100, 6400
# maximum z-score of the paired difference from the smallest variance: caps above it are dropped (set by hand)
MAX_Z = 3.0
# the comparison of caps stops below this difference of their fractions (set by hand)
SAME_FRACTIONS = 0.002
# values of the half indicator per matrix product: bounds the memory (set by hand)
VALUES_PER_CHUNK = 2**21
# weight of the new solution in the running mean (DWLS: (new + 4 old) / 5)
NEW_SOLUTION_SHARE = 1 / 5
# sum of absolute changes of the solution at convergence, in percent of its sum
TOLERANCE = 0.01
MAX_ITERATIONS = 1000


def relative_weights(signature: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """Return ``1 / fitted^2`` relative to the smallest weight, samples × genes; infinite for a fitted value of 0."""
    fitted = solution @ signature
    with np.errstate(divide="ignore"):
        return (fitted.max(axis=1, keepdims=True, initial=0) / fitted) ** 2


class Halves:
    """Random halves of the genes in batches; all iterations use the same halves, drawn on first use.

    Parameters
    ----------
    n_genes
        Number of genes.
    seed
        Seed of the random number generator.
    """

    def __init__(self, n_genes: int, seed: int) -> None:
        self._n_genes, self._rng = n_genes, np.random.default_rng(seed)
        self._batches: list[np.ndarray] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield batches of halves × genes (bool); the total number doubles with each batch."""
        position = n_halves = 0
        while n_halves < MOST_HALVES:
            if position == len(self._batches):
                self._batches.append(self._draw(min(n_halves or FEWEST_HALVES, MOST_HALVES - n_halves)))
            yield self._batches[position]
            n_halves += len(self._batches[position])
            position += 1

    def _draw(self, n_halves: int) -> np.ndarray:
        halves = np.zeros((n_halves, self._n_genes), dtype=bool)
        for half in halves:
            half[self._rng.permutation(self._n_genes)[: self._n_genes // 2]] = True
        return halves


def solve_halves(signature: np.ndarray, sample: np.ndarray, weights: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Solve one sample by unconstrained weighted least squares on each half of the genes.

    Parameters
    ----------
    signature
        Cell types × genes.
    sample, weights
        Length genes.
    halves
        Halves × genes (bool).

    Returns
    -------
    Normalised solutions, halves × cell types; not finite if the sum of a solution is 0.
    """
    n_types, n_genes = signature.shape
    rows, columns = np.triu_indices(n_types)
    products = np.vstack([signature[rows] * signature[columns] * weights, signature * (weights * sample)]).T
    size = max(1, VALUES_PER_CHUNK // n_genes)
    sums = np.vstack([halves[i : i + size].astype(float) @ products for i in range(0, len(halves), size)])
    gram = np.empty((len(halves), n_types, n_types))
    gram[:, rows, columns] = gram[:, columns, rows] = sums[:, : len(rows)]
    solutions = solve_least_squares(gram, sums[:, len(rows) :])
    with np.errstate(divide="ignore", invalid="ignore"):
        return solutions / solutions.sum(axis=1, keepdims=True)


def choose_cap(signature: np.ndarray, sample: np.ndarray, weights: np.ndarray, halves: Halves) -> int:
    """Return the exponent of the cap of one sample's weights (base 2), as in :func:`choose_caps`.

    Parameters
    ----------
    signature
        Cell types × genes.
    sample, weights
        Length genes. The smallest weight is 1, and weights may be infinite.
    halves
        Random halves of the genes.
    """
    largest = weights[np.isfinite(weights)].max(initial=1)
    n_caps = int(np.clip(np.ceil(np.log2(largest)), 1, MAX_CAPS))
    solutions: dict[int, list[np.ndarray]] = {power: [] for power in range(n_caps)}
    every_gene = np.ones((1, len(sample)), dtype=bool)
    fractions = [solve_halves(signature, sample, np.minimum(weights, 2.0**power), every_gene) for power in solutions]
    best = 0
    for batch in halves:
        if np.ptp([fractions[power] for power in solutions], axis=0).max() < SAME_FRACTIONS:
            break
        deviations = {}
        for power, found in solutions.items():
            found.append(solve_halves(signature, sample, np.minimum(weights, 2.0**power), batch))
            together = np.concatenate(found)
            # squared deviation averaged over cell types: its mean over halves is the variance
            deviations[power] = ((together - together.mean(axis=0)) ** 2).mean(axis=1)
        usable = {power: values for power, values in deviations.items() if np.isfinite(values).all()}
        if not usable:
            break
        best = min(usable, key=lambda power: usable[power].mean())
        differences = {power: values - usable[best] for power, values in usable.items()}
        solutions = {
            power: solutions[power]
            for power, values in differences.items()
            if values.mean() <= MAX_Z * values.std(ddof=1) / np.sqrt(len(values))
        }
    return best


def choose_caps(signature: np.ndarray, bulk: np.ndarray, start: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Choose the cap of the weights that minimises the variance of solutions between random halves of the genes.

    Each sample is solved by unconstrained weighted least squares on random halves of the genes, with weights capped at
    1, 2, 4, ... times the smallest weight. Solutions are normalised to sum to 1. The chosen cap has the smallest
    variance between halves, averaged over cell types. All caps are compared on 100 halves first. Caps that exceed the
    smallest variance by more than 3 standard errors of the paired difference are dropped. The number of halves is
    doubled until the fractions of the remaining caps differ by less than 0.002 or 6,400 halves are used.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    start
        Solutions from which the weights are computed, samples × cell types; no row is all zero.
    seed
        Seed of the halves. All samples and caps use the same halves.

    Returns
    -------
    Maximum weight relative to the smallest, length samples.
    """
    halves, weights = Halves(signature.shape[1], seed), relative_weights(signature, start)
    # small matrix products: the overhead of BLAS threads dominates
    with one_blas_thread():
        powers = [choose_cap(signature, *pair, halves) for pair in zip(bulk, weights, strict=True)]
    return 2.0 ** np.array(powers, dtype=int)


def solve_dwls(
    signature: np.ndarray,
    bulk: np.ndarray,
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Solve by dampened weighted least squares (Tsoucas et al. 2019).

    A gene with fitted value m has weight ``1 / m^2``, capped by :func:`choose_caps`. Weights and solution are updated
    alternately. The solution is a running mean, ``(new + 4 old) / 5``.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    solve
        Function of sample positions and weights (samples × genes) that returns the solutions. Default: weighted least
        squares with ``x >= 0``.

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
        solution[active] = old + NEW_SOLUTION_SHARE * (new - old)
        moving = NEW_SOLUTION_SHARE * np.abs(new - old).sum(axis=1) > TOLERANCE * unit
        active, caps, unit = active[moving], caps[moving], unit[moving]
    return solution
