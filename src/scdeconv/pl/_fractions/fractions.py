from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import FRACTIONS
from scdeconv.pl._style import (
    OTHER,
    Palette,
    cell_type_colors,
    chosen_types,
    fraction_label,
    refuse_size_of_given_axes,
    remember_colors,
    saved,
)

from .bars import draw_bars
from .boxes import draw_boxes_of_groups
from .columns import read_groups, read_tracks
from .heat_map import draw_heat_map
from .samples import clustered, grouped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

Kind = Literal["bars", "heatmap", "box"]
# samples × cell types up to which bars are the default: about 100 samples with 10 types
MAX_BAR_VALUES = 1000


@checked()
def fractions(
    adata: AnnData,
    key: str = FRACTIONS,
    *,
    kind: Kind | None = None,
    groupby: str | None = None,
    sort_by: str | None = None,
    cell_types: Sequence[str] | None = None,
    n_types: int | None = None,
    tracks: Sequence[str] | str = (),
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Composition of each sample as stacked bars, as heat map, or as box plot per group and cell type.

    Reads ``adata.obsm[key]``. Samples with NaN are ignored. Sample names are shown if there is space.

    Bars show the samples from left to right, sorted by the fraction of one cell type, which is at the bottom of the
    stack. The heat map shows the samples in the order of a hierarchical clustering within each group, with its
    dendrogram, and the cell types clustered by their profiles over samples; with `sort_by`, it has the order of the
    bars. The box plot shows samples as points, boxes (quartiles) with the median, and whiskers (5th to 95th
    percentile); groups of fewer than 5 samples have points only. Heat map and box plot have a square-root scale, so that
    rare cell types are visible.

    A cell type has the same colour in all plots of an object. The colours are, in this order, those of `palette`, of
    ``adata.uns["<key>_colors"]``, of ``adata.uns["cell_type_colors"]``, of the other tables that were drawn, and of a
    palette of 40 colours, assigned by name. Black is used last, for the smallest type. Stored colours are a dictionary
    by name, or a list in the order of the columns (groups: categories), as in scanpy.

    Parameters
    ----------
    adata
        Samples with fractions.
    key
        Table of ``adata.obsm`` to draw.
    kind
        Type of the plot: ``"bars"``, ``"heatmap"`` or ``"box"``. None: bars for up to 1,000 values (samples × cell
        types), else a heat map; a heat map with `tracks`.
    groupby
        Column of ``adata.obs`` with groups, shown separately in the order of its categories.
    sort_by
        Cell type that sorts the samples of bars and heat map; None: bars are sorted by the most abundant cell type, and
        the heat map is clustered.
    cell_types
        Cell types to show; None: all.
    n_types
        Number of the most abundant cell types to show; the others are summed. None: all. More than 12 types are
        difficult to tell apart in bars.
    tracks
        Columns of ``adata.obs`` that are drawn above the heat map: groups with a legend, numbers in grey with their range.
    palette
        Colours of cell types; for boxes, of groups: a list in the order of the columns or categories, a dictionary of
        some or all names, or the name of a matplotlib colour map. A heat map only stores the colours, for other plots.
    ax
        Axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the number of samples or boxes.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes.

    Writes
    ------
    ``adata.uns["<key>_colors"]``, not for boxes, and ``adata.uns["<column>_colors"]`` of categorical columns of ``obs``
    that have colours in the plot: lists as in scanpy. The names of the colours are kept in ``adata.uns["scdeconv"]["colors"]``, so that a cell type
    keeps its colour if the columns are reordered. Views are not changed.

    Raises
    ------
    KeyError
        If `key`, `groupby`, `sort_by`, one of `cell_types` or one of `tracks` does not exist.
    TypeError
        If the fractions are not a DataFrame.
    ValueError
        If all samples are NaN, fractions are not finite numbers, cell types or columns of ``obs`` are repeated, `kind` is
        unknown, `tracks` are given without a heat map, or there are too few colours.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> import scdeconv
    >>> adata = AnnData(obs=pd.DataFrame({"sex": ["f", "m"]}, index=["s1", "s2"]))
    >>> adata.obsm["fractions"] = pd.DataFrame({"B": [0.4, 0.1], "T": [0.6, 0.9]}, index=adata.obs_names)
    >>> ax = scdeconv.pl.fractions(adata, groupby="sex")
    >>> ax.get_ylabel()
    'cell fraction'
    >>> ax = scdeconv.pl.fractions(adata, kind="heatmap", tracks=["sex"], palette={"B": "tab:blue"})
    >>> ax = scdeconv.pl.fractions(adata, kind="box", groupby="sex")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['f (n = 1)', 'm (n = 1)']
    """
    refuse_size_of_given_axes(ax, figsize, "ax")
    table = get_fractions(adata, key)
    known = table.notna().all(axis=1).to_numpy()
    if not known.any():
        msg = (
            f"Expected samples with fractions in adata.obsm[{key!r}], found {len(table)} rows of NaN. Use another key."
        )
        raise ValueError(msg)
    shown = table.loc[known, chosen_types(cell_types, table, f"adata.obsm[{key!r}]")]
    if sort_by is not None and sort_by not in shown:
        msg = f"Expected sort_by to be one of {list(shown)}, found {sort_by!r}. Use a cell type of adata.obsm[{key!r}]."
        raise KeyError(msg)
    shown, rest = _with_other(shown, n_types, sort_by)
    names = [tracks] if isinstance(tracks, str) else list(tracks)
    if kind is None:
        kind = "heatmap" if names or shown.size > MAX_BAR_VALUES else "bars"
    if names and kind != "heatmap":
        msg = f"Expected kind='heatmap' for tracks, found {kind!r}. Pass kind='heatmap' or omit tracks."
        raise ValueError(msg)
    groups = read_groups(adata, groupby, known, palette if kind == "box" else None)
    label = fraction_label(adata, key)
    if kind == "box":
        drawn = draw_boxes_of_groups(shown, groups, label, ax, figsize)
        groups.remember(adata)
        return saved(drawn, save)
    colors = cell_type_colors(adata, key, table.columns, palette)
    columns = read_tracks(adata, names, known)
    if kind == "bars":
        first = str(shown[shown.columns.drop(rest)].mean().idxmax()) if sort_by is None else sort_by
        samples = grouped(shown[[first, *shown.columns.drop(first)]], groups, first)
        drawn = draw_bars(samples, {**colors, **dict.fromkeys(rest, OTHER)}, label, ax, figsize)
    else:
        samples = clustered(shown, groups) if sort_by is None else grouped(shown, groups, sort_by)
        drawn = draw_heat_map(samples, columns, label, ax, figsize)
    remember_colors(adata, key, colors, table.columns)
    for column in columns:
        column.remember(adata)
    return saved(drawn, save)


def _with_other(table: pd.DataFrame, n_types: int | None, sort_by: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Return the table with the sum of all but the most abundant types as last column, and the name of this column."""
    if n_types is None or table.shape[1] <= n_types:
        return table, []
    kept = table.mean().nlargest(n_types).index
    if sort_by is not None and sort_by not in kept:
        kept = kept[: n_types - 1].append(pd.Index([sort_by]))
    others = table.columns.difference(kept)
    name = f"other ({len(others)} types)"
    return table[[column for column in table if column in kept]].assign(**{name: table[others].sum(axis=1)}), [name]
