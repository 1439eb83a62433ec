"""Fractions that are passed to :func:`scdeconv.pp.pair`: measured fractions of bulk and probabilities of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import (
    SUM_TOLERANCE,
    Problems,
    check_cell_type_names,
    check_fractions,
    examples,
    near_types,
    rest_columns,
)
from scdeconv._data.labels import as_text
from scdeconv._data.matrix import in_memory
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

Rest = Literal["keep", "rescale"]
# median unmeasured rest above which the table is probably incomplete, or shares of a parent gate (set by hand)
LARGE_REST = 0.5


def given_fractions(
    problems: Problems, bulk: AnnData, fractions_key: str, tables: Mapping[str, AnnData], rest: Rest
) -> pd.DataFrame | None:
    """Return the fractions in ``bulk.obsm``, with one column for every cell type of the reference.

    An unmeasured rest is the last column, or the rows are divided by their sums (``rest="rescale"``).
    """
    reference = next((name for name in ("cells", "profiles") if name in tables), None)
    name = f"bulk.obsm[{fractions_key!r}]"
    if rest not in ("keep", "rescale"):
        problems.add(f"Expected rest to be 'keep' or 'rescale', found {rest!r}. Change the argument.")
        return None
    if fractions_key not in bulk.obsm:
        if reference is None:
            problems.add(
                f"Expected cells, profiles or measured fractions in {name}, found none of them (keys of bulk.obsm: "
                f"{sorted(bulk.obsm)}). Pass cells= or profiles=, or name the key with fractions_key=."
            )
        elif reference == "profiles":
            warn(
                f"Expected measured fractions in {name}, found none, so no donor is paired. "
                "Train a reference-based method."
            )
        return None
    fractions = in_memory(bulk.obsm[fractions_key])
    before = len(problems.messages)
    check_fractions(problems, fractions, name, partial=True, may_lack_types=True)
    if isinstance(fractions, pd.DataFrame):
        fractions = fractions.set_axis(as_text(check_cell_type_names(problems, fractions.columns, name)), axis=1)
    if len(problems.messages) > before:
        return None
    if reference is None:
        cell_types = [name for name in fractions.columns if name != keys.UNMEASURED]
        if not fractions.notna().any(axis=None):
            problems.add(
                f"Expected cells, profiles or measured fractions in {name}, found rows of NaN only. Pass cells= or "
                "profiles=, or fractions of some samples."
            )
        _refuse_never_measured(problems, fractions, name)
    else:
        cell_types = _types_of_reference(problems, tables[reference].obs, fractions, reference, name)
    if len(problems.messages) > before:
        return None
    full = fractions.reindex(columns=cell_types, fill_value=0.0).astype(float)
    return _with_rest(problems, full, fractions.get(keys.UNMEASURED), rest, name)


def _refuse_never_measured(problems: Problems, fractions: pd.DataFrame, name: str) -> None:
    """Refuse cell types that were measured in no sample, if there is no reference to learn them from."""
    never = list(fractions.columns[fractions.isna().all()])
    if never and len(never) < fractions.shape[1]:
        problems.add(
            f"Expected measured fractions of each type in some samples of {name}, found NaN only for {examples(never)}. "
            f"Drop these columns (they are then part of the unmeasured rest), or pass a reference."
        )


def _types_of_reference(
    problems: Problems, obs: pd.DataFrame, fractions: pd.DataFrame, reference: str, name: str
) -> list[str]:
    """Return the cell types of the reference; report columns of other types."""
    if keys.CELL_TYPE not in obs:
        return []
    labels = obs[keys.CELL_TYPE]
    cell_types = list(labels.cat.categories if labels.dtype == "category" else labels)
    unknown = fractions.columns.difference([*cell_types, keys.UNMEASURED])
    if len(unknown):
        near = near_types(fractions.columns, cell_types)
        nearly = f" Names that nearly match: {examples(f'{ours} = {theirs}' for ours, theirs in near.items())}."
        rename = f" with .rename(columns={near})" if near else ""
        rests = rest_columns(unknown)
        drop = f"or drop them: they are then part of the unmeasured rest ({keys.UNMEASURED!r})"
        if rests and len(rests) == len(unknown):
            rename, drop = f" with .rename(columns={dict.fromkeys(rests[:1], keys.UNMEASURED)})", "or drop them"
        problems.add(
            f"Expected only cell types of the {reference} in {name}, found {len(unknown)} other types: "
            f"{examples(unknown)}. The {reference} have {examples(cell_types, n=len(cell_types))}."
            f"{nearly if near else ''} Rename the columns{rename}, {drop}."
        )
    unmeasured = [cell_type for cell_type in cell_types if cell_type not in fractions.columns]
    if unmeasured and not problems.messages:
        warn(
            f"Expected a column of {name} for every cell type of the {reference}, found none of {examples(unmeasured)}. "
            f"Their fractions are taken as 0. If they were not measured, add columns of NaN or remove them from the "
            f"{reference}."
        )
    return cell_types


def _with_rest(
    problems: Problems, types: pd.DataFrame, given: pd.Series | None, rest: Rest, name: str
) -> pd.DataFrame | None:
    """Return fractions whose rows sum to 1: with the unmeasured rest as a column, or divided by their sums."""
    lacking = types.isna().any(axis=1) & types.notna().any(axis=1)
    sums = types.sum(axis=1, min_count=1)
    # in rows that lack types, the rest is also of these types
    unmeasured = (1 - sums).clip(lower=0).mask(lacking)
    if lacking.any():
        per_sample = types[lacking].isna().sum(axis=1)
        problems.note(
            f"{int(lacking.sum())} samples in {name} lack {per_sample.min()} to {per_sample.max()} types, completed in training"
        )
    partial = bool((unmeasured > SUM_TOLERANCE).any() if given is None else (given > 0).any())
    if partial:
        shown = f"{unmeasured.min():.0%} to {unmeasured.max():.0%} of the cells unmeasured in {name}"
        kept = f"kept as {keys.UNMEASURED!r}" if rest == "keep" else "rows divided by their sums"
        problems.note(f"{shown}, {kept}")
        if unmeasured.median() > LARGE_REST:
            warn(
                f"Expected fractions of the whole sample in {name}, found a median rest of {unmeasured.median():.0%}. "
                "Check that the columns are shares of all cells and that no cell type is missing."
            )
    if partial and rest == "keep":
        # rows of rounded fractions may sum to slightly more than 1
        if given is not None:
            unmeasured = unmeasured.where(~lacking, given)
        full = types.div(sums.clip(lower=1), axis=0).assign(**{keys.UNMEASURED: unmeasured})
    else:
        # rounded input fractions sum to about 1, e.g. 0.999
        full = types.div(sums.clip(lower=1) if rest == "keep" else sums, axis=0)
        full = full.where(lacking, types.div(sums, axis=0), axis=0)
    if full.shape[1] < 2:
        problems.add(f"Expected at least 2 cell types in {name}, found {list(full)}. Add the other types.")
        return None
    return full


def cell_probabilities(
    problems: Problems, cells: AnnData | None, key: str, tables: Mapping[str, AnnData]
) -> pd.DataFrame | None:
    """Return the cell-type probabilities, cells × cell types, rows sum to 1."""
    if cells is None:
        problems.add(
            f"Expected cells together with probabilities_key={key!r}, found none. Pass cells or omit probabilities_key."
        )
        return None
    name = f"cells.obsm[{key!r}]"
    if key not in cells.obsm:
        problems.add(
            f"Expected cell-type probabilities in {name}, found keys {sorted(cells.obsm)}. "
            "Name the key with probabilities_key=."
        )
        return None
    table = in_memory(cells.obsm[key])
    if isinstance(table, pd.DataFrame):
        # cells without counts are left out
        table = table[cells.obs_names.isin(tables["cells"].obs_names)]
        # labels as one-hot columns are probabilities
        table = table.astype(dict.fromkeys(table.select_dtypes(bool).columns, float))
    if not isinstance(table, pd.DataFrame):
        check_fractions(problems, table, name)
        return None
    missing = table.isna().any(axis=1)
    if missing.any():
        problems.add(
            f"Expected probabilities of every cell in {name}, found {int(missing.sum())} cells with NaN: "
            f"{examples(table.index[missing])}. Remove these cells."
        )
    check_fractions(problems, table[~missing], name)
    table = table.set_axis(as_text(check_cell_type_names(problems, table.columns, name)), axis=1)
    if keys.CELL_TYPE in tables["cells"].obs:
        cell_types = list(tables["cells"].obs[keys.CELL_TYPE].cat.categories)
        if set(table) != set(cell_types) or not table.columns.is_unique:
            problems.add(
                f"Expected the cell types {examples(cell_types, n=len(cell_types))} as the columns of {name}, found "
                f"{examples(table, n=table.shape[1])}. Set the cell types to the most probable types, or rename both "
                "with tl.name_clusters."
            )
            return None
        table = table[cell_types]
    return table if problems.messages else table.astype(float).div(table.sum(axis=1), axis=0)
