"""Reader of single cells, with the annotation of the cells in a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from scdeconv._data import keys
from scdeconv._data.annotated import subset
from scdeconv._data.checks import Problems, checked, examples
from scdeconv._data.units import unit_of
from scdeconv._data.warnings import warnings_ignored
from scdeconv.io._bulk_genes import to_genes
from scdeconv.io._cell_formats import (
    expression_only,
    find_matrix,
    read_10x,
    read_counts,
    read_loom,
    read_matrix_market,
)
from scdeconv.io._files import is_annotated, read_annotated
from scdeconv.io._read_sheets import read_sheet

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

StrPath: TypeAlias = "str | os.PathLike[str]"

TABLE_ENDINGS = (".tsv", ".csv", ".txt", ".xlsx")
ZIPPED_ENDINGS = (".gz", ".bz2", ".xz", ".zip")


@checked()
def read_cells(
    path: StrPath,
    *,
    cell_annotation: StrPath | None = None,
    genes_in: Literal["rows", "columns"] | None = None,
) -> AnnData:
    r"""Read single cells, and the donor and type of each cell from a table.

    Supported formats are

    - h5ad, h5mu (modality ``sc``) and zarr;
    - ``.h5`` of Cell Ranger (versions 2 and 3);
    - folders with a MatrixMarket file, features (or genes) and barcodes, plain or gz: 10x versions 2 and 3, STARsolo,
      and files with a prefix as in GEO (pass the folder, or the ``.mtx`` file if there are several);
    - ``.loom``;
    - tables of counts (CSV, TSV or Excel; plain or compressed; cells in rows or columns).

    Genes have the names of the file: symbols for 10x, with the identifiers in ``var["gene_ids"]``. Genes with the same
    name are summed, and the versions of Ensembl identifiers are removed, as by :func:`read_bulk`. Features that are no
    gene expression, such as antibodies, are left out. A printed line reports all of this for formats other than AnnData.

    Parameters
    ----------
    path
        File or folder.
    cell_annotation
        CSV, TSV or Excel table. The first column has the names of the cells, the others become columns of ``obs``, such as
        ``donor`` and ``cell_type``. Names are text, as written. Cells without a row are left out.
    genes_in
        Gene axis of a table of counts, ``"rows"`` or ``"columns"``. Default: detect it, by the names in
        ``cell_annotation`` if it is passed.

    Returns
    -------
    AnnData, cells × genes, with sparse counts for formats other than AnnData.

    Raises
    ------
    FileNotFoundError
        If a file does not exist, or a folder has no MatrixMarket file.
    ValueError
        If the format is unknown, if names of cells are repeated, or if the annotation has none of the cells.
    OSError
        If a file is damaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import scdeconv
    >>> folder = Path(mkdtemp())
    >>> _ = (folder / "counts.csv").write_text("gene,c1,c2\nACTB,3,5\nCD3E,1,0\nCD19,0,2\n")
    >>> _ = (folder / "cells.csv").write_text("cell,donor,cell_type\nc1,001,T cell\nc2,002,B cell\n")
    >>> cells = scdeconv.read_cells(folder / "counts.csv", cell_annotation=folder / "cells.csv")
    read_cells: table, 2 cells × 3 genes, counts; 'donor', 'cell_type' from cells.csv
    >>> list(cells.obs["donor"])
    ['001', '002']
    """
    path = Path(path)
    problem = missing_cells(path)
    if problem:
        raise FileNotFoundError(problem)
    annotation = None if cell_annotation is None else read_sheet(Path(cell_annotation))
    notes: list[str] = []
    problems = Problems(f"{path} cannot be read as cells")
    # repeated genes are summed here, repeated cells refused
    with warnings_ignored(message=r"(Variable|Observation) names are not unique"):
        form, cells = _read(path, annotation, genes_in, notes)
        if not is_annotated(path):
            cells = to_genes(expression_only(cells, notes), None, None, False, notes, problems)
    if not cells.obs_names.is_unique:
        repeated = cells.obs_names[cells.obs_names.duplicated()].unique()
        problems.add(
            f"Expected unique names of cells in {path}, found {len(repeated)} repeated: {examples(repeated)}. Add the "
            "sample to the names."
        )
    problems.raise_if_any()
    if annotation is not None:
        cells = _annotate(cells, annotation, path, Path(os.fspath(cell_annotation)), notes)  # type: ignore[arg-type]
    if notes or not is_annotated(path):
        size = f"{cells.n_obs:,} cells × {cells.n_vars:,} genes"
        print("; ".join([f"read_cells: {form}, {size}, {unit_of(cells.X)}", *notes]))
    return cells


def missing_cells(path: Path) -> str | None:
    """Return the message for a path without cells in a known format; None if it can be read."""
    formats = "h5ad, h5mu, zarr, .h5 of 10x, a MatrixMarket folder, .loom or a table of counts"
    if not path.exists():
        return f"Expected cells as {formats} at {path}, found no file. Check the path."
    if is_annotated(path) or path.suffix in (".h5", ".loom") or _is_table(path) or find_matrix(path) is not None:
        return None
    found = "a folder without matrix.mtx" if path.is_dir() else "another file"
    return f"Expected cells as {formats} at {path}, found {found}. Convert the cells, or check the path."


def _is_table(path: Path) -> bool:
    name = path.name.lower()
    for ending in ZIPPED_ENDINGS:
        name = name.removesuffix(ending)
    return path.is_file() and name.endswith(TABLE_ENDINGS)


def _read(
    path: Path, annotation: pd.DataFrame | None, genes_in: Literal["rows", "columns"] | None, notes: list[str]
) -> tuple[str, AnnData]:
    """Return the name of the format and the cells."""
    if is_annotated(path):
        return ("zarr" if path.is_dir() else path.suffix[1:]), read_annotated(path, keys.CELLS)
    if path.suffix == ".h5":
        return "10x h5", read_10x(path)
    if path.suffix == ".loom":
        return "loom", read_loom(path)
    matrix = find_matrix(path)
    if matrix is not None:
        return "MatrixMarket", read_matrix_market(matrix)
    return "table", read_counts(path, genes_in, None if annotation is None else annotation.index, notes)


def _annotate(cells: AnnData, table: pd.DataFrame, path: Path, source: Path, notes: list[str]) -> AnnData:
    """Return the cells that have a row in the table, with its columns in ``obs``."""
    repeated = table.index[table.index.duplicated()].unique()
    known = cells.obs_names.isin(table.index)
    problems = Problems(f"{source} does not annotate the cells of {path}")
    if len(repeated):
        problems.add(
            f"Expected one row for each cell in {source}, found {len(repeated)} cells repeated: {examples(repeated)}. "
            "Keep one."
        )
    if not known.any():
        problems.add(
            f"Expected names of cells in the first column of {source}, found none of {path}. The table has "
            f"{examples(table.index)}, the cells are {examples(cells.obs_names)}. Correct the names."
        )
    problems.raise_if_any()
    absent = np.sum(~table.index.isin(cells.obs_names))
    if not known.all():
        notes.append(f"{np.sum(~known):,} cells without annotation left out")
        cells = subset(cells, known)
    if absent:
        notes.append(f"{absent:,} rows of {source.name} are of other cells")
    replaced = [column for column in table if column in cells.obs]
    if replaced:
        notes.append(f"{examples(replaced)} replaced")
    notes.append(f"{examples(table)} from {source.name}")
    rows = table.loc[cells.obs_names]
    cells.obs = cells.obs.drop(columns=replaced).join(rows)
    return cells
