from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm

from scdeconv._data.checks import checked, examples
from scdeconv.pl._style import CHARACTER, PALETTE, category_colors, draw_boxes

if TYPE_CHECKING:
    from anndata import AnnData

# inches: height of a cluster, minimum side of a panel, width of the box panel
CLUSTER_INCHES, MIN_PANEL_INCHES, BOX_PANEL_INCHES = 0.21, 1.5, 3.0


@checked()
def clusters(cells: AnnData, key: str = "desc", *, axes: np.ndarray | None = None) -> np.ndarray:
    """Certainty of the assignment of cells to clusters.

    One row for each cluster, in the order of its categories, with its number of cells. Left: the highest probability of
    each cell, as box (quartiles) and whiskers (5th to 95th percentile). Right: the mean probability of each cluster
    over these cells. A certain assignment is a bright diagonal. The colour scale is the square root of the probability,
    so that small values are visible.

    Reads ``cells.obs[key]`` and ``cells.obsm[f"{key}_probabilities"]``, from :func:`scdeconv.tl.cluster` or
    :func:`scdeconv.tl.name_clusters`, and the colours in ``cells.uns[f"{key}_colors"]``, if they exist. Clusters
    without cells have no row.

    Parameters
    ----------
    cells
        Cells with clusters and their probabilities.
    key
        Column of ``obs`` with the clusters.
    axes
        Two axes; None: a new figure. Its size depends on the number of clusters.

    Returns
    -------
    The two axes.

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
    colors = dict.fromkeys(names, PALETTE[0])
    if f"{key}_colors" in cells.uns:
        colors = category_colors(cells, key, labels.categories)

    panels = _new_panels(ticks, list(table.columns)) if axes is None else np.ravel(axes)
    if len(panels) != 2:
        msg = f"Expected two axes, one for boxes and one for the heat map, found {len(panels)}. Pass two axes or None."
        raise ValueError(msg)
    left, right = panels
    rows = np.arange(len(names))
    draw_boxes(left, rows, highest, [colors[name] for name in names], 0.65)
    left.set_yticks(rows, ticks)
    left.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="highest probability")
    left.grid(axis="x", color="0.9", linewidth=0.8)
    left.set_axisbelow(True)
    left.spines[["top", "right", "left"]].set_visible(False)

    image = right.imshow(means, aspect="auto", interpolation="nearest", cmap="cividis", norm=PowerNorm(0.5, 0, 1))
    long = max(map(len, table.columns)) > 2
    right.set_xticks(range(table.shape[1]), table.columns, rotation=90 if long else 0, fontsize=8)
    right.set_yticks(rows, names if axes is not None else [""] * len(names))
    right.set_xlabel("mean probability of cluster")
    right.spines[:].set_visible(False)
    for ax in panels:
        ax.tick_params(axis="y", length=0, labelsize=8)
    right.tick_params(axis="x", length=0)
    bar = right.figure.colorbar(
        image, ax=right, aspect=max(10, 1.4 * len(names)), pad=0.02, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1]
    )
    bar.ax.set_yticklabels(["0", "0.01", "0.1", "0.25", "0.5", "1"], fontsize=8)
    bar.outline.set_visible(False)
    return np.array([left, right])


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


def _new_panels(ticks: list[str], columns: list[str]) -> np.ndarray:
    height, width = (max(CLUSTER_INCHES * n, MIN_PANEL_INCHES) for n in (len(ticks), len(columns)))
    longest = CHARACTER * max(map(len, columns))
    size = (
        CHARACTER * max(map(len, ticks)) + BOX_PANEL_INCHES + width + 0.9,
        height + 0.45 + (longest if longest > 0.2 else 0.15),
    )
    _, panels = plt.subplots(1, 2, figsize=size, width_ratios=[BOX_PANEL_INCHES, width], layout="constrained")
    return panels
