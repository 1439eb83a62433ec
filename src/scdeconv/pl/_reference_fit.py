from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._stats.recognition.reference_fit import LARGE_SHARE, MAX_FOLD
from scdeconv.pl._style import (
    BLUE,
    GREY,
    LETTER,
    LIGHT,
    MAX_INCHES,
    SAMPLE,
    SMALL,
    TITLE,
    VERMILION,
    refuse_size_of_given_axes,
    saved,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

# columns of the tables that are drawn
GENES, SAMPLES = ("symbol", "bulk", "fit", "log2_ratio", "unexplained"), ("unexplained",)
# genes with a name, samples with a name
N_GENES, MAX_NAMED = 15, 24
# counts per million: start of the axes
LOWEST = 0.1
HEIGHT_INCHES = 3.1


@checked()
def reference_fit(
    adata: AnnData,
    key: str = keys.REFERENCE_FIT,
    *,
    axes: np.ndarray | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Genes and samples that a reference does not explain.

    Reads ``adata.varm[key]`` and ``adata.obsm[key]``, from :func:`scdeconv.tl.reference_fit`. Left: mean expression of
    each gene in bulk against its fit by the reference; genes above the upper line, 8 times the fit, are not explained.
    Middle: the genes with the highest ratio of bulk to fit. Markers of a cell type here mean that the reference lacks it.
    Right: the share of each sample's expression in genes that are not explained in this sample, sorted, with names if
    there are at most 24 samples. References of another tissue are at the right of the dashed line, 15 %.

    Parameters
    ----------
    adata
        Bulk samples, or paired data.
    key
        Key of the results.
    axes
        Three axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: the width of a page.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The three axes.

    Raises
    ------
    KeyError
        If the results are missing.
    ValueError
        If the number of axes is not three.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired ...
    >>> scdeconv.tl.reference_fit(mdata)  # doctest: +ELLIPSIS
    reference_fit: ...
    >>> genes, highest, samples = scdeconv.pl.reference_fit(mdata)
    >>> samples.get_xlabel()
    'share not explained'
    """
    for where, tables, columns in (("varm", adata.varm, GENES), ("obsm", adata.obsm, SAMPLES)):
        table = tables.get(key)
        if not isinstance(table, pd.DataFrame) or not {*columns} <= {*table}:
            found = sorted(tables) if table is None else f"another table with this key: {list(table)[:5]}"
            msg = (
                f"Expected the result {key!r} of tl.reference_fit in adata.{where}, found {found}. Call tl.reference_fit or "
                "pass another key."
            )
            raise KeyError(msg)
    genes, samples = adata.varm[key], adata.obsm[key].dropna()
    refuse_size_of_given_axes(axes, figsize, "axes")
    panels = _new_panels(samples.index, figsize) if axes is None else np.ravel(axes)
    if len(panels) != 3:
        msg = f"Expected three axes, for genes, their names and samples, found {len(panels)}. Pass three axes or None."
        raise ValueError(msg)
    _draw_genes(panels[0], genes)
    _draw_highest(panels[1], genes.sort_values("log2_ratio", ascending=False)[:N_GENES])
    _draw_samples(panels[2], samples)
    for ax in panels:
        ax.tick_params(labelsize=SMALL)
        ax.spines[["top", "right"]].set_visible(False)
    return saved(panels, save)


def _new_panels(names: pd.Index, figsize: Sequence[float] | None) -> np.ndarray:
    n_named = len(names) if len(names) <= MAX_NAMED else 0
    size = (MAX_INCHES, max(HEIGHT_INCHES, SAMPLE * n_named + 1)) if figsize is None else figsize
    longest = max(map(len, names.astype(str)), default=0) if n_named else 0
    ratios = [2.2, 1.5, max(1.0, 2.0 - LETTER * longest)]
    _, panels = plt.subplots(1, 3, figsize=tuple(size), width_ratios=ratios, layout="constrained")
    return panels


def _draw_genes(ax: Axes, genes: pd.DataFrame) -> None:
    x, y = (genes[name].to_numpy().clip(LOWEST) for name in ("fit", "bulk"))
    above = genes["unexplained"].to_numpy(dtype=bool)
    for chosen, color, size in ((~above, BLUE, 3), (above, VERMILION, 9)):
        ax.scatter(x[chosen], y[chosen], s=size, color=color, alpha=0.6, linewidth=0, rasterized=True)
    ends = np.array([LOWEST, 1.5 * max(x.max(), y.max())])
    ax.plot(ends, ends, color=GREY, linewidth=1)
    ax.plot(ends / MAX_FOLD, ends, color=GREY, linewidth=1, linestyle="--")
    ax.set(xscale="log", yscale="log", xlim=(0.7 * LOWEST, ends[1]), ylim=(0.7 * LOWEST, ends[1]))
    ax.set_xlabel("fit by the reference (CPM)", fontsize=SMALL)
    ax.set_ylabel("bulk (CPM)", fontsize=SMALL)
    ax.set_title(f"{above.sum():,} of {len(genes):,} genes\nare not explained", fontsize=TITLE)


def _draw_highest(ax: Axes, genes: pd.DataFrame) -> None:
    rows, ratios = np.arange(len(genes)), genes["log2_ratio"]
    colors = np.where(ratios.to_numpy() > np.log2(MAX_FOLD), VERMILION, BLUE)
    ax.barh(rows, ratios.to_numpy(), color=colors, height=0.7)
    ax.axvline(np.log2(MAX_FOLD), color=GREY, linewidth=1, linestyle="--")
    ax.set_yticks(rows, genes["symbol"])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(ratios) - 0.4, -0.6)
    ax.set_xlabel("log2 (bulk / fit)", fontsize=SMALL)
    ax.set_title("genes with the\nhighest ratio", fontsize=TITLE)


def _draw_samples(ax: Axes, samples: pd.DataFrame) -> None:
    share = samples["unexplained"].sort_values(ascending=False)
    rows = np.arange(len(share))
    ax.scatter(share, rows, s=14, color=np.where(share > LARGE_SHARE, VERMILION, BLUE), zorder=3)
    ax.axvline(LARGE_SHARE, color=GREY, linewidth=1, linestyle="--")
    is_named = len(share) <= MAX_NAMED
    ax.set_yticks(rows if is_named else [], share.index.astype(str) if is_named else [])
    ax.grid(axis="y", color=LIGHT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_ylim(len(share) - 0.4, -0.6)
    ax.set_xlim(0, max(1.2 * LARGE_SHARE, 1.1 * float(share.max()) if len(share) else 0))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.locator_params(axis="x", nbins=3)
    ax.set_xlabel("share not explained", fontsize=SMALL)
    if not is_named:
        ax.set_ylabel(f"{len(share):,} samples", fontsize=SMALL)
    ax.set_title(f"samples\n(median {share.median():.1%})", fontsize=TITLE)
