"""Samples without reads or with few reads in the genes of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from scdeconv._data.checks import examples
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

# reads relative to the median training sample below which a sample has few reads: its counting noise is more than three
# times that of the training samples
FEW_READS = 0.1
# columns of the quality that are True for samples without reads
FLAGS = ("outside", "few_reads", "wide_intervals")


def with_reads(totals: np.ndarray, names: pd.Index) -> np.ndarray:
    """Return a mask of the samples with reads in the genes of the model; warn about the others."""
    usable = np.asarray(totals > 0)
    if not usable.all():
        warn(
            f"{int((~usable).sum())} of {len(usable)} samples have no reads in the genes of the model, so their "
            f"fractions are NaN: {examples(names[~usable])}."
        )
    return usable


def warn_of_left_out(names: pd.Index) -> None:
    """Warn about samples with measured fractions that are left out of the training."""
    if len(names):
        warn(
            f"{len(names)} samples with measured fractions have no reads in the genes of the model and are no pairs: "
            f"{examples(names)}."
        )


def to_all_rows(values: np.ndarray | float, usable: np.ndarray) -> np.ndarray:
    """Return values of the usable samples as rows of all samples; the other rows are NaN. One value is for all rows."""
    values = np.asarray(values)
    if not values.ndim:
        return values
    rows = np.full((len(usable), *values.shape[1:]), np.nan)
    rows[usable] = values
    return rows


def fractions_of_all(fractions: np.ndarray, usable: np.ndarray, names: pd.Index) -> np.ndarray:
    """Return the fractions of all samples; NaN, and a warning, for samples without a finite estimate."""
    fractions = to_all_rows(fractions, usable)
    failed = usable & ~np.isfinite(fractions).all(axis=1)
    if failed.any():
        fractions[failed] = np.nan
        warn(
            f"The method found no composition of {int(failed.sum())} samples, so their fractions are NaN: "
            f"{examples(names[failed])}. Compare their expression with the training bulk."
        )
    return fractions


def flag_few_reads(
    quality: Mapping[str, Any] | pd.DataFrame | None, expression: np.ndarray, library_size: float | None
) -> dict[str, Any] | None:
    """Return the measures with ``few_reads``: less than 10 % of the reads of the median training sample."""
    measures = {} if quality is None else {str(name): np.asarray(values) for name, values in quality.items()}
    if library_size is not None:
        measures["few_reads"] = np.nansum(expression, axis=1) < FEW_READS * library_size
    return measures or None


def flag_wide_intervals(
    quality: Mapping[str, Any] | None, widths: np.ndarray, cohort_sd: np.ndarray | None, coverage: float
) -> dict[str, Any]:
    """Return the measures with ``wide_intervals``: mean width above that of the compositions of the training bulk.

    A sample with such intervals is known no better than by the mean composition. The width of the training bulk is that
    of a normal distribution with SD ``cohort_sd``; no sample is flagged if it is NaN.
    """
    typical = np.nan if cohort_sd is None else 2 * norm.ppf((1 + coverage) / 2) * cohort_sd
    return {**(quality or {}), "wide_intervals": widths.mean(axis=1) > np.minimum(typical, 1).mean()}


def quality_of_all(quality: Mapping[str, Any], usable: np.ndarray, names: pd.Index) -> pd.DataFrame:
    """Return the quality of all samples; without reads it is NaN, and the flags are True."""
    table = pd.DataFrame(quality, index=names[usable])
    if usable.all():
        return table
    rows = {
        name: column.reindex(names, fill_value=name in FLAGS) if column.dtype == bool else column
        for name, column in table.items()
    }
    return pd.DataFrame(rows, index=names)
