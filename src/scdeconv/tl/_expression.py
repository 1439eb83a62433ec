"""Cell-type-specific expression of bulk samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scdeconv._data import keys
from scdeconv._data.annotated import write_record
from scdeconv._data.checks import Problems, check_key_added, checked
from scdeconv._data.gene_names import strip_versions
from scdeconv._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scdeconv.models import DeconvolutionModel


@checked()
def expression(
    adata: AnnData,
    model: DeconvolutionModel,
    *,
    cell_types: Sequence[str] | None = None,
    layer: str | None = None,
    key_added: str = "expression",
) -> None:
    r"""Estimate the contribution of each cell type to the expression of bulk samples.

    A layer contains the contribution of one cell type, which increases with its fraction. For the expression profile of the
    type, divide the layer of each sample by its sum. The sum of the layers over all types is the bulk (``"bayesprism"``), or
    the bulk without its noise (``"calibrated_map"``).

    Parameters
    ----------
    adata
        Bulk samples × genes, counts or TPM as in training. Genes are matched by name.
    model
        From :func:`scdeconv.tl.train` with a method that estimates expression: ``"calibrated_map"`` with at least three
        paired donors with cells, or ``"bayesprism"``. Samples of the training donors get the fit to their own cells.
    cell_types
        Types to write; None: all. Each needs 4 bytes per sample and gene.
    layer
        Layer to read instead of ``X``.
    key_added
        Prefix of the layer names.

    Writes
    ------
    ``adata.layers[f"{key_added}_{cell_type}"]``
        Samples × genes (float32), in the unit of the input. Genes that the model does not use are NaN. Layers of
        earlier calls with this key are removed.
    ``adata.uns["scdeconv"][key_added]``
        Method, version, parameters, number of genes, cell types and input layer.

    Raises
    ------
    TypeError
        If the model does not estimate expression.
    ValueError
        If ``key_added`` is empty, contains a ``/`` or has another result, if a cell type is unknown, if the values are not linear
        expression, or if less than half of the model's genes are present. Nothing is written.

    Notes
    -----
    ``"bayesprism"`` divides the reads of a gene among the types in proportion to fraction and profile, so all types of a
    sample deviate from their profiles by the same factor. ``"calibrated_map"`` is the posterior mean of the log deviation d of
    type k from its profile, given the residual r of log bulk (samples are independent, genes are not):

    .. math::

        E[d_k | r] = C' B S^{-1} r + \frac{h + \tau^2 w_k}{\max(D, \tau^2 \sum_j w_j^2)} D S^{-1} r,
        \qquad S = B'B + o^2 11' + D, \quad h = \max(\rho D - \tau^2 \sum_j w_j^2, 0),

    with the deviations B of the paired bulk samples and C of the cells of the same donors (scaled, shrunk; donors × genes),
    the independent variance D, a factor common to all genes (SD o = 0.5), the share :math:`w_k` of the type in the expected
    expression of the gene, the variance :math:`\tau^2` between donors that is specific to a type, from the cells, and the share
    :math:`\rho` of the variance of bulk that the cells have, too. Noise of bulk that the cells of the pairs do not show, such as
    RNA quality, is not part of the expression.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired ...
    >>> model = scdeconv.tl.train(mdata, method="bayesprism", outlier_share=1)
    bayesprism: 7 profiles, 300 genes
    >>> scdeconv.tl.expression(bulk, model, cell_types=["Macrophage"])
    >>> bulk.layers["expression_Macrophage"].shape
    (12, 300)
    """
    predict: Any = getattr(model, "predict_expression", None)
    if predict is None:
        msg = (
            f"Expected a model that estimates expression, found {type(model).__name__}. Train with method='bayesprism', "
            "or with 'calibrated_map' on pairs with cells."
        )
        raise TypeError(msg)
    problems = Problems("The expression of cell types cannot be written")
    check_key_added(problems, adata, key_added, "cell_types")
    problems.raise_if_any()
    parts = predict(adata, cell_types=cell_types, layer=layer)
    columns = strip_versions(model.genes_).get_indexer(strip_versions(adata.var_names))
    layers = {}
    for cell_type, table in parts:
        values = table.to_numpy(dtype=np.float32)[:, columns]
        values[:, columns < 0] = np.nan
        layers[cell_type] = values
    for cell_type in adata.uns.get(keys.UNS, {}).get(key_added, {}).get("cell_types", ()):
        # results of an earlier model must not remain
        adata.layers.pop(f"{key_added}_{cell_type}", None)
    for cell_type, values in layers.items():
        adata.layers[f"{key_added}_{cell_type}"] = values
    record = {
        "method": model.method,
        "version": __version__,
        "parameters": model.parameters_,
        "n_genes": len(model.genes_),
        "cell_types": list(layers),
        "layer": "X" if layer is None else layer,
    }
    write_record(adata, key_added, record)
