"""Prediction intervals of estimates and of sums of cell types, from out-of-fold errors or resampled training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import examples
from scdeconv._data.warnings import warn
from scdeconv._stats.resampling import resampled_intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scdeconv._stats.conformal import HeldOut

    from ._state import Estimate

# methods with intervals from resampled training data
WITHOUT_PAIRS = ("robust_nnls",)


def interval_bounds(
    held_out: HeldOut | None, estimate: Estimate, rows: np.ndarray, coverage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds of the fractions of samples.

    Parameters
    ----------
    held_out
        Out-of-fold predictions of the training donors.
    estimate
        Estimates of all samples, with out-of-fold predictions of the training samples.
    rows
        Row in ``held_out`` of each training sample; -1 for other samples.
    coverage
        Coverage of the intervals.

    Returns
    -------
    Samples × cell types. Training samples: from the errors of the other donors; NaN if these are too few. Without
    held-out donors: from the resamples of the estimate.
    """
    if held_out is None and estimate.resamples is not None:
        return resampled_intervals(estimate.fractions, estimate.resamples, coverage)
    if held_out is None:
        msg = (
            "Expected a model with held-out donors, found one without. Train a method on at least 4 paired donors to get "
            f"prediction intervals, or one that has intervals without pairs: {', '.join(map(repr, WITHOUT_PAIRS))}."
        )
        raise ValueError(msg)
    lower, upper = held_out.intervals(estimate.fractions, coverage, estimate.spread)
    donors = np.where(rows >= 0, held_out.donors[rows], None)
    for donor in np.unique(held_out.donors[rows[rows >= 0]]):
        mine, others = donors == donor, held_out.without(donor)
        lower[mine] = upper[mine] = np.nan
        if others.widest_coverage() >= coverage:
            lower[mine], upper[mine] = others.intervals(held_out.predicted[rows[mine]], coverage)
    return lower, upper


def sum_tables(
    groups: Mapping[str, Sequence[str]],
    found: Mapping[str, pd.DataFrame],
    estimate: Estimate,
    held_out: HeldOut | None,
    rows: np.ndarray,
    coverage: float | None,
) -> dict[str, pd.DataFrame]:
    """Return sums of cell types, and their intervals from the errors of the sums.

    Parameters
    ----------
    groups
        Cell types of each sum.
    found
        Tables of the samples, with ``fractions``.
    estimate, held_out, rows, coverage
        As for :func:`interval_bounds`. Without coverage there are no intervals.

    Returns
    -------
    Tables samples × groups: ``by_level`` and, with coverage, ``by_level_lower`` and ``by_level_upper``.
    """
    samples, cell_types = found["fractions"].axes
    of = np.column_stack([cell_types.isin(members) for members in groups.values()]).astype(float)
    sums = estimate.sums(of)
    tables = {"by_level": sums.fractions}
    if coverage is not None:
        errors = None if held_out is None else held_out.sums(of)
        tables["by_level_lower"], tables["by_level_upper"] = interval_bounds(errors, sums, rows, coverage)
    return {name: pd.DataFrame(table, samples, list(groups)) for name, table in tables.items()}


def warn_of_few_donors(samples: pd.Index, coverage: float) -> None:
    """Warn about training samples whose interval is NaN because the other donors are too few."""
    if len(samples):
        warn(
            f"Expected a lower coverage than {coverage:g} for training samples: their intervals are from the errors of "
            f"the other donors, which are too few. The bounds of {len(samples)} samples are NaN: {examples(samples)}. "
            "Use a lower coverage or pair more donors."
        )
