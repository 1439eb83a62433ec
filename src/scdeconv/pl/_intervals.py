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
    CHARACTER,
    SAMPLE,
    cell_type_colors,
    fit_note,
    fraction_label,
    head,
    legend_above,
    small_multiples,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@checked()
def intervals(
    adata: AnnData,
    key: str = FRACTIONS,
    *,
    cell_types: Sequence[str] | None = None,
    measured_key: str = MEASURED,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Fractions of each sample with their prediction intervals, one panel per cell type.

    Reads ``adata.obsm[key]`` and its bounds ``adata.obsm["<key>_lower"]`` and ``adata.obsm["<key>_upper"]``, which
    ``tl.predict(..., coverage=0.9)`` writes. Each panel shows the samples sorted by the estimate, with its own axis
    limits. Sample names are shown if there is space. Diamonds are measured fractions of ``adata.obsm[measured_key]``;
    black diamonds are outside the interval. Each panel reports the number of measured fractions inside their intervals.
    Samples without bounds (NaN) are shown without diamonds. The titles say if estimates are the fit of training samples.

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
    axes
        One axes per cell type; None: a new figure.

    Returns
    -------
    The axes, one per cell type.

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
    >>> [label.get_text() for label in ax.get_xticklabels()]
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
    colors = cell_type_colors(adata, key, tables[0].columns)
    cell_types = [*map(str, tables[0])] if cell_types is None else list(cell_types)
    for name, table in zip(names, tables, strict=True):
        unknown = [cell_type for cell_type in cell_types if cell_type not in table]
        if unknown:
            msg = f"Expected columns {unknown} in adata.obsm[{name!r}], found {list(table)}. Use these cell_types."
            raise KeyError(msg)
    estimate, lower, upper = (table[known] for table in tables)
    measured = _measured_on_the_scale_of(estimate, adata, key, measured_key, known)

    what = measured_key.removesuffix("_fractions").replace("_", " ")
    coverage = adata.uns.get(UNS, {}).get(key, {}).get("coverage")
    n_samples = len(estimate)
    note = fit_note(adata, key, estimate.index)
    width = float(np.clip(0.2 * n_samples, 1.9, 3.0 if len(cell_types) > 1 else 10))
    longest = CHARACTER * max(map(len, estimate.index))
    fits = width / n_samples > SAMPLE
    xlabel = "samples, by estimate"
    height = 2.4 + (longest if fits else 0)
    panels = small_multiples(axes, pd.Index(cell_types), xlabel, fraction_label(adata, key), width + 0.5, height)
    for ax, cell_type in zip(panels, cell_types, strict=True):
        order = np.argsort(estimate[cell_type].to_numpy(), kind="stable")
        x = np.arange(n_samples)
        middle, low, high = (table[cell_type].to_numpy()[order] for table in (estimate, lower, upper))
        lines = LineCollection(
            [[(at, start), (at, end)] for at, start, end in zip(x, low, high, strict=True)],
            colors=colors[cell_type],
            linewidths=float(np.clip(150 / n_samples, 0.7, 4)),
            alpha=0.6,
            label="interval" if coverage is None else f"{coverage:.0%} interval",
        )
        ax.add_collection(lines)
        size = float(np.clip(600 / n_samples, 5, 30))
        ax.scatter(x, middle, s=size, color=colors[cell_type], edgecolor="black", linewidth=0.4, label="estimate")
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
                ax.scatter(
                    x[which],
                    truth[which],
                    s=size,
                    marker="D",
                    color=color,
                    edgecolor="black",
                    linewidth=0.7,
                    label=label,
                )
            figures = f"{inside.sum()} of {truth_known.sum()} {what} inside" if truth_known.any() else f"not {what}"
            largest = np.nanmax([largest, *truth])
        head(ax, cell_type, figures, note)
        ax.set(xlim=(-0.7, n_samples - 0.3), ylim=(-0.04 * largest, 1.06 * largest))
        if axes is None and fits:
            ax.set_xticks(x, estimate.index[order], rotation=90, fontsize=8)
        else:
            ax.set_xticks([])
    if axes is None:
        legend_above(panels)
    return panels


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
