from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from scdeconv._data.checks import checked
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import FRACTIONS
from scdeconv._data.labels import is_continuous
from scdeconv.pl._style import (
    GREY,
    Palette,
    cell_type_colors,
    chosen_types,
    fit_note,
    fraction_label,
    head,
    refuse_missing_columns,
    remember_colors,
    saved,
    signed,
    small_multiples,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

# coverage of the band around the line, samples below which there is no band, points of the line
COVERAGE, MIN_BAND_SAMPLES, N_POINTS = 0.95, 4, 50


@checked()
def fractions_against(
    adata: AnnData,
    variable: str,
    key: str = FRACTIONS,
    *,
    cell_types: Sequence[str] | None = None,
    palette: Palette | None = None,
    axes: np.ndarray | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Fractions against a numeric variable such as age, one panel per cell type, with a regression line.

    Reads ``adata.obsm[key]`` and ``adata.obs[variable]``. Samples without a fraction or without the variable are
    ignored. The line is the least-squares fit, the band the 95 % confidence interval of the mean. Each panel reports
    Spearman's rank correlation and the number of samples, and has its own axis limits. The panels describe the data:
    the fractions of a sample sum to one, so the rise of one type lowers the others. The titles say if estimates are the
    fit of training samples.

    Parameters
    ----------
    adata
        Samples with fractions.
    variable
        Column of ``adata.obs`` with numbers.
    key
        Table of ``adata.obsm`` to draw.
    cell_types
        Cell types to show; None: all.
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
    KeyError
        If `variable`, `key` or one of `cell_types` does not exist.
    TypeError
        If the variable is not numeric, or the fractions are not a DataFrame.
    ValueError
        If no sample has both, or if the number of axes is not the number of cell types.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> import scdeconv
    >>> adata = AnnData(obs=pd.DataFrame({"age": [20, 40, 60]}, index=["s1", "s2", "s3"]))
    >>> adata.obsm["fractions"] = pd.DataFrame({"B": [0.3, 0.2, 0.1], "T": [0.7, 0.8, 0.9]}, adata.obs_names)
    >>> [ax.texts[0].get_text() for ax in scdeconv.pl.fractions_against(adata, "age")]
    ['ρ = −1.00  n = 3', 'ρ = 1.00  n = 3']
    """
    refuse_missing_columns(adata, [variable], "variable")
    column = adata.obs[variable]
    if not is_continuous(column):
        msg = (
            f"Expected numbers in adata.obs[{variable!r}], found {column.dtype}. Convert the column with pandas.to_numeric, "
            "or show groups with pl.fractions(kind='box', groupby=)."
        )
        raise TypeError(msg)
    table = get_fractions(adata, key)
    shown = chosen_types(cell_types, table, f"adata.obsm[{key!r}]")
    values = column.to_numpy(dtype=float, na_value=np.nan)
    known = table.notna().all(axis=1).to_numpy() & np.isfinite(values)
    if not known.any():
        msg = (
            f"Expected samples with fractions in adata.obsm[{key!r}] and a number in adata.obs[{variable!r}], found none of "
            f"{len(table)}. Use another key or variable."
        )
        raise ValueError(msg)
    colors = cell_type_colors(adata, key, table.columns, palette)
    note = fit_note(adata, key, table.index[known])
    x, table = values[known], table[known]

    panels = small_multiples(axes, pd.Index(shown), variable, fraction_label(adata, key), height=1.8, figsize=figsize)
    for ax, cell_type in zip(panels, shown, strict=True):
        y = table[cell_type].to_numpy(dtype=float)
        size = float(np.clip(600 / len(x), 8, 36))
        ax.scatter(x, y, s=size, color=colors[cell_type], edgecolor="black", linewidth=0.4, alpha=0.8, zorder=3)
        correlation = np.nan
        if np.ptp(x) > 0 and len(x) > 2:
            _draw_line(ax, x, y)
            correlation = float(stats.spearmanr(x, y).statistic) if np.ptp(y) > 0 else np.nan
        text = "undefined" if np.isnan(correlation) else f"= {signed(correlation, 2, plus=False)}"
        head(ax, cell_type, f"ρ {text}  n = {len(x)}", note)
        largest = max(y.max(), 0.005)
        ax.set_ylim(-0.04 * largest, 1.06 * largest)
    remember_colors(adata, key, colors, table.columns)
    return saved(panels, save)


def _draw_line(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw the least-squares line and the confidence interval of the mean."""
    n, centre = len(x), x.mean()
    at = np.linspace(x.min(), x.max(), N_POINTS)
    spread = ((x - centre) ** 2).sum()
    slope = ((x - centre) * (y - y.mean())).sum() / spread
    line = y.mean() + slope * (at - centre)
    ax.plot(at, line, color="black", linewidth=1.3, zorder=4)
    if n >= MIN_BAND_SAMPLES:
        residual = y - y.mean() - slope * (x - centre)
        error = np.sqrt((residual**2).sum() / (n - 2) * (1 / n + (at - centre) ** 2 / spread))
        half = stats.t.ppf((1 + COVERAGE) / 2, n - 2) * error
        ax.fill_between(at, line - half, line + half, color=GREY, alpha=0.2, linewidth=0, zorder=1)
