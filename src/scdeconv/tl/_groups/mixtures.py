"""Bulk expression and fractions of the same samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scdeconv._data.checks import check_expression, examples
from scdeconv._data.matrix import get_matrix, to_dense
from scdeconv._data.warnings import warn

from .samples import read_fractions, warn_of_samples

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from scdeconv._data.checks import Problems


class Mixtures(NamedTuple):
    """Samples with fractions."""

    #: Fractions, samples × cell types.
    fractions: pd.DataFrame
    #: Linear expression, samples × genes.
    expression: np.ndarray
    #: Mask of these samples among those of the object.
    known: np.ndarray


def read_mixtures(problems: Problems, adata: AnnData, key: str, layer: str | None) -> Mixtures:
    """Return the samples of the object that have fractions; raise an error if fractions or expression have problems.

    Warn of samples without fractions, fits of training samples, and repeated names of genes.

    Parameters
    ----------
    problems
        Collects the messages.
    adata
        Bulk samples × genes.
    key
        Table of ``obsm`` with the fractions.
    layer
        Layer with the expression, or None for ``X``.
    """
    table, matrix = read_fractions(problems, adata, key), get_matrix(adata, layer, "adata")
    check_expression(problems, adata, matrix, "adata", logged="log1p" in adata.uns and layer is None)
    problems.raise_if_any()
    repeated = adata.var_names[adata.var_names.duplicated()].unique()
    if len(repeated):
        warn(
            f"Expected unique gene names in adata, found {len(repeated)} repeated: {examples(repeated)}. Results of the same "
            "name are of different genes. Call adata.var_names_make_unique() first."
        )
    known = table.notna().all(axis=1).to_numpy()
    warn_of_samples(adata, key, known)
    return Mixtures(table[known], to_dense(matrix[known]), known)
