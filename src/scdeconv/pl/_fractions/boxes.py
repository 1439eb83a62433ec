"""Boxes of fractions by cell type and group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from scdeconv.pl._style import (
    CHARACTER,
    LETTER,
    LIGHT,
    MAX_HEIGHT_INCHES,
    MAX_INCHES,
    SMALL,
    draw_boxes,
    jitter,
    new_axes,
    root_ticks,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from .columns import Column

# inches: height of a box and its minimum, width of the box area, room for the axis
BOX_INCHES, MIN_BOX_INCHES, WIDTH_INCHES, AXIS_INCHES = 0.24, 0.08, 4.5, 0.6
# inches: height of a line of the legend
LEGEND_LINE = 0.18
# gap between two cell types, in boxes
GAP_BOXES = 0.6


def draw_boxes_of_groups(
    table: pd.DataFrame, groups: Column, label: str, ax: Axes | None, figsize: Sequence[float] | None
) -> Axes:
    """Draw one row per cell type with a box per group and each sample as a point, on a square-root scale."""
    sizes = groups.values.value_counts()
    members = [table[groups.values == group] for group in sizes.index]
    pitch = len(members) + GAP_BOXES
    rows = (pitch * np.arange(table.shape[1])[:, None] + np.arange(len(members))).ravel()
    values = [of_group[cell_type].to_numpy() for cell_type in table for of_group in members]
    legend = [f"{group} (n = {size})" for group, size in sizes.items()]
    beside = CHARACTER * max(map(len, table.columns)) + 0.4
    width = min(WIDTH_INCHES + beside, MAX_INCHES)
    legend_columns = max(int(width / (LETTER * max(map(len, legend)) + 0.4)), 1)
    below = AXIS_INCHES + (LEGEND_LINE * -(-len(legend) // legend_columns) if groups.name else 0)
    n_boxes = pitch * table.shape[1]
    height = max(min(BOX_INCHES * n_boxes, MAX_HEIGHT_INCHES - below), MIN_BOX_INCHES * n_boxes, 1.2)
    ax = new_axes(ax, figsize, (width, height + below))

    color = [groups.colors[group] for group in sizes.index]
    draw_boxes(ax, rows, values, color * table.shape[1], 0.8)
    x = np.concatenate(values)
    y = np.repeat(rows, [len(of_row) for of_row in values])
    y = y + 0.6 * np.concatenate([jitter(len(of_row)) for of_row in values])
    fill = np.repeat(color * table.shape[1], [len(of_row) for of_row in values])
    size = float(np.clip(400 / sizes.max(), 3, 24))
    ax.scatter(x, y, s=size, color=fill, edgecolor="black", linewidth=0.5, alpha=0.8, zorder=5)

    largest = max(x.max(), 0.01)
    ax.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
    ax.set_xticks(root_ticks(largest))
    ax.xaxis.set_major_formatter("{x:.3g}")
    # margin of 3 % on the square-root scale
    ax.set(xlim=(-(0.03**2) * largest, 1.03**2 * largest), ylim=(rows[-1] + 0.8, -0.8))
    ax.hlines(pitch * np.arange(1, table.shape[1]) - (1 + GAP_BOXES) / 2, *ax.get_xlim(), color=LIGHT, linewidth=0.8)
    ax.set_xlabel(f"{label} (square-root scale)")
    ax.set_yticks(pitch * np.arange(table.shape[1]) + (len(members) - 1) / 2, table.columns)
    ax.grid(axis="x", color=LIGHT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if groups.name:
        handles = [Patch(facecolor=of_group, edgecolor="0.35") for of_group in color]
        ax.legend(
            handles,
            legend,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=ax.transAxes + ScaledTranslation(0, -0.45, ax.figure.dpi_scale_trans),
            ncols=legend_columns,
            frameon=False,
            handlelength=1,
            fontsize=SMALL,
        )
    return ax
