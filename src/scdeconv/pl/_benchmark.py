from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from scdeconv._data.checks import checked, choice
from scdeconv._data.keys import BASELINE
from scdeconv.pl._style import GREY, PALETTE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# metric: axis label, summary row for the ranking, True if smaller is better
METRICS = {
    "rmse": ("RMSE", "all entries", True),
    "mae": ("mean absolute error", "all entries", True),
    "pearson": ("Pearson correlation", "mean of types", False),
    "ccc": ("concordance correlation (CCC)", "mean of types", False),
}


@checked(metric=choice(METRICS))
def benchmark(table: pd.DataFrame, *, metric: str = "rmse", ax: Axes | None = None) -> Axes:
    """Methods ranked by their error on held-out samples, the best at the top.

    A large dot is the summary of a method, averaged over seeds: all entries pooled for errors, mean of the cell types
    for correlations. Its value is at the right; the bar is the range over seeds. Small dots are the cell types,
    averaged over seeds. The dashed line is the mean composition of the training samples, the baseline for each method.

    Parameters
    ----------
    table
        Result of ``tl.benchmark``: columns "method", "seed", "cell_type" and the metrics; with the rows "all entries"
        and "mean of types".
    metric
        "rmse", "mae", "pearson" or "ccc".
    ax
        Axes; None: a new figure. Its height depends on the number of methods.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If a column is missing.
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
    points = types.groupby(["method", "cell_type"])[metric].mean().dropna()
    method_of_point = points.index.get_level_values("method")

    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 0.5 * len(seeds) + 1.9), layout="constrained")
    for y, (method, mean, low, high) in enumerate(seeds.itertuples()):
        dark, light = (GREY, GREY) if method == BASELINE else (PALETTE[0], PALETTE[4])
        x = points[method_of_point == method]
        ax.scatter(x, np.full(len(x), y + 0.28), s=22, color=light, alpha=0.6, linewidth=0, zorder=2)
        ax.plot([low, high], [y, y], color=dark, linewidth=3, solid_capstyle="butt", zorder=3)
        ax.scatter(mean, y, s=90, color=dark, edgecolor="white", linewidth=0.8, zorder=4)
        value = "undefined" if np.isnan(mean) else f"{mean:.3f}".replace("-", "\N{MINUS SIGN}")
        ax.text(1.01, y, value, transform=ax.get_yaxis_transform(), va="center", color=dark)
    ax.text(1.01, -0.62, summary, transform=ax.get_yaxis_transform(), va="bottom", fontsize=8.5, color=GREY)
    ax.set_yticks(range(len(seeds)), [str(method).replace("_", " ") for method in seeds.index])
    ax.set(ylim=(len(seeds) - 0.4, -0.6), xlabel=f"{name}, {'lower' if ascending else 'higher'} is better")
    if ascending:
        ax.set_xlim(left=0)
    baseline = float(seeds["mean"].get(BASELINE, np.nan))
    if not np.isnan(baseline):
        left, right = ax.get_xlim()
        side = "right" if baseline > left + 0.8 * (right - left) else "center"
        ax.axvline(baseline, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
        ax.text(baseline, 1.01, "mean composition", transform=ax.get_xaxis_transform(), ha=side, color=GREY)
    ax.grid(axis="y", color="0.92", zorder=0)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    n_seeds = rows["seed"].nunique()
    kinds = [
        Line2D([], [], marker="o", markersize=9, color=PALETTE[0], linewidth=3 if n_seeds > 1 else 0),
        Line2D([], [], marker="o", markersize=5, color=PALETTE[4], alpha=0.6, linewidth=0),
    ]
    labels = [f"{summary} (mean and range of {n_seeds} seeds)" if n_seeds > 1 else summary, "each cell type"]
    below = ax.transAxes + ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans)
    ax.legend(kinds, labels, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=2, frameon=False)
    return ax
