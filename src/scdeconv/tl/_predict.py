"""Predict the composition of bulk samples, and judge it where it is known."""

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
    """Write a model's estimate of the composition of bulk samples.

    Parameters
    ----------
    adata
        Bulk samples × genes, counts or TPM as in training. Genes are found by name.
    model
        From :func:`scdeconv.tl.train`, or loaded.
    key_added
        Key to write to.
    coverage
        Also write the interval that holds a fraction with this probability, up to n / (n + 1) for n training donors.
    layer
        Layer to read instead of ``X``.

    Writes
    ------
    ``adata.obsm[key_added]``
        DataFrame samples × cell types, rows sum to 1.
    ``adata.obsm[f"{key_added}_lower"]``, ``adata.obsm[f"{key_added}_upper"]``
        Bounds of the intervals, with ``coverage``.
    ``adata.obsm[f"{key_added}_quality"]``
        How well the model's idea of bulk fits each sample (see ``model.quality``), where the model has one. Samples
        outside of what it was trained on are named in a warning. Tables of an earlier prediction under these keys are
        removed.
    ``adata.uns["scdeconv"][key_added]``
        Method, version, parameters, kind of fraction (of cells or of RNA), number of genes and seed.

    Raises
    ------
    ValueError
        Where ``key_added`` is empty or has a ``/``.
        Where values are not linear expression or less than half of the model's genes are there. Nothing is written.

    Warns
    -----
    UserWarning
        Where genes of the model are missing, where samples are outside of what it was trained on, and where these are
        counts and the model learned from TPM, or the reverse.

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
                f"{len(outside)} of {len(quality)} samples lie outside of what the model was trained on, such as "
                f"{examples(outside)}: their fractions are extrapolated. See adata.obsm['{key_added}_quality']."
            )
    for kind in ("lower", "upper", "quality"):
        # those of an earlier model would be taken for this one's
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
    """Compare estimated with measured fractions, cell type by cell type, beside the mean composition.

    Samples without measured fractions are left out. A type that only one side has counts as 0 on the other.

    Parameters
    ----------
    adata
        Bulk samples with both.
    key
        Key of ``obsm`` with the estimate.
    measured_key
        Key of ``obsm`` with the truth.

    Returns
    -------
    One row per cell type, then "all entries" (pooled) and "mean of types", with the columns of
    :func:`scdeconv.metrics.table` and ``rmse_mean_composition``: the error of predicting the mean of these very samples,
    the best constant in hindsight.

    Raises
    ------
    KeyError
        Where a key is missing.
    ValueError
        Where no sample has measured fractions.

    Warns
    -----
    UserWarning
        Where the estimate holds shares of RNA.

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
        msg = f"Expected samples with measured fractions in adata.obsm[{measured_key!r}], found none."
        raise ValueError(msg)
    if adata.uns.get(keys.UNS, {}).get(key, {}).get("fraction_kind") == "rna":
        warn(
            f"adata.obsm[{key!r}] holds shares of RNA. If the measured fractions are shares of cells, compare them after "
            "tl.convert_fractions(adata, cell_size, to='cell')."
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
