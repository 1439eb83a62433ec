"""Uniform access to dense, sparse, backed and lazy expression matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from anndata import AnnData

# numpy.ndarray, scipy sparse matrix or Dask array of either; their type stubs are too different for a union
Matrix = Any

# bytes of one block of rows in memory (set by hand)
BLOCK_BYTES = 100_000_000
# number of values of a chunk that fits into the processor cache (set by hand)
CACHED_VALUES = 100_000


def is_lazy(matrix: Matrix) -> bool:
    """Return whether the matrix is a Dask array."""
    return hasattr(matrix, "dask")


def get_matrix(adata: AnnData, layer: str | None, name: str, *, lazy: bool = False) -> Matrix:
    """Return ``adata.X`` or a layer as a dense array or CSR matrix.

    Backed and lazy matrices (``anndata.experimental.read_lazy``) are read into memory, or returned as a Dask array with
    ``lazy=True``.

    Raises
    ------
    KeyError
        If the layer is missing.
    ValueError
        If ``X`` is missing or has values that are not numbers.
    """
    if layer is not None and layer not in adata.layers:
        msg = f"Expected layer {layer!r} in {name}, found layers {layer_names(adata)}. Pass one of them as layer=."
        raise KeyError(msg)
    if adata.isbacked and layer is None:
        matrix = _lazy_matrix_of_file(adata, name)
    else:
        matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        msg = f"Expected expression values in {name}.X, found None. Store the counts there or pass layer=."
        raise ValueError(msg)
    if is_lazy(matrix):
        if lazy:
            return matrix
        matrix = matrix.compute()
    return _as_numbers(sp.csr_matrix(matrix) if sp.issparse(matrix) else np.asarray(matrix), name)


def _as_numbers(matrix: Matrix, name: str) -> Matrix:
    """Return numbers stored as text or objects as numbers, and half precision as single precision.

    Raises
    ------
    ValueError
        If values are not numbers.
    """
    if matrix.dtype == np.float16:
        # sums above 65,504 would overflow
        return matrix.astype(np.float32)
    if matrix.dtype.kind in "biuf":
        return matrix
    values = pd.to_numeric(pd.Series(stored_values(matrix)), errors="coerce")
    wrong = values.isna().to_numpy()
    if wrong.any():
        msg = (
            f"Expected numbers in {name}, found {int(wrong.sum())} other values, such as "
            f"{str(stored_values(matrix)[wrong][0])!r} ({matrix.dtype}). Replace them by numbers or remove these genes."
        )
        raise ValueError(msg)
    return values.to_numpy().reshape(matrix.shape)


def layer_names(adata: AnnData) -> list[str]:
    """Return the sorted layer names; anndata 0.13 lists ``X`` as a layer named None."""
    return sorted(name for name in adata.layers if name is not None)


def in_memory(table: Any) -> Any:
    """Return a lazy table of ``anndata.experimental.read_lazy`` as a DataFrame; return other objects unchanged."""
    return table.to_memory() if hasattr(table, "to_memory") else table


def _lazy_matrix_of_file(adata: AnnData, name: str) -> Matrix:
    """Return ``X`` of a backed AnnData or of its view as a Dask array of row blocks."""
    import dask.array as da
    import h5py

    path = str(adata.filename)
    try:
        with h5py.File(path, "r") as file:
            shape, dtype, n_bytes, encoding = _stored_layout(file["X"])
            names = [_names(file[axis]) for axis in ("obs", "var")] if adata.is_view else []
    except (OSError, KeyError) as error:
        msg = (
            f"Expected {name} in {path!r}, found an unreadable file: {error}. Open it with backed='r'. If it is "
            "damaged, copy or write it again."
        )
        raise OSError(msg) from error
    if encoding not in ("csr_matrix", "array"):
        msg = (
            f"Expected {name} as a CSR or dense matrix in {path!r}, found {encoding}. Write it as CSR: "
            "adata.X = adata.X.tocsr()."
        )
        raise ValueError(msg)
    meta = sp.csr_matrix((0, 0), dtype=dtype) if encoding == "csr_matrix" else np.empty((0, 0), dtype)
    size = max(1, int(BLOCK_BYTES * shape[0] / max(n_bytes, 1)))
    sizes = tuple(min(size, shape[0] - start) for start in range(0, shape[0], size))
    matrix = da.map_blocks(_read_rows, path, "X", chunks=(sizes, (shape[1],)), dtype=dtype, meta=meta)
    if adata.is_view:
        rows, columns = (
            _positions(wanted, stored, name, path)
            for wanted, stored in zip((adata.obs_names, adata.var_names), names, strict=True)
        )
        matrix = matrix[rows][:, columns]
    return matrix


def _names(table: Any) -> pd.Index:
    """Return the names of rows or genes in an HDF5 file."""
    from anndata.io import read_elem

    return pd.Index(np.asarray(read_elem(table[table.attrs["_index"]])).astype(str))


def _positions(wanted: pd.Index, stored: pd.Index, name: str, path: str) -> np.ndarray:
    """Return the positions of a view's names in the file."""
    positions = stored.get_indexer(wanted) if stored.is_unique else np.array([-1])
    if (positions < 0).any():
        msg = (
            f"Expected a view of {name} with unique names that occur in {path!r}, found other names. Read the view "
            "into memory with .to_memory(), or write it to a new file."
        )
        raise ValueError(msg)
    return positions


