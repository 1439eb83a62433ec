"""Small multiples: one panel per cell type."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from .figure import LETTER, MAX_INCHES, SMALL, TITLE, refuse_size_of_given_axes
from .palette import GREY

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

# inches: width of a figure with one panel, minimum width of another panel, room for the label of the y axis, height of a
# line, width of a legend entry
LONE, NARROWEST, BESIDE, LINE, ENTRY = 3.8, 1.4, 0.4, 0.15, 2.2
# maximum number of panels per row, for up to 12 panels and for more
COLUMNS = (4, 5)
# letters of a line above a panel below which its x axis has fewer ticks
NARROW_LETTERS = 22


def small_multiples(
    axes: np.ndarray | None,
    cell_types: pd.Index,
    xlabel: str,
    ylabel: str,
    width: float = 2.3,
    height: float = 2.15,
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
        Maximum size of a panel in inches, without the lines above it; many panels are smaller and keep their shape, or their
        height with `beside`.
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
    room = MAX_INCHES - BESIDE - beside
    columns = panel_columns(n, beside)
    narrow = min(LONE - BESIDE if n == 1 else width, room / columns)
    rows = -(-n // columns)
    if figsize is None:
        above = LINE * (lines + 1 + max(fill(str(name), int(narrow / LETTER)).count("\n") for name in cell_types))
        # tick labels need the height
        scale = 1.0 if beside else min(1.0, narrow / width)
        figsize = (narrow * columns + BESIDE + beside, (height * scale + above) * rows + 0.7)
    figure, grid = plt.subplots(
        rows, columns, figsize=tuple(figsize), layout="constrained", squeeze=False, sharey=sharey
    )
    for ax in grid.flat[n:]:
        ax.remove()
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return grid.ravel()[:n]


def panel_columns(n: int, beside: float = 0.0) -> int:
    """Return the number of panels per row of `n` panels with tick labels of this width in inches."""
    return max(min(n, COLUMNS[n > 12], int((MAX_INCHES - BESIDE - beside) / NARROWEST)), 1)


def head(ax: Axes, cell_type: Hashable, figures: str, note: str = "", *, beside: float = 0.0) -> None:
    """Write the cell type and a note above a panel, and numbers in small letters below them, wrapped to its width.

    `beside`: width in inches of tick labels at the left of each row.
    """
    spec = ax.get_subplotspec()
    columns = 1 if spec is None else spec.get_gridspec().ncols
    width = (ax if spec is None else ax.figure).bbox.width / ax.figure.dpi
    letters = max(int(((width - beside) / columns - 0.25) / LETTER), 8)
    figures = "\n".join(_wrap_figures(line, letters) for line in figures.splitlines())
    ax.text(0.5, 1.02, figures, transform=ax.transAxes, ha="center", va="bottom", fontsize=SMALL, color=GREY)
    title = "\n".join(filter(None, [fill(str(cell_type), letters), note]))
    ax.set_title(title, fontsize=TITLE, pad=5 + 10.5 * (figures.count("\n") + 1))
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    for axis, is_narrow in ((ax.xaxis, letters < NARROW_LETTERS), (ax.yaxis, False)):
        axis.set_major_locator(MaxNLocator(2 if is_narrow else 3, steps=[1, 2, 5, 10]))
        axis.set_major_formatter("{x:.6g}")


def _wrap_figures(line: str, letters: int) -> str:
    """Return a line in lines of at most so many letters, split between numbers (two spaces), else between words."""
    if len(line) <= letters:
        return line
    return "\n".join(fill(part, letters, break_long_words=False) for part in line.split("  "))


def legend_above(panels: np.ndarray) -> None:
    """Draw one legend for all panels, with as many columns as fit."""
    handles, labels = panels[0].get_legend_handles_labels()
    figure = panels[0].figure
    columns = min(len(labels), max(int(figure.get_figwidth() // ENTRY), 1))
    figure.legend(handles, labels, loc="outside upper right", ncols=columns, frameon=False, fontsize=TITLE)
