"""Checks of a MuData from ``pp.pair`` before it is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.matrix import is_lazy
from scdeconv._data.units import COUNTS, REFUSED, unit_of

from .problems import Problems
from .training import report_samples

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

# modalities that no later step changes
REMEMBERED = (keys.BULK, keys.CELLS)
# number of values of each modality that are remembered; set by hand
N_VALUES = 64
# relative difference that single precision can cause
TOLERANCE = 1e-5
UNKNOWN_SIZES = "unknown"


def remember_values(mdata: MuData) -> str:
    """Return some values of bulk and cells with their names as JSON, for :func:`check_paired`."""
    in_memory = [name for name in REMEMBERED if name in mdata.mod and not is_lazy(mdata[name].X)]
    return json.dumps({name: _some_values(mdata[name]) for name in in_memory})


def _some_values(adata: AnnData) -> dict[str, list[Any]]:
    """Return evenly spaced values other than 0, with the names of their rows and columns."""
    if sp.issparse(adata.X):
        matrix = sp.csr_matrix(adata.X)
        stored = _evenly(np.flatnonzero(matrix.data))
        rows = np.searchsorted(matrix.indptr, stored, side="right") - 1
        columns, values = matrix.indices[stored], matrix.data[stored]
    else:
        matrix = np.asarray(adata.X)
        rows, columns = np.unravel_index(_evenly(np.flatnonzero(matrix)), matrix.shape)
        values = matrix[rows, columns]
    return {
        "obs": adata.obs_names[rows].tolist(),
        "var": adata.var_names[columns].tolist(),
        "value": np.asarray(values, dtype=float).tolist(),
    }


def _evenly(positions: np.ndarray) -> np.ndarray:
    return (
        positions[np.unique(np.linspace(0, len(positions) - 1, N_VALUES).astype(int))] if len(positions) else positions
    )


def check_paired(mdata: MuData) -> None:
    """Refuse data whose expression, donors or measured fractions were changed after pairing, and missing values in them.

    Raises
    ------
    ValueError
        If values of bulk or cells differ from those at pairing, or if measured fractions are not fractions.
    """
    problems = Problems("The paired data were changed")
    for name, values in json.loads(mdata.uns.get(keys.UNS, {}).get(keys.VALUES, "{}")).items():
        if name in mdata.mod and not is_lazy(mdata[name].X):
            _check_values(problems, mdata[name], values, name)
    bulk = mdata[keys.BULK]
    if not np.isfinite(bulk.X.data if sp.issparse(bulk.X) else bulk.X).all():
        problems.add("Expected finite values in mdata['bulk'].X, found NaN or infinite values. Remove these genes.")
    report_samples(problems, bulk, "mdata['bulk']")
    problems.raise_if_any()


def _check_values(problems: Problems, adata: AnnData, values: dict[str, Any], name: str) -> None:
    rows, columns = adata.obs_names.get_indexer(values["obs"]), adata.var_names.get_indexer(values["var"])
    known = (rows >= 0) & (columns >= 0)
    if not known.any():
        return
    rows, columns, before = rows[known], columns[known], np.asarray(values["value"])[known]
    found = np.asarray(adata.X[rows, columns], dtype=float).ravel()
    changed = np.flatnonzero(~(np.abs(found - before) <= TOLERANCE * np.abs(before)))
    if len(changed):
        first, unit = changed[0], unit_of(adata.X)
        look = f"; the values are {unit} now" if unit in REFUSED else ""
        problems.add(
            f"Expected the values of mdata[{name!r}] as at pairing, found {len(changed)} of {len(found)} inspected values "
            f"changed: {before[first]:.4g} became {found[first]:.4g} ({adata.obs_names[rows[first]]}, "
            f"{adata.var_names[columns[first]]}){look}. Normalise copies only, and pair "
            'again with the counts, e.g. pp.pair(cells, bulk, layer="counts").'
        )


def check_cell_sizes(mdata: MuData, method: str) -> None:
    """Refuse normalised cells without known RNA content for a method that uses cell sizes.

    Raises
    ------
    ValueError
        If the cells were normalised to one library size and their total counts are unknown.
    """
    if mdata.uns.get(keys.UNS, {}).get("pair", {}).get("cell_sizes", COUNTS) == UNKNOWN_SIZES:
        msg = (
            f"Expected the RNA content of the cells for method {method!r}, found cells that were normalised to one "
            "library size. Pair again with counts (layer=), with the total counts of each cell in "
            "cells.obs['total_counts'], or with cell_sizes={cell type: RNA per cell}. Or use a method trained on pairs."
        )
        raise ValueError(msg)
