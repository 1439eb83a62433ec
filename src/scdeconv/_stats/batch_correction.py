"""Batch corrections of CIBERSORTx between bulk and reference (Newman et al. 2019, Nature Biotechnology 37:773)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from .least_squares import solve_nonnegative
from .rounding import deviations_from_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

# relative change at which the ComBat iteration stops, default of the R package sva
COMBAT_TOLERANCE = 1e-4
# minimum number of bulk samples of a batch correction (set by hand)
MIN_SAMPLES = 3
MILLION = 1e6


def combat(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove the batch effect between two batches with parametric ComBat on log2(x + 1).

    Both batches move to the mean over all samples. Genes that are constant within a batch are not changed, as in the R
    package sva, because their variance cannot be estimated.

    Parameters
    ----------
    first, second
        Samples × genes, linear scale, same unit (counts per million).

    Returns
    -------
    Both batches, corrected, on the linear scale; negative values are set to 0.
    """
    both = np.vstack([first, second])
    usable = deviations_from_mean(first).any(axis=0) & deviations_from_mean(second).any(axis=0)
    if usable.sum() > 1:
        logs = np.log2(both[:, usable] + 1)
        both[:, usable] = np.maximum(2 ** _remove_batches(logs, [slice(len(first)), slice(len(first), None)]) - 1, 0)
    return both[: len(first)], both[len(first) :]


def _remove_batches(values: np.ndarray, batches: Sequence[slice]) -> np.ndarray:
    """Return values (samples × genes) with the location and scale of each batch adjusted to those of all samples."""
    grand, corrected = values.mean(axis=0), np.empty_like(values)
    within = [values[rows] - values[rows].mean(axis=0) for rows in batches]
    pooled = np.sqrt((np.concatenate(within) ** 2).mean(axis=0))
    for rows in batches:
        standard = (values[rows] - grand) / pooled
        location, variance = _shrink_batch(standard)
        corrected[rows] = (standard - location) / np.sqrt(variance) * pooled + grand
    return corrected


def _shrink_batch(standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return empirical Bayes estimates of location and variance of each gene in a batch (Johnson et al. 2007).

    The locations have a normal prior and the variances an inverse gamma prior, both fitted by moments. The posterior
    means are updated alternately until convergence.
    """
    n_samples = len(standard)
    observed = standard.mean(axis=0)
    location, variance = observed, standard.var(axis=0, ddof=1)
    centre, spread = location.mean(), location.var()
    mean, of_variances = variance.mean(), variance.var(ddof=1)
    shape = (2 * of_variances + mean**2) / of_variances
    scale = (mean * of_variances + mean**3) / of_variances
    change = np.inf
    while change > COMBAT_TOLERANCE:
        before = location, variance
        location = (n_samples * spread * observed + variance * centre) / (n_samples * spread + variance)
        squares = ((standard - location) ** 2).sum(axis=0)
        variance = (squares / 2 + scale) / (n_samples / 2 + shape - 1)
        change = max(
            float(np.max(np.abs(new - old) / old)) for new, old in zip((location, variance), before, strict=True)
        )
    return location, variance


def correct_mixtures(mixtures: np.ndarray, artificial: np.ndarray) -> np.ndarray:
    """Correct mixtures towards the mixtures predicted by their first estimate (B-mode).

    Parameters
    ----------
    mixtures
        Samples × genes, linear scale, any unit.
    artificial
        Estimated fractions times profiles, samples × genes, in counts per million.

    Returns
    -------
    Corrected mixtures in the unit of ``artificial``. As in the original, ComBat also moves the artificial mixtures, so
    about half of each gene's log shift remains.

    Raises
    ------
    ValueError
        If there are fewer than 3 samples.
    """
    _check_number(len(mixtures))
    totals = np.maximum(mixtures.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return combat(mixtures * (artificial.sum(axis=1, keepdims=True) / totals), artificial)[0]


def draw_artificial_mixtures(
    types: np.ndarray, n_types: int, n_mixtures: int, n_cells: int, rng: np.random.Generator
) -> tuple[np.ndarray, sp.csr_matrix]:
    """Draw artificial mixtures of cells with random fractions.

    Fractions are normal around each type's share of the cells, with a standard deviation of twice this share. Negative
    fractions are set to 0, then rows are normalised.

    Parameters
    ----------
    types
        Cell-type code of each cell, from 0.
    n_types
        Number of cell types. Types without cells have fraction 0.
    n_mixtures
        Number of mixtures.
    n_cells
        Approximate number of cells per mixture, drawn with replacement.
    rng
        Random number generator.

    Returns
    -------
    fractions
        Fractions of the drawn cells, mixtures × types.
    weights
        Averaging weights of the cells, mixtures × cells.
    """
    share = np.bincount(types, minlength=n_types) / len(types)
    fractions = np.maximum(rng.normal(share, 2 * share, (n_mixtures, n_types)), 0)
    fractions[~fractions.any(axis=1)] = share
    counts = np.rint(n_cells * fractions / fractions.sum(axis=1, keepdims=True)).astype(int)
    drawn = [rng.choice(np.flatnonzero(types == k), n) for k, n in enumerate(counts.sum(axis=0)) if n]
    rows = np.concatenate([np.repeat(np.arange(n_mixtures), column) for column in counts.T])
    size = counts.sum(axis=1)
    weights = sp.csr_matrix((1 / size[rows], (rows, np.concatenate(drawn))), shape=(n_mixtures, len(types)))
    return counts / size[:, None], weights


def correct_signature(mixtures: np.ndarray, artificial: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Correct the profiles towards the platform of the mixtures (S-mode).

    Artificial mixtures of reference cells are corrected together with the real mixtures. Non-negative least squares of
    the corrected artificial mixtures on their fractions then gives the profile of each gene.

    Parameters
    ----------
    mixtures
        Samples × genes, counts per million.
    artificial
        Artificial mixtures × genes, counts per million.
    fractions
        Fractions of the artificial mixtures, mixtures × cell types.

    Returns
    -------
    Signature, cell types × genes.

    Raises
    ------
    ValueError
        If there are fewer than 3 samples.
    """
    _check_number(len(mixtures))
    corrected = combat(mixtures, artificial)[1]
    return solve_nonnegative(fractions.T @ fractions, corrected.T @ fractions).T


def _check_number(n_samples: int) -> None:
    if n_samples < MIN_SAMPLES:
        msg = (
            f"Expected at least {MIN_SAMPLES} samples for batch correction, found {n_samples}. Pass all samples of a "
            "cohort together, or set batch_correction=None."
        )
        raise ValueError(msg)
