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
def bland_altman(
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
    """Difference between predicted and measured fractions against their mean, one panel per cell type.

    Reads ``adata.obsm[key]`` and ``adata.obsm[measured_key]``. Samples without measured fractions (NaN) are ignored.
    The solid line is the bias, the mean of predicted minus measured. The dashed lines are the limits of agreement, bias
    ± 1.96 standard deviations of the differences (Bland and Altman 1986). They contain about 95 % of new samples if the
    differences are normally distributed and independent of the mean. A negative slope is typical of estimates that are
    shrunk to the mean composition. A single sample has no limits of agreement. Each panel has its own axis limits, so
    that rare types are visible. The titles say if estimates are the fit of training samples.

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
        If no sample has measured fractions, the cell types differ, or the number of axes is not the number of types.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> import scdeconv
    >>> adata = AnnData(obs=pd.DataFrame(index=["s1", "s2", "s3"]))
    >>> adata.obsm["measured_fractions"] = pd.DataFrame({"B": [0.4, 0.1, 0.2], "T": [0.6, 0.9, 0.8]}, adata.obs_names)
    >>> adata.obsm["fractions"] = pd.DataFrame({"B": [0.3, 0.1, 0.2], "T": [0.7, 0.9, 0.8]}, adata.obs_names)
    >>> print(scdeconv.pl.bland_altman(adata)[0].texts[0].get_text())
    bias −0.033  n = 3
    limits of agreement ±0.113
    """
    measured, predicted, rescaled = compared_tables(adata, key, measured_key)
    bias = dict(zip(measured, metrics.bias(measured.to_numpy(), predicted.to_numpy(), per_type=True), strict=True))
    shown = chosen_types(cell_types, measured, f"adata.obsm[{measured_key!r}]")
    colors = cell_type_colors(adata, key, measured.columns, palette)
    note = fit_note(adata, key, measured.index)
    label = fraction_label(adata, key, rescaled=rescaled)
    xlabel = f"mean of measured and predicted {label}"
    ylabel = "predicted \N{MINUS SIGN} measured"
    panels = small_multiples(axes, pd.Index(shown), xlabel, ylabel, height=1.8, figsize=figsize, lines=3)
    for ax, cell_type in zip(panels, shown, strict=True):
        centre = bias[cell_type]
        x, y = measured[cell_type].to_numpy(), predicted[cell_type].to_numpy()
        mean, difference = (x + y) / 2, y - x
        half = 1.96 * difference.std(ddof=1) if len(x) > 1 else np.nan
        ax.axhline(0, color=GREY, alpha=0.45, linewidth=1.5, zorder=1, label="no difference")
        ax.axhline(centre, color="black", linewidth=1.3, zorder=1, label="bias")
        for limit in (centre - half, centre + half):
            ax.axhline(limit, color="black", linestyle="--", linewidth=1, zorder=1)
        ax.lines[-1].set_label("limits of agreement")
        size = float(np.clip(600 / len(x), 8, 36))
        ax.scatter(mean, difference, s=size, color=colors[cell_type], edgecolor="black", linewidth=0.4, alpha=0.8)
        limits = "" if np.isnan(half) else f"\nlimits of agreement ±{half:.3f}"
        head(ax, cell_type, f"bias {signed(centre)}  n = {len(x)}{limits}", note)
        widest = 1.1 * np.nanmax([*np.abs(difference), abs(centre) + half, 0.005])
        largest = max(mean.max(), 0.005)
        ax.set(xlim=(-0.04 * largest, 1.06 * largest), ylim=(-widest, widest))
    if axes is None:
        legend_above(panels)
    remember_colors(adata, key, colors, get_fractions(adata, key).columns)
    return saved(panels, save)
