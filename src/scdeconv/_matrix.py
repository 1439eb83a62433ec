"""Expression matrices, dense or sparse, looked at in one way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from anndata import AnnData

# numpy.ndarray or a scipy sparse matrix; their stubs agree on too little for a union
Matrix = Any


def get_matrix(adata: AnnData, layer: str | None, name: str) -> Matrix:
    """Return ``adata.X`` or the layer as a dense array or CSR matrix; raise ``KeyError`` where it is missing."""
    if layer is not None and layer not in adata.layers:
        msg = f"Expected layer {layer!r} in {name}, found layers {sorted(adata.layers)}."
        raise KeyError(msg)
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        msg = f"Expected expression values in {name}.X, found None. Put the counts there or name a layer."
        raise ValueError(msg)
    return sp.csr_matrix(matrix) if sp.issparse(matrix) else np.asarray(matrix)


def to_dense(matrix: Matrix) -> np.ndarray:
    """Return the values as a dense array of floats."""
    return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, dtype=float)


def stored_values(matrix: Matrix) -> np.ndarray:
    """Return the values that are stored: all of a dense array, the non-zeros of a sparse matrix."""
    return matrix.data if sp.issparse(matrix) else np.asarray(matrix).ravel()


def is_integer(matrix: Matrix) -> bool:
    """Say whether every value is a whole number; exact, over the whole matrix."""
    values = stored_values(matrix)
    return np.issubdtype(values.dtype, np.integer) or bool(np.all(values == np.rint(values)))