def _stored_layout(stored: Any) -> tuple[tuple[int, ...], np.dtype, int, str]:
    """Return shape, dtype, size in bytes and encoding of a matrix in an HDF5 file."""
    encoding = stored.attrs.get("encoding-type", "array")
    if encoding == "array":
        return stored.shape, stored.dtype, stored.nbytes, encoding
    shape = tuple(int(size) for size in stored.attrs["shape"])
    return shape, stored["data"].dtype, stored["data"].nbytes + stored["indices"].nbytes, encoding


def _read_rows(path: str, name: str, block_info: Any = None) -> Matrix:
    """Read the rows of one block; each call opens the file because Dask may run it on another machine."""
    import h5py

    start, stop = block_info[None]["array-location"][0]
    try:
        with h5py.File(path, "r") as file:
            # HDF5 returns zeros beyond the end of a truncated file
            if Path(path).stat().st_size < file.id.get_filesize():
                msg = "truncated file"
                raise OSError(msg)
            stored = file[name]
            if isinstance(stored, h5py.Dataset):
                return stored[start:stop]
            ends = stored["indptr"][start : stop + 1]
            values = (stored[part][ends[0] : ends[-1]] for part in ("data", "indices"))
            return sp.csr_matrix((*values, ends - ends[0]), shape=(stop - start, stored.attrs["shape"][1]))
    except (OSError, KeyError, ValueError) as error:
        msg = f"{path}: {error}"
        raise OSError(msg) from error


def take_columns(matrix: Matrix, columns: np.ndarray) -> Matrix:
    """Return a copy of the given columns; a lazy matrix stays lazy."""
    if isinstance(matrix, np.ndarray):
        # fancy indexing would return Fortran order
        return np.take(matrix, columns, axis=1)
    if is_lazy(matrix) and np.array_equal(columns, np.arange(matrix.shape[1])):
        return matrix
    return matrix[:, columns]


def to_dense(matrix: Matrix) -> np.ndarray:
    """Return the values as a dense array of floats."""
    return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, dtype=float)


def stored_values(matrix: Matrix) -> np.ndarray:
    """Return the stored values: all values of a dense array, the data of a sparse matrix."""
    return matrix.data if sp.issparse(matrix) else np.asarray(matrix).ravel()


def extremes(matrix: Matrix) -> tuple[float, float]:
    """Return the smallest and the largest value, including the zeros that a sparse matrix does not store."""
    values = stored_values(matrix)
    if not values.size:
        return 0.0, 0.0
    smallest, largest = float(values.min()), float(values.max())
    return (smallest, largest) if values.size == np.prod(matrix.shape) else (min(smallest, 0.0), max(largest, 0.0))


def is_integer(matrix: Matrix) -> bool:
    """Return whether all values are whole numbers."""
    values = stored_values(matrix)
    return np.issubdtype(values.dtype, np.integer) or bool(np.all(values == np.rint(values)))
