"""Alignment of measured and predicted fractions by name, with checks; all comparisons pass here."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdeconv._data import keys
from scdeconv._data.checks import (
    SUM_TOLERANCE,
    Problems,
    check_numeric_table,
    examples,
    report_differences,
    unit_problem,
)
from scdeconv._data.labels import as_labels, as_text
from scdeconv._data.warnings import warn

Table: TypeAlias = ArrayLike | pd.DataFrame
TITLE = "The fractions cannot be compared"


def align_fractions(measured: Table, predicted: Table) -> tuple[NDArray, NDArray, pd.Index]:
    """Return both tables as checked float arrays in the order of `measured`, and the cell-type names."""
    if isinstance(measured, pd.DataFrame) and isinstance(predicted, pd.DataFrame):
        measured, predicted, _ = align_tables(measured, predicted)
        return measured.to_numpy(), predicted.to_numpy(), measured.columns
    problems, arrays = Problems(TITLE), {}
    for name, values in (("measured", measured), ("predicted", predicted)):
        try:
            arrays[name] = np.asarray(values, dtype=float)
        except (TypeError, ValueError):
            problems.add(f"Expected a table of numbers in {name}, found {type(values).__name__}. Pass fractions.")
    problems.raise_if_any()
    true, estimate = arrays.values()
    _check_shapes(problems, true, estimate)
    frame = next((x for x in (measured, predicted) if isinstance(x, pd.DataFrame)), pd.DataFrame(true))
    for name, values in arrays.items():
        _check_values(problems, pd.DataFrame(values, frame.index), name, truth=values is true)
    problems.raise_if_any()
    # two tables in the same other unit, such as scores, are compared as they are
    units = [unit_problem(values, name) for name, values in arrays.items()]
    if bool(units[0]) != bool(units[1]):
        problems.add(units[0] or units[1])
    problems.raise_if_any()
    return true, estimate, frame.columns


class Aligned(NamedTuple):
    """Measured and predicted fractions with the same samples and cell types."""

    measured: pd.DataFrame
    predicted: pd.DataFrame
    #: Whether rows were divided by their sum over the measured types.
    rescaled: bool


def align_tables(
    measured: pd.DataFrame, predicted: pd.DataFrame, names: tuple[str, str] = ("measured", "predicted")
) -> Aligned:
    """Return both tables with the same samples and cell types, in the order of ``measured``.

    All comparisons of measured and predicted fractions pass here. A type of one table is not 0 in the other one, except
    for "Unknown", the share that a method estimates beyond its reference: it is 0 in complete measurements.

    Parameters
    ----------
    measured, predicted
        Fractions, samples × cell types.
    names
        The tables in messages, as Python expressions.
    """
    problems = Problems(TITLE)
    for table, name in zip((measured, predicted), names, strict=True):
        check_numeric_table(problems, table, name)
    problems.raise_if_any()
    true, estimate = (_as_floats(table, other) for table, other in ((measured, predicted), (predicted, measured)))
    report_differences(problems, true.index, estimate.index, "samples", names)
    for table, name in zip((true, estimate), names, strict=True):
        _check_values(problems, table, name, truth=table is true)
        _check_sums(problems, table, name)
    true, whole = _with_unmeasured(true, estimate)
    types = true.columns
    if not whole:
        partial, other = (true, estimate) if keys.UNMEASURED in true else (estimate, true)
        side = names[0] if partial is true else names[1]
        types = partial.columns.drop(keys.UNMEASURED)
        other_types = other.columns if types.difference(other.columns).size else types
        report_differences(problems, *((types, other_types) if partial is true else (other_types, types)), names=names)
        types = types[types.isin(other.columns)] if partial is true else true.columns[true.columns.isin(types)]
    else:
        report_differences(problems, types, estimate.columns, names=names)
    problems.raise_if_any()
    if not estimate.index.equals(true.index):
        estimate = estimate.loc[true.index]
    true, estimate = true[types], estimate[types]
    _check_shapes(problems, true.to_numpy(), estimate.to_numpy())
    if whole:
        return Aligned(true, estimate, rescaled=False)
    sums = [table.sum(axis=1) for table in (true, estimate)]
    for total, name in zip(sums, names, strict=True):
        if not (total > 0).all():
            problems.add(
                f"Expected measured types in every row of {name}, found a sum of 0 over {examples(types, n=5)} in "
                f"{examples(total.index[~(total > 0)])}. Drop these rows."
            )
    problems.raise_if_any()
    warn(
        f"Expected complete measurements, found an unmeasured rest of {partial[keys.UNMEASURED].min():.0%} to "
        f"{partial[keys.UNMEASURED].max():.0%} in {side}. Its {len(types)} other types are compared after dividing each "
        "row of both tables by its sum over them."
    )
    return Aligned(true.div(sums[0], axis=0), estimate.div(sums[1], axis=0), rescaled=True)


def _as_floats(table: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the table with floats; names that differ from those of the other table become text."""
    table = pd.DataFrame(table.to_numpy(dtype=float, na_value=np.nan), table.index, table.columns)
    for axis in (0, 1):
        if not table.axes[axis].equals(other.axes[axis]):
            table = table.set_axis(as_text(as_labels(table.axes[axis])), axis=axis)
    return table


