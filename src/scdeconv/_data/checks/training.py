"""Checks of bulk samples before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scdeconv._data import keys

from .expression import check_expression
from .fractions import check_fractions
from .labels import check_cell_type_names, check_labels
from .problems import Problems
from .remembered import report_changed

if TYPE_CHECKING:
    from anndata import AnnData


def check_training_samples(bulk: AnnData) -> None:
    """Refuse training samples whose expression was changed after pairing or is not on a linear scale.

    Samples without a donor, two spellings of a donor or cell type, and invalid fractions are refused too.
    :func:`scdeconv.pp.pair` checks the same; the samples may have been changed or made without it.

    Raises
    ------
    KeyError
        If ``obs["donor"]`` or ``obsm["measured_fractions"]`` is missing.
    ValueError
        If the samples have problems; all are listed.
    """
    for container, key in (("obs", keys.DONOR), ("obsm", keys.MEASURED)):
        if key not in getattr(bulk, container):
            msg = f"Expected {container}[{key!r}] in adata, found {list(getattr(bulk, container))}. Call pp.pair."
            raise KeyError(msg)
    problems = Problems("The samples cannot be trained on")
    # samples without reads are no pairs
    check_expression(problems, bulk, bulk.X, "adata.X", logged="log1p" in bulk.uns, may_be_empty=True)
    report_changed(problems, bulk, "adata")
    report_samples(problems, bulk, "adata")
    problems.raise_if_any()


def report_samples(problems: Problems, bulk: AnnData, name: str) -> None:
    """Report problems of the donors and of the measured fractions of bulk samples."""
    if keys.DONOR in bulk.obs:
        check_labels(problems, bulk.obs[keys.DONOR], f"{name}.obs[{keys.DONOR!r}]", "donor")
    if keys.MEASURED in bulk.obsm:
        measured, title = bulk.obsm[keys.MEASURED], f"{name}.obsm[{keys.MEASURED!r}]"
        check_fractions(problems, measured, title, may_lack_types=True)
        if isinstance(measured, pd.DataFrame):
            check_cell_type_names(problems, measured.columns, title)
