"""Prediction of the composition of bulk samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import checked, examples
from scdeconv._data.warnings import warn
from scdeconv._version import __version__

from ._evaluate import held_out_errors

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from anndata import AnnData

    from scdeconv.models import DeconvolutionModel

# how prediction intervals were made, by whether there were no held-out donors
INTERVALS = {False: "out-of-fold errors", True: "resampled genes and reference"}
# key of the record and value of "source" in the estimate of a model
SOURCES = {"out_of_fold": "out-of-fold", "in_sample": "in-sample"}


@checked()
def predict(
    adata: AnnData,
    model: DeconvolutionModel,
    *,
    key_added: str = keys.FRACTIONS,
    coverage: float | None = None,
    layer: str | None = None,
    in_sample: bool = False,
    known: pd.DataFrame | None = None,
    known_se: pd.DataFrame | None = None,
) -> None:
    r"""Predict the composition of bulk samples.

    The fit of a sample that a model was trained on is no estimate of its composition. Models that learn from measured
    fractions recognise these samples by their expression. They get the out-of-fold predictions and intervals of the
    training, which a printed line says.

    Parameters
    ----------
    adata
        Bulk samples × genes, counts or TPM as in training. Genes are matched by name.
    model
        From :func:`scdeconv.tl.train`, or loaded.
    key_added
        Key of the results.
    coverage
        Also write prediction intervals with this coverage. With pairs, it is at most n / (n + 1) for n training donors.
        Without pairs, ``robust_nnls`` (the default) has intervals of any coverage below 1, see :meth:`scdeconv.models.RobustNNLS.predict_interval`.
    layer
        Layer to read instead of ``X``.
    in_sample
        Write the fit of the training samples instead of their out-of-fold predictions.
    known
        Fractions that are known, such as tumour purity or a blood count: DataFrame samples × cell types (or levels of the
        hierarchy), from 0 to 1, NaN where unknown. Samples and types are found by name; others are unknown.
    known_se
        Standard errors of ``known``, a DataFrame with its names. Values without a standard error are exact.

    Writes
    ------
    ``adata.obsm[key_added]``
        DataFrame samples × cell types, rows sum to 1. Rows of NaN for samples without reads in the model's genes.
    ``adata.obsm[f"{key_added}_lower"]``, ``adata.obsm[f"{key_added}_upper"]``
        Lower and upper bounds of the prediction intervals, with ``coverage``.
    ``adata.obsm[f"{key_added}_by_level"]``
        With the hierarchy of :func:`scdeconv.pp.pair`: DataFrame samples × levels, the sums of their cell types. With
        ``coverage``, also ``..._by_level_lower`` and ``..._by_level_upper``, from the out-of-fold errors of the sums.
    ``adata.obsm[f"{key_added}_quality"]``
        Quality measures of each sample (see ``model.quality``), for models that have them or were trained on counts.
        Warnings list samples that differ from the training donors and samples with few reads. Tables of an earlier prediction with these keys are removed,
        and comparisons of groups (:func:`scdeconv.tl.compare_fractions`) that were made with it.
    ``adata.uns["scdeconv"][key_added]``
        Method, version, parameters, kind of fractions (cell or RNA), number of genes and seed. Also the names of the
        training samples: ``out_of_fold``, and ``in_sample`` for those with the fit. Also ``known`` and ``known_se``. With
        held-out donors, ``held_out`` has their errors, a table like that of :func:`scdeconv.tl.evaluate`.

    Raises
    ------
    ValueError
        If ``key_added`` is empty or contains a ``/``, if the values are not linear expression, if less than half of
        the model's genes are present, or if ``known`` or ``known_se`` have problems. Nothing is written.

    Warns
    -----
    UserWarning
        If genes of the model are missing, if samples have no or few reads in them, if samples differ from the training donors, or if the unit (counts or TPM)
        differs from the unit of the training bulk. If known fractions differ from the estimates without them by more than
        4 standard deviations, or if the method estimates RNA fractions.

    Notes
    -----
    The estimate f of a known type is replaced by its known value k or, if k has a standard error s, by their
    precision-weighted mean

    .. math::

        \frac{k / s^2 + f / \sigma^2}{1 / s^2 + 1 / \sigma^2},

    with the root mean squared out-of-fold error :math:`\sigma` of the type. Without out-of-fold predictions, k replaces
    f. CalibratedMAP (also in an ensemble) then maximises the posterior density of the other types under this condition.
    Other methods, and out-of-fold predictions, scale the other types to the rest. The interval of an exactly known type is its value,
    with a standard error it is normal. Intervals of the other types are from the errors of out-of-fold predictions that
    are rescaled with the measured fractions of the known types,
    within what exactly known values leave.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> model = scdeconv.tl.train(scdeconv.pp.pair(cells, bulk), method="nnls")  # doctest: +ELLIPSIS
    paired ...
    >>> scdeconv.tl.predict(bulk, model)
    >>> bulk.obsm["fractions"].shape
    (12, 7)

    A blood count of one type in some samples:

    >>> known = bulk.obsm["fractions"].iloc[:4, :1] * 0 + 0.25
    >>> scdeconv.tl.predict(bulk, model, known=known)
    >>> bulk.obsm["fractions"].iloc[:4, 0].round(6).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    found = model.estimate(adata, coverage=coverage, layer=layer, in_sample=in_sample, known=known, known_se=known_se)
    source = found.pop("source", pd.DataFrame({"source": []}))["source"]
    trained_on = {kind: list(source.index[source == label]) for kind, label in SOURCES.items()}
    _report_training_samples(trained_on, in_sample=in_sample)
    if "quality" in found:
        _report_quality(found["quality"][found["fractions"].notna().all(axis=1)], key_added)
    for kind in keys.RESULTS:
        # results of an earlier model must not remain
        adata.obsm.pop(f"{key_added}_{kind}", None)
    for kind, table in found.items():
        adata.obsm[key_added if kind == "fractions" else f"{key_added}_{kind}"] = table
    records = adata.uns.setdefault(keys.UNS, {})
    records.pop(f"{key_added}_by_level", None)
    _remove_comparisons(records, key_added)
    records[key_added] = {
        **record_of(model),
        **({} if coverage is None else {"coverage": coverage, "intervals": INTERVALS[model.held_out_ is None]}),
        **{name: _plain(table) for name, table in (("known", known), ("known_se", known_se)) if table is not None},
        **{kind: np.array(names, dtype=object) for kind, names in trained_on.items() if names},
    }
    if model.training_.levels:
        records[key_added]["levels"] = dict(model.training_.levels)
        records[f"{key_added}_by_level"] = dict(records[key_added])


