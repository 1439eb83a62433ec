from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from scdeconv._data.checks import checked, choice
from scdeconv._data.keys import BASELINE
from scdeconv.pl._style import (
    GREY,
    LIGHT,
    MAX_INCHES,
    SMALL,
    Palette,
    chosen_types,
    new_axes,
    new_colors,
    saved,
    signed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

# cell types up to which their dots are drawn without being asked for
MAX_DOTS = 12
# columns of the legend, height of its entries in inches
LEGEND_COLUMNS, ENTRY = 4, 0.2
# metric: axis label, summary row for the ranking, True if smaller is better
METRICS = {
    "rmse": ("RMSE", "all entries", True),
    "mae": ("mean absolute error", "all entries", True),
    "pearson": ("Pearson correlation", "mean of types", False),
    "ccc": ("concordance correlation (CCC)", "mean of types", False),
}


@checked(metric=choice(METRICS))
def benchmark(
    table: pd.DataFrame,
    *,
    metric: str = "rmse",
    cell_types: Sequence[str] | None = None,
    palette: Palette | None = None,
    ax: Axes | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Methods ranked by their error on held-out samples, the best at the top.

    A large dot is the summary of a method, averaged over seeds: all entries pooled for errors, mean of the cell types
    for correlations. Its value is at the right; the bar is the range over seeds. Small dots are the cell types, averaged
    over seeds; more than 12 cell types are left out, because their colours are difficult to tell apart. The dashed line is
    the mean composition of the training samples, the baseline for each method.

    Parameters
    ----------
    table
        Result of ``tl.benchmark``: columns "method", "seed", "cell_type" and the metrics; with the rows "all entries"
        and "mean of types".
    metric
        "rmse", "mae", "pearson" or "ccc".
    cell_types
        Cell types to show as dots; None: all if there are at most 12, else none.
    palette
        Colours of the cell types: a list in the sorted order of their names, a dictionary of some or all names, or the name
        of a matplotlib colour map.
    ax
        Axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the number of methods.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If a column or one of `cell_types` is missing.
    ValueError
        If the metric is unknown, or if the summary row for the ranking is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdeconv
    >>> table = pd.DataFrame(
    ...     {
    ...         "method": ["ridge", "ridge", "mean_composition", "mean_composition"],
    ...         "seed": 0,
    ...         "cell_type": ["B", "all entries", "B", "all entries"],
    ...         "rmse": [0.02, 0.03, 0.05, 0.06],
    ...     }
    ... )
    >>> ax = scdeconv.pl.benchmark(table)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['ridge', 'mean composition']
    """
    missing = {"method", "seed", "cell_type", metric} - set(table.columns)
    if missing:
        msg = (
            f"Expected columns {sorted(missing)} in table, found {list(table.columns)}. Pass the result of "
            "tl.benchmark."
        )
        raise KeyError(msg)
    name, summary, ascending = METRICS[metric]
    rows = table[table["cell_type"] == summary]
    if rows.empty:
        msg = (
            f"Expected rows {summary!r} in table['cell_type'], found {sorted(set(table['cell_type']))}. Do not filter "
            "table."
        )
        raise ValueError(msg)
    seeds = rows.groupby("method")[metric].agg(["mean", "min", "max"])
    seeds = seeds.sort_values("mean", ascending=ascending, na_position="last")
    types = table[~table["cell_type"].isin(["all entries", "mean of types"])]
    points = types.groupby(["cell_type", "method"])[metric].mean().unstack("method")
    shown = chosen_types(cell_types, points.T.rename(columns=str), "table['cell_type']")
    if cell_types is None and len(shown) > MAX_DOTS:
        shown = []
    colors = new_colors(pd.Index(sorted(map(str, points.index))), palette)

    entries = 3 + len(shown)
    ax = new_axes(ax, figsize, (MAX_INCHES, 0.5 * len(seeds) + 1.2 + ENTRY * -(-entries // LEGEND_COLUMNS)))
    for y, (method, mean, low, high) in enumerate(seeds.itertuples()):
        dark = GREY if method == BASELINE else "black"
        of_types = points.loc[shown, method].to_numpy()
        fill = [colors[name] for name in shown]
        ax.scatter(of_types, np.full(len(shown), y + 0.28), s=24, color=fill, alpha=0.9, linewidth=0, zorder=2)
        ax.plot([low, high], [y, y], color=dark, linewidth=3, solid_capstyle="butt", zorder=3)
        ax.scatter(mean, y, s=90, color=dark, edgecolor="white", linewidth=0.8, zorder=4)
        value = "undefined" if np.isnan(mean) else signed(mean, plus=False)
        ax.text(1.01, y, value, transform=ax.get_yaxis_transform(), va="center", color=dark)
    ax.text(1.01, -0.62, summary, transform=ax.get_yaxis_transform(), va="bottom", fontsize=SMALL, color=GREY)
    ax.set_yticks(range(len(seeds)), [str(method).replace("_", " ") for method in seeds.index])
    ax.set(ylim=(len(seeds) - 0.4, -0.6), xlabel=f"{name}, {'lower' if ascending else 'higher'} is better")
    if ascending:
        ax.set_xlim(left=0)
    baseline = float(seeds["mean"].get(BASELINE, np.nan))
    n_seeds = rows["seed"].nunique()
    large = f"{summary}, mean and range of {n_seeds} seeds" if n_seeds > 1 else summary
    handles = [Line2D([], [], marker="o", markersize=9, color="black", linewidth=3 if n_seeds > 1 else 0, label=large)]
    if not np.isnan(baseline):
        handles.append(
            ax.axvline(baseline, color=GREY, linestyle="--", linewidth=1.2, zorder=1, label="mean composition")
        )
    handles += [
        Line2D([], [], marker="o", markersize=5, color=colors[name], linewidth=0, label=str(name)) for name in shown
    ]
    ax.grid(axis="y", color=LIGHT, zorder=0)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans),
        ncols=min(LEGEND_COLUMNS, len(handles)),
        frameon=False,
        fontsize=SMALL,
    )
    return saved(ax, save)
