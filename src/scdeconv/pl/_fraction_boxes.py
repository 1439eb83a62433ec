from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from scdeconv.pl._style import CHARACTER, draw_boxes, root_ticks

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd
    from matplotlib.axes import Axes

# inches: height of a box, width of the box area, maximum height of the box area
BOX_INCHES, WIDTH_INCHES, MAX_HEIGHT_INCHES = 0.24, 4.5, 24.0
# gap between two cell types, in boxes
GAP_BOXES = 0.6
GOLDEN_RATIO = (np.sqrt(5) - 1) / 2


def draw_fraction_boxes(
    table: pd.DataFrame, groups: pd.Categorical[Any], colors: dict[Hashable, str], label: str, ax: Axes | None
) -> Axes:
    """Draw one row per cell type with a box per group and each sample as a point, on a square-root scale."""
    sizes = groups.value_counts()
    members = [table[groups == group] for group in sizes.index]
    pitch = len(members) + GAP_BOXES
    rows = (pitch * np.arange(table.shape[1])[:, None] + np.arange(len(members))).ravel()
    values = [of_group[cell_type].to_numpy() for cell_type in table for of_group in members]
    legend = [f"{group} (n = {size})" for group, size in sizes.items()]
    if ax is None:
        height = min(max(BOX_INCHES * pitch * table.shape[1], 1.2), MAX_HEIGHT_INCHES) + 0.6
        beside = CHARACTER * (max(map(len, table.columns)) + max(map(len, legend))) + 0.8
        _, ax = plt.subplots(figsize=(WIDTH_INCHES + beside, height), layout="constrained")

    color = [colors[group] for group in sizes.index]
    draw_boxes(ax, rows, values, color * table.shape[1], 0.8)
    x = np.concatenate(values)
    # deterministic jitter: multiples of the golden ratio are evenly distributed
    spread = np.concatenate([np.arange(1, len(of_row) + 1) * GOLDEN_RATIO % 1 - 0.5 for of_row in values])
    y = np.repeat(rows, [len(of_row) for of_row in values]) + 0.6 * spread
    size = float(np.clip(400 / sizes.max(), 3, 24))
    ax.scatter(x, y, s=size, color="white", edgecolor="black", linewidth=0.5, alpha=0.8, zorder=5)

    largest = max(x.max(), 0.01)
    ax.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
    ax.set_xticks(root_ticks(largest))
    ax.xaxis.set_major_formatter("{x:.3g}")
    # margin of 3 % on the square-root scale
    ax.set(xlim=(-(0.03**2) * largest, 1.03**2 * largest), ylim=(rows[-1] + 0.8, -0.8))
    ax.hlines(pitch * np.arange(1, table.shape[1]) - (1 + GAP_BOXES) / 2, *ax.get_xlim(), color="0.9", linewidth=0.8)
    ax.set_xlabel(f"{label} (square-root scale)")
    ax.set_yticks(pitch * np.arange(table.shape[1]) + (len(members) - 1) / 2, table.columns)
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if len(members) > 1 or sizes.index[0]:
        handles = [Patch(facecolor=of_group, edgecolor="0.35") for of_group in color]
        ax.legend(handles, legend, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, handlelength=1)
    return ax
