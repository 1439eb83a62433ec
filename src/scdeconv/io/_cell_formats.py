"""Readers of single-cell formats other than AnnData: 10x HDF5, MatrixMarket folders, loom and tables of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data.annotated import make_adata, subset
from scdeconv._data.checks import Problems, examples
from scdeconv._data.labels import as_text
from scdeconv._data.warnings import warnings_ignored
from scdeconv.io._tables import Axis, Choice, axis_by_corner, axis_by_names, plain, read_fields, sort_out, to_table

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

EXPRESSION = "Gene Expression"
MATRIX = "matrix.mtx"
# files with the genes of a MatrixMarket folder: 10x version 3 and STARsolo, then version 2
FEATURES = ("features.tsv", "genes.tsv")
BARCODES = "barcodes.tsv"
ZIPPED = ("", ".gz")
# attributes of loom files with the names, by convention of loompy, anndata and velocyto
LOOM_CELLS = ("CellID", "obs_names", "cell_names", "Cell")
LOOM_GENES = ("Gene", "var_names", "gene_names", "Accession")
# headers of a first column with the names of cells
CELL_CORNERS = ("cell", "barcode")
# rows of a loom matrix that are dense in memory at once
LOOM_ROWS = 512


def expression_only(adata: AnnData, notes: list[str]) -> AnnData:
    """Leave out features that are no gene expression, such as antibodies, and note it."""
    if "feature_types" not in adata.var:
        return adata
    kinds = as_text(adata.var["feature_types"])
    other = (kinds != EXPRESSION).to_numpy()
    if not other.any() or other.all():
        return adata
    notes.append(f"{other.sum():,} features left out ({examples(kinds[other].unique())})")
    return subset(adata, genes=~other)


def read_10x(path: Path) -> AnnData:
    """Return the cells of an HDF5 file of Cell Ranger, version 2 or 3."""
    import h5py
    import scanpy as sc

    try:
        with h5py.File(path) as file:
            groups = sorted(file)
            known = "matrix" in file or any("barcodes" in file[name] for name in groups)
        if not known:
            msg = (
                f"Expected an HDF5 file of Cell Ranger with the group 'matrix' in {path}, found {examples(groups)}. "
                "Pass filtered_feature_bc_matrix.h5, or rename an AnnData file to .h5ad."
            )
            raise ValueError(msg)
        return sc.read_10x_h5(path, gex_only=False)
    except (OSError, KeyError) as error:
        raise OSError(_unreadable("an HDF5 file of Cell Ranger", path, error)) from error


def find_matrix(path: Path) -> Path | None:
    """Return the MatrixMarket file of a folder, or the file itself; None if there is none."""
    if path.is_file():
        return path if path.name.endswith((".mtx", ".mtx.gz")) else None
    found = sorted(item for zipped in ZIPPED for item in path.glob(f"*{MATRIX}{zipped}"))
    if len(found) > 1:
        msg = (
            f"Expected one MatrixMarket file in {path}, found {len(found)}: {examples(item.name for item in found)}. "
            "Pass the file itself."
        )
        raise ValueError(msg)
    return found[0] if found else None


def read_matrix_market(matrix: Path) -> AnnData:
    """Return the cells of a MatrixMarket file with its features and barcodes beside it: 10x, STARsolo, GEO."""
    from scipy.io import mmread

    prefix = matrix.name.removesuffix(".gz").removesuffix(".mtx").removesuffix("matrix")
    features = _beside(matrix, prefix, FEATURES)
    barcodes = _beside(matrix, prefix, (BARCODES,))
    try:
        # SciPy 1.18 announces another class, which csr_matrix accepts
        with warnings_ignored(DeprecationWarning):
            counts = sp.csr_matrix(mmread(matrix))
    except (ValueError, OSError, EOFError) as error:
        raise OSError(_unreadable("a MatrixMarket file", matrix, error)) from error
    genes, cells = (_read_names(path) for path in (features, barcodes))
    if counts.shape == (len(genes), len(cells)):
        counts = counts.T
    elif counts.shape != (len(cells), len(genes)):
        msg = (
            f"Expected {len(genes)} features ({features.name}) × {len(cells)} cells ({barcodes.name}) in {matrix}, found "
            f"{counts.shape[0]} × {counts.shape[1]}. Use files of the same run."
        )
        raise ValueError(msg)
    # 10x: identifier, symbol, kind of feature
    columns = ["gene_ids", "gene_names", "feature_types"][: genes.shape[1]]
    var = genes.iloc[:, : len(columns)].set_axis(columns, axis=1)
    var.index = pd.Index(var.pop("gene_names" if "gene_names" in var else "gene_ids").to_numpy())
    return make_adata(sp.csr_matrix(counts), obs=pd.DataFrame(index=pd.Index(cells[0].to_numpy())), var=var)


def _beside(matrix: Path, prefix: str, names: tuple[str, ...]) -> Path:
    candidates = [matrix.with_name(f"{prefix}{name}{zipped}") for name in names for zipped in ZIPPED]
    for path in candidates:
        if path.exists():
            return path
    msg = (
        f"Expected {' or '.join(f'{prefix}{name}' for name in names)} (also .gz) beside {matrix}, found neither. Copy "
        "the file into the folder."
    )
    raise FileNotFoundError(msg)


def _read_names(path: Path) -> pd.DataFrame:
    try:
        # names are text, as written: no missing values, no numbers
        return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
    except (ValueError, OSError, EOFError) as error:
        raise OSError(_unreadable("a table of names", path, error)) from error


def read_loom(path: Path) -> AnnData:
    """Return the cells of a loom file; other attributes are columns of ``obs`` and ``var``."""
    import h5py

    try:
        with h5py.File(path) as file:
            matrix = file["matrix"]
            blocks = [sp.csr_matrix(matrix[start : start + LOOM_ROWS]) for start in range(0, len(matrix), LOOM_ROWS)]
            obs = _loom_table(path, file["col_attrs"], matrix.shape[1], LOOM_CELLS)
            var = _loom_table(path, file["row_attrs"], matrix.shape[0], LOOM_GENES)
    except (OSError, KeyError) as error:
        raise OSError(_unreadable("a loom file", path, error)) from error
    return make_adata(sp.csr_matrix(sp.vstack(blocks).T), obs=obs, var=var)


def _loom_table(path: Path, attributes: object, length: int, names: tuple[str, ...]) -> pd.DataFrame:
    columns = {name: values[:] for name, values in attributes.items() if values.shape == (length,)}  # type: ignore
    table = pd.DataFrame(
        {
            name: pd.Series(values).str.decode("utf-8") if values.dtype.kind in "OS" else values
            for name, values in columns.items()
        }
    )
    known = [name for name in names if name in table]
    if not known:
        msg = (
            f"Expected one of the attributes {list(names)} with the names in {path}, found {sorted(columns)}. Add one."
        )
        raise ValueError(msg)
    return table.set_index(table.pop(known[0]).astype(str).rename(None))


def read_counts(path: Path, genes_in: Axis | None, cells: pd.Index | None, notes: list[str]) -> AnnData:
    """Return the cells of a table of counts; the names of the annotated cells, if any, decide the orientation."""
    problems = Problems(f"{path} cannot be read as counts of cells")
    choice = Choice.of([], [])
    fields = read_fields(path, problems)
    problems.raise_if_any()
    assert fields is not None
    names = fields.columns[0], pd.Index(fields.header[1:])
    if genes_in is None and cells is not None:
        shares = {"columns": names[0].isin(cells).mean(), "rows": names[1].isin(cells).mean()}
        genes_in = max(shares, key=lambda axis: shares[axis]) if any(shares.values()) else None  # type: ignore
    if genes_in is None:
        # not by length: cells may outnumber genes
        cells_in_rows = plain(fields.header[0]).startswith(CELL_CORNERS)
        genes_in = axis_by_names(*map(pd.Index, names)) or axis_by_corner(fields.header[0])
        genes_in = genes_in or ("columns" if cells_in_rows else None)
    if genes_in is None:
        problems.add(
            f"Expected gene names, or a header of the first column such as 'gene' or 'cell', in {path}, found "
            f"{examples(names[0])} in the rows and {examples(names[1])} in the columns. Pass genes_in='rows' or 'columns', "
            "or the names of the cells in cell_annotation."
        )
        problems.raise_if_any()
    table = to_table(fields, genes_in, choice, problems)
    problems.raise_if_any()
    assert table is not None
    sort_out(table, choice, problems, "cells")
    problems.raise_if_any()
    notes += table.notes
    return make_adata(sp.csr_matrix(np.asarray(table.values)), obs=table.obs, var=table.var)


def _unreadable(what: str, path: Path, error: Exception) -> str:
    return f"Expected {what} in {path}, found an unreadable file: {error}. Copy it again, or write it anew."
