"""Shared functions of the plots: fractions, labels, colours, boxes and small multiples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from scdeconv._data.checks import examples
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import UNS
from scdeconv._data.training_samples import training_samples

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

GREY = "#595959"
# inches: width of a letter in the default font, minimum width of a sample with its name
CHARACTER, SAMPLE = 0.085, 0.14
# inches, small multiples: maximum figure width for up to 12 panels and for more, minimum width of a single panel, width
# of
# a legend entry
WIDEST, LONE, ENTRY = (10.5, 13.0), 3.8, 2.4
# lower whisker, box and median, upper whisker
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

# eight colours of Okabe and Ito (2008), then colours with maximum distance from all earlier ones in OKLab, under normal
# vision and three dichromacies (Machado et al. 2009)
PALETTE = (
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000", "#6d1831"]
    + ["#313186", "#00e7b6", "#79556d", "#9e3100", "#9279e7", "#b6ceff", "#92b686", "#9effaa", "#f3c279"]
    + ["#553d61", "#24613d", "#55499e", "#617961", "#cee7e7", "#55cece", "#926d92"]
)


def fraction_label(adata: AnnData, key: str, *, rescaled: bool = False) -> str:
    """Return the axis label of the fractions: of cells or RNA, of all types or of the measured types."""
    kind = adata.uns.get(UNS, {}).get(key, {}).get("fraction_kind", "cell")
    label = "RNA fraction" if kind == "rna" else "cell fraction"
    return f"{label} of measured types" if rescaled else label


def fit_note(adata: AnnData, key: str, samples: pd.Index) -> str:
    """Return a note for the titles if samples have the fit of a model that was trained on them; else an empty text."""
    n_fitted = len(training_samples(adata, key, samples, "in_sample"))
    if not n_fitted:
        return ""
    return "in-sample fit, not an estimate" + (
        f"\n({n_fitted} of {len(samples)} samples)" if n_fitted < len(samples) else ""
    )


def cell_type_colors(adata: AnnData, key: str, cell_types: pd.Index) -> dict[Hashable, str]:
    """Return the colour of each cell type from ``adata.uns`` (of this table or of all tables) or from the palette."""
    name = key if f"{key}_colors" in adata.uns else "cell_type"
    # a list of colours has the order of the table; sums of its types have the colours of the palette
    of_table = get_fractions(adata, key).columns
    return category_colors(adata, name, of_table if cell_types.isin(of_table).all() else cell_types)


def category_colors(adata: AnnData, key: str, names: pd.Index) -> dict[Hashable, str]:
    """Return the colour of each name from ``adata.uns``, else from a colour-blind safe palette.

    Palette colours are assigned to the sorted names, so that tables with the same names have the same colours.
    """
    key = f"{key}_colors"
    if key in adata.uns:
        stored = adata.uns[key]
        colors = dict(stored) if isinstance(stored, Mapping) else dict(zip(names, stored, strict=False))
        missing = [name for name in names if name not in colors]
        if missing:
            msg = (
                f"Expected a colour for each of {len(names)} names in adata.uns[{key!r}], found {len(stored)} and none "
                f"for {examples(missing)}. Add the colours or delete the key."
            )
            raise ValueError(msg)
        return {name: to_hex(colors[name]) for name in names}
    palette = PALETTE
    if len(names) > len(PALETTE):
        palette = [to_hex(color) for color in colormaps["turbo"](np.linspace(0, 1, len(names)))]
    return dict(zip(sorted(names), palette, strict=False))


def small_multiples(
    axes: np.ndarray | None, cell_types: pd.Index, xlabel: str, ylabel: str, width: float = 2.5, height: float = 2.75
) -> np.ndarray:
    """Return the given axes or axes of a new figure with panels of this size in inches; set their labels."""
    n = len(cell_types)
    if axes is not None:
        panels = np.ravel(axes)
        if len(panels) != n:
            msg = f"Expected {n} axes, one per cell type, found {len(panels)}. Pass {n} axes or None."
            raise ValueError(msg)
        for ax in panels:
            ax.set(xlabel=xlabel, ylabel=ylabel)
        return panels
    height += 0.17 * max(_heading(name).count("\n") for name in cell_types)
    if n == 1:
        width = max(width, LONE)
    columns = min(n, int(WIDEST[n > 12] // width))
    rows = -(-n // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns + 0.4, height * rows + 0.7), layout="constrained", squeeze=False
    )
    for ax in grid.flat[n:]:
        ax.remove()
    figure.supxlabel(xlabel, fontsize=11)
    figure.supylabel(ylabel, fontsize=11)
    return grid.ravel()[:n]


def head(ax: Axes, cell_type: Hashable, figures: str, note: str = "") -> None:
    """Write the cell type and a note above a panel, and numbers in small letters below them."""
    ax.text(0.5, 1.02, figures, transform=ax.transAxes, ha="center", va="bottom", fontsize=8.5, color=GREY)
    ax.set_title("\n".join(filter(None, [_heading(cell_type), note])), fontsize=10, pad=17)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.locator_params(axis="x", nbins=3, min_n_ticks=3)
    ax.locator_params(axis="y", nbins=4, min_n_ticks=3)


def _heading(cell_type: Hashable) -> str:
    return fill(str(cell_type), 26)


def legend_above(panels: np.ndarray) -> None:
    """Draw one legend for all panels, with as many columns as fit."""
    handles, labels = panels[0].get_legend_handles_labels()
    figure = panels[0].figure
    columns = min(len(labels), int(figure.get_figwidth() // ENTRY))
    figure.legend(handles, labels, loc="outside upper right", ncols=columns, frameon=False)


def root_ticks(largest: float) -> np.ndarray:
    """Return ticks from 0 to `largest` that are evenly spaced on a square-root scale."""
    ticks = np.square(MaxNLocator(5, steps=[1, 2, 10]).tick_values(0, np.sqrt(largest)))
    return ticks[ticks <= largest]


def draw_boxes(ax: Axes, rows: np.ndarray, values: list[np.ndarray], color: list[str], height: float) -> None:
    """Draw horizontal boxes from the first to the third quartile, whiskers from the 5th to the 95th percentile."""
    low, first, median, third, high = np.transpose([np.quantile(of_row, QUANTILES) for of_row in values])
    ax.hlines(rows, low, high, color=GREY, linewidth=1, zorder=2)
    ax.barh(rows, third - first, left=first, height=height, color=color, edgecolor=GREY, linewidth=0.8, zorder=3)
    # black on white: visible on all colours
    for line, width in (("white", 3.5), ("black", 1.8)):
        ax.vlines(median, rows - height / 2, rows + height / 2, color=line, linewidth=width, zorder=4)
