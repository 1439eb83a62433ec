"""Fractions that the user knows of samples to predict, checked and aligned by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data.checks import SUM_TOLERANCE, Problems, check_numeric_table, examples
from scdeconv._data.labels import as_labels, as_text, near_matches

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

TITLE = "The known fractions cannot be used"


def align_known(
    known: pd.DataFrame | None,
    known_se: pd.DataFrame | None,
    samples: pd.Index,
    cell_types: Sequence[str],
    levels: Mapping[str, Sequence[str]],
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Return known fractions and standard errors of all samples, and the cell types of each column.

    Parameters
    ----------
    known
        Samples × cell types or levels; NaN where unknown. None: nothing is known.
    known_se
        Standard errors of ``known``; values that it lacks are exact.
    samples, cell_types
        Samples to predict, and cell types of the model.
    levels
        Cell types of each level of the model's hierarchy.

    Returns
    -------
    Known fractions (NaN where unknown) and standard errors (0 for exact values), samples × columns of ``known``; and
    whether a cell type belongs to a column, cell types × columns.

    Raises
    ------
    ValueError
        If the tables have problems; all are listed.
    """
    problems = Problems(TITLE)
    names = samples
    samples = as_text(as_labels(samples))
    if known is None:
        if known_se is not None:
            problems.add("Expected known together with known_se, found None. Pass the known fractions.")
        problems.raise_if_any()
        return pd.DataFrame(index=names), pd.DataFrame(index=names), np.empty((len(cell_types), 0))
    known = _named(problems, known, "known", samples, "samples to predict", [*cell_types, *levels])
    if known_se is not None:
        known_se = _named(problems, known_se, "known_se", known.index, "samples of known", known.columns)
    problems.raise_if_any()
    if known.isna().all(axis=None):
        problems.add("Expected known fractions in known, found NaN only. Pass values of some samples, or omit known.")
    _check_range(problems, known, "known", "fractions")
    members = {name: [*levels[name]] if name in levels else [name] for name in known.columns}
    _check_overlap(problems, members)
    of = np.array([[cell_type in members[name] for name in known.columns] for cell_type in cell_types], dtype=float)
    if not problems.messages:
        _check_known_sums(problems, known, of)
    se = pd.DataFrame(0.0, known.index, known.columns)
    if known_se is not None:
        _check_range(problems, known_se, "known_se", "standard errors")
        se = known_se.reindex(index=known.index, columns=known.columns).fillna(0.0)
    problems.raise_if_any()
    # rounded fractions may sum to slightly more than 1
    known = known.div(known.sum(axis=1).clip(lower=1), axis=0)
    se = se.where(known.notna(), 0.0).reindex(samples, fill_value=0.0)
    return known.reindex(samples).set_axis(names), se.set_axis(names), of


def _named(
    problems: Problems, table: pd.DataFrame, name: str, samples: pd.Index, of: str, columns: Collection[str]
) -> pd.DataFrame:
    """Return a table with names as text; report columns without numbers, repeated names and unknown names."""
    check_numeric_table(problems, table, name)
    axes: tuple[tuple[Literal[0, 1], str, pd.Index, str], ...] = (
        (0, "samples", samples, of),
        (
            1,
            "cell types",
            pd.Index(list(columns)),
            "cell types of the model" if name == "known" else "columns of known",
        ),
    )
    for axis, what, expected, source in axes:
        table = table.set_axis(as_text(as_labels(table.axes[axis])), axis=axis)
        names = table.axes[axis]
        if not names.is_unique:
            repeated = names[names.duplicated()].unique()
            problems.add(
                f"Expected each of the {what} once in {name}, found {examples(repeated)} repeated. Keep one each."
            )
        unknown = names[~names.isin(expected)].unique()
        if len(unknown):
            near = near_matches(unknown, expected)
            nearly = (
                f" Nearly matching: {examples(f'{ours} = {theirs}' for ours, theirs in near.items())}." if near else ""
            )
            other = "Rename or drop them." if axis else f"Rename them or pass {name}.loc[names]."
            problems.add(
                f"Expected only {source} in {name} ({examples(expected)}), found {len(unknown)} other {what}: "
                f"{examples(unknown)}.{nearly} {other}"
            )
        if axis == 0 and name == "known" and not samples.is_unique:
            repeated = samples[samples.duplicated()].unique()
            problems.add(
                f"Expected unique sample names in adata together with known, found {examples(repeated)} repeated. Call "
                "adata.obs_names_make_unique()."
            )
    if problems.messages:
        return table
    return table.astype(float)


def _check_range(problems: Problems, table: pd.DataFrame, name: str, what: str) -> None:
    """Report values that are negative, infinite or larger than 1."""
    values = table.to_numpy(dtype=float)
    bad = ~np.isnan(values) & ~((values >= 0) & (values <= 1))
    if bad.any():
        percent = " Divide percent by 100." if (values[bad] > 1).any() else ""
        problems.add(
            f"Expected {what} from 0 to 1 in {name}, found {int(bad.sum())} other values from {values[bad].min():.3g} to "
            f"{values[bad].max():.3g}: {examples(table.index[bad.any(axis=1)])}.{percent or ' Correct them.'}"
        )


def _check_overlap(problems: Problems, members: Mapping[str, Sequence[str]]) -> None:
    """Report columns that share cell types."""
    columns_with: dict[str, list[str]] = {}
    for name, of in members.items():
        for cell_type in of:
            columns_with.setdefault(cell_type, []).append(name)
    shared = [f"{' and '.join(names)} share {cell_type}" for cell_type, names in columns_with.items() if len(names) > 1]
    if shared:
        problems.add(
            f"Expected columns without shared cell types in known, found: {examples(shared)}. Drop one of them."
        )


def _check_known_sums(problems: Problems, known: pd.DataFrame, of: np.ndarray) -> None:
    """Report rows with a sum above 1, or of another sum than 1 if all cell types are known."""
    sums = known.sum(axis=1).to_numpy()
    above = sums > 1 + SUM_TOLERANCE
    if above.any():
        problems.add(
            f"Expected rows of known to sum to at most 1, found sums up to {sums.max():.3g}: "
            f"{examples(known.index[above])}. Correct the values, or set the less certain ones to NaN."
        )
    complete = (known.notna().to_numpy() @ of.T).all(axis=1)
    below = complete & (sums < 1 - SUM_TOLERANCE)
    if below.any():
        problems.add(
            f"Expected rows of known with all cell types to sum to 1, found sums from {sums[below].min():.3g}: "
            f"{examples(known.index[below])}. Divide each row by its sum, or set the unknown types to NaN."
        )
