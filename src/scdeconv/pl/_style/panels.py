"""Small multiples: one panel per cell type."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np

from .figure import MAX_INCHES, SMALL, TITLE, refuse_size_of_given_axes
from .palette import GREY

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

# inches: minimum width of a single panel, room for the label of the y axis, height of a line, width of a legend entry
LONE, BESIDE, LINE, ENTRY = 3.8, 0.4, 0.15, 2.0
# panels per row for up to 12 panels and for more, letters per line of a title
COLUMNS, HEADING = (4, 5), 20


def small_multiples(
    axes: np.ndarray | None,
    cell_types: pd.Index,
    xlabel: str,
    ylabel: str,
    width: float = 2.3,
    height: float = 2.3,
    *,
    figsize: Sequence[float] | None = None,
    lines: int = 1,
    sharey: bool | Literal["row"] = False,
    beside: float = 0.0,
) -> np.ndarray:
    """Return the given axes or axes of a new figure, one per cell type; set their labels.

    Parameters
    ----------
    axes
        Given axes.
    cell_types
        Titles of the panels.
    xlabel, ylabel
        Labels of all panels.
    width, height
        Maximum size of a panel in inches, without the lines above it. More panels are narrower.
    figsize
        Size of the figure; None: from the panels.
    lines
        Lines of numbers above each panel.
    sharey
        As in :func:`matplotlib.pyplot.subplots`.
    beside
        Width in inches of tick labels at the left of each row.
    """
    n = len(cell_types)
    refuse_size_of_given_axes(axes, figsize, "axes")
    if axes is not None:
        panels = np.ravel(axes)
        if len(panels) != n:
            msg = f"Expected {n} axes, one per cell type, found {len(panels)}. Pass {n} axes or None."
            raise ValueError(msg)
        for ax in panels:
            ax.set(xlabel=xlabel, ylabel=ylabel)
        return panels
    columns = min(n, COLUMNS[n > 12])
    narrow = min(max(width, LONE) if n == 1 else width, (MAX_INCHES - BESIDE - beside) / columns)
    # panels keep their shape
    height *= min(1.0, narrow / width)
    above = LINE * (lines + 1 + max(_heading(name).count("\n") for name in cell_types))
    rows = -(-n // columns)
    if figsize is None:
        figsize = (max(narrow * columns + BESIDE + beside, LONE), (height + above) * rows + 0.7)
    figure, grid = plt.subplots(
        rows, columns, figsize=tuple(figsize), layout="constrained", squeeze=False, sharey=sharey
    )
    for ax in grid.flat[n:]:
        ax.remove()
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return grid.ravel()[:n]


def head(ax: Axes, cell_type: Hashable, figures: str, note: str = "") -> None:
    """Write the cell type and a note above a panel, and lines of numbers in small letters below them."""
    lines = figures.count("\n") + 1
    ax.text(0.5, 1.02, figures, transform=ax.transAxes, ha="center", va="bottom", fontsize=SMALL, color=GREY)
    ax.set_title("\n".join(filter(None, [_heading(cell_type), note])), fontsize=TITLE, pad=4 + 11 * lines)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    ax.locator_params(axis="x", nbins=3, min_n_ticks=3)
    ax.locator_params(axis="y", nbins=4, min_n_ticks=3)


def _heading(cell_type: Hashable) -> str:
    return fill(str(cell_type), HEADING)


def legend_above(panels: np.ndarray) -> None:
    """Draw one legend for all panels, with as many columns as fit."""
    handles, labels = panels[0].get_legend_handles_labels()
    figure = panels[0].figure
    columns = min(len(labels), max(int(figure.get_figwidth() // ENTRY), 1))
    figure.legend(handles, labels, loc="outside upper right", ncols=columns, frameon=False, fontsize=SMALL + 1)
