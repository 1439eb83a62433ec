"""Checks of sample names, gene names, cell-type names and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_names(problems: Problems, obs_names: pd.Index, var_names: pd.Index, name: str) -> None:
    """Report duplicate sample and gene names."""
    if not obs_names.is_unique:
        repeated = obs_names[obs_names.duplicated()].unique()
        problems.add(
            f"Expected unique {name}.obs_names, found {len(repeated)} repeated: {examples(repeated)}. "
            f"Call {name}.obs_names_make_unique()."
        )
    if not var_names.is_unique:
        repeated = var_names[var_names.duplicated()].unique()
        problems.add(
            f"Expected unique gene names in {name}, found {len(repeated)} repeated: {examples(repeated)}. "
            'Sum them, as pp.pair does with duplicates="sum", or make them unique.'
        )


def check_cell_type_names(problems: Problems, cell_types: Iterable[object], name: str) -> None:
    """Report cell-type names that contain ``/`` or are repeated."""
    names = pd.Index([str(item) for item in cell_types])
    slashed = [item for item in names if "/" in item]
    if slashed:
        problems.add(
            f"Expected cell-type names without '/' in {name}, found {len(slashed)}: {examples(slashed)}. "
            "h5ad files do not support such column names. Rename them, e.g. 'NK/T' to 'NK-T'."
        )
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        problems.add(
            f"Expected unique cell types in {name}, found {len(repeated)} repeated: {examples(repeated)}. "
            "Sum or rename them."
        )
