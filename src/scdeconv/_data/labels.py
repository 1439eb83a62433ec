"""Text conversion of names and labels with the same result in pandas 2 and 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from anndata import AnnData
    from mudata import MuData

    Annotated = TypeVar("Annotated", AnnData, MuData)

Values = TypeVar("Values", pd.Series, pd.Index)


def as_text(values: Values) -> Values:
    """Return values as text; missing values become ``"nan"`` in both pandas 2 and 3."""
    return values.astype(object).where(values.notna(), "nan").astype(str)


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with nullable string columns converted to object columns.

    anndata 0.12 reads text of newer releases as nullable strings but cannot write them.
    """
    for name, dtype in table.dtypes.items():
        if _is_nullable_text(dtype):
            table = table.assign(**{str(name): table[name].astype(object).where(table[name].notna(), None)})
    if _is_nullable_text(table.index.dtype):
        table = table.set_axis(table.index.astype(object), axis=0)
    if _is_nullable_text(table.columns.dtype):
        table = table.set_axis(table.columns.astype(object), axis=1)
    return table


def plain_tables(adata: Annotated) -> Annotated:
    """Apply :func:`plain_table` to all tables of an object in place and return the object."""
    adata.obs, adata.var = plain_table(adata.obs), plain_table(adata.var)
    for tables in (adata.obsm, adata.varm, adata.uns):
        _replace_tables(tables)
    return adata


def _replace_tables(values: MutableMapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, pd.DataFrame):
            values[key] = plain_table(value)
        elif isinstance(value, dict):
            _replace_tables(value)


def _is_nullable_text(dtype: object) -> bool:
    return isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA
