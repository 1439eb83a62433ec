"""Columns of ``obs`` that group samples or are drawn beside them, with their colours."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data.labels import as_labels, as_text, is_continuous
from scdeconv.pl._style import GREY, category_colors, refuse_missing_columns, remember_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scdeconv.pl._style import Palette

NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Column:
    """A column of ``obs``.

    Parameters
    ----------
    name
        Name of the column; empty if there is none.
    values
        Group of each shown sample as categorical, or numbers as array.
    categories
        All categories of the column; None: numbers, or a column of another type than categorical.
    colors
        Colours of the groups; empty for numbers.
    """

    name: str
    values: Any
    categories: pd.Index | None
    colors: dict[Hashable, str]

    def remember(self, adata: AnnData) -> None:
        """Write the colours of a categorical column, as scanpy."""
        if self.categories is not None:
            remember_colors(adata, self.name, self.colors, self.categories)


def read_groups(adata: AnnData, name: str | None, known: np.ndarray, palette: Palette | None = None) -> Column:
    """Return the group of each shown sample; one group without a name if there is no column."""
    if name is None:
        groups = pd.Categorical([""] * known.sum())
        return Column("", groups, None, category_colors(adata, "", groups.categories, palette))
    refuse_missing_columns(adata, [name], "groupby")
    column = adata.obs[name]
    groups = pd.Categorical(column)
    # the same labels as in the tests of groups
    categories = as_text(as_labels(pd.Index(groups.categories, dtype=object)))
    colors = category_colors(adata, name, categories, palette)
    stored = categories if isinstance(column.dtype, pd.CategoricalDtype) and categories.is_unique else None
    labels = np.append(categories, NOT_GIVEN)[groups.codes]
    groups = pd.Categorical(labels[known], pd.Index([*categories, NOT_GIVEN]).unique())
    return Column(name, groups.remove_unused_categories(), stored, {NOT_GIVEN: GREY, **colors})


def read_tracks(adata: AnnData, names: Sequence[str], known: np.ndarray) -> list[Column]:
    """Return columns of the shown samples: numbers, or groups."""
    refuse_missing_columns(adata, names, "tracks")
    return [
        Column(name, adata.obs[name].to_numpy(dtype=float, na_value=np.nan)[known], None, {})
        if is_continuous(adata.obs[name])
        else read_groups(adata, name, known)
        for name in names
    ]
