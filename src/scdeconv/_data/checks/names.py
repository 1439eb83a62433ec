"""Checks of sample names, gene names and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv._data import keys
from scdeconv._data.labels import is_missing

from .problems import Problems, examples

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# keys of uns["scdeconv"] of other records than results
RESERVED = (keys.CALIBRATION, keys.COLORS, keys.COMBINED, keys.VALUES)


def check_names(problems: Problems, obs_names: pd.Index, var_names: pd.Index, name: str) -> None:
    """Refuse repeated names of samples and genes, and samples without a name ("nan", "NA", "")."""
    missing = is_missing(obs_names)
    if missing.any():
        problems.add(
            f"Expected a name for every row of {name}, found {int(missing.sum())} without: "
            f"{examples(obs_names[missing])}. Set {name}.obs_names."
        )
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


def check_key_added(problems: Problems, adata: AnnData, key_added: str, entry: str) -> None:
    """Report a key whose record belongs to something else, such as an estimate; own records have this entry."""
    record = adata.uns.get(keys.UNS, {}).get(key_added, {entry: None})
    if key_added in adata.obsm or key_added in RESERVED or entry not in record:
        problems.add(
            f"Expected key_added without other results in adata, found {key_added!r}, whose record would be lost. Choose "
            "another key."
        )
