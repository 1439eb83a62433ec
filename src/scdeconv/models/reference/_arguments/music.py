"""Argument checks of MuSiC: subjects, cell sizes, groups of similar cell types, marker genes of the groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import examples
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.reference import count_cells
from scdeconv._stats.solvers.subject_weights import FEWEST_SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mudata import MuData


def check_arguments(parameters: Mapping[str, Any], mdata: MuData, genes: pd.Index) -> None:
    """Raise ``ValueError`` if the arguments of MuSiC do not match the data."""
    cell_types, sums = list(mdata[keys.PROFILES].obs[keys.CELL_TYPE]), mdata[keys.SUMS]
    donors = sorted(sums.obs[keys.DONOR].astype(str).unique())
    check_subjects(count_cells(sums, donors, cell_types) > 0, covariance=parameters["covariance"])
    if parameters["cell_sizes"] is not None:
        check_sizes(parameters["cell_sizes"], cell_types)
    groups, markers = parameters["groups"], parameters["group_markers"]
    if groups is not None:
        members = group_members(groups, cell_types)
        if markers is not None:
            given_markers(markers, groups, genes, len(members))


def check_subjects(there: pd.DataFrame, *, covariance: bool) -> None:
    """Raise ``ValueError`` if a type has too few subjects for a variance; ``there`` is donors × cell types (bool)."""
    few = list(there.columns[there.sum() < FEWEST_SUBJECTS])
    if few:
        msg = (
            f"Expected cells of at least {FEWEST_SUBJECTS} donors for every type, found fewer for {examples(few)}. "
            "Merge these types with others, remove them, or use method='nnls'."
        )
        raise ValueError(msg)
    n_complete = int(there.all(axis=1).sum())
    if covariance and n_complete < FEWEST_SUBJECTS:
        msg = (
            f"Expected at least {FEWEST_SUBJECTS} donors with cells of all types for covariance=True, found {n_complete}. "
            "Use covariance=False."
        )
        raise ValueError(msg)


def check_sizes(sizes: Mapping[str, float], cell_types: Sequence[str]) -> None:
    """Raise ``ValueError`` unless there is one positive cell size for each type."""
    wrong = sorted(set(sizes) ^ set(cell_types)) or [name for name, size in sizes.items() if not 0 < size < np.inf]
    if wrong:
        msg = (
            f"Expected cell_sizes with one positive number for each of {list(cell_types)}, found missing, unknown or "
            f"invalid values for {examples(wrong)}. Correct cell_sizes."
        )
        raise ValueError(msg)


def group_members(groups: Mapping[str, Sequence[str]], cell_types: Sequence[str]) -> np.ndarray:
    """Return the members of each group, groups × cell types (bool); a type in no group is its own group."""
    grouped = [cell_type for members in groups.values() for cell_type in members]
    empty = [name for name, members in groups.items() if not members]
    if empty:
        msg = f"Expected cell types in every group of groups, found none in {examples(empty)}. Remove these groups."
        raise ValueError(msg)
    unknown = sorted(set(grouped) - set(cell_types))
    if unknown:
        msg = f"Expected groups with cell types of {list(cell_types)}, found {examples(unknown)}. Correct the names."
        raise ValueError(msg)
    repeated = sorted({cell_type for cell_type in grouped if grouped.count(cell_type) > 1})
    if repeated:
        msg = (
            f"Expected every cell type in one group of groups, found {examples(repeated)} in several. Keep one group "
            "for each."
        )
        raise ValueError(msg)
    alone = [[cell_type] for cell_type in cell_types if cell_type not in grouped]
    return np.array([np.isin(cell_types, list(members)) for members in [*groups.values(), *alone]])


def given_markers(
    markers: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]], genes: pd.Index, n_groups: int
) -> np.ndarray:
    """Return the user's marker genes within each group, ``n_groups`` × genes (bool).

    Genes that the model does not have are ignored. Ensembl versions are ignored. Groups of one type have no markers.
    """
    unknown = sorted(set(markers) - set(groups))
    if unknown:
        msg = f"Expected group_markers for groups of {list(groups)}, found {examples(unknown)}. Correct the names."
        raise ValueError(msg)
    known = strip_versions(genes)
    mask = np.zeros((n_groups, len(genes)), dtype=bool)
    for row, (name, members) in enumerate(groups.items()):
        mask[row] = known.isin(strip_versions(pd.Index(list(markers.get(name, [])), dtype=str)))
        if len(members) > 1 and mask[row].sum() < len(members):
            msg = (
                f"Expected at least {len(members)} group_markers of group {name!r} among the model's {len(genes)} "
                f"genes, found {mask[row].sum()}. Pass genes that differ between {examples(members)}, or "
                "group_markers=None."
            )
            raise ValueError(msg)
    left = int((~mask.any(axis=0)).sum())
    if left < n_groups:
        msg = (
            f"Expected at least {n_groups} genes outside group_markers to estimate the {n_groups} groups, found "
            f"{left}. Pass fewer group_markers."
        )
        raise ValueError(msg)
    return mask
