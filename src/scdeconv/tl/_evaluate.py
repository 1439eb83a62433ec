"""Evaluation of estimated against measured fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from anndata import AnnData


@checked()
def evaluate(adata: AnnData, key: str = keys.FRACTIONS, *, measured_key: str = keys.MEASURED) -> pd.DataFrame:
    """Compare estimated with measured fractions for each cell type, and with the mean composition.

    Samples without measured fractions are ignored. A cell type that is missing in one table is 0 there.

    Parameters
    ----------
    adata
        Bulk samples with estimated and measured fractions.
    key
        Key of ``obsm`` with the estimate.
    measured_key
        Key of ``obsm`` with the measured fractions.

    Returns
    -------
    One row per cell type, then "all entries" (pooled) and "mean of types", with the columns of
    :func:`scdeconv.metrics.table` and ``rmse_mean_composition``: the RMSE of the mean composition of the same samples.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If no sample has measured fractions.

    Warns
    -----
    UserWarning
        If the estimates are RNA fractions.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired ...
    >>> scdeconv.tl.predict(mdata["bulk"], scdeconv.tl.train(mdata, method="nnls"))
    nnls: 7 profiles, 300 genes
    >>> bool(scdeconv.tl.evaluate(mdata["bulk"]).loc["all entries", "n"] > 0)
    True
    """
    for name in (key, measured_key):
        if name not in adata.obsm:
            msg = f"Expected adata.obsm[{name!r}], found keys {sorted(adata.obsm)}. Call tl.predict or pp.pair first."
            raise KeyError(msg)
    measured = adata.obsm[measured_key].dropna()
    if measured.empty:
        msg = (
            f"Expected samples with measured fractions in adata.obsm[{measured_key!r}], found none. Add measured "
            "fractions."
        )
        raise ValueError(msg)
    if adata.uns.get(keys.UNS, {}).get(key, {}).get("fraction_kind") == "rna":
        warn(
            f"Expected cell fractions in adata.obsm[{key!r}], found RNA fractions. If the measured fractions are cell "
            "fractions, call tl.convert_fractions(adata, cell_size, to='cell') first."
        )
    predicted = adata.obsm[key].loc[measured.index]
    cell_types = measured.columns.union(predicted.columns, sort=False)
    measured, predicted = (frame.reindex(columns=cell_types, fill_value=0.0) for frame in (measured, predicted))
    table = metrics.table(measured, predicted)
    constant = pd.DataFrame(
        np.tile(measured.mean().to_numpy(), (len(measured), 1)), index=measured.index, columns=cell_types
    )
    table["rmse_mean_composition"] = metrics.table(measured, constant)["rmse"]
    return table