def _with_unmeasured(true: pd.DataFrame, estimate: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return measured fractions with "Unmeasured" or "Unknown", and whether both tables have the same parts."""
    sums = true.sum(axis=1)
    complete = ((estimate.sum(axis=1) - 1).abs() <= SUM_TOLERANCE).all()
    if keys.UNMEASURED not in true and complete and (sums < 1 - SUM_TOLERANCE).any():
        true = true.assign(**{keys.UNMEASURED: (1 - sums).clip(lower=0)})
    if keys.UNKNOWN in estimate and not {keys.UNKNOWN, keys.UNMEASURED} & {*true.columns}:
        true = true.assign(**{keys.UNKNOWN: 0.0})
    return true, (keys.UNMEASURED in true) == (keys.UNMEASURED in estimate)


def _check_shapes(problems: Problems, true: NDArray, estimate: NDArray) -> None:
    """Report tables of other shapes, or without samples or cell types."""
    if true.ndim != 2 or true.shape != estimate.shape or true.size == 0:
        problems.add(
            f"Expected two tables of the same shape (samples × cell types), found {true.shape} measured and "
            f"{estimate.shape} predicted. Select the same samples and cell types in both."
        )
    problems.raise_if_any()


def _check_values(problems: Problems, table: pd.DataFrame, name: str, *, truth: bool) -> None:
    """Report NaN in measured fractions, and values that are not finite or negative."""
    values = table.to_numpy()
    missing = table.index[np.isnan(values).any(axis=1)]
    if len(missing) and truth:
        problems.add(
            f"Expected a measured composition for every sample, found NaN in {len(missing)} of {len(values)} samples "
            f"(e.g. {missing[0]!r}). Drop these samples."
        )
        return
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        problems.add(
            f"Expected finite {name} fractions of at least 0, found {bad.sum()} other values "
            f"(e.g. {values[bad][0]:.3g}). Clip or remove them."
        )


def _check_sums(problems: Problems, table: pd.DataFrame, name: str) -> None:
    """Report percent, counts and rows that sum to more than 1."""
    sums = table.sum(axis=1)
    other_unit = unit_problem(table.to_numpy(), name)
    if other_unit or (sums > 1 + SUM_TOLERANCE).any():
        problems.add(
            other_unit
            or f"Expected rows of {name} to sum to at most 1, found sums up to {sums.max():.3g}: "
            f"{examples(table.index[sums > 1 + SUM_TOLERANCE])}. Divide each row by its sum, or pass arrays to "
            "scdeconv.metrics to compare other amounts."
        )


def align_compositions(measured: Table, predicted: Table) -> tuple[NDArray, NDArray, pd.Index]:
    """Return the tables of :func:`align_fractions` with rows scaled to sum to 1."""
    true, estimate, types = align_fractions(measured, predicted)
    totals = [values.sum(axis=1, keepdims=True) for values in (true, estimate)]
    zeros = max(int((total <= 0).sum()) for total in totals)
    if zeros:
        msg = f"Expected compositions with a positive sum, found {zeros} rows of zeros. Drop these rows."
        raise ValueError(msg)
    return true / totals[0], estimate / totals[1], types


def align_distance(distance: Table, types: pd.Index) -> NDArray:
    """Return the checked distance matrix of the cell types in the order of `types`."""
    if isinstance(distance, pd.DataFrame):
        problems = Problems("The distances do not match the fractions")
        for axis in distance.axes:
            report_differences(problems, types, axis, names=("measured", "in distance"))
        problems.raise_if_any()
        distance = distance.loc[types, types]
    cost = np.asarray(distance, dtype=float)
    k = len(types)
    if cost.shape != (k, k) or not np.allclose(cost, cost.T) or np.diag(cost).any() or not (cost >= 0).all():
        msg = (
            f"Expected distance as a symmetric {k} × {k} matrix with a zero diagonal and no negative entry, "
            f"found shape {cost.shape}: {cost.tolist() if k < 5 else '…'}. Pass one row and one column per cell type."
        )
        raise ValueError(msg)
    return cost
