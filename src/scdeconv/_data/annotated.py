"""Create and subset AnnData objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anndata import AnnData

from scdeconv._data import keys
from scdeconv._data.matrix import get_matrix, is_lazy, take_columns, to_dense
from scdeconv._data.warnings import dependency_warnings_ignored

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Rows = Any
"""Boolean mask, positions or names of observations or variables."""


def make_adata(x: Any = None, **parts: Any) -> AnnData:
    """Return ``AnnData(x, **parts)`` without warnings of dependencies."""
    with dependency_warnings_ignored():
        return AnnData(x, **parts)


def subset(adata: AnnData, rows: Rows = slice(None), genes: Rows = slice(None)) -> AnnData:
    """Return a copy of some rows and genes."""
    with dependency_warnings_ignored():
        return adata[rows, genes].copy()


def write_record(adata: AnnData, name: str, record: dict[str, Any]) -> None:
    """Write ``adata.uns["scdeconv"][name]``.

    A view becomes a copy, as anndata does. The other records are shared with its parent, which must not be changed.
    """
    adata.uns[keys.UNS] = {**adata.uns.get(keys.UNS, {}), name: record}


def without_file(adata: AnnData) -> AnnData:
    """Return an AnnData in memory that does not refer to a file; arrays in memory are shared, not copied."""
    matrices = [None if adata.isbacked else adata.X, *adata.layers.values()]
    loaded = adata.to_memory() if adata.isbacked or any(map(is_lazy, matrices)) else adata
    tables = {name: dict(getattr(loaded, name)) for name in ("uns", "obsm", "varm", "obsp", "varp", "layers")}
    return make_adata(loaded.X, obs=loaded.obs, var=loaded.var, **tables)


def values_of(adata: AnnData, rows: np.ndarray | None = None, genes: pd.Index | None = None) -> np.ndarray:
    """Return values of ``X`` as a dense array of floats.

    Parameters
    ----------
    adata
        Samples × genes.
    rows
        Boolean mask or positions of the samples. Default: all samples.
    genes
        Gene names, unique in ``adata``. Default: all genes.

    Raises
    ------
    KeyError
        If ``adata`` lacks one of the genes.
    """
    matrix = get_matrix(adata, None, "adata")
    if rows is not None:
        matrix = matrix[rows]
    if genes is not None:
        columns = adata.var_names.get_indexer(genes)
        if (columns < 0).any():
            msg = (
                f"Expected all genes of the model in adata, found no gene {genes[columns < 0][0]!r}. "
                "Train the model again."
            )
            raise KeyError(msg)
        matrix = take_columns(matrix, columns)
    return to_dense(matrix)
