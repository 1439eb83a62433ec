from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection

from scdeconv._data.annotated import subset
from scdeconv._data.checks import checked
from scdeconv._data.fractions import compared_tables, get_fractions
from scdeconv._data.keys import FRACTIONS, MEASURED, UNS
from scdeconv.pl._style import (
    LETTER,
    LIGHT,
    MAX_HEIGHT_INCHES,
    SAMPLE,
    Palette,
    cell_type_colors,
    chosen_types,
    fit_note,
    fraction_label,
    head,
    legend_above,
    panel_columns,
    remember_colors,
    saved,
    small_multiples,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData


@checked()
def intervals(
    adata: AnnData,
    key: str = FRACTIONS,
    *,
    cell_types: Sequence[str] | None = None,
    measured_key: str = MEASURED,
    palette: Palette | None = None,
    axes: np.ndarray | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Fractions of each sample with their prediction intervals, one panel per cell type.

    Reads ``adata.obsm[key]`` and its bounds ``adata.obsm["<key>_lower"]`` and ``adata.obsm["<key>_upper"]``, which
    ``tl.predict(..., coverage=0.9)`` writes. Each panel has its own axis limits. If there is space for the sample names
    on a page, all panels show the samples in the order of the most abundant shown cell type, the highest estimate at the
    top; the names are at the left of each row. Otherwise each panel is sorted by its own estimates.
    Diamonds are measured fractions of ``adata.obsm[measured_key]``; black diamonds are outside the interval. Each panel
    reports the number of measured fractions inside their intervals. Samples without bounds (NaN) are shown without
    diamonds. The titles say if estimates are the fit of training samples.

    Parameters
    ----------
    adata
        Samples with fractions and bounds.
    key
        Table of ``adata.obsm`` with the estimates.
    cell_types
        Cell types to show; None: all, in the order of the table.
    measured_key
        Table of ``adata.obsm`` with the measured fractions of some or all samples; optional. If there is an unmeasured
        rest, the measured types are scaled to the sum of their estimates, with a warning.
    palette
        Colours of the cell types, see :func:`scdeconv.pl.fractions`.
    axes
        One axes per cell type; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the numbers of panels and samples.
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
        If a table or one of `cell_types` is missing or a table is not a DataFrame.
    ValueError
        If all samples are NaN, if the measured cell types differ, or if the number of axes is not the number of cell types.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> import scdeconv
    >>> adata = AnnData(obs=pd.DataFrame(index=["s1", "s2"]))
    >>> for key, b in (("fractions", 0.4), ("fractions_lower", 0.3), ("fractions_upper", 0.6)):
    ...     adata.obsm[key] = pd.DataFrame({"B": [b, 0.2], "T": [1 - b, 0.8]}, adata.obs_names)
    >>> (ax,) = scdeconv.pl.intervals(adata, cell_types=["B"])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['s2', 's1']
    """
    missing = [name for name in (f"{key}_lower", f"{key}_upper") if name not in adata.obsm]
    if missing:
        msg = (
            f"Expected {missing} in adata.obsm, found {sorted(adata.obsm)}. Call tl.predict(..., coverage=0.9) or pass "
            "another key."
        )
        raise KeyError(msg)
    names = [key, f"{key}_lower", f"{key}_upper"]
    tables = [get_fractions(adata, name) for name in names]
    known = tables[0].notna().all(axis=1).to_numpy()
    if not known.any():
        msg = (
            f"Expected samples with fractions in adata.obsm[{key!r}], found {len(known)} rows of NaN. Use another key."
        )
        raise ValueError(msg)
    colors = cell_type_colors(adata, key, tables[0].columns, palette)
    shown = chosen_types(cell_types, tables[0], f"adata.obsm[{key!r}]")
    for name, table in zip(names[1:], tables[1:], strict=True):
        chosen_types(shown, table, f"adata.obsm[{name!r}]")
    estimate, lower, upper = (table[known] for table in tables)
    measured = _measured_on_the_scale_of(estimate, adata, key, measured_key, known)

    what = measured_key.removesuffix("_fractions").replace("_", " ")
    coverage = adata.uns.get(UNS, {}).get(key, {}).get("coverage")
    n_samples = len(estimate)
    note = fit_note(adata, key, estimate.index)
    beside = LETTER * max(map(len, estimate.index)) + 0.1
    height = SAMPLE * n_samples + 0.3
    is_named = axes is None and height * -(-len(shown) // panel_columns(len(shown), beside)) < MAX_HEIGHT_INCHES
    panels = small_multiples(
        axes,
        pd.Index(shown),
        fraction_label(adata, key),
        "" if is_named else "samples, by estimate",
        height=max(height, 1.2) if is_named else 1.8,
        figsize=figsize,
        lines=2,
        sharey="row" if is_named else False,
        beside=beside if is_named else 0.0,
    )
    for ax, cell_type in zip(panels, shown, strict=True):
        by = estimate[shown].mean().idxmax() if is_named else cell_type
        order = np.argsort(estimate[by].to_numpy(), kind="stable")
        y = np.arange(n_samples)
        middle, low, high = (table[cell_type].to_numpy()[order] for table in (estimate, lower, upper))
        lines = LineCollection(
            [[(start, at), (end, at)] for at, start, end in zip(y, low, high, strict=True)],
            colors=colors[cell_type],
            linewidths=float(np.clip(150 / n_samples, 0.7, 4)),
            alpha=0.6,
            label="interval" if coverage is None else f"{coverage:.0%} interval",
        )
        ax.add_collection(lines)
        size = float(np.clip(600 / n_samples, 5, 30))
        ax.scatter(middle, y, s=size, color=colors[cell_type], edgecolor="black", linewidth=0.4, label="estimate")
        figures = f"n = {n_samples}"
        largest = np.nanmax([*high, *middle, 0.005])
        if measured is not None:
            truth = measured[cell_type].to_numpy()[order]
            truth_known = np.isfinite(truth) & np.isfinite(low)
            inside = (low <= truth) & (truth <= high)
            for which, color, label in (
                (inside, "white", what),
                (truth_known & ~inside, "black", f"{what}, outside"),
            ):
                edge = {"edgecolor": "black", "linewidth": 0.7}
                ax.scatter(truth[which], y[which], s=size, marker="D", color=color, label=label, **edge)
            figures = f"{inside.sum()} of {truth_known.sum()} {what} inside" if truth_known.any() else f"not {what}"
            largest = np.nanmax([largest, *truth])
        head(ax, cell_type, figures, note, beside=beside if is_named else 0.0)
        ax.set(ylim=(-0.7, n_samples - 0.3), xlim=(-0.04 * largest, 1.06 * largest))
    # rows share their axis: set after all panels
    for ax in panels:
        ax.set_yticks(*((y, estimate.index[order]) if is_named else ([],)))
        if is_named:
            ax.grid(axis="y", color=LIGHT, linewidth=0.6)
            ax.set_axisbelow(True)
    if axes is None:
        legend_above(panels)
    remember_colors(adata, key, colors, tables[0].columns)
    return saved(panels, save)


def _measured_on_the_scale_of(
    estimate: pd.DataFrame, adata: AnnData, key: str, measured_key: str, known: np.ndarray
) -> pd.DataFrame | None:
    """Return measured fractions with the names of the estimate; NaN where unknown, None without measured fractions.

    With an unmeasured rest, the measured types have the sum of their estimates.
    """
    measured = adata.obsm.get(measured_key)
    if measured is None:
        return None
    table = pd.DataFrame(np.nan, estimate.index, estimate.columns)
    both = get_fractions(adata, measured_key).notna().any(axis=1).to_numpy()[known]
    if both.any():
        truth, compared, _ = compared_tables(adata if known.all() else subset(adata, known), key, measured_key)
        total = estimate.loc[both, compared.columns].sum(axis=1) / compared.sum(axis=1)
        table.loc[both, truth.columns] = truth.mul(total, axis=0).to_numpy()
    return table
