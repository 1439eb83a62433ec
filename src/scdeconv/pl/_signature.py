from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._data.keys import CELL_SIZE, CELL_TYPE, UNS
from scdeconv._data.matrix import to_dense
from scdeconv.pl._style import CHARACTER

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# inches: height of a cell type, minimum width of a gene with its name, maximum width of the heat map
TYPE_INCHES, GENE_INCHES, MAX_WIDTH_INCHES = 0.24, 0.11, 11.0


@checked()
def signature(signature: AnnData, *, ax: Axes | None = None) -> Axes:
    """Heat map of a signature, genes × cell types.

    Genes are sorted by the cell type of which they are markers, then by score. A good signature has diagonal blocks.
    The colour is log2(CPM + 1) divided by the maximum of the gene. Gene names are shown if there is space.

    Parameters
    ----------
    signature
        From :func:`scdeconv.pp.signature` or :func:`scdeconv.io.read_signature`; reads ``X``, ``obs["cell_type"]``,
        ``obs["cell_size_umi"]``, ``var["marker_of"]``, ``var["score"]`` and the condition number in ``uns``.
    ax
        Axes; None: a new figure. Its size depends on the numbers of types and genes.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If the cell types of the markers or the record of the signature are missing.

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
    log = np.log2(to_dense(signature.X) / size[:, None] * 1e6 + 1)
    cell_types = list(signature.obs[CELL_TYPE])
    # rows may be subset or reordered; markers of removed types come first (-1)
    row = pd.Index(cell_types).get_indexer(signature.var["marker_of"].astype(str))
    order = np.lexsort((-signature.var["score"], row))
    shares = (log / np.maximum(log.max(axis=0), np.finfo(float).tiny))[:, order]
    names = signature.var_names[order]

    beside = CHARACTER * max(map(len, cell_types)) + 1.3
    if ax is None:
        width = float(np.clip(GENE_INCHES * len(names) + 0.05, 3.5, MAX_WIDTH_INCHES))
        named = len(names) * GENE_INCHES <= MAX_WIDTH_INCHES
        below = 0.075 * max(map(len, names)) if named else 0.35
        height = max(TYPE_INCHES * len(cell_types), 1.2)
        _, ax = plt.subplots(figsize=(width + beside, height + below + 0.45), layout="constrained")
    else:
        named = ax.get_window_extent().width / ax.figure.dpi >= GENE_INCHES * len(names)
    # no smoothing: with more genes than pixels it would also blur the cell types
    image = ax.imshow(shares, aspect="auto", interpolation="nearest", cmap="cividis", vmin=0, vmax=1)
    edges = np.flatnonzero(np.diff(row[order])) + 0.5
    ax.vlines(edges, -0.5, len(cell_types) - 0.5, color="white", linewidth=0.8)
    ax.set_yticks(range(len(cell_types)), cell_types)
    if named:
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=6.5)
    else:
        ax.set_xticks([])
        ax.set_xlabel("genes, those of each cell type together")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(f"{len(names)} genes, condition number {record['condition_number']:.3g}", fontsize=10)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.03, pad=0.01, ticks=[0, 0.5, 1])
    bar.set_label("log expression,\nshare of highest", fontsize=8)
    bar.outline.set_visible(False)
    return ax
