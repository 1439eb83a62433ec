"""Checks of bulk samples before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scdeconv._data import keys

from .fractions import check_fractions
from .labels import check_cell_type_names, check_labels
from .problems import Problems

if TYPE_CHECKING:
    from anndata import AnnData


def check_training_samples(bulk: AnnData) -> None:
    """Refuse training samples without a donor, with two spellings of a donor or cell type, or with invalid fractions.

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
    check_labels(problems, bulk.obs[keys.DONOR], f"obs[{keys.DONOR!r}]", "donor")
    name = f"obsm[{keys.MEASURED!r}]"
    measured = bulk.obsm[keys.MEASURED]
    check_fractions(problems, measured, name)
    if isinstance(measured, pd.DataFrame):
        check_cell_type_names(problems, measured.columns, name)
    problems.raise_if_any()
