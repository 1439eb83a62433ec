from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from scdeconv import metrics
from scdeconv._keys import FRACTIONS, MEASURED
from scdeconv.pl._style import GREY, cell_type_colors, fraction_label, get_fractions

if TYPE_CHECKING:
    from anndata import AnnData


def measured_vs_predicted(
    adata: AnnData, key: str = FRACTIONS, *, measured_key: str = MEASURED, axes: np.ndarray | None = None
) -> np.ndarray:
    """Predicted against measured fractions, one panel per cell type.

    Reads ``adata.obsm[key]`` and ``adata.obsm[measured_key]``; samples without a measurement (NaN) are left out.
    Each panel shows the identity line (dashed), the mean measured fraction (a light horizontal line: what one
    would predict without looking at the bulk) and CCC, RMSE and the number of samples. Limits are the same on both
    axes of a panel but differ between panels, so that rare types can be read.

    Parameters
    ----------
    adata
        Samples with measured and predicted fractions of the same cell types.
    key
        Table of ``adata.obsm`` with the predictions.
    measured_key
        Table of ``adata.obsm`` with the truth.
    axes
        One axes per cell type; by default a new figure.

    Returns
    -------
    The axes, one per cell type in the order of the measured table.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> import scdeconv
    >>> adata = AnnData(obs=pd.DataFrame(index=["s1", "s2", "s3"]))
    >>> adata.obsm["measured_fractions"] = pd.DataFrame({"B": [0.4, 0.1, 0.2], "T": [0.6, 0.9, 0.8]}, adata.obs_names)
    >>> adata.obsm["fractions"] = pd.DataFrame({"B": [0.3, 0.1, 0.2], "T": [0.7, 0.9, 0.8]}, adata.obs_names)
    >>> [ax.get_title() for ax in scdeconv.pl.measured_vs_predicted(adata)]
    ['B', 'T']
    """
    measured, predicted = get_fractions(adata, measured_key), get_fractions(adata, key)
    known = measured.notna().all(axis=1).to_numpy()
    if not known.any():
        msg = f"Expected measured samples in adata.obsm[{measured_key!r}], found {len(measured)} rows of NaN."
        raise ValueError(msg)
    measured, predicted = measured[known], predicted[known]
    scores = [metric(measured, predicted, per_type=True) for metric in (metrics.ccc, metrics.rmse)]
    colors = cell_type_colors(adata, key, predicted.columns)

    n_types = measured.shape[1]
    xlabel, ylabel = f"measured {fraction_label(adata, measured_key)}", f"predicted {fraction_label(adata, key)}"
    panels = _new_panels(n_types, xlabel, ylabel) if axes is None else np.ravel(axes)
    if len(panels) != n_types:
        msg = f"Expected {n_types} axes, one per cell type, found {len(panels)}. Pass as many or none."
        raise ValueError(msg)
    for ax, cell_type, ccc, rmse in zip(panels, measured, *scores, strict=True):
        x, y = measured[cell_type].to_numpy(), predicted[cell_type].to_numpy()
        largest = max(x.max(), y.max(), 0.005)  # a type that is all but absent is shown as such
        ax.axhline(x.mean(), color=GREY, alpha=0.45, linewidth=1.5, zorder=1, label="mean measured composition")
        ax.axline((0, 0), slope=1, color=GREY, linestyle="--", linewidth=1, zorder=1, label="identity")
        size = float(np.clip(600 / len(x), 8, 36))
        ax.scatter(x, y, s=size, color=colors[cell_type], edgecolor="black", linewidth=0.4, alpha=0.8, zorder=2)
        text = f"CCC {'undefined' if np.isnan(ccc) else f'{ccc:.2f}'}   RMSE {rmse:.3f}   n = {len(x)}"
        ax.text(0.5, 1.02, text, transform=ax.transAxes, ha="center", va="bottom", fontsize=8.5, color=GREY)
        ax.set_title(fill(str(cell_type), 26), fontsize=10, pad=17)
        limits = (-0.04 * largest, 1.06 * largest)
        ax.set(xlim=limits, ylim=limits, aspect="equal")
        ax.locator_params(nbins=4, min_n_ticks=3)
        ax.spines[["top", "right"]].set_visible(False)
        if axes is not None:
            ax.set(xlabel=xlabel, ylabel=ylabel)
    if axes is None:
        handles, labels = panels[0].get_legend_handles_labels()
        panels[0].figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return panels


def _new_panels(n_types: int, xlabel: str, ylabel: str) -> np.ndarray:
    columns = min(n_types, 4 if n_types <= 12 else 5)
    rows = -(-n_types // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.5 * columns + 0.4, 2.75 * rows + 0.7), layout="constrained", squeeze=False
    )
    for ax in grid.flat[n_types:]:
        ax.remove()
    figure.supxlabel(xlabel, fontsize=11)
    figure.supylabel(ylabel, fontsize=11)
    return grid.ravel()[:n_types]
