"""Fractions to compare, and warnings about samples without an estimate of their composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv._data.checks import check_cell_type_names, check_fractions, examples
from scdeconv._data.fractions import get_fractions
from scdeconv._data.training_samples import training_samples
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from scdeconv._data.checks import Problems


def read_fractions(problems: Problems, adata: AnnData, key: str) -> pd.DataFrame:
    """Return the table ``obsm[key]``, samples × cell types; problems of its values and names are added to ``problems``."""
    table = get_fractions(adata, key)
    check_fractions(problems, table, f"adata.obsm[{key!r}]")
    if table.isna().all(axis=None):
        problems.add(
            f"Expected samples with fractions in adata.obsm[{key!r}], found {len(table)} rows of NaN. Use another key."
        )
    check_cell_type_names(problems, table.columns, f"adata.obsm[{key!r}]")
    return table


def warn_of_samples(adata: AnnData, key: str, known: np.ndarray) -> None:
    """Warn about samples without fractions (not ``known``), and samples with the fit of a model trained on them."""
    if not known.all():
        without = adata.obs_names[~known]
        warn(f"{len(without)} of {len(known)} samples have no fractions (NaN) and are ignored: {examples(without)}.")
    fitted = training_samples(adata, key, adata.obs_names[known], "in_sample")
    if fitted:
        warn(
            f"{len(fitted)} samples were training samples and have the fit, which is no estimate of their composition: "
            f"{examples(fitted)}. Compare out-of-fold predictions: call tl.predict without in_sample=True."
        )
