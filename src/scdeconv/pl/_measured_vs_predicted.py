from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv import metrics
from scdeconv._data.checks import checked
from scdeconv._data.fractions import compared_tables, get_fractions
from scdeconv._data.keys import FRACTIONS, MEASURED
from scdeconv.pl._style import (
    GREY,
    Palette,
    cell_type_colors,
    chosen_types,
    fit_note,
    fraction_label,
    head,
    legend_above,
    remember_colors,
    saved,
    signed,
    small_multiples,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData


@checked()
def measured_vs_predicted(
    adata: AnnData,
    key: str = FRACTIONS,
    *,
    measured_key: str = MEASURED,
    cell_types: Sequence[str] | None = None,
    palette: Palette | None = None,
    axes: np.ndarray | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Predicted against measured fractions, one panel per cell type.

    Reads ``adata.obsm[key]`` and ``adata.obsm[measured_key]``. Samples without measured fractions (NaN) are ignored.
    Each panel shows the identity line (dashed), the mean measured fraction (light horizontal line, the prediction by
    the mean composition), CCC, RMSE and the number of samples. Both axes of a panel have the same limits. Each panel
    has its own limits, so that rare types are visible. The titles say if estimates are the fit of training samples.

    Parameters
    ----------
    adata
        Samples with measured and predicted fractions of the same cell types, as for :func:`scdeconv.tl.evaluate`.
    key
        Table of ``adata.obsm`` with the predictions.
    measured_key
        Table of ``adata.obsm`` with the measured fractions.
    cell_types
        Cell types to show; None: all, in the order of the measured table.
    palette
        Colours of the cell types, see :func:`scdeconv.pl.fractions`.
    axes
        One axes per cell type; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the number of panels.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes, one per cell type.

    Writes
    ------
    ``adata.uns["<key>_colors"]``, see :func:`scdeconv.pl.fractions`.

    Raises
    ------
    KeyError, TypeError
        If a table or one of `cell_types` is missing, or a table is not a DataFrame.
    ValueError
        If no sample has measured fractions, if the cell types differ, or if the number of axes is not the number of types.

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
    measured, predicted, rescaled = compared_tables(adata, key, measured_key)
    values = measured.to_numpy(), predicted.to_numpy()
    ccc, rmse = (
        dict(zip(measured, metric(*values, per_type=True), strict=True)) for metric in (metrics.ccc, metrics.rmse)
    )
    shown = chosen_types(cell_types, measured, f"adata.obsm[{measured_key!r}]")
    colors = cell_type_colors(adata, key, measured.columns, palette)
    note = fit_note(adata, key, measured.index)

    labels = [fraction_label(adata, name, rescaled=rescaled) for name in (measured_key, key)]
    xlabel, ylabel = f"measured {labels[0]}", f"predicted {labels[1]}"
    panels = small_multiples(axes, pd.Index(shown), xlabel, ylabel, figsize=figsize, lines=2)
    for ax, cell_type in zip(panels, shown, strict=True):
        x, y = measured[cell_type].to_numpy(), predicted[cell_type].to_numpy()
        largest = max(x.max(), y.max(), 0.005)  # minimum axis range for absent types
        ax.axhline(x.mean(), color=GREY, alpha=0.45, linewidth=1.5, zorder=1, label="mean measured composition")
        ax.axline((0, 0), slope=1, color=GREY, linestyle="--", linewidth=1, zorder=1, label="identity")
        size = float(np.clip(600 / len(x), 8, 36))
        ax.scatter(x, y, s=size, color=colors[cell_type], edgecolor="black", linewidth=0.4, alpha=0.8, zorder=2)
        agreement = "undefined" if np.isnan(ccc[cell_type]) else signed(ccc[cell_type], 2, plus=False)
        text = f"CCC {agreement}  n = {len(x)}\nRMSE {rmse[cell_type]:.3f}"
        head(ax, cell_type, text, note)
        limits = (-0.04 * largest, 1.06 * largest)
        ax.set(xlim=limits, ylim=limits, box_aspect=1)
    if axes is None:
        legend_above(panels)
    remember_colors(adata, key, colors, get_fractions(adata, key).columns)
    return saved(panels, save)
