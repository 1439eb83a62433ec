"""Reader of bulk expression tables and of the output of quantification programs."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import PATHS, Problems, checked, examples
from scdeconv._data.genes import is_ensembl
from scdeconv._data.labels import as_text
from scdeconv._data.matrix import Matrix, is_integer, layer_names
from scdeconv._data.progress import progress
from scdeconv.io._bulk_formats import STAR, Table, name_samples, plain, read_table
from scdeconv.io._bulk_genes import Names, are_transcripts, to_genes
from scdeconv.io._files import is_annotated, read_annotated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

StrPath: TypeAlias = "str | os.PathLike[str]"

# file patterns of one sample each, searched for in folders
ONE_SAMPLE_PATTERNS = ("quant.sf", "abundance.tsv", "*.genes.results", "*ReadsPerGene.out.tab")
# housekeeping gene symbols that identify the gene axis (set by hand)
HOUSEKEEPING_GENES = frozenset(
    {"ACTB", "B2M", "EEF1A1", "FTL", "GAPDH", "HPRT1", "MALAT1", "PPIA", "RPL13A", "RPLP0", "TBP", "TUBB", "UBC", "VIM"}
)
GENE_CORNERS = (
    "gene",
    "ensembl",
    "ensg",
    "symbol",
    "hugo",
    "hgnc",
    "entrez",
    "feature",
    "transcript",
    "tx",
    "targetid",
)
SAMPLE_CORNERS = ("sample", "donor", "patient", "subject", "individual")
# minimum ratio of the axis lengths at which the longer axis is taken as genes (set by hand)
MIN_AXIS_RATIO = 2
# minimum share of reads on one strand for a stranded library (set by hand)
MIN_STRANDED_SHARE = 0.8


@checked(path=PATHS)
def read_bulk(
    path: StrPath | Sequence[StrPath],
    *,
    genes_in: Literal["rows", "columns"] | None = None,
    unit: Literal["counts", "tpm"] = "counts",
    tx2gene: Names | None = None,
    gene_names: Names | None = None,
) -> AnnData:
    r"""Read bulk expression, detect the file format and print a one-line summary.

    Supported formats are tables (CSV or TSV, plain or gzipped, genes in rows or columns), h5ad, h5mu (modality
    ``bulk``), zarr, and the output of these programs:

    - featureCounts;
    - Salmon (``quant.sf``, ``quantmerge``) and nf-core/rnaseq (``salmon.merged.gene_counts.tsv``);
    - kallisto (``abundance.tsv``), tximport (``write.csv(txi)``) and RSEM (``genes.results``);
    - STAR (``ReadsPerGene.out.tab``). The strandedness is detected from the share of reads on each strand.

    The gene axis is detected in this order: by identifiers (Ensembl or housekeeping genes), by the header of the first
    column, and by length if one axis is at least twice as long as the other.

    Parameters
    ----------
    path
        A file, several files with the same genes, or a folder that is searched for files of one sample each.
    genes_in
        Gene axis, ``"rows"`` or ``"columns"``. Default: detect it.
    unit
        Values to read if a file has both counts and TPM.
    tx2gene
        Gene of each transcript. Transcripts are summed to genes, and transcripts without gene are removed. Pass a table
        identifier → gene (Series, mapping, DataFrame or text file; first two columns) or the name of a column of the
        file, such as ``"gene_id"``.
    gene_names
        New names of the genes, such as symbols for Ensembl identifiers. Pass a table like ``tx2gene`` or a column of
        ``var``. Genes without new name are not renamed.

    Returns
    -------
    AnnData, samples × genes

    - ``X``: int32 (int64 for large values) if all values are whole numbers, else float32. The matrix of h5ad, h5mu and
      zarr files is not converted;
    - ``obs_names``: sample names. For names of files and BAM files: the name without endings, or the differing folders;
    - ``var_names``: gene names, Ensembl identifiers without versions. Genes with the same name are summed;
    - ``var``: other columns of the file, such as ``gene_name``, or ``length`` of featureCounts (``obs`` if samples are
      rows).

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If the files have errors (all are listed with line and column), if the gene axis cannot be detected, or if files
        contain transcripts and ``tx2gene`` is missing.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import scdeconv
    >>> path = Path(mkdtemp(), "bulk.csv")
    >>> _ = path.write_text("gene,S1,S2\nACTB,310,250\nCD3E,1,120\nCD19,40,0\n")
    >>> bulk = scdeconv.read_bulk(path)
    read_bulk: table, 2 samples × 3 genes, counts (rows were genes)
    """
    problems = Problems(f"{path} cannot be read as bulk")
    paths = find_files(path)
    notes: list[str] = []
    if len(paths) == 1 and is_annotated(paths[0]):
        adata = read_annotated(paths[0], keys.BULK)
        if adata.X is None:
            problems.add(
                f"Expected expression in X of {path}, found only layers {layer_names(adata)}. Store the counts in X."
            )
        problems.raise_if_any()
        program, unit_found, transcripts = "zarr" if paths[0].is_dir() else paths[0].suffix[1:], None, False
        axis: str | None = genes_in or axis_by_names(adata.obs_names, adata.var_names) or "columns"
        adata = adata.T if axis == "rows" else adata
    else:
        table = join(paths, unit, problems)
        axis = genes_in or table.genes_in or find_axis(table)
        program, unit_found, transcripts = table.program, table.unit, table.transcripts
        adata = to_samples(table, axis, problems)
        if len(table.about.columns):
            notes.append(f"{examples(table.about)} in {'var' if axis == 'rows' else 'obs'}")
    adata = to_genes(adata, tx2gene, gene_names, transcripts, notes, problems)
    if not is_annotated(paths[0]):
        adata.X = compact(adata.X)
    size = f"{adata.n_obs:,} samples × {adata.n_vars:,} genes"
    found = f"{program}, {size}, {unit_found or unit_of(adata.X)} ({axis} were genes)"
    print("; ".join([f"read_bulk: {found}", *notes]))
    return adata


def find_files(path: StrPath | Sequence[StrPath]) -> list[Path]:
    """Return the given files, or the one-sample files of a folder."""
    paths = [Path(item) for item in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    missing = [str(item) for item in paths if not item.exists()]
    if missing or not paths:
        msg = f"Expected bulk files, found none at {examples(missing or ['[]'])}. Check the path."
        raise FileNotFoundError(msg)
    if len(paths) > 1 or not paths[0].is_dir() or is_annotated(paths[0]):
        return paths
    found = {}
    for pattern in ONE_SAMPLE_PATTERNS:
        files = sorted({*paths[0].rglob(pattern), *paths[0].rglob(f"{pattern}.gz")})
        if files:
            found[pattern] = files
    if len(found) != 1:
        kinds = ", ".join(f"{len(files)} {pattern}" for pattern, files in found.items()) or "none"
        msg = f"Expected files of one of {ONE_SAMPLE_PATTERNS} in {paths[0]}, found {kinds}. Pass a list of files."
        raise ValueError(msg) if found else FileNotFoundError(msg)
    return next(iter(found.values()))


def join(paths: Sequence[Path], unit: str, problems: Problems) -> Table:
    """Read files and concatenate their samples."""
    tables: list[Table] = []
    with progress(len(paths), "reading files") as bar:
        for path in paths:
            table = read_table(path, unit, problems)
            tables += [] if table is None else [table]
            bar.update()
    programs = {table.program for table in tables}
    if len(programs) > 1:
        problems.add(f"Expected files of one program, found {examples(sorted(programs))}. Read them separately.")
    problems.raise_if_any()
    if unit == "tpm" and (lacking := programs & {STAR, "featureCounts"}):
        problems.add(f"Expected TPM, found only counts in the output of {lacking.pop()}. Omit unit='tpm'.")
    first = tables[0]
    if first.program == STAR:
        _choose_strand(tables, paths)
    names = first.values.index
    for path, table in zip(paths, tables, strict=True):
        own = table.values.index
        if own.equals(names):
            continue
        if own.is_unique and names.is_unique and not len(own.symmetric_difference(names)):
            table.values, table.about = table.values.loc[names], table.about.loc[names]
        else:
            other = own.symmetric_difference(names)
            problems.add(
                f"Expected the same rows in all files, found {len(own)} in {path} and {len(names)} in {paths[0]} with "
                f"differences in {examples(other)}. Quantify all samples with the same annotation."
            )
    problems.raise_if_any()
    if len(tables) > 1:
        first.values = pd.concat([table.values for table in tables], axis=1)
    return first


def _choose_strand(tables: Sequence[Table], paths: Sequence[Path]) -> None:
    """Keep the STAR column of the detected strandedness, the same for all samples."""
    totals = pd.concat([table.values.sum() for table in tables], axis=1).sum(axis=1)
    share = totals["forward"] / max(totals["forward"] + totals["reverse"], 1)
    strand = "forward" if share > MIN_STRANDED_SHARE else "reverse" if share < 1 - MIN_STRANDED_SHARE else "unstranded"
    for path, table in zip(paths, tables, strict=True):
        table.values = table.values[[strand]].set_axis([str(path.resolve())], axis=1)
        table.program = f"{STAR} ({strand})"


def axis_by_names(rows: pd.Index, columns: pd.Index) -> Literal["rows", "columns"] | None:
    """Return the axis with gene identifiers; None if neither or both have them."""
    genes = [
        is_ensembl(names) or are_transcripts(names) or not HOUSEKEEPING_GENES.isdisjoint(names.str.upper())
        for names in (as_text(rows), as_text(columns))
    ]
    if genes[0] == genes[1]:
        return None
    return "rows" if genes[0] else "columns"


def find_axis(table: Table) -> Literal["rows", "columns"] | None:
    """Return the gene axis of a table; None if it cannot be detected."""
    rows, columns = table.values.index, table.values.columns
    by_names = axis_by_names(rows, columns)
    if by_names:
        return by_names
    corner = plain(table.corner)
    if corner.startswith(GENE_CORNERS):
        return "rows"
    if corner.startswith(SAMPLE_CORNERS):
        return "columns"
    if len(rows) >= MIN_AXIS_RATIO * len(columns):
        return "rows"
    if len(columns) >= MIN_AXIS_RATIO * len(rows):
        return "columns"
    return None


def to_samples(table: Table, axis: str | None, problems: Problems) -> AnnData:
    """Return an AnnData of samples × genes."""
    values, about = table.values, table.about
    if axis is None:
        problems.add(
            f"Expected gene names in rows or columns, found {len(values)} rows ({examples(values.index)}) and "
            f"{values.shape[1]} columns ({examples(values)}). Pass genes_in='rows' or genes_in='columns'."
        )
    if table.sample_paths:
        values.columns = name_samples(values.columns)
    sides = {"var": about} if axis == "rows" else {"obs": about}
    values = values.T if axis == "rows" else values
    for name, index in (("obs", values.index), ("var", values.columns)):
        sides[name] = sides.get(name, pd.DataFrame(index=index)).set_axis(as_text(index), axis=0)
    samples = sides["obs"].index
    if not samples.is_unique:
        repeated = samples[samples.duplicated()].unique()
        problems.add(
            f"Expected unique samples, found {len(repeated)} repeated: {examples(repeated)}. "
            "Rename the columns or files."
        )
    problems.raise_if_any()
    with warnings.catch_warnings():
        # duplicate genes are summed later
        warnings.filterwarnings("ignore", "Variable names are not unique")
        return make_adata(values.to_numpy(), **sides)


def compact(values: np.ndarray) -> np.ndarray:
    """Return whole numbers as int32 or int64, other numbers as float32."""
    if not is_integer(values):
        return values.astype(np.float32)
    fits = np.abs(values).max(initial=0) <= np.iinfo(np.int32).max
    return values.astype(np.int32 if fits else np.int64)


def unit_of(matrix: Matrix) -> str:
    """Return the likely unit of the values."""
    if is_integer(matrix):
        return "counts"
    totals = np.asarray(matrix.sum(axis=1))
    return "TPM or CPM" if (np.abs(totals - 1e6) < 5e4).all() else "not whole numbers"
