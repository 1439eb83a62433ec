"""Sums of cell types in estimates, intervals, measured fractions and references."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scdeconv._data import keys
from scdeconv._data.annotated import subset
from scdeconv._data.checks import Problems, check_groups, check_numeric_table, checked, examples
from scdeconv._data.checks.arguments import FRACTIONS
from scdeconv._data.fractions import levels_of, merge_levels, stored_colors, sum_types
from scdeconv._data.labels import as_labels, as_text
from scdeconv._data.warnings import warn, warnings_ignored
from scdeconv.pp import merge_pairs, merge_profiles

if TYPE_CHECKING:
    from scdeconv.models import DeconvolutionModel

Data = TypeVar("Data", pd.DataFrame, AnnData, MuData)
Groups = Mapping[str, Sequence[str]]


@checked(data=FRACTIONS)
def merge_types(
    data: Data,
    groups: Groups,
    *,
    model: DeconvolutionModel | None = None,
    layer: str | None = None,
    weights: Mapping[str, float] | pd.Series | None = None,
) -> Data:
    """Add up cell types in estimates, intervals, measured fractions and references.

    The sum has the place of its first member. Other types are not changed.

    Parameters
    ----------
    data
        Fractions (DataFrame, samples × cell types), bulk samples with fractions in ``obsm``, profiles or a signature
        (AnnData, cell types × genes), or a MuData from :func:`scdeconv.pp.pair`. Not changed.
    groups
        Cell types to add up, by the name of the sum: ``{"CD4 T": ["CD4 naive", "CD4 memory", "Treg"]}``.
    model
        Model of the estimates, to compute the intervals of the sums from its out-of-fold errors. Bounds of members cannot
        be added up, because their errors compensate or accumulate. Without the model, intervals are removed.
    layer
        Layer of the estimates, as for :func:`scdeconv.tl.predict`; used with ``model``.
    weights
        Relative number of cells of each merged type, to average profiles that do not come from cells. Default: the mean
        measured fractions of a MuData, else ``obs["n_cells"]`` of the profiles. A printed line says which.

    Returns
    -------
    A new object of the same type.

    - Fractions, measured fractions, cell numbers and augmented fractions are sums. Quality tables are not changed. The
      variance of fractions from uncertain cell types is removed, because the members of a cell's types are correlated.
    - The result for a MuData is that of :func:`scdeconv.pp.pair` with merged labels. Calibration, simulation and gene
      selection are repeated with the arguments recorded in ``mdata.uns["scdeconv"]``.

    Raises
    ------
    ValueError
        If a type is unknown or in two groups, if the name of a sum is another type, if a table has only some members of a
        group, if estimates are not from the model, or if the weights of profiles are unknown.
    TypeError
        If an argument is of another class.

    Warns
    -----
    UserWarning
        If intervals or variances are removed.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdeconv
    >>> fractions = pd.DataFrame({"CD4 T": [0.2, 0.3], "B": [0.5, 0.6], "CD8 T": [0.3, 0.1]}, index=["s1", "s2"])
    >>> scdeconv.tl.merge_types(fractions, {"T": ["CD4 T", "CD8 T"]})
          T    B
    s1  0.5  0.5
    s2  0.4  0.6
    """
    problems = Problems("The cell types cannot be merged")
    if isinstance(data, pd.DataFrame):
        frame = data.set_axis(as_text(as_labels(data.columns)), axis=1)
        groups = check_groups(problems, groups, {"data": frame.columns})
        check_numeric_table(problems, data, "data")
        problems.raise_if_any()
        return sum_types(frame, groups)
    if isinstance(data, AnnData):
        types = {f"adata.obsm[{key!r}]": columns_of(data, key) for key in fraction_keys(data)}
        if not types:
            return _merge_cells_or_profiles(problems, data, groups, weights)
        groups = check_groups(problems, groups, types)
        problems.raise_if_any()
        return _merge_samples(data, groups, model, layer)
    bulk = data[keys.BULK]
    types = {f"mdata['bulk'].obsm[{key!r}]": columns_of(bulk, key) for key in fraction_keys(bulk)}
    if keys.PROFILES in data.mod:
        types["mdata['profiles']"] = data[keys.PROFILES].obs[keys.CELL_TYPE].astype(str)
    groups = check_groups(problems, groups, types)
    problems.raise_if_any()
    return merge_pairs(data, _merge_samples(bulk, groups, model, layer), groups, weights)


def fraction_keys(adata: AnnData) -> list[str]:
    """Return the keys of the tables of cell types in ``obsm``, without intervals, sums of levels and quality."""
    frames = [key for key, table in adata.obsm.items() if isinstance(table, pd.DataFrame)]
    beside = {f"{key}_{result}" for key in frames for result in keys.RESULTS}
    return [key for key in frames if key not in beside]


def columns_of(adata: AnnData, key: str) -> list[str]:
    """Return the names of the columns of a table in ``obsm`` as text."""
    return list(as_text(as_labels(adata.obsm[key].columns)))


def _merge_cells_or_profiles(
    problems: Problems, adata: AnnData, groups: Groups, weights: Mapping[str, float] | pd.Series | None
) -> AnnData:
    """Return merged profiles; raise ``ValueError`` for single cells."""
    labels = adata.obs[keys.CELL_TYPE] if keys.CELL_TYPE in adata.obs else adata.obs_names.to_series()
    groups = check_groups(problems, groups, {"data": as_text(as_labels(labels)).unique()})
    if not labels.is_unique:
        new = {member: name for name, members in groups.items() for member in members}
        problems.add(
            f"Expected fractions or profiles, found {adata.n_obs} rows of {labels.nunique()} cell types. Rename the types of "
            f"cells: cells.obs[{keys.CELL_TYPE!r}] = cells.obs[{keys.CELL_TYPE!r}].astype(str).replace({new})."
        )
    problems.raise_if_any()
    return merge_profiles(adata, groups, weights)


def _merge_samples(adata: AnnData, groups: Groups, model: DeconvolutionModel | None, layer: str | None) -> AnnData:
    """Return a copy of bulk samples with sums in all tables that have the types."""
    members = {member for of in groups.values() for member in of}
    merged = [key for key in fraction_keys(adata) if members & {*columns_of(adata, key)}]
    intervals = _sum_intervals(adata, merged, groups, model, layer)
    result = subset(adata)
    records = result.uns.get(keys.UNS, {})
    removed = []
    for key in merged:
        table = adata.obsm[key].set_axis(columns_of(adata, key), axis=1)
        if key == keys.MEASURED_VARIANCE:
            del result.obsm[key]
            removed.append(key)
            continue
        result.obsm[key] = sum_types(table, groups)
        _merge_colors(result.uns, key, list(table), groups)
        for side in ("lower", "upper"):
            name = f"{key}_{side}"
            if name in intervals:
                result.obsm[name] = intervals[name]
            elif name in adata.obsm:
                del result.obsm[name]
                removed.append(name)
        if key in records:
            # the errors are those of the single types
            for name in ("held_out", "n_held_out_donors"):
                records[key].pop(name, None)
            earlier = earlier_groups(adata, key)
            merged_types = {name: leaves_of(name, groups, earlier) for name in map(str, result.obsm[key])}
            records[key]["merged"] = {name: of for name, of in merged_types.items() if of != [name]}
        _merge_level_tables(result, key, groups)
    if keys.AUGMENTED in adata.obsm and keys.MEASURED in merged:
        types = columns_of(adata, keys.MEASURED)
        of = sum_types(pd.DataFrame(np.eye(len(types)), columns=types), groups).to_numpy()
        augmented = np.asarray(adata.obsm[keys.AUGMENTED])
        result.obsm[keys.AUGMENTED] = (augmented @ of).astype(augmented.dtype)
    if removed:
        warn(
            f"Removed {examples(removed, n=len(removed))}: they cannot be computed from those of the members. Pass model= to "
            "get the intervals of the sums."
        )
    return result


def _sum_intervals(
    adata: AnnData, merged: Sequence[str], groups: Groups, model: DeconvolutionModel | None, layer: str | None
) -> dict[str, pd.DataFrame]:
    """Return the bounds of the sums by key, for the estimates of the model; raise ``ValueError`` if there are none."""
    if model is None:
        return {}
    found: dict[str, pd.DataFrame] = {}
    for key in merged:
        record = adata.uns.get(keys.UNS, {}).get(key, {})
        coverage, known = record.get("coverage"), {name: record.get(name) for name in ("known", "known_se")}
        if coverage is None or f"{key}_lower" not in adata.obsm:
            continue
        sums = sum_types(adata.obsm[key].set_axis(columns_of(adata, key), axis=1), groups)
        parts = {name: leaves_of(name, groups, earlier_groups(adata, key)) for name in map(str, sums)}
        if sorted(model.cell_types_) != sorted(chain(*parts.values())):
            continue
        for in_sample in (False, True):
            # tl.predict has already warned
            with warnings_ignored(UserWarning):
                again = model.estimate(
                    adata, coverage=coverage, layer=layer, in_sample=in_sample, groups=parts, **known
                )
            if np.allclose(again["by_level"], sums, atol=1e-6, equal_nan=True):
                found |= {f"{key}_{side}": again[f"by_level_{side}"] for side in ("lower", "upper")}
                break
    if not found:
        msg = (
            f"Expected estimates of the model with intervals in obsm, found none among {list(merged)}. Pass the model and the "
            "data of tl.predict(..., coverage=), with its layer=, or omit model."
        )
        raise ValueError(msg)
    return found


def earlier_groups(adata: AnnData, key: str) -> dict[str, list[str]]:
    """Return the types of each sum in an estimate that was merged before."""
    merged = adata.uns.get(keys.UNS, {}).get(key, {}).get("merged", {})
    # from files, lists are arrays
    return {str(name): [str(member) for member in of] for name, of in merged.items()}


def leaves_of(name: str, groups: Groups, earlier: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the types of the model that a column is the sum of."""
    return [leaf for member in groups.get(name, [name]) for leaf in earlier.get(member, [member])]


def _merge_level_tables(adata: AnnData, key: str, groups: Groups) -> None:
    """Keep the levels that can still be computed from the merged types, in place."""
    levels = merge_levels(levels_of(adata, key), groups)
    records = adata.uns.get(keys.UNS, {})
    for name in (key, f"{key}_by_level"):
        if "levels" in records.get(name, {}):
            records[name]["levels"] = levels
    for result in ("by_level", "by_level_lower", "by_level_upper"):
        name = f"{key}_{result}"
        if name in adata.obsm:
            table = adata.obsm.pop(name)
            if levels:
                adata.obsm[name] = table[list(levels)]


def _merge_colors(uns: MutableMapping[str, Any], key: str, cell_types: list[str], groups: Groups) -> None:
    """Give each sum the colour of its first member, in place."""
    colors = stored_colors(uns, key, cell_types)
    if colors:
        first = {group: colors[members[0]] for group, members in groups.items() if members[0] in colors}
        gone = {member for members in groups.values() for member in members}
        uns[f"{key}_colors"] = {
            cell_type: color for cell_type, color in colors.items() if cell_type not in gone
        } | first
