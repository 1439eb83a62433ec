from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv import metrics
from scdeconv._data.checks import checked
from scdeconv._data.fractions import compared_tables
from scdeconv._data.keys import FRACTIONS, MEASURED
from scdeconv.pl._style import (
    GREY,
    cell_type_colors,
    fit_note,
    fraction_label,
    head,
    legend_above,
    small_multiples,
)

if TYPE_CHECKING:
    from anndata import AnnData


@checked()
def bland_altman(
    adata: AnnData, key: str = FRACTIONS, *, measured_key: str = MEASURED, axes: np.ndarray | None = None
) -> np.ndarray:
    """Difference between predicted and measured fractions against their mean, one panel per cell type.

    Reads ``adata.obsm[key]`` and ``adata.obsm[measured_key]``. Samples without measured fractions (NaN) are ignored.
    The solid line is the bias, the mean of predicted minus measured. The dashed lines are the limits of agreement, bias
    ± 1.96 standard deviations of the differences (Bland and Altman 1986). They contain about 95 % of new samples if the
    differences are normally distributed and independent of the mean. A negative slope is typical of estimates that are
    shrunk to the mean composition. Each panel has its own axis limits, so that rare types are visible. The titles say
    if estimates are the fit of training samples.

    Parameters
    ----------
    adata
        Samples with measured and predicted fractions of the same cell types, as for :func:`scdeconv.tl.evaluate`.
    key
        Table of ``adata.obsm`` with the predictions.
    measured_key
        Table of ``adata.obsm`` with the measured fractions.
    axes
        One axes per cell type; None: a new figure.

    Returns
    -------
    The axes, one per cell type in the order of the measured table.
    A single sample has no limits of agreement.

    Raises
    ------
    KeyError, TypeError
        If a table is missing or is not a DataFrame.
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
    >>> [ax.texts[0].get_text() for ax in scdeconv.pl.bland_altman(adata)]
    ['bias −0.033 ± 0.113   n = 3', 'bias +0.033 ± 0.113   n = 3']
    """
    measured, predicted, rescaled = compared_tables(adata, key, measured_key)
    bias = metrics.bias(measured.to_numpy(), predicted.to_numpy(), per_type=True)
    colors = cell_type_colors(adata, key, measured.columns)
    note = fit_note(adata, key, measured.index)
    label = fraction_label(adata, key, rescaled=rescaled)
    xlabel = f"mean of measured and predicted {label}"
    panels = small_multiples(axes, measured.columns, xlabel, "predicted \N{MINUS SIGN} measured")
    for ax, cell_type, centre in zip(panels, measured, bias, strict=True):
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
        spread = "" if np.isnan(half) else f" ± {half:.3f}"
        head(ax, cell_type, f"bias {centre:+.3f}{spread}   n = {len(x)}".replace("-", "\N{MINUS SIGN}"), note)
        widest = 1.1 * np.nanmax([*np.abs(difference), abs(centre) + half, 0.005])
        largest = max(mean.max(), 0.005)
        ax.set(xlim=(-0.04 * largest, 1.06 * largest), ylim=(-widest, widest), box_aspect=1)
    if axes is None:
        legend_above(panels)
    return panels
