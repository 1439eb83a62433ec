from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.transforms import ScaledTranslation

from scdeconv._data.checks import checked
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import FRACTIONS
from scdeconv.pl._fraction_boxes import draw_fraction_boxes
from scdeconv.pl._style import (
    CHARACTER,
    GREY,
    SAMPLE,
    category_colors,
    cell_type_colors,
    fraction_label,
    root_ticks,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from anndata import AnnData
    from matplotlib.axes import Axes

Kind = Literal["bars", "heatmap", "box"]
NOT_GIVEN = "not given"


@checked()
def fractions(
    adata: AnnData,
    key: str = FRACTIONS,
    *,
    kind: Kind = "bars",
    groupby: str | None = None,
    sort_by: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Composition of each sample as stacked bars, as heat map, or as box plot per group and cell type.

    Reads ``adata.obsm[key]``. Samples with NaN are ignored. Bars and heat map show the samples from left to right,
    sorted by the fraction of one cell type, which is at the bottom of the stack. Sample names are shown if there is
    space. The box plot shows samples as points, boxes (quartiles) with the median, and whiskers (5th to 95th
    percentile). Heat map and box plot have a square-root scale, so that rare cell types are visible.

    Colours of cell types are read from ``adata.uns["<key>_colors"]`` or ``adata.uns["cell_type_colors"]``, colours of
    groups from ``adata.uns["<groupby>_colors"]``: a mapping, or a list in the order of the columns or categories. The
    default is a colour-blind safe palette of 25 colours, assigned by name, so that a cell type has the same colour in
    all plots. With more types, a rainbow palette is used.

    Parameters
    ----------
    adata
        Samples with fractions.
    key
        Table of ``adata.obsm`` to draw.
    kind
        Type of the plot: ``"bars"``, ``"heatmap"`` or ``"box"``.
    groupby
        Column of ``adata.obs`` with groups, shown separately in the order of its categories.
    sort_by
        Cell type that sorts the samples of bars and heat map; None: the most abundant cell type.
    ax
        Axes; None: a new figure. Its size depends on the number of samples or boxes.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If `key`, `groupby` or `sort_by` does not exist.
    TypeError
        If the fractions are not a DataFrame.
    ValueError
        If all samples are NaN, `kind` is unknown, or ``adata.uns`` has too few colours.

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
    >>> ax = scdeconv.pl.fractions(adata, kind="box", groupby="sex")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['f (n = 1)', 'm (n = 1)']
    """
    table = get_fractions(adata, key)
    known = table.notna().all(axis=1).to_numpy()
    if not known.any():
        msg = (
            f"Expected samples with fractions in adata.obsm[{key!r}], found {len(table)} rows of NaN. Use another key."
        )
        raise ValueError(msg)
    table = table[known]
    sort_by = str(table.mean().idxmax()) if sort_by is None else sort_by
    if sort_by not in table:
        msg = f"Expected sort_by to be one of {list(table)}, found {sort_by!r}. Use a cell type of adata.obsm[{key!r}]."
        raise KeyError(msg)
    groups, group_colors = _groups(adata, groupby)
    groups = groups[known].remove_unused_categories()
    label = fraction_label(adata, key)
    if kind == "box":
        return draw_fraction_boxes(table, groups, group_colors, label, ax)

    order = np.lexsort((-table[sort_by].to_numpy(), groups.codes))
    table, codes = table.iloc[order], groups.codes[order]
    position = np.arange(len(table)) + max(0.8, 0.02 * len(table)) * codes
    length = position[-1] + 1
    # width of the legend, or of the names and colour bar of the heat map
    beside = CHARACTER * max(map(len, table.columns)) + 0.6
    if ax is None:
        width = float(np.clip(0.32 * length, 2.2, 10))
    else:
        width = max(ax.get_window_extent().width / ax.figure.dpi - beside, 1.0)
    pitch = width / length
    named = pitch > SAMPLE
    longest = CHARACTER * max(map(len, table.index))
    headings, slanted = _headings(groups.categories, np.bincount(codes), pitch)
    if ax is None:
        lines = max(len(heading.splitlines()) for heading in headings)
        above = CHARACTER / 2 * max(map(len, headings)) if slanted else 0.18 * lines
        below = longest if named and longest > pitch else 0.2
        height = max(3.6, 0.21 * table.shape[1] + 0.3) if kind == "bars" else max(1.5, 0.24 * table.shape[1])
        _, ax = plt.subplots(figsize=(width + beside + 0.8, above + height + below), layout="constrained")

    if kind == "bars":
        types = [sort_by, *(column for column in table if column != sort_by)]
        _draw_bars(ax, table[types], position, cell_type_colors(adata, key, table.columns), named)
        ax.set_ylabel(label)
    else:
        _draw_heat_map(ax, table, position, codes, label)
    ax.set_xlim(-0.6, length - 0.4)
    ax.tick_params(axis="x", length=0)
    if named:
        ax.set_xticks(position, table.index, rotation=90 if longest > pitch else 0, fontsize=8)
    else:
        ax.set_xticks([])
        ax.set_xlabel(f"{len(table)} samples")
    if groupby is not None:
        line, text = (
            ax.get_xaxis_transform() + ScaledTranslation(0, y, ax.figure.dpi_scale_trans) for y in (0.05, 0.1)
        )
        side = {"ha": "left", "rotation": 30, "rotation_mode": "anchor"} if slanted else {"ha": "center"}
        for code, heading in enumerate(headings):
            members = position[codes == code]
            ax.plot(members[[0, -1]] + [-0.45, 0.45], [1, 1], transform=line, clip_on=False, color=GREY, linewidth=1.5)
            ax.text(members.mean(), 1, heading, transform=text, va="bottom", **side)
    return ax


def _groups(adata: AnnData, groupby: str | None) -> tuple[pd.Categorical[Any], dict[Hashable, str]]:
    """Return the group of each sample and the colours of the groups."""
    if groupby is None:
        groups = pd.Categorical([""] * adata.n_obs)
        return groups, category_colors(adata, "", groups.categories)
    if groupby not in adata.obs:
        msg = (
            f"Expected groupby to be one of the columns {list(adata.obs)} of adata.obs, found {groupby!r}. Correct it."
        )
        raise KeyError(msg)
    groups = pd.Categorical(adata.obs[groupby])
    groups = groups.rename_categories(str)
    colors = category_colors(adata, groupby, groups.categories)
    if (groups.codes < 0).any():
        groups = groups.add_categories([NOT_GIVEN]).fillna(NOT_GIVEN)
    return groups, {**colors, NOT_GIVEN: GREY}


def _headings(names: pd.Index, sizes: np.ndarray, pitch: float) -> tuple[list[str], bool]:
    """Return group names with sizes, wrapped to the width of their bars, and whether to rotate them."""
    rooms = np.maximum(pitch * sizes / CHARACTER, 1).astype(int)
    full = [f"{name} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{size})" for name, size in zip(names, sizes, strict=True)]
    wrapped = [wrap(text, room, break_long_words=False) for text, room in zip(full, rooms, strict=True)]
    if any(len(line) > room for lines, room in zip(wrapped, rooms, strict=True) for line in lines):
        return full, True
    return ["\n".join(lines) for lines in wrapped], False


def _draw_bars(
    ax: Axes, table: pd.DataFrame, position: np.ndarray, colors: dict[Hashable, str], has_edges: bool
) -> None:
    edge = {"width": 0.88, "edgecolor": "white", "linewidth": 0.5} if has_edges else {"width": 1.0, "linewidth": 0}
    bottom = np.zeros(len(table))
    for cell_type in table:
        height = table[cell_type].to_numpy()
        ax.bar(position, height, bottom=bottom, color=colors[cell_type], label=cell_type, **edge)
        bottom += height
    ax.set_ylim(0, max(1, bottom.max()))
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, handlelength=1)


def _draw_heat_map(ax: Axes, table: pd.DataFrame, position: np.ndarray, codes: np.ndarray, label: str) -> None:
    largest = max(table.to_numpy().max(), 0.01)
    for code in np.unique(codes):
        of_group = codes == code
        left, right = position[of_group][[0, -1]] + [-0.5, 0.5]
        edges = np.linspace(left, right, of_group.sum() + 1), np.arange(table.shape[1] + 1) - 0.5
        image = ax.pcolormesh(*edges, table[of_group].T, cmap="cividis", norm=PowerNorm(0.5, 0, largest))
    ax.set_yticks(range(table.shape[1]), table.columns)
    ax.set_ylim(table.shape[1] - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(
        image, ax=ax, aspect=max(8, 1.2 * table.shape[1]), pad=0.02, ticks=root_ticks(largest), format="{x:.3g}"
    )
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)
