"""Fractions in ``obsm`` of AnnData: reading, comparison and sums of cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import Problems, check_numeric_table, check_whole_rows, examples
from scdeconv._data.labels import as_labels, as_text
from scdeconv._data.warnings import warn

from .align import TITLE, Aligned, align_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData


def compared_tables(adata: AnnData, key: str, measured_key: str) -> Aligned:
    """Return aligned measured and estimated fractions of the samples that have both.

    Types of ``measured_key`` that are levels of the hierarchy of the estimate are compared with the sum of their types.
    """
    measured, predicted = get_fractions(adata, measured_key), get_fractions(adata, key)
    levels = levels_of(adata, key)
    if levels and {*predicted} <= {*levels}:
        # levels overlap: align their types, then add them up
        aligned = compared_tables(adata, key.removesuffix("_by_level"), measured_key)
        return Aligned(*level_sums(aligned, levels), aligned.rescaled)
    names = f"adata.obsm[{measured_key!r}]", f"adata.obsm[{key!r}]"
    problems = Problems(TITLE)
    check_whole_rows(problems, measured, names[0])
    problems.raise_if_any()
    known, estimated = (table.notna().all(axis=1).to_numpy() for table in (measured, predicted))
    if not (known & estimated).any():
        msg = (
            f"Expected samples with measured fractions in {names[0]} and an estimate in {names[1]}, found "
            f"{(~known).sum()} rows of NaN in the first and {(~estimated).sum()} in the second (of {len(known)}). "
            "Use another key."
        )
        raise ValueError(msg)
    if (known & ~estimated).any():
        without = adata.obs_names[known & ~estimated]
        warn(f"{len(without)} measured samples have no estimate (NaN) and are ignored: {examples(without)}.")
    predicted = sum_types(predicted, {name: of for name, of in levels.items() if name in measured})
    return align_tables(measured[known & estimated], predicted[known & estimated], names)


def get_fractions(adata: AnnData, key: str) -> pd.DataFrame:
    """Return ``adata.obsm[key]``, samples × cell types, as floats with names as text; all plots and comparisons pass here.

    Raises
    ------
    KeyError
        If it is missing.
    TypeError
        If it is no DataFrame.
    ValueError
        If a column is repeated or has no numbers, or if values are infinite. NaN and values of any size are accepted.
    """
    if key not in adata.obsm:
        msg = f"Expected {key!r} in adata.obsm, found {sorted(adata.obsm)}. Run tl.predict or pass another key."
        raise KeyError(msg)
    table = adata.obsm[key]
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"Expected a DataFrame of samples × cell types in adata.obsm[{key!r}], found {type(table).__name__}. "
            "Convert it to a DataFrame with the cell types as columns."
        )
        raise TypeError(msg)
    name = f"adata.obsm[{key!r}]"
    problems = Problems(f"{name} cannot be used")
    check_numeric_table(problems, table, name)
    names = as_text(as_labels(table.columns))
    if not (len(names) and names.is_unique):
        found = f"{examples(names[names.duplicated()].unique())} repeated" if len(names) else "no column"
        problems.add(f"Expected unique cell types in {name}, found {found}. Sum or rename them.")
    problems.raise_if_any()
    values = table.to_numpy(dtype=float, na_value=np.nan)
    infinite = np.isinf(values).any(axis=1)
    if infinite.any():
        problems.add(
            f"Expected finite numbers in {name}, found infinite values of {int(infinite.sum())} samples: "
            f"{examples(table.index[infinite])}. Set them to NaN."
        )
    problems.raise_if_any()
    return pd.DataFrame(values, table.index, names)


def levels_of(adata: AnnData, key: str) -> dict[str, list[str]]:
    """Return the cell types of each level of the hierarchy of the estimate ``adata.obsm[key]``."""
    levels = adata.uns.get(keys.UNS, {}).get(key, {}).get("levels", {})
    return {str(name): [str(cell_type) for cell_type in members] for name, members in levels.items()}


def level_sums(aligned: Aligned, levels: Mapping[str, Sequence[str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return measured and predicted fractions of the levels whose types were all measured; columns may be levels, too."""
    types_of = {column: {*levels.get(column, [column])} for column in map(str, aligned.measured)}
    inside = {name: [column for column in types_of if types_of[column] <= {*of}] for name, of in levels.items()}
    known = {name: of for name, of in inside.items() if set().union(*map(types_of.__getitem__, of)) == {*levels[name]}}
    measured, predicted = (
        pd.DataFrame({name: table[of].sum(axis=1) for name, of in known.items()}, index=table.index)
        for table in (aligned.measured, aligned.predicted)
    )
    return measured, predicted


def merge_levels(levels: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the levels of a hierarchy with merged types; levels that contain only a part of a group are left out."""
    merged = {}
    for name, members in levels.items():
        inside = [group for group, of in groups.items() if {*of} <= {*members}]
        cut = any({*of} & {*members} and group not in inside for group, of in groups.items())
        gone = {member for group in inside for member in groups[group]}
        if not cut and name not in groups:
            merged[name] = [*inside, *(member for member in members if member not in gone)]
    return merged


def sum_types(table: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return the table with the sum of each group in the place of its first column; groups without columns are ignored."""
    group_of = {member: name for name, members in groups.items() for member in members}
    names = pd.Index([group_of.get(name, name) for name in table.columns])
    summed = {name: table.loc[:, names == name].sum(axis=1, skipna=False) for name in dict.fromkeys(names)}
    return table if names.equals(table.columns) else pd.DataFrame(summed, index=table.index)


def measured_shares(measured: pd.DataFrame, cell_types: Collection[str]) -> pd.DataFrame:
    """Return measured fractions as shares of the cell types that a method estimates.

    If the method does not estimate the unmeasured rest, the rest is removed and each row is divided by its sum.
    """
    if keys.UNMEASURED not in measured or keys.UNMEASURED in cell_types:
        return measured
    types = measured.drop(columns=keys.UNMEASURED)
    return types.div(types.sum(axis=1), axis=0)


def scored_tables(
    measured: pd.DataFrame, predicted: pd.DataFrame, cell_types: Collection[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return measured and predicted fractions of the samples to score.

    These are the samples with all types that any sample has. Types that no sample has are left out, and rows are divided by
    their sum over the others.

    Parameters
    ----------
    measured
        Measured fractions; NaN where not measured.
    predicted
        Predictions of these samples.
    cell_types
        Cell types that the method estimates.
    """
    some = measured.dropna(how="all")
    never = some.columns[some.isna().all()]
    whole = some.drop(columns=never).dropna()
    if some.shape[0] and whole.empty:
        msg = (
            f"Expected samples with all of {examples(some.columns.drop(never), n=some.shape[1])} to score, found none: "
            f"each of {len(some)} samples lacks some of them. Measure these types in some samples."
        )
        raise ValueError(msg)
    if len(some) and whole.shape[1] < 2:
        msg = (
            f"Expected at least two measured cell types to score, found {list(whole)}: each sample has 100 % of one type. "
            "Measure further types."
        )
        raise ValueError(msg)
    whole = measured_shares(whole, cell_types)
    predicted = predicted.loc[whole.index].drop(columns=never)
    if len(never):
        whole, predicted = (table.div(table.sum(axis=1), axis=0) for table in (whole, predicted))
    truth, estimate, _ = align_tables(whole, predicted)
    return truth, estimate
