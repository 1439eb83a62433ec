"""Evaluation of estimated against measured fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.checks import checked, examples
from scdeconv._data.fractions import compared_tables, level_sums, levels_of
from scdeconv._data.training_samples import training_samples
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scdeconv.models import HeldOut


@checked()
def evaluate(adata: AnnData, key: str = keys.FRACTIONS, *, measured_key: str = keys.MEASURED) -> pd.DataFrame:
    """Compare estimated with measured fractions for each cell type, and with the mean composition.

    Samples without measured fractions or estimate are ignored. Both tables must have the same cell types. There are three
    exceptions:

    - If only one table has the column "Unmeasured", or if measured rows sum to less than 1, its other types are compared
      after dividing each row of both tables by its sum over them. A warning says so.
    - "Unknown", the share that a method estimates beyond its reference, is 0 in complete measurements.
    - With the hierarchy of :func:`scdeconv.pp.pair`, a measured level is compared with the sum of its types.

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
    One row per cell type and level of the hierarchy, then "all entries" (pooled over types) and "mean of types", with the
    columns of
    :func:`scdeconv.metrics.table` and ``rmse_mean_composition``: the RMSE of the mean composition of the same samples.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If no sample has measured fractions, if the cell types differ, or if a table has percent, counts or partly missing
        rows. The message proposes a renaming for other spellings, or a call of :func:`scdeconv.tl.merge_types` for finer
        types.

    Warns
    -----
    UserWarning
        If the estimates are RNA fractions, if rows are divided by their sums, if measured samples have no estimate, or if
        samples have the fit of a model that was trained on them, or if fractions were passed to
        :func:`scdeconv.tl.predict` as known.

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
    aligned = compared_tables(adata, key, measured_key)
    measured = aligned.measured
    if adata.uns.get(keys.UNS, {}).get(key, {}).get("fraction_kind") == "rna":
        warn(
            f"Expected cell fractions in adata.obsm[{key!r}], found RNA fractions. If the measured fractions are cell "
            "fractions, call tl.convert_fractions(adata, cell_size, to='cell') first."
        )
    _report_training_samples(adata, key, measured.index)
    _report_known(adata, key)
    scores = _scores(measured, aligned.predicted)
    n_types = measured.shape[1]
    of_measured, of_predicted = (
        table.drop(columns=measured.columns, errors="ignore") for table in level_sums(aligned, levels_of(adata, key))
    )
    # levels overlap: no summary over them
    of_levels = [] if of_measured.empty else [_scores(of_measured, of_predicted).iloc[: of_measured.shape[1]]]
    return pd.concat([scores.iloc[:n_types], *of_levels, scores.iloc[n_types:]])


def held_out_errors(held_out: HeldOut, cell_types: Sequence[str]) -> pd.DataFrame:
    """Return all metrics of out-of-fold predictions, and the RMSE of the mean composition of the other donors.

    Parameters
    ----------
    held_out
        Out-of-fold predictions, ``model.held_out_``.
    cell_types
        Their cell types.
    """
    measured, predicted = (
        pd.DataFrame(table, columns=list(cell_types)) for table in (held_out.measured, held_out.predicted)
    )
    return _scores(measured, predicted, held_out.mean_of_other_donors())


def _scores(measured: pd.DataFrame, predicted: pd.DataFrame, baseline: np.ndarray | None = None) -> pd.DataFrame:
    """Return all metrics, and the RMSE of the baseline; None: the mean composition of the same samples."""
    true, estimate = measured.to_numpy(), predicted.to_numpy()
    table = metrics.table(true, estimate)
    if baseline is None:
        baseline = np.tile(true.mean(axis=0), (len(true), 1))
    table["rmse_mean_composition"] = metrics.table(true, baseline)["rmse"]
    return table.set_axis([*measured.columns, *table.index[measured.shape[1] :]])


def _report_known(adata: AnnData, key: str) -> None:
    """Warn about estimates that are known fractions."""
    known = adata.uns.get(keys.UNS, {}).get(key, {}).get("known")
    if known is not None:
        warn(
            f"Expected estimates of all types, found fractions of {examples(known.columns)} that were passed to tl.predict as "
            "known. Their rows, and the rows over all types, are not errors of the method. Read the rows of the other types."
        )


def _report_training_samples(adata: AnnData, key: str, samples: pd.Index) -> None:
    """Warn about samples with the fit; print how many samples have out-of-fold predictions."""
    fitted, held_out = (training_samples(adata, key, samples, kind) for kind in ("in_sample", "out_of_fold"))
    if fitted:
        warn(
            f"{len(fitted)} of {len(samples)} samples have the fit of a model that was trained on them, which is no "
            f"estimate: {examples(fitted)}. Errors on new samples are larger. Call tl.predict without in_sample=True "
            "or tl.cross_validate."
        )
    if held_out:
        print(f"evaluate: {len(held_out)} of {len(samples)} samples have out-of-fold predictions")