def _remove_comparisons(records: MutableMapping[str, Any], key: str) -> None:
    """Remove the comparisons of groups that were made with an earlier estimate of this key."""
    made = [name for name, record in records.items() if isinstance(record, Mapping) and record.get("key") == key]
    for name in made:
        del records[name]
    if made:
        print(f"predict: removed {examples(made)} of the earlier {key!r} from uns. Compare again.")


def record_of(model: DeconvolutionModel) -> dict[str, Any]:
    """Return what an estimate tells about its model, as plain values and tables that h5ad files can store.

    Parameters
    ----------
    model
        A trained model.
    """
    held_out = model.held_out_
    errors = {}
    if held_out is not None:
        errors = {
            "held_out": held_out_errors(held_out, model.cell_types_),
            "n_held_out_donors": len(np.unique(held_out.donors)),
        }
    return {
        "method": model.method,
        "version": __version__,
        "parameters": model.parameters_,
        "fraction_kind": model.fraction_kind,
        "n_genes": len(model.genes_),
        "seed": model.seed_,
        "trained_on": model.summary_,
        **errors,
    }


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with names as text, which h5ad files can store."""
    return table.astype(float).set_axis(table.index.astype(str)).set_axis(table.columns.astype(str), axis=1)


def _report_training_samples(trained_on: dict[str, list[str]], *, in_sample: bool) -> None:
    """Print which samples have out-of-fold predictions; warn about samples with the fit."""
    held_out, fitted = trained_on["out_of_fold"], trained_on["in_sample"]
    if held_out:
        print(
            f"predict: {len(held_out)} samples were training samples; they get their out-of-fold predictions "
            f"({examples(held_out)}). in_sample=True returns the fit."
        )
    if fitted:
        way_out = (
            ""
            if in_sample
            else (
                " The model has no out-of-fold predictions of them: call tl.cross_validate, or train a method that holds "
                "out donors on at least 4 paired donors."
            )
        )
        warn(
            f"{len(fitted)} samples were training samples and get the fit, which is no estimate of their composition: "
            f"{examples(fitted)}.{way_out}"
        )


def _report_quality(quality: pd.DataFrame, key: str) -> None:
    """Warn about samples that differ from the training donors, and about samples with few reads."""
    for column, finding in (
        ("outside", "are outside the range of the training donors, such as {}. Their fractions are extrapolated"),
        ("few_reads", "have less than 10 % of the reads of the training bulk, such as {}. Their fractions are noisy"),
        (
            "wide_intervals",
            "have intervals as wide as the spread of compositions of the training bulk, such as {}. Their fractions say "
            "little more than the mean composition",
        ),
    ):
        flagged = list(quality.index[quality[column]]) if column in quality else []
        if flagged:
            text = finding.format(examples(flagged))
            warn(f"{len(flagged)} of {len(quality)} samples {text}. See adata.obsm['{key}_quality'].")
