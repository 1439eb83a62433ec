"""Stacked bars of fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv.pl._style import CHARACTER

from .frame import Frame

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from matplotlib.axes import Axes

    from .samples import Samples

# inches: minimum height of the bars, height of a legend entry, axis and its label
MIN_HEIGHT, ENTRY, AXIS = 3.4, 0.21, 0.7


def draw_bars(
    samples: Samples,
    colors: Mapping[Hashable, str],
    label: str,
    ax: Axes | None,
    figsize: Sequence[float] | None,
) -> Axes:
    """Draw a bar for each sample, the first cell type at the bottom."""
    table = samples.table
    beside = CHARACTER * max(map(len, table.columns)) + 0.5 + AXIS
    height = max(MIN_HEIGHT, ENTRY * table.shape[1] + 0.2)
    frame = Frame.make(samples, ax, figsize, beside=beside, above=0.0, height=height)
    ax = frame.ax
    edge = {"width": 0.88, "edgecolor": "white", "linewidth": 0.5} if frame.is_named else {"width": 1.0, "linewidth": 0}
    bottom, handles = np.zeros(len(table)), []
    for cell_type in table:
        values = table[cell_type].to_numpy()
        handles.append(
            ax.bar(samples.position, values, bottom=bottom, color=colors[cell_type], label=cell_type, **edge)
        )
        bottom += values
    ax.set_ylim(0, max(1, bottom.max()))
    ax.set_ylabel(label)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    # without handles, names that start with "_" are left out
    names = list(map(str, table))[::-1]
    ax.legend(handles[::-1], names, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, handlelength=1)
    frame.finish()
    return ax
