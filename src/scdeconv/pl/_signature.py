from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from scdeconv._data.checks import checked
from scdeconv._data.keys import CELL_SIZE, CELL_TYPE, UNS
from scdeconv._data.matrix import to_dense
from scdeconv.pl._style import CHARACTER, LETTER, MAX_INCHES, SMALL, TITLE, chosen_types, new_axes, saved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

# inches: height of a cell type, minimum width of a gene with its name
TYPE_INCHES, GENE_INCHES = 0.24, 0.13
TINY = np.finfo(float).tiny


@checked()
def signature(
    signature: AnnData,
    *,
    scale: Literal["z-score", "linear"] = "z-score",
    cell_types: Sequence[str] | None = None,
    ax: Axes | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Heat map of a signature, genes × cell types.

    Genes are sorted by the cell type of which they are markers, then by score. A good signature has diagonal blocks.
    Gene names are shown if there is space.

    Parameters
    ----------
    signature
        From :func:`scdeconv.pp.signature` or :func:`scdeconv.io.read_signature`; reads ``X``, ``obs["cell_type"]``,
        ``obs["cell_size_umi"]``, ``var["marker_of"]``, ``var["score"]`` and the condition number in ``uns``.
    scale
        ``"z-score"``: of log2(CPM + 1) over the cell types, which shows how far a gene is from its mean; ``"linear"``:
        CPM as share of the maximum of the gene, which shows what the methods that fit on this scale see.
    cell_types
        Cell types to show, with all genes; None: all. The colours do not change.
    ax
        Axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: depends on the numbers of types and genes.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If the cell types of the markers, the record of the signature or one of `cell_types` are missing.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> ax = scdeconv.pl.signature(scdeconv.pp.signature(mdata, 70))
    >>> ax.get_title()  # doctest: +ELLIPSIS
    '70 genes, condition number ...'
    """
    record = signature.uns.get(UNS, {}).get("signature")
    if record is None or "marker_of" not in signature.var:
        msg = (
            f"Expected var['marker_of'] and uns['{UNS}']['signature'], found var columns {list(signature.var)} and uns "
            f"keys {sorted(signature.uns)}. Create the signature with pp.signature or io.read_signature."
        )
        raise KeyError(msg)
    size = signature.obs[CELL_SIZE].to_numpy(dtype=float)
    cpm = to_dense(signature.X) / size[:, None] * 1e6
    values = _z_scores(np.log2(cpm + 1)) if scale == "z-score" else cpm / np.maximum(cpm.max(axis=0), TINY)
    table = pd.DataFrame(values.T, signature.var_names, list(map(str, signature.obs[CELL_TYPE])))
    shown = chosen_types(cell_types, table, f"signature.obs[{CELL_TYPE!r}]")
    # rows may be subset or reordered; markers of types that are not shown come first (-1)
    row = pd.Index(shown).get_indexer(signature.var["marker_of"].astype(str))
    order = np.lexsort((-signature.var["score"], row))
    table = table[shown].iloc[order]
    names = table.index

    beside = CHARACTER * max(map(len, shown)) + 1.3
    width = float(np.clip(GENE_INCHES * len(names) + 0.05, 3.0, MAX_INCHES - beside))
    if ax is not None:
        width = ax.get_window_extent().width / ax.figure.dpi
    elif figsize is not None:
        width = figsize[0] - beside
    is_named = len(names) * GENE_INCHES <= width + 0.01
    below = LETTER * max(map(len, names)) if is_named else 0.35
    height = max(TYPE_INCHES * len(shown), 1.2)
    ax = new_axes(ax, figsize, (width + beside, height + below + 0.45))
    largest = float(np.abs(table.to_numpy()).max()) or 1.0
    colors: dict[str, Any] = (
        {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
        if scale == "z-score"
        else {"cmap": "magma", "vmin": 0, "vmax": 1}
    )
    # no smoothing: with more genes than pixels it would also blur the cell types
    image = ax.imshow(table.T, aspect="auto", interpolation="nearest", **colors)
    edges = np.flatnonzero(np.diff(row[order])) + 0.5
    ax.vlines(edges, -0.5, len(shown) - 0.5, color="black" if scale == "z-score" else "white", linewidth=0.8)
    ax.set_yticks(range(len(shown)), shown)
    if is_named:
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=SMALL)
    else:
        ax.set_xticks([])
        ax.set_xlabel("genes, those of each cell type together")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(f"{len(names)} genes, condition number {record['condition_number']:.3g}", fontsize=10)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.03, pad=0.01)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label("z-score" if scale == "z-score" else "CPM, share\nof highest", fontsize=TITLE)
    bar.outline.set_visible(False)
    return saved(ax, save)


def _z_scores(log: np.ndarray) -> np.ndarray:
    """Return the z-scores of each column; 0 for constant columns."""
    spread = log.std(axis=0)
    return np.asarray((log - log.mean(axis=0)) / np.where(spread > 0, spread, 1))
