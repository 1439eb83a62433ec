"""Some values of paired data, by which later changes are noticed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.matrix import is_lazy
from scdeconv._data.units import REFUSED, unit_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .problems import Problems

# modalities that no later step changes
REMEMBERED = (keys.BULK, keys.CELLS)
# number of values of each modality that are remembered; set by hand
N_VALUES = 64
# relative difference that single precision can cause
TOLERANCE = 1e-5


def remember_values(mdata: MuData) -> None:
    """Write some values of bulk and cells with their names as JSON to ``uns`` of each, for :func:`report_changed`."""
    for name in REMEMBERED:
        if name in mdata.mod and not is_lazy(mdata[name].X):
            mdata[name].uns[keys.UNS] = {keys.VALUES: json.dumps(_some_values(mdata[name]))}


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


def report_changed(problems: Problems, adata: AnnData, name: str) -> None:
    """Report values that differ from those at pairing; samples and genes that were removed are no change."""
    remembered = adata.uns.get(keys.UNS, {}).get(keys.VALUES)
    if remembered is None or is_lazy(adata.X):
        return
    values = json.loads(remembered)
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
            f"Expected the values of {name} as at pairing, found {len(changed)} of {len(found)} inspected values "
            f"changed: {before[first]:.4g} became {found[first]:.4g} ({adata.obs_names[rows[first]]}, "
            f"{adata.var_names[columns[first]]}){look}. Normalise copies only, and pair "
            'again with the counts, e.g. pp.pair(cells, bulk, layer="counts").'
        )
