"""Reader of bulk expression tables and of the output of quantification programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import PATHS, Problems, checked, examples
from scdeconv._data.matrix import is_integer, layer_names
from scdeconv._data.progress import progress
from scdeconv._data.units import unit_of
from scdeconv.io._bulk_genes import Names, to_genes
from scdeconv.io._files import is_annotated, read_annotated
from scdeconv.io._programs import STAR, STRANDED, choose_strand, name_samples, read_bulk_file
from scdeconv.io._tables import Axis, Choice, Table, axis_by_names, sort_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

StrPath: TypeAlias = "str | os.PathLike[str]"

# file patterns of one sample each, searched for in folders
ONE_SAMPLE_PATTERNS = (
    *("quant.sf", "abundance.tsv", "*.genes.results", "*ReadsPerGene.out.tab"),
    *("*.augmented_star_gene_counts.tsv", "*.htseq.counts", "*gene_abund.tab", "genes.fpkm_tracking"),
)


@checked(path=PATHS)
def read_bulk(
    path: StrPath | Sequence[StrPath],
    *,
    genes_in: Literal["rows", "columns"] | None = None,
    unit: Literal["counts", "tpm"] = "counts",
    tx2gene: Names | None = None,
    gene_names: Names | None = None,
    header: bool | None = None,
    drop: str | Sequence[str] | None = None,
    annotation: str | Sequence[str] | None = None,
) -> AnnData:
    r"""Read bulk expression, detect the file format and print a one-line summary.

    Supported formats are tables (CSV, TSV, GCT, GEO series matrix or Excel; plain, gz, bz2, xz or zip; genes in rows
    or columns), h5ad, h5mu (modality ``bulk``), zarr, and the output of these programs:

    - featureCounts and htseq-count;
    - Salmon (``quant.sf``, ``quantmerge``) and nf-core/rnaseq (``salmon.merged.gene_counts.tsv``);
    - kallisto (``abundance.tsv``), tximport (``write.csv(txi)``) and RSEM (``genes.results``);
    - STAR (``ReadsPerGene.out.tab``) and GDC (``augmented_star_gene_counts.tsv``). The strandedness is detected from
      the share of reads on each strand;
    - StringTie (gene abundances) and Cufflinks (``genes.fpkm_tracking``), with ``unit="tpm"``.

    The gene axis is detected in this order: by identifiers (Ensembl or housekeeping genes), by the header of the first
    column, and by length if one axis is at least twice as long as the other. Columns that describe genes or samples
    (text, or known names such as ``Length`` or ``age``) are kept beside the values. Summaries such as ``N_unmapped``
    and totals are left out, and the printed line says so. The user guide lists what is recognised and what is refused.

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
    header
        Whether the first line has the names of the columns. Default: detect it. Without header, samples are named by
        the file.
    drop
        Columns or rows to leave out.
    annotation
        Columns to keep in ``var`` (``obs`` if samples are rows) instead of reading them as samples. If ``drop`` or
        ``annotation`` is passed, even as an empty list, all other columns of numbers are read as values.

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
        If the files have errors (all are listed with line and column), if a file can be read in two ways, if the gene
        axis cannot be detected, if columns look like something else than samples (positions, totals), if genes are
        named by dates or numbers, or if files contain transcripts and ``tx2gene`` is missing.

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
    choice = Choice.of(drop, annotation)
    paths = find_files(path)
    notes: list[str] = []
    if len(paths) == 1 and is_annotated(paths[0]):
        if choice.is_made or header is not None:
            problems.add(
                f"Expected a table for header=, drop= or annotation=, found {path}. Omit them and subset the AnnData."
            )
            problems.raise_if_any()
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
        table = read_tables(paths, unit, genes_in, header, choice, problems)
        program, unit_found, transcripts, axis = table.program, table.unit, table.transcripts, table.genes_in
        adata = make_adata(table.values, obs=table.obs, var=table.var)
        notes = table.notes + [
            f"{examples(about)} in {side}"
            for side, about in (("obs", table.obs), ("var", table.var))
            if len(about.columns)
        ]
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


def read_tables(
    paths: Sequence[Path], unit: str, genes_in: Axis | None, header: bool | None, choice: Choice, problems: Problems
) -> Table:
    """Read files and concatenate their samples."""
    tables: list[Table] = []
    with progress(len(paths), "reading files") as bar:
        for path in paths:
            table = read_bulk_file(path, unit, genes_in, header, choice, problems)
            tables += [] if table is None else [table]
            bar.update()
    choice.report_unknown(problems)
    programs = {table.program for table in tables}
    if len(programs) > 1:
        problems.add(f"Expected files of one program, found {examples(sorted(programs))}. Read them separately.")
    problems.raise_if_any()
    if unit == "tpm" and (lacking := programs & {STAR, "featureCounts"}):
        problems.add(f"Expected TPM, found only counts in the output of {lacking.pop()}. Omit unit='tpm'.")
        problems.raise_if_any()
    if tables[0].program in STRANDED and unit == "counts":
        choose_strand(tables)
    table = join(tables, problems)
    sort_out(table, choice, problems)
    samples = table.obs.index
    if not samples.is_unique:
        repeated = samples[samples.duplicated()].unique()
        problems.add(
            f"Expected unique samples, found {len(repeated)} repeated: {examples(repeated)} in "
            f"{examples(map(str, paths))}. Rename the columns or files."
        )
    problems.raise_if_any()
    return table


def join(tables: Sequence[Table], problems: Problems) -> Table:
    """Concatenate the samples of files with the same genes."""
    first = tables[0]
    names = first.var.index
    for table in tables[1:]:
        own = table.var.index
        if own.equals(names):
            continue
        if own.is_unique and names.is_unique and not len(own.symmetric_difference(names)):
            table.values = table.values[:, own.get_indexer(names)]
        else:
            other = own.symmetric_difference(names)
            problems.add(
                f"Expected the same genes in all files, found {len(own)} in {table.path} and {len(names)} in "
                f"{first.path} with differences in {examples(other)}. Quantify all samples with the same annotation."
            )
    problems.raise_if_any()
    if len(tables) > 1:
        first.values = np.vstack([table.values for table in tables])
        first.obs = pd.concat([table.obs for table in tables])
        first.notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    if first.sample_paths:
        first.obs.index = pd.Index(name_samples(first.obs.index))
    return first


def compact(values: np.ndarray) -> np.ndarray:
    """Return whole numbers as int32 or int64, other numbers as float32."""
    if not is_integer(values):
        return values.astype(np.float32)
    fits = np.abs(values).max(initial=0) <= np.iinfo(np.int32).max
    return values.astype(np.int32 if fits else np.int64)
