"""Read bulk expression from the files that programs write."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.genes import is_ensembl
from scdeconv._data.labels import as_text
from scdeconv._data.matrix import Matrix, is_integer, layer_names
from scdeconv._data.progress import progress
from scdeconv._data.validation import Problems, examples
from scdeconv.io._bulk_formats import STAR, Table, name_samples, plain, read_table
from scdeconv.io._bulk_genes import Names, are_transcripts, to_genes
from scdeconv.io._files import is_annotated, read_annotated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

StrPath: TypeAlias = "str | os.PathLike[str]"

# what is searched for in a folder: files of one sample each
ONE_SAMPLE = ("quant.sf", "abundance.tsv", "*.genes.results", "*ReadsPerGene.out.tab")
# genes of every tissue and of every panel, none of which is the name of a sample
EVERYWHERE = frozenset(
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
# so many times more are genes, where nothing else tells
LARGER = 2
# share of reads on one strand from which a library is stranded
STRANDED = 0.8


def read_bulk(
    path: StrPath | Sequence[StrPath],
    *,
    genes_in: Literal["rows", "columns"] | None = None,
    unit: Literal["counts", "tpm"] = "counts",
    tx2gene: Names | None = None,
    gene_names: Names | None = None,
) -> AnnData:
    r"""Read bulk expression from a file, recognise what it is, and say so in one line.

    Tables (CSV, TSV, gzipped or not, genes in rows or in columns) and the outputs of featureCounts, Salmon
    (``quant.sf``, ``quantmerge``), kallisto (``abundance.tsv``), tximport (``write.csv(txi)``), nf-core/rnaseq
    (``salmon.merged.gene_counts.tsv``), RSEM (``genes.results``) and STAR (``ReadsPerGene.out.tab``, where the larger of
    the strands decides); h5ad, h5mu (modality ``bulk``) and zarr. Which axis holds the genes is told by identifiers
    (Ensembl, or genes that are expressed everywhere), by the name of the first column, else by which axis is at least
    twice as long.

    Parameters
    ----------
    path
        A file; several files with the same genes; or a folder that is searched for files of one sample each.
    genes_in
        ``"rows"`` or ``"columns"``, where it is not to be recognised.
    unit
        What to read of files that hold both counts and TPM.
    tx2gene
        The gene of each transcript, for files of transcripts, whose values are added up; transcripts that are not in it
        are left out. A table identifier → gene: Series, mapping, DataFrame or text file (first two columns), or the name
        of a column of the file, such as ``"gene_id"``.
    gene_names
        Other names for the genes, such as symbols for Ensembl identifiers; a table like ``tx2gene``, or a column of
        ``var``. Genes without another name keep theirs.

    Returns
    -------
    AnnData, samples × genes

    - ``X``: int32 (int64) where all values are whole numbers, else float32; of h5ad, h5mu and zarr as it is there;
    - ``obs_names``: samples; of files and BAM files, their names without endings, or else the folders in which their
      paths differ;
    - ``var_names``: genes, without versions of Ensembl identifiers. Genes of the same name are added up, and that is said;
    - ``var``: other columns of the file, such as ``gene_name``, or ``length`` of featureCounts (``obs``, where samples
      are rows).

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        One report of everything wrong in the files, with line and column; where it cannot be told which axis holds the
        genes; where files are of transcripts and ``tx2gene`` is missing.

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
    for name, value, known in (("genes_in", genes_in, (None, "rows", "columns")), ("unit", unit, ("counts", "tpm"))):
        if value not in known:
            problems.add(f"Expected {name} out of {known}, found {value!r}.")
    problems.raise_if_any()
    paths = find_files(path)
    notes: list[str] = []
    if len(paths) == 1 and is_annotated(paths[0]):
        adata = read_annotated(paths[0], keys.BULK)
        if adata.X is None:
            problems.add(
                f"Expected expression in X of {path}, found layers {layer_names(adata)}. Put the counts there."
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
    """Return the files to read: those given, or those of single samples in a folder."""
    paths = [Path(item) for item in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    missing = [str(item) for item in paths if not item.exists()]
    if missing or not paths:
        msg = f"Expected files of bulk, found none at {examples(missing or ['[]'])}. Check the path."
        raise FileNotFoundError(msg)
    if len(paths) > 1 or not paths[0].is_dir() or is_annotated(paths[0]):
        return paths
    found = {}
    for pattern in ONE_SAMPLE:
        files = sorted({*paths[0].rglob(pattern), *paths[0].rglob(f"{pattern}.gz")})
        if files:
            found[pattern] = files
    if len(found) != 1:
        kinds = ", ".join(f"{len(files)} {pattern}" for pattern, files in found.items()) or "none"
        msg = f"Expected files of one kind out of {ONE_SAMPLE} in {paths[0]}, found {kinds}. Pass the files themselves."
        raise ValueError(msg) if found else FileNotFoundError(msg)
    return next(iter(found.values()))


def join(paths: Sequence[Path], unit: str, problems: Problems) -> Table:
    """Read files, and put their samples beside each other."""
    tables: list[Table] = []
    with progress(len(paths), "reading files") as bar:
        for path in paths:
            table = read_table(path, unit, problems)
            tables += [] if table is None else [table]
            bar.update()
    programs = {table.program for table in tables}
    if len(programs) > 1:
        problems.add(f"Expected files of one program, found {examples(sorted(programs))}. Read each on its own.")
    problems.raise_if_any()
    if unit == "tpm" and (lacking := programs & {STAR, "featureCounts"}):
        problems.add(f"Expected TPM, found counts alone in the output of {lacking.pop()}. Leave out unit='tpm'.")
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
                f"Expected the same rows in all files, found {len(own)} in {path} and {len(names)} in {paths[0]}, which differ "
                f"in {examples(other)}. Quantify all samples with the same annotation."
            )
    problems.raise_if_any()
    if len(tables) > 1:
        first.values = pd.concat([table.values for table in tables], axis=1)
    return first


def _choose_strand(tables: Sequence[Table], paths: Sequence[Path]) -> None:
    """Keep the column of STAR that fits the library, the same one for all samples."""
    totals = pd.concat([table.values.sum() for table in tables], axis=1).sum(axis=1)
    share = totals["forward"] / max(totals["forward"] + totals["reverse"], 1)
    strand = "forward" if share > STRANDED else "reverse" if share < 1 - STRANDED else "unstranded"
    for path, table in zip(paths, tables, strict=True):
        table.values = table.values[[strand]].set_axis([str(path.resolve())], axis=1)
        table.program = f"{STAR} ({strand})"


def axis_by_names(rows: pd.Index, columns: pd.Index) -> Literal["rows", "columns"] | None:
    """Say which axis has identifiers of genes; None where neither or both have."""
    genes = [
        is_ensembl(names) or are_transcripts(names) or not EVERYWHERE.isdisjoint(names.str.upper())
        for names in (as_text(rows), as_text(columns))
    ]
    if genes[0] == genes[1]:
        return None
    return "rows" if genes[0] else "columns"


def find_axis(table: Table) -> Literal["rows", "columns"] | None:
    """Say which axis of a table holds the genes; None where nothing tells."""
    rows, columns = table.values.index, table.values.columns
    by_names = axis_by_names(rows, columns)
    if by_names:
        return by_names
    corner = plain(table.corner)
    if corner.startswith(GENE_CORNERS):
        return "rows"
    if corner.startswith(SAMPLE_CORNERS):
        return "columns"
    if len(rows) >= LARGER * len(columns):
        return "rows"
    if len(columns) >= LARGER * len(rows):
        return "columns"
    return None


def to_samples(table: Table, axis: str | None, problems: Problems) -> AnnData:
    """Return samples × genes."""
    values, about = table.values, table.about
    if axis is None:
        problems.add(
            f"Expected to see whether rows or columns are genes, found {len(values)} rows ({examples(values.index)}) and "
            f"{values.shape[1]} columns ({examples(values)}). Say it: genes_in='rows' or genes_in='columns'."
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
            f"Expected every sample once, found {len(repeated)} repeated: {examples(repeated)}. Rename the columns or files."
        )
    problems.raise_if_any()
    with warnings.catch_warnings():
        # genes that occur twice are added up later
        warnings.filterwarnings("ignore", "Variable names are not unique")
        return make_adata(values.to_numpy(), **sides)


def compact(values: np.ndarray) -> np.ndarray:
    """Return whole numbers as integers and others as float32."""
    if not is_integer(values):
        return values.astype(np.float32)
    fits = np.abs(values).max(initial=0) <= np.iinfo(np.int32).max
    return values.astype(np.int32 if fits else np.int64)


def unit_of(matrix: Matrix) -> str:
    """Say what the values look like."""
    if is_integer(matrix):
        return "counts"
    totals = np.asarray(matrix.sum(axis=1))
    return "TPM or CPM" if (np.abs(totals - 1e6) < 5e4).all() else "no whole numbers"
