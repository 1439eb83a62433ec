from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from scdeconv._data.checks import checked
from scdeconv.pl._style import BLUE, GREEN, GREY, LIGHT, MAX_INCHES, ORANGE, TITLE, refuse_size_of_given_axes, saved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from scdeconv.tl import Tuning

# columns of tuning.trials that are no arguments
RESULT_COLUMNS = ["state", "rmse", "seconds"]
# panels per row
COLUMNS = 3
# minimum ratio of maximum to minimum for a logarithmic axis; set by hand
MIN_LOG_RATIO = 5


@checked()
def tuning(
    tuning: Tuning,
    *,
    axes: np.ndarray | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Error of each trial of a hyperparameter search, and its relation to each argument.

    The first panel shows the trials in order: the best so far as a line, the defaults as a diamond, and the mean
    composition as a dashed line. Pruned trials have no error; they are in a strip above this panel. The other panels show
    the error against the value of each searched argument, without pruned trials. A star is the best trial.

    Parameters
    ----------
    tuning
        Result of ``tl.tune``.
    axes
        One axes for the trials and one for each argument; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the number of arguments.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes: trials, then arguments in the order of ``tuning.trials``.

    Raises
    ------
    ValueError
        If the number of ``axes`` is not the number of panels.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdeconv
    >>> trials = pd.DataFrame(
    ...     {"state": "complete", "rmse": [0.05, 0.03], "seconds": 1.0, "n_genes": [600, 200]},
    ... )
    >>> tuning = scdeconv.tl.Tuning("ridge", trials, {"n_genes": 200}, None, 0.06)
    >>> [ax.get_xlabel() for ax in scdeconv.pl.tuning(tuning)]
    ['trial', 'n_genes']
    """
    trials = tuning.trials
    names = [name for name in trials.columns if name not in RESULT_COLUMNS]
    refuse_size_of_given_axes(axes, figsize, "axes")
    panels = _new_panels(len(names), figsize) if axes is None else np.ravel(axes)
    if len(panels) != 1 + len(names):
        msg = (
            f"Expected {1 + len(names)} axes, one for the trials and one per argument, found {len(panels)}. Pass all "
            "or None."
        )
        raise ValueError(msg)
    complete = trials[trials["state"] == "complete"]
    rmse = complete["rmse"]

    ax = panels[0]
    ax.step(trials.index, trials["rmse"].cummin().ffill(), where="post", color=BLUE, label="best so far")
    pruned = trials.index[trials["state"] == "pruned"]
    ax.axhline(tuning.baseline, color=GREY, linestyle="--", linewidth=1.2, label="mean composition")
    _draw_trials(ax, complete.index.to_numpy(), rmse)
    ax.set(xlabel="trial", ylabel="RMSE,\nheld-out donors")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(pruned):
        _draw_pruned(ax, pruned.to_numpy())
    if axes is None:
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)

    for name, ax in zip(names, panels[1:], strict=True):
        values = complete[name]
        if pd.api.types.is_numeric_dtype(values):
            _draw_trials(ax, values.to_numpy(dtype=float), rmse)
            if values.min() > 0 and values.max() > MIN_LOG_RATIO * values.min():
                ax.set_xscale("log", subs=[])
                ax.xaxis.set_major_locator(LogLocator(subs=(1,) if values.max() > 30 * values.min() else (1, 3)))
                ax.xaxis.set_major_formatter("{x:g}")
        else:
            choices = sorted(set(map(str, values)), key=lambda text: (len(text), text))
            _draw_trials(ax, np.array([choices.index(str(value)) for value in values]), rmse)
            long = max(map(len, choices)) > 5
            ax.set_xticks(range(len(choices)), choices, rotation=30 if long else 0, ha="right" if long else "center")
            ax.set_xlim(-0.5, len(choices) - 0.5)
        ax.set_xlabel(name)
    for ax in panels:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color=LIGHT)
        ax.set_axisbelow(True)
    return saved(panels, save)


def _draw_pruned(ax: Axes, trials: np.ndarray) -> None:
    """Draw pruned trials as crosses in a strip above the axes."""
    strip = ax.inset_axes((0, 1.03, 1, 0.1), sharex=ax)
    strip.scatter(trials, np.zeros(len(trials)), marker="x", s=22, color=GREY)
    strip.set_yticks([0], ["pruned"], fontsize=TITLE)
    strip.set(ylim=(-1, 1), facecolor="0.95")
    strip.tick_params(length=0, labelbottom=False)
    strip.spines[:].set_visible(False)


def _draw_trials(ax: Axes, x: np.ndarray, rmse: pd.Series) -> None:
    """Draw complete trials as dots, the defaults (the first) as a diamond and the best as a star."""
    is_best, is_default = (np.arange(len(rmse)) == rank for rank in (rmse.argmin(), 0))
    ax.scatter(x, rmse, s=22, color=BLUE, alpha=0.6, linewidth=0, zorder=3, label="trial")
    outline: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.7, "zorder": 4}
    ax.scatter(x[is_default], rmse[is_default], marker="D", s=42, color=ORANGE, label="defaults", **outline)
    ax.scatter(x[is_best], rmse[is_best], marker="*", s=150, color=GREEN, label="best", **outline)


def _new_panels(n_arguments: int, figsize: Sequence[float] | None) -> np.ndarray:
    rows = -(-n_arguments // COLUMNS)
    size = (MAX_INCHES, 2.9 + 2.1 * rows) if figsize is None else tuple(figsize)
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[1.3] + [1] * rows)
    panels = [figure.add_subplot(grid[0, :])]
    for number in range(n_arguments):
        row, column = divmod(number, COLUMNS)
        shared = panels[1] if number else None
        panels.append(figure.add_subplot(grid[1 + row, column], sharey=shared))
        panels[-1].tick_params(labelleft=column == 0)
        panels[-1].set_ylabel("RMSE" if column == 0 else "")
    return np.array(panels)
