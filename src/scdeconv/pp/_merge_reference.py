"""Cell types added up in the reference of paired data and in profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, values_of
from scdeconv._data.checks import examples, remember_values
from scdeconv._data.fractions import merge_levels
from scdeconv._data.modalities import make_mudata
from scdeconv._data.reference import membership

from ._hold_out import KEPT_RECORDS, redo_steps
from ._join import make_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    Groups = Mapping[str, Sequence[str]]


def merge_pairs(
    mdata: MuData, bulk: AnnData, groups: Groups, weights: Mapping[str, float] | pd.Series | None
) -> MuData:
    """Return paired data as :func:`scdeconv.pp.pair` makes them from merged labels, with all later steps repeated.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    bulk
        Its bulk with merged fractions.
    groups
        Cell types of each group.
    weights
        As for :func:`merge_profiles`. None: the mean measured fractions, if there are any.
    """
    modalities = {keys.BULK: bulk}
    if keys.CELLS in mdata.mod:
        cells, sums = mdata[keys.CELLS], mdata[keys.SUMS]
        obs = cells.obs.assign(**{keys.CELL_TYPE: merge_labels(cells.obs[keys.CELL_TYPE], groups)})
        modalities[keys.CELLS] = make_adata(cells.X, obs=obs, var=cells.var.copy())
        modalities[keys.SUMS] = merge_sums(sums, groups)
        modalities |= make_reference(modalities[keys.SUMS])
    elif keys.PROFILES in mdata.mod:
        known = mdata[keys.BULK].obsm[keys.MEASURED].dropna()
        source = "weights"
        if weights is None and len(known):
            weights, source = known.mean().to_dict(), "mean measured fractions"
        modalities[keys.PROFILES] = merge_profiles(mdata[keys.PROFILES], groups, weights, source)
        if keys.PSEUDOBULK in mdata.mod:
            modalities[keys.PSEUDOBULK] = mdata[keys.PSEUDOBULK].copy()
    merged = make_mudata(modalities)
    steps = mdata.uns.get(keys.UNS, {})
    records = {name: dict(steps[name]) for name in KEPT_RECORDS if name in steps}
    if "hierarchy" in records.get("pair", {}):
        levels = {name: [str(member) for member in of] for name, of in records["pair"]["hierarchy"].items()}
        records["pair"]["hierarchy"] = merge_levels(levels, groups)
    merged.uns[keys.UNS] = records
    remember_values(merged)
    redo_steps(merged, steps)
    return merged


def merge_labels(labels: pd.Series, groups: Groups) -> pd.Series:
    """Return categorical labels with the name of its group for each member, in the place of the first member."""
    group_of = {member: name for name, members in groups.items() for member in members}
    codes, names = pd.factorize(pd.Index([group_of.get(name, name) for name in labels.cat.categories]))
    merged = pd.Categorical.from_codes(np.append(codes, -1)[labels.cat.codes], names)
    return pd.Series(merged, index=labels.index)


def merge_sums(sums: AnnData, groups: Groups) -> AnnData:
    """Return summed cells of each donor and merged type."""
    kinds = merge_labels(sums.obs[keys.CELL_TYPE], groups)
    donor, donors = pd.factorize(sums.obs[keys.DONOR].astype(str), sort=True)
    n_kinds = len(kinds.cat.categories)
    pairs, pair = np.unique(donor * n_kinds + kinds.cat.codes.to_numpy(dtype=int), return_inverse=True)
    donor, kind = np.divmod(pairs, n_kinds)
    rows = membership(pair, len(pairs))
    obs = pd.DataFrame(
        {
            keys.DONOR: donors[donor],
            keys.CELL_TYPE: pd.Categorical.from_codes(kind, kinds.cat.categories),
            "n_cells": (rows @ sums.obs["n_cells"].to_numpy(dtype=float)).astype(int),
            "total": rows @ sums.obs["total"].to_numpy(dtype=float),
        },
        index=[f"{donors[d]}: {kinds.cat.categories[k]}" for d, k in zip(donor, kind, strict=True)],
    )
    return make_adata((rows @ sums.X).tocsr(), obs=obs, var=sums.var[[]].copy())


def merge_profiles(
    profiles: AnnData, groups: Groups, weights: Mapping[str, float] | pd.Series | None = None, source: str = "weights"
) -> AnnData:
    """Return profiles in which the mean per cell of each group replaces those of its members.

    Parameters
    ----------
    profiles
        Cell types × genes, in any unit, with ``obs["cell_type"]`` or the types as ``obs_names``.
    groups
        Cell types of each group.
    weights
        Relative number of cells of each type. None: ``obs["n_cells"]``.
    source
        What the weights are, for messages.

    Returns
    -------
    Profiles with ``obs["cell_type"]``, ``obs["cell_size_umi"]`` and ``obs["total"]``.
    """
    obs = profiles.obs
    types = pd.Index(obs.get(keys.CELL_TYPE, profiles.obs_names)).astype(str)
    kinds = merge_labels(pd.Series(pd.Categorical(types, categories=types)), groups)
    members = types[types.isin([member for of in groups.values() for member in of])]
    source = source if weights is not None else "n_cells"
    weights = None if weights is None else dict(weights)
    given = (
        obs["n_cells"]
        if weights is None and "n_cells" in obs
        else [(weights or {}).get(name, np.nan) for name in types]
    )
    n_cells = pd.to_numeric(pd.Series(given, dtype=object).set_axis(types), errors="coerce").astype(float)
    if not (n_cells[members] >= 0).all() or not all(n_cells[list(of)].sum() > 0 for of in groups.values()):
        msg = (
            "Expected the relative number of cells of each merged type, to average their profiles, found "
            f"{'no' if weights is None else 'no valid'} {source} of {examples(members[~(n_cells[members] > 0)])}. Pass "
            "weights=, such as the mean measured fractions: {'CD4 T': 0.2, 'CD8 T': 0.1}."
        )
        raise ValueError(msg)
    # types that are not merged keep their profile
    n_cells[~types.isin(members)] = 1.0
    values = values_of(profiles)
    total = obs["total"].to_numpy(dtype=float) if "total" in obs else values.sum(axis=1)
    size = obs[keys.CELL_SIZE].to_numpy(dtype=float) if keys.CELL_SIZE in obs else total
    rows = membership(kinds.cat.codes.to_numpy(dtype=int), len(kinds.cat.categories)).toarray() * n_cells.to_numpy()
    rows /= rows.sum(axis=1, keepdims=True)
    # a profile may be in another unit than its size: add up shares of RNA, weighted by the RNA of the cells
    shares = values / np.where(total > 0, total, 1)[:, None]
    new_size, new_total = rows @ size, rows @ total
    merged = (rows * size) @ shares / np.where(new_size > 0, new_size, 1)[:, None] * new_total[:, None]
    names = pd.Index(kinds.cat.categories, dtype=str)
    table = pd.DataFrame({keys.CELL_TYPE: list(names), keys.CELL_SIZE: new_size, "total": new_total}, index=names)
    if "n_cells" in obs:
        table["n_cells"] = obs["n_cells"].groupby(kinds.to_numpy(), sort=False).sum().reindex(names).to_numpy()
    print(f"merge_types: profiles averaged by {source}")
    return make_adata(merged.astype(values.dtype), obs=table, var=profiles.var[[]].copy())
