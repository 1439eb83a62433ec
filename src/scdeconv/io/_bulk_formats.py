"""Parsers of expression tables and detection of the program that wrote them."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from scdeconv._data.checks import Problems, examples
from scdeconv._data.labels import as_text

if TYPE_CHECKING:
    from collections.abc import Iterable

MISSING_MARKS = ("", "na", "nan", "n/a", "null", "none")
# numeric columns that describe genes
GENE_ANNOTATION_COLUMNS = frozenset(
    {"chr", "chrom", "chromosome", "length", "genelength"}
    | {"entrez", "entrezid", "entrezgene", "entrezgeneid", "ncbigeneid", "hgncid"}
)
# column names that describe genes only if there is a chromosome column
POSITION_COLUMNS = frozenset({"start", "end", "width"})
STAR_SUMMARY = ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
STRANDS = ["unstranded", "forward", "reverse"]
STAR = "STAR"
# featureCounts columns with one value per exon, joined by semicolons
EXON_COLUMNS = ("Chr", "Start", "End", "Strand")
TXIMPORT = re.compile(r"(abundance|counts|length)\.")
ESTIMATED = {"counts": "estimated counts", "tpm": "TPM"}
# removed from file names to get the sample, e.g. 'S1Aligned.sortedByCoord.out.bam', 'S1_quant', 'S1.genes.results'
FILE_ENDINGS = re.compile(
    r"([._]?Aligned|[._]?ReadsPerGene|[._]quant|\.(bam|sam|cram|sorted|sortedByCoord|toTranscriptome|markdup|dedup|"
    r"umi_dedup|out|tab|genes|isoforms|results|sf|txt|tsv|gz))+$"
)
# file names without sample name: the folder has the sample name
GENERIC_FILE_NAME = re.compile(r"(quant(\.genes)?\.sf|abundance\.tsv)(\.gz)?$")
ALIGNMENT = re.compile(r"\.(bam|sam|cram)$")


@dataclass(frozen=True)
class Program:
    """Output columns of a program that writes one file per sample."""

    label: str
    name: str
    counts: str
    tpm: str
    transcripts: bool


PROGRAMS = (
    Program("Salmon", "Name", "NumReads", "TPM", transcripts=True),
    Program("kallisto", "target_id", "est_counts", "tpm", transcripts=True),
    # isoforms.results has gene_id as well as transcript_id
    Program("RSEM", "gene_id", "expected_count", "TPM", transcripts=False),
)


@dataclass
class Fields:
    """Fields of a text file: header, columns by position (the first as text) and line number of each row."""

    path: Path
    header: list[str]
    columns: pd.DataFrame
    lines: np.ndarray


@dataclass
class Table:
    """Numeric values, annotation columns and detected properties of an expression table."""

    values: pd.DataFrame
    about: pd.DataFrame
    program: str = "table"
    unit: str | None = None
    corner: str = ""
    genes_in: str | None = None
    transcripts: bool = False
    sample_paths: bool = False


def plain(name: str) -> str:
    """Return a name in lower case without separators, e.g. 'genename' for 'Gene_Name'."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_fields(path: Path, problems: Problems) -> Fields | None:
    """Split a plain or gzipped text file at tabs, else at the more frequent of comma and semicolon, else at spaces."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        problems.add(f"Expected a plain or gzipped text table (UTF-8) in {path}, found {error}. Export it as CSV.")
        return None
    # Excel exports empty rows as rows of separators
    kept = [(number, line) for number, line in enumerate(lines, start=1) if line.strip(' \t,;"')]
    comments = [line for _, line in kept if line.startswith("#")]
    kept = [(number, line) for number, line in kept if not line.startswith("#")]
    if len(kept) < 2:
        problems.add(f"Expected a table with a header and rows in {path}, found {len(kept)} lines. Check the file.")
        return None
    first = kept[0][1]
    separator = "\t" if "\t" in first else max(",;", key=first.count) if re.search("[,;]", first) else " "
    if comments and 0 < comments[-1].count(separator) == first.count(separator):
        kept.insert(0, (0, comments[-1].lstrip("# ")))
    # gene descriptions may contain an unpaired quote (5"): in TSV files, parse quotes only if the header has them
    quoted = separator != "\t" or kept[0][1].startswith('"')
    style: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE

    def cut(line: str) -> list[str]:
        return next(csv.reader([line], delimiter=separator, quoting=style))

    header = [name.strip() for name in cut(kept[0][1])]
    numbers, rows = np.array([number for number, _ in kept[1:]]), [line for _, line in kept[1:]]
    n_fields = [len(cut(line)) if quoted and '"' in line else line.count(separator) + 1 for line in rows]
    if n_fields[0] == len(header) + 1:
        # R's write.table omits the header of the row names
        header.insert(0, "")
    uneven = [f"line {k} ({n})" for k, n in zip(numbers, n_fields, strict=True) if n != len(header)]
    if uneven:
        problems.add(
            f"Expected {len(header)} fields in every line of {path}, found {len(uneven)} lines with another number: "
            f"{examples(uneven)}. Correct these lines, or quote names that contain the separator."
        )
        return None
    columns = pd.read_csv(
        io.StringIO("\n".join(rows)),
        sep=separator,
        header=None,
        names=range(len(header)),
        dtype={0: str},
        na_filter=False,
        quoting=style,
        low_memory=False,
    )
    columns[0] = columns[0].str.strip()
    return Fields(path, header, columns, numbers)


def read_numbers(fields: Fields, columns: Iterable[int], problems: Problems) -> pd.DataFrame:
    """Return columns as numbers, indexed by the first column; report non-numeric fields with line and column."""
    found, wrong = {}, []
    for column in columns:
        text = fields.columns[column]
        values = text if is_numeric_dtype(text) else pd.to_numeric(text, errors="coerce")
        found[column] = values.to_numpy()
        for row in np.flatnonzero(~np.isfinite(found[column].astype(float))):
            line, name = fields.lines[row], fields.columns[0].iloc[row]
            wrong.append(f"{text.iloc[row]} (line {line}, row {name}, column {fields.header[column]})")
    if wrong:
        problems.add(
            f"Expected numbers in {fields.path}, found {len(wrong)} other fields: {examples(wrong)}. "
            "Use decimal points, replace missing values with 0, or remove the row or column."
        )
    return pd.DataFrame(found, index=fields.columns.index).set_axis(fields.columns[0].to_numpy(), axis=0)


def describes_rows(fields: Fields, column: int) -> bool:
    """Return whether a column is an annotation of the rows: by its name, or because most values are text."""
    values = fields.columns[column]
    name = plain(fields.header[column])
    positions = POSITION_COLUMNS if any(plain(other).startswith("chr") for other in fields.header) else frozenset()
    if name in GENE_ANNOTATION_COLUMNS | positions or is_bool_dtype(values):
        return True
    if is_numeric_dtype(values):
        return False
    is_number = pd.to_numeric(values, errors="coerce").notna()
    is_text = ~is_number & values.notna() & ~values.astype(str).str.strip().str.lower().isin(MISSING_MARKS)
    return bool(is_text.sum() > is_number.sum())


def read_table(path: Path, unit: str, problems: Problems) -> Table | None:
    """Read a text file and detect the program that wrote it; ``unit`` selects counts or TPM if it has both."""
    fields = read_fields(path, problems)
    if fields is None:
        return None
    for program in PROGRAMS:
        if {program.name, program.counts, program.tpm} <= set(fields.header):
            return _one_sample(fields, program, unit, problems)
    if fields.header[0] == STAR_SUMMARY[0] and len(fields.header) == 4:
        return _star(fields, problems)
    return _matrix(fields, unit, problems)


def _one_sample(fields: Fields, program: Program, unit: str, problems: Problems) -> Table:
    column = fields.header.index(program.tpm if unit == "tpm" else program.counts)
    values = read_numbers(fields, [column], problems).set_axis([str(fields.path.resolve())], axis=1)
    values.index = pd.Index(as_text(fields.columns[fields.header.index(program.name)]).to_numpy())
    # Salmon writes quant.genes.sf with gene-level sums
    transcripts = program.transcripts and not fields.path.name.startswith("quant.genes.sf")
    about = pd.DataFrame(index=values.index)
    return Table(
        values, about, program.label, ESTIMATED[unit], genes_in="rows", transcripts=transcripts, sample_paths=True
    )


def _star(fields: Fields, problems: Problems) -> Table:
    """Read STAR gene counts of one sample: no header, one column per strandedness."""
    fields.header = ["", *STRANDS]
    values = read_numbers(fields, range(1, 4), problems).set_axis(STRANDS, axis=1)
    values = values[~values.index.isin(STAR_SUMMARY)]
    return Table(values, pd.DataFrame(index=values.index), STAR, "counts", genes_in="rows", sample_paths=True)


def _matrix(fields: Fields, unit: str, problems: Problems) -> Table | None:
    header = fields.header
    described = [column for column in range(1, len(header)) if describes_rows(fields, column)]
    columns = [column for column in range(1, len(header)) if column not in described]
    if not columns:
        problems.add(
            f"Expected columns of numbers in {fields.path}, found {examples(fields.columns.iloc[0])} in the first row. "
            "Separate the columns by tabs, commas or semicolons, and use decimal points."
        )
        return None
    if tximport := all(TXIMPORT.match(header[column]) for column in columns):
        wanted = "abundance." if unit == "tpm" else "counts."
        columns = [column for column in columns if header[column].startswith(wanted)]
        header = [name.removeprefix(wanted) for name in header]
    feature_counts = header[0] == "Geneid" and "Length" in header
    left_out = EXON_COLUMNS if feature_counts else ("countsFromAbundance",) if tximport else ()
    described = [column for column in described if header[column] not in left_out]
    values = read_numbers(fields, columns, problems).set_axis([header[column] for column in columns], axis=1)
    about = fields.columns[described].set_axis([header[column] for column in described], axis=1)
    about = about.set_axis(values.index, axis=0)
    if tximport:
        return Table(values, about, "tximport", ESTIMATED[unit], genes_in="rows")
    if feature_counts:
        about = about.rename(columns={"Length": "length"})
        return Table(values, about, "featureCounts", genes_in="rows", sample_paths=True)
    return Table(values, about, corner=header[0], sample_paths=all(map(ALIGNMENT.search, values.columns)))


def name_samples(paths: Iterable[str]) -> list[str]:
    """Return sample names of files: file names without endings, or the folders that differ if these are not unique."""
    parts = [PurePosixPath(path.replace("\\", "/")).parts for path in paths]
    parts = [part[:-1] if len(part) > 1 and GENERIC_FILE_NAME.match(part[-1]) else part for part in parts]
    names = [FILE_ENDINGS.sub("", part[-1]) or part[-1] for part in parts]
    if len(set(names)) == len(names) or len({len(part) for part in parts}) > 1:
        return names
    levels = [level for level in zip(*parts, strict=True) if len(set(level)) > 1]
    return [
        "_".join(FILE_ENDINGS.sub("", part) for part in differing) for differing in zip(*levels, strict=True)
    ] or names
