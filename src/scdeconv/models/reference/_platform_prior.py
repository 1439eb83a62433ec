"""Predictors of the platform shift from other data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data.gene_names import strip_versions
from scdeconv._data.units import ARRAY
from scdeconv.datasets import platform_shift_prior

if TYPE_CHECKING:
    from scdeconv._data.paired_data import PairedData


def shift_predictors(data: PairedData, cells: Literal["10x 3'", "10x 3' nuclei"] | None) -> np.ndarray | None:
    """Return the predictors of the log platform shift of the genes, predictors × genes; 0 where unknown.

    Parameters
    ----------
    data
        Bulk and reference. If the bulk is counts, the effect of gene length is a second predictor.
    cells
        Protocol of the cells, as for :func:`scdeconv.datasets.platform_shift_prior`, or None.

    Returns
    -------
    None without protocol, without bulk, for microarrays, and if no gene is known.
    """
    if cells is None or data.bulk_unit == ARRAY or not len(data.samples):
        return None
    prior, genes = platform_shift_prior(cells=cells), strip_versions(data.genes)
    identifiers = pd.Series(np.arange(len(prior)), prior["gene_id"])
    by_identifier = identifiers[identifiers.index.notna()].reindex(genes).fillna(-1).to_numpy(dtype=int)
    row = prior.index.get_indexer(genes)
    row = np.where(row >= 0, row, by_identifier)
    if not (row >= 0).any():
        return None
    columns = ["expected", "log_length"] if data.is_counts else ["expected"]
    predictors: np.ndarray = np.where(row >= 0, np.nan_to_num(prior[columns].to_numpy(dtype=float))[row].T, 0.0)
    return predictors
