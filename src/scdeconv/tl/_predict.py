"""Prediction of the composition of bulk samples, and evaluation against measured fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.validation import check_key, examples
from scdeconv._data.warnings import warn
from scdeconv._version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

    from scdeconv.models import DeconvolutionModel


def predict(
    adata: AnnData,
    model: DeconvolutionModel,
    *,
    key_added: str = keys.FRACTIONS,
    coverage: float | None = None,
    layer: str | None = None,
) -> None:
    """Predict the composition of bulk samples.

    Parameters
    ----------
    adata
        Bulk samples × genes, counts or TPM as in training. Genes are matched by name.
    model
        From :func:`scdeconv.tl.train`, or loaded.
    key_added
        Key of the results.
    coverage
        Also write prediction intervals with this coverage, at most n / (n + 1) for n training donors.
    layer
        Layer to read instead of ``X``.

    Writes
    ------
    ``adata.obsm[key_added]``
        DataFrame samples × cell types, rows sum to 1.
    ``adata.obsm[f"{key_added}_lower"]``, ``adata.obsm[f"{key_added}_upper"]``
        Lower and upper bounds of the prediction intervals, with ``coverage``.
    ``adata.obsm[f"{key_added}_quality"]``
        Quality measures of each sample (see ``model.quality``), for models that have them. A warning lists samples that
        differ from the training donors. Tables of an earlier prediction with these keys are removed.
    ``adata.uns["scdeconv"][key_added]``
        Method, version, parameters, kind of fractions (cell or RNA), number of genes and seed.

    Raises
    ------
    ValueError
        If ``key_added`` is empty or contains a ``/``, if the values are not linear expression, or if less than half of
        the model's genes are present. Nothing is written.

    Warns
    -----
    UserWarning
        If genes of the model are missing, if samples differ from the training donors, or if the unit (counts or TPM)
        differs from the unit of the training bulk.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> model = scdeconv.tl.train(scdeconv.pp.pair(cells, bulk), method="nnls")  # doctest: +ELLIPSIS
    paired ...
    >>> scdeconv.tl.predict(bulk, model)
    >>> bulk.obsm["fractions"].shape
    (12, 7)
    """
    check_key(key_added)
    found = model.estimate(adata, coverage=coverage, layer=layer)
    quality = found.get("quality")
    if quality is not None:
        outside = list(quality.index[quality["outside"]]) if "outside" in quality else []
        if outside:
            warn(
                f"{len(outside)} of {len(quality)} samples are outside the range of the training donors, such as "
                f"{examples(outside)}. Their fractions are extrapolated. See adata.obsm['{key_added}_quality']."
            )
    for kind in ("lower", "upper", "quality"):
        # results of an earlier model must not remain
        adata.obsm.pop(f"{key_added}_{kind}", None)
    for kind, table in found.items():
        adata.obsm[key_added if kind == "fractions" else f"{key_added}_{kind}"] = table
    adata.uns.setdefault(keys.UNS, {})[key_added] = {
        "method": model.method,
        "version": __version__,
        "parameters": model.parameters_,
        "fraction_kind": model.fraction_kind,
        "n_genes": len(model.genes_),
        "seed": model.seed_,
        **({} if coverage is None else {"coverage": coverage}),
    }


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
