"""Prediction intervals of estimates and of sums of cell types, from out-of-fold errors or resampled training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import examples
from scdeconv._data.warnings import warn
from scdeconv._stats.conformal import spread_of
from scdeconv._stats.resampling import resampled_intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scdeconv._stats.conformal import HeldOut
    from scdeconv._stats.known_parts import KnownParts

    from ._state import Estimate


def interval_bounds(
    held_out: HeldOut | None, estimate: Estimate, rows: np.ndarray, coverage: float, parts: KnownParts, of: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds of sums of cell types.

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
    parts
        Known parts of all samples. Their own intervals are normal; those of the other types are from the errors of
        out-of-fold predictions with the same known parts, within what exactly known values leave.
    of
        Whether a cell type belongs to a sum (0 or 1), cell types × sums. The identity matrix: bounds of the cell types.

    Returns
    -------
    Samples × sums. Training samples: from the errors of the other donors; NaN if these are too few. Without held-out
    donors: from the resamples of the estimate.
    """
    lower, upper, is_known = parts.bounds(estimate.fractions @ of, of, coverage)
    if held_out is None:
        if estimate.resamples is None:
            msg = (
                "Expected a model with held-out donors, found one without. Train a method on at least 4 paired donors to "
                "get prediction intervals, or use method='robust_nnls', which has intervals without pairs."
            )
            raise ValueError(msg)
        rescale = parts.like(estimate.fractions).rescale if parts.known.any() else np.asarray
        resamples = np.stack([rescale(each) for each in estimate.resamples])
        bounds = resampled_intervals(estimate.fractions @ of, resamples @ of, coverage)
        return parts.limit(np.where(is_known, lower, bounds[0]), np.where(is_known, upper, bounds[1]), of)
    spread = np.array(np.broadcast_to(estimate.sums(of).spread, lower.shape))
    # training samples have the spread of their out-of-fold predictions
    out_of_fold = np.broadcast_to(spread_of(held_out.sums(of).members), (len(held_out.donors), of.shape[1]))
    spread[rows >= 0] = out_of_fold[rows[rows >= 0]]
    donors = np.where(rows >= 0, held_out.donors[rows], None)
    for samples in parts.patterns():
        sums = of[:, ~is_known[samples[0]]]
        if not sums.size:
            continue
        like = parts.take(samples).given(held_out).sums(sums)
        for donor in pd.unique(donors[samples]):
            mine = samples[donors[samples] == donor]
            free = np.ix_(mine, ~is_known[mine[0]])
            others = like if donor is None else like.without(str(donor))
            if donor is None or others.widest_coverage() >= coverage:
                lower[free], upper[free] = others.intervals(estimate.fractions[mine] @ sums, coverage, spread[free])
    return parts.limit(lower, upper, of)


def sum_tables(
    groups: Mapping[str, Sequence[str]],
    found: Mapping[str, pd.DataFrame],
    estimate: Estimate,
    held_out: HeldOut | None,
    rows: np.ndarray,
    coverage: float | None,
    parts: KnownParts,
) -> dict[str, pd.DataFrame]:
    """Return sums of cell types, and their intervals from the errors of the sums.

    Parameters
    ----------
    groups
        Cell types of each sum.
    found
        Tables of the samples, with ``fractions``.
    estimate, held_out, rows, coverage, parts
        As for :func:`interval_bounds`. Without coverage there are no intervals.

    Returns
    -------
    Tables samples × groups: ``by_level`` and, with coverage, ``by_level_lower`` and ``by_level_upper``.
    """
    samples, cell_types = found["fractions"].axes
    of = np.column_stack([cell_types.isin(members) for members in groups.values()]).astype(float)
    tables = {"by_level": estimate.sums(of).fractions}
    if coverage is not None:
        lower, upper = interval_bounds(held_out, estimate, rows, coverage, parts, of)
        tables |= {"by_level_lower": lower, "by_level_upper": upper}
    return {name: pd.DataFrame(table, samples, list(groups)) for name, table in tables.items()}


def warn_of_few_donors(samples: pd.Index, coverage: float) -> None:
    """Warn about training samples whose interval is NaN because the other donors are too few."""
    if len(samples):
        warn(
            f"Expected a lower coverage than {coverage:g} for training samples: their intervals are from the errors of "
            f"the other donors, which are too few. The bounds of {len(samples)} samples are NaN: {examples(samples)}. "
            "Use a lower coverage or pair more donors."
        )
