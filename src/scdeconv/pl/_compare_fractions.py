from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from scdeconv._data.checks import checked
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import COMPARED, UNS
from scdeconv._data.warnings import warn
from scdeconv.pl._fractions import fractions, read_groups
from scdeconv.pl._style import (
    CHARACTER,
    GREY,
    LETTER,
    LIGHT,
    MAX_HEIGHT_INCHES,
    SMALL,
    Palette,
    chosen_types,
    new_axes,
    new_colors,
    saved,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

Kind = Literal["effects", "boxes"]
# false discovery rate below which a point is filled
ERROR_RATE = 0.05
# inches: height of an interval, width of the area of the intervals, room for axis and legend
ROW_INCHES, WIDTH_INCHES, AXIS_INCHES = 0.22, 3.6, 0.9
# gap between two cell types, in intervals
GAP = 0.6


@checked()
def compare_fractions(
    adata: AnnData,
    key: str = COMPARED,
    *,
    kind: Kind = "effects",
    cell_types: Sequence[str] | None = None,
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Result of :func:`scdeconv.tl.compare_fractions`: effects with intervals, or fractions with false discovery rates.

    The effects are the factors by which cell types change relative to the types that do not change, with their 95 %
    intervals, on a logarithmic scale. Filled points have a false discovery rate below 5 %. A star marks the types that are
    not in the reference. Boxes show the fractions of the samples in each group, as
    :func:`scdeconv.pl.fractions` does, with the false discovery rate of each type (of all contrasts together).

    Parameters
    ----------
    adata
        Samples with a comparison in ``adata.uns["scdeconv"]``.
    key
        Key of the comparison, ``key_added`` of :func:`scdeconv.tl.compare_fractions`.
    kind
        ``"effects"`` or ``"boxes"``. Continuous variables have no boxes.
    cell_types
        Cell types to show; None: all.
    palette
        Colours of the groups, see :func:`scdeconv.pl.fractions`. Boxes have the colour of their group, and the effects of
        ``"patient - control"`` that of the patients. For a continuous variable, a list with one colour, or a dictionary with
        its name.
    ax
        Axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the number of cell types and contrasts.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes.

    Writes
    ------
    ``adata.uns["<group>_colors"]`` of a categorical column of ``obs``, see :func:`scdeconv.pl.fractions`.

    Raises
    ------
    KeyError
        If there is no comparison of this key, or one of `cell_types` was not compared.
    ValueError
        If boxes of a continuous variable are asked for, or there are too few colours.

    Warns
    -----
    UserWarning
        If the boxes have other samples than the comparison.

    Examples
    --------
    >>> import scdeconv
    >>> _, bulk = scdeconv.datasets.paired_cohort(n_donors=12, n_genes=300, cells_per_donor=(50, 100))
    >>> bulk.obs["state"] = ["control"] * 9 + ["patient"] * 9
    >>> table = scdeconv.tl.compare_fractions(bulk, "state", key="true_fractions")
    >>> scdeconv.pl.compare_fractions(bulk).get_xlabel()
    'ratio: patient - control'
    """
    record = adata.uns.get(UNS, {}).get(key)
    if not isinstance(record, dict) or "in_reference" not in record.get("table", ()):
        msg = (
            f"Expected a comparison adata.uns['scdeconv'][{key!r}], found none. Call tl.compare_fractions first, or pass its "
            "key_added."
        )
        raise KeyError(msg)
    table = record["table"]
    compared = table.drop_duplicates("cell_type").set_index("cell_type")
    shown = chosen_types(cell_types, compared.T, f"adata.uns['scdeconv'][{key!r}]")
    if kind == "boxes":
        return saved(_draw_boxes(adata, record, compared.loc[shown, "q_overall"], palette, ax, figsize), save)
    colors = _contrast_colors(adata, record, palette)
    return saved(_draw_effects(table, compared, shown, colors, ax, figsize), save)


def _contrast_colors(adata: AnnData, record: dict[str, Any], palette: Palette | None) -> dict[str, str]:
    """Return the colour of each contrast: that of the group that is compared with the reference."""
    names = list(map(str, record["groups"])) or [record["group"]]
    colors = new_colors(pd.Index(names), palette)
    if len(names) > 1 and record["group"] in adata.obs:
        groups = read_groups(adata, record["group"], np.ones(adata.n_obs, dtype=bool), palette)
        colors |= groups.colors
        groups.remember(adata)
    compared = names[1:] or names
    return dict(zip(record["table"]["contrast"].unique(), map(colors.__getitem__, compared), strict=True))


def _draw_effects(
    table: pd.DataFrame,
    compared: pd.DataFrame,
    shown: list[str],
    colors: dict[str, str],
    ax: Axes | None,
    figsize: Sequence[float] | None,
) -> Axes:
    """Draw a row for each cell type and contrast."""
    contrasts = list(colors)
    names = [f"{name}{'' if compared.loc[name, 'in_reference'] else ' *'}" for name in shown]
    pitch = len(contrasts) + GAP
    width = WIDTH_INCHES + CHARACTER * max(map(len, names))
    height = min(ROW_INCHES * pitch * len(shown) + AXIS_INCHES, MAX_HEIGHT_INCHES)
    ax = new_axes(ax, figsize, (width, height))
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    for number, (contrast, color) in enumerate(colors.items()):
        rows = table[table["contrast"] == contrast].set_index("cell_type").loc[shown]
        y = pitch * np.arange(len(shown)) + number
        low, middle, high = (np.log2(rows[column]) for column in ("ratio_lower", "ratio", "ratio_upper"))
        ax.hlines(y, low, high, color=color, linewidth=1.6, zorder=2)
        fill = np.where(rows["q_value"] < ERROR_RATE, color, "white")
        ax.scatter(middle, y, s=30, color=fill, edgecolor=color, linewidth=1.2, zorder=3, label=contrast)
    ax.set_yticks(pitch * np.arange(len(shown)) + (len(contrasts) - 1) / 2, names)
    ax.set_ylim(pitch * len(shown) - GAP, -0.5 - GAP / 2)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda log, _: f"{2**log:.3g}"))
    reference = "" if compared["in_reference"].all() else "\n(relative to the types without *)"
    ax.set_xlabel(("ratio: " + contrasts[0] if len(contrasts) == 1 else "ratio") + reference)
    ax.grid(axis="x", color=LIGHT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if len(contrasts) > 1:
        # entries beside each other must not be wider than the figure
        columns = 2 if 2 * LETTER * max(map(len, contrasts)) < width - 1 else 1
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, fontsize=SMALL)
    return ax


def _draw_boxes(
    adata: AnnData,
    record: dict[str, Any],
    rates: pd.Series,
    palette: Palette | None,
    ax: Axes | None,
    figsize: Sequence[float] | None,
) -> Axes:
    """Draw the fractions of each group, and the false discovery rates beside the names of the types."""
    if not len(record["groups"]):
        msg = (
            f"Expected groups for kind='boxes', found the continuous variable {record['group']!r}. Use kind='effects', or "
            "pl.fractions_against."
        )
        raise ValueError(msg)
    ax = fractions(
        adata,
        record["key"],
        kind="box",
        groupby=record["group"],
        cell_types=list(map(str, rates.index)),
        palette=palette,
        ax=ax,
        figsize=figsize,
    )
    known = get_fractions(adata, record["key"]).notna().all(axis=1).to_numpy()
    sizes = read_groups(adata, record["group"], known).values.value_counts().to_dict()
    compared = dict(zip(map(str, record["groups"]), map(int, record["group_sizes"]), strict=True))
    if sizes != compared:
        warn(
            f"Expected the samples of the comparison, {compared}, found {sizes}. The false discovery rates do not belong to the "
            "boxes. Call tl.compare_fractions again."
        )
    names = [label.get_text() for label in ax.get_yticklabels()]
    ax.set_yticks(ax.get_yticks(), [f"{name}\n{_rate_text(rates, name)}" for name in names])
    return ax


def _rate_text(rates: pd.Series, name: str) -> str:
    """Return the false discovery rate of a type as text; empty for types that were not compared."""
    if name not in rates:
        return ""
    if np.isnan(rates[name]):
        return "q = NaN"
    return "q < 0.001" if rates[name] < 0.001 else f"q = {rates[name]:.3f}"
