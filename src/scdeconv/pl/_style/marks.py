"""Marks that several plots draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from .palette import GOLDEN_RATIO, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# lower whisker, box and median, upper whisker
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# samples below which quartiles say little: the points are drawn instead
MIN_BOX_SAMPLES = 5


def root_ticks(largest: float) -> np.ndarray:
    """Return ticks from 0 to `largest` that are evenly spaced on a square-root scale."""
    ticks = np.square(MaxNLocator(5, steps=[1, 2, 10]).tick_values(0, np.sqrt(largest)))
    return ticks[ticks <= largest]


def draw_boxes(ax: Axes, rows: np.ndarray, values: list[np.ndarray], color: list[str], height: float) -> None:
    """Draw horizontal boxes from the first to the third quartile, whiskers from the 5th to the 95th percentile.

    Rows with fewer than 5 values have no box.
    """
    has_box = np.array([len(of_row) >= MIN_BOX_SAMPLES for of_row in values], dtype=bool)
    if not has_box.any():
        return
    shown = [of_row for of_row, is_shown in zip(values, has_box, strict=True) if is_shown]
    color = [of_row for of_row, is_shown in zip(color, has_box, strict=True) if is_shown]
    rows = np.asarray(rows)[has_box]
    low, first, median, third, high = np.transpose([np.quantile(of_row, QUANTILES) for of_row in shown])
    ax.hlines(rows, low, high, color=GREY, linewidth=1, zorder=2)
    ax.barh(rows, third - first, left=first, height=height, color=color, edgecolor=GREY, linewidth=0.8, zorder=3)
    # black on white: visible on all colours
    for line, width in (("white", 3.5), ("black", 1.8)):
        ax.vlines(median, rows - height / 2, rows + height / 2, color=line, linewidth=width, zorder=4)


def jitter(n: int) -> np.ndarray:
    """Return `n` evenly distributed offsets from -0.5 to 0.5; multiples of the golden ratio, equal at each call."""
    return np.arange(1, n + 1) * GOLDEN_RATIO % 1 - 0.5
