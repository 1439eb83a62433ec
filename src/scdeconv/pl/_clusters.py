from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from scdeconv._data.checks import checked, examples
from scdeconv.pl._style import (
    BLUE,
    GREY,
    LETTER,
    LIGHT,
    MAX_INCHES,
    MIN_BOX_SAMPLES,
    SAMPLE,
    SMALL,
    Palette,
    category_colors,
    draw_boxes,
    refuse_size_of_given_axes,
    remember_colors,
    root_ticks,
    saved,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path

    from anndata import AnnData

# inches: height of a cluster, minimum side of a panel, width of the box panel
CLUSTER_INCHES, MIN_PANEL_INCHES, BOX_PANEL_INCHES = 0.21, 1.5, 2.2
# start of the axis of probabilities if all are higher
HIGHEST_START = 0.9


@checked()
def clusters(
    cells: AnnData,
    key: str = "desc",
    *,
    palette: Palette | None = None,
    axes: np.ndarray | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Certainty of the assignment of cells to clusters.

    One row for each cluster, in the order of its categories, with its number of cells. Left: the highest probability of
    each cell, as box (quartiles) and whiskers (5th to 95th percentile); clusters of fewer than 5 cells have points. The
    axis starts at the lowest whisker. Right: the mean probability of each cluster over these cells. A certain assignment
    is a bright diagonal. The colour scale ends at the highest mean; it is the square root of the probability, so that
    small values are visible.

    Reads ``cells.obs[key]`` and ``cells.obsm[f"{key}_probabilities"]``, from :func:`scdeconv.tl.cluster` or
    :func:`scdeconv.tl.name_clusters`, and the colours in ``cells.uns[f"{key}_colors"]``, if they exist. Clusters
    without cells have no row.

    Parameters
    ----------
    cells
        Cells with clusters and their probabilities.
    key
        Column of ``obs`` with the clusters.
    palette
        Colours of the clusters, see :func:`scdeconv.pl.fractions`; None: those in ``cells.uns``, else one colour.
    axes
        Two axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the number of clusters.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The two axes.

    Writes
    ------
    ``cells.uns["<key>_colors"]``, if there is a `palette`.

    Raises
    ------
    KeyError
        If clusters or probabilities are missing.
    TypeError
        If the probabilities are not a DataFrame.
    ValueError
        If a cluster has no column of probabilities, or if the number of axes is not two.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> import scdeconv
    >>> cells = AnnData(obs=pd.DataFrame({"desc": ["0", "0", "1"]}, index=["c1", "c2", "c3"]))
    >>> cells.obsm["desc_probabilities"] = pd.DataFrame({"0": [0.9, 0.7, 0.2], "1": [0.1, 0.3, 0.8]}, cells.obs_names)
    >>> boxes, heat_map = scdeconv.pl.clusters(cells)
    >>> [label.get_text() for label in boxes.get_yticklabels()]
    ['0 (n = 2)', '1 (n = 1)']
    """
    labels, table = _read(cells, key)
    names = [name for name in labels.categories if (labels == name).any()]
    table = table[[*names, *table.columns.difference(names, sort=False)]]
    means = table.groupby(np.asarray(labels)).mean().loc[names]
    highest = [table.to_numpy()[labels == name].max(axis=1) for name in names]
    ticks = [f"{name} (n = {len(values):,})" for name, values in zip(names, highest, strict=True)]
    refuse_size_of_given_axes(axes, figsize, "axes")
    colors: dict[Hashable, str] = dict.fromkeys(names, BLUE)
    if palette is not None or f"{key}_colors" in cells.uns:
        colors = category_colors(cells, key, labels.categories, palette)

    panels = _new_panels(ticks, list(table.columns), figsize) if axes is None else np.ravel(axes)
    if len(panels) != 2:
        msg = f"Expected two axes, one for boxes and one for the heat map, found {len(panels)}. Pass two axes or None."
        raise ValueError(msg)
    left, right = panels
    rows = np.arange(len(names))
    draw_boxes(left, rows, highest, [colors[name] for name in names], 0.65)
    for row, values in zip(rows, highest, strict=True):
        if len(values) < MIN_BOX_SAMPLES:
            left.scatter(values, np.full(len(values), row), s=20, color=colors[names[row]], edgecolor=GREY, zorder=3)
    lowest = min(np.quantile(values, 0.05 if len(values) >= MIN_BOX_SAMPLES else 0) for values in highest)
    lowest = min(lowest, HIGHEST_START)
    margin = 0.04 * (1 - lowest)
    left.set_yticks(rows, ticks)
    left.set(xlim=(lowest - margin, 1 + margin), ylim=(len(names) - 0.5, -0.5), xlabel="highest probability")
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.xaxis.set_major_formatter("{x:.6g}")
    left.grid(axis="x", color=LIGHT, linewidth=0.8)
    left.set_axisbelow(True)
    left.spines[["top", "right", "left"]].set_visible(False)

    largest = float(means.to_numpy().max())
    image = right.imshow(means, aspect="auto", interpolation="nearest", cmap="magma", norm=PowerNorm(0.5, 0, largest))
    is_upright = LETTER * max(map(len, table.columns)) > 0.8 * SAMPLE
    right.set_xticks(range(table.shape[1]), table.columns, rotation=90 if is_upright else 0)
    right.set_yticks(rows, names if axes is not None else [""] * len(names))
    right.set_xlabel("mean probability of cluster")
    right.spines[:].set_visible(False)
    for ax in panels:
        ax.tick_params(axis="y", length=0, labelsize=SMALL)
        ax.tick_params(axis="x", labelsize=SMALL)
    right.tick_params(axis="x", length=0)
    bar = right.figure.colorbar(image, ax=right, aspect=max(10, 1.4 * len(names)), pad=0.02, ticks=root_ticks(largest))
    bar.ax.yaxis.set_major_formatter("{x:.3g}")
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    if palette is not None:
        remember_colors(cells, key, colors, labels.categories)
    return saved(np.array([left, right]), save)


def _read(cells: AnnData, key: str) -> tuple[pd.Categorical, pd.DataFrame]:
    """Return the cluster of each cell and the probabilities; cluster names are text."""
    name = f"{key}_probabilities"
    if key not in cells.obs or name not in cells.obsm:
        where, found = ("obs", cells.obs) if key not in cells.obs else ("obsm", cells.obsm)
        wanted = key if where == "obs" else name
        msg = f"Expected {wanted!r} in cells.{where}, found {sorted(found)}. Call tl.cluster or pass another key."
        raise KeyError(msg)
    table = cells.obsm[name]
    if not isinstance(table, pd.DataFrame):
        msg = f"Expected a DataFrame of cells × clusters in cells.obsm[{name!r}], found {type(table).__name__}."
        raise TypeError(msg)
    table = table.rename(columns=str)
    labels = pd.Categorical(cells.obs[key]).rename_categories(str)
    missing = labels.remove_unused_categories().categories.difference(table.columns)
    if len(missing) or not (labels.codes >= 0).any():
        found = f"none for {examples(missing)}" if len(missing) else "no cell with a cluster"
        msg = (
            f"Expected a column for each cluster of cells.obs[{key!r}] in cells.obsm[{name!r}], found {found}; its columns "
            f"are {examples(table.columns)}. Call tl.cluster again."
        )
        raise ValueError(msg)
    return labels, table


def _new_panels(ticks: list[str], columns: list[str], figsize: Sequence[float] | None) -> np.ndarray:
    beside = LETTER * max(map(len, ticks)) + BOX_PANEL_INCHES + 0.9
    pitch = float(np.clip((MAX_INCHES - beside) / len(columns), SAMPLE, CLUSTER_INCHES))
    width, height = max(pitch * len(columns), MIN_PANEL_INCHES), max(CLUSTER_INCHES * len(ticks), MIN_PANEL_INCHES)
    longest = LETTER * max(map(len, columns))
    if figsize is None:
        figsize = (beside + width, height + 0.45 + (longest if longest > 0.2 else 0.15))
    ratios = [BOX_PANEL_INCHES, width]
    _, panels = plt.subplots(1, 2, figsize=tuple(figsize), width_ratios=ratios, layout="constrained")
    return np.asarray(panels)
