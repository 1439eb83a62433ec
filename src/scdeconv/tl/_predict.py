"""Prediction of the composition of bulk samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv._data import keys
from scdeconv._data.checks import checked, examples
from scdeconv._data.warnings import warn
from scdeconv._version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

    from scdeconv.models import DeconvolutionModel


@checked()
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
