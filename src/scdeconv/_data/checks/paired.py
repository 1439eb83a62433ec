"""Checks of a MuData from ``pp.pair`` before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.units import COUNTS

from .problems import Problems
from .remembered import REMEMBERED, report_changed
from .training import report_samples

if TYPE_CHECKING:
    from mudata import MuData

UNKNOWN_SIZES = "unknown"


def check_paired(mdata: MuData) -> None:
    """Refuse data whose expression, donors or measured fractions were changed after pairing, and missing values in them.

    Raises
    ------
    ValueError
        If values of bulk or cells differ from those at pairing, or if measured fractions are not fractions.
    """
    problems = Problems("The paired data were changed")
    for name in REMEMBERED:
        if name in mdata.mod:
            report_changed(problems, mdata[name], f"mdata[{name!r}]")
    bulk = mdata[keys.BULK]
    if not np.isfinite(bulk.X.data if sp.issparse(bulk.X) else bulk.X).all():
        problems.add("Expected finite values in mdata['bulk'].X, found NaN or infinite values. Remove these genes.")
    report_samples(problems, bulk, "mdata['bulk']")
    problems.raise_if_any()


def cell_sizes_known(mdata: MuData) -> bool:
    """Return whether the RNA content of the cells is known."""
    source: str = mdata.uns.get(keys.UNS, {}).get("pair", {}).get("cell_sizes", COUNTS)
    return source != UNKNOWN_SIZES


def check_cell_sizes(mdata: MuData, method: str) -> None:
    """Refuse normalised cells without known RNA content for a method that uses cell sizes.

    Raises
    ------
    ValueError
        If the cells were normalised to one library size and their total counts are unknown.
    """
    if not cell_sizes_known(mdata):
        msg = (
            f"Expected the RNA content of the cells for method {method!r}, found cells that were normalised to one "
            "library size. Pair again with counts (layer=), with the total counts of each cell in "
            "cells.obs['total_counts'], or with cell_sizes={cell type: RNA per cell}. Or use a method trained on pairs."
        )
        raise ValueError(msg)
