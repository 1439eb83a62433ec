"""Text files of expression as programs write them: fields, numbers, and which program it was."""

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

from scdeconv._data.labels import as_text
from scdeconv._data.validation import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Iterable

MISSING = ("", "na", "nan", "n/a", "null", "none")
# columns that describe genes although they may hold numbers
ABOUT_GENES = frozenset(
    {"chr", "chrom", "chromosome", "length", "genelength"}
    | {"entrez", "entrezid", "entrezgene", "entrezgeneid", "ncbigeneid", "hgncid"}
)
# these may be samples, too, where there is no chromosome
POSITIONS = frozenset({"start", "end", "width"})
STAR_SUMMARY = ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
STRANDS = ["unstranded", "forward", "reverse"]
STAR = "STAR"
# of each exon of the gene, joined by semicolons
EXONS = ("Chr", "Start", "End", "Strand")
TXIMPORT = re.compile(r"(abundance|counts|length)\.")
ESTIMATED = {"counts": "estimated counts", "tpm": "TPM"}
# 'S1Aligned.sortedByCoord.out.bam', 'S1.markdup.sorted.bam', 'S1_quant', 'S1.genes.results': the sample is S1
ENDINGS = re.compile(
    r"([._]?Aligned|[._]?ReadsPerGene|[._]quant|\.(bam|sam|cram|sorted|sortedByCoord|toTranscriptome|markdup|dedup|"
    r"umi_dedup|out|tab|genes|isoforms|results|sf|txt|tsv|gz))+$"
)
# names that say nothing, in a folder that has the name of the sample
IN_FOLDER = re.compile(r"(quant(\.genes)?\.sf|abundance\.tsv)(\.gz)?$")
ALIGNMENT = re.compile(r"\.(bam|sam|cram)$")


@dataclass(frozen=True)
class Program:
    """The columns of a program that writes a file for each sample."""

    label: str
    name: str
    counts: str
    tpm: str
    transcripts: bool


PROGRAMS = (
    Program("Salmon", "Name", "NumReads", "TPM", transcripts=True),
    Program("kallisto", "target_id", "est_counts", "tpm", transcripts=True),
    # isoforms.results has the gene beside the transcript, too
    Program("RSEM", "gene_id", "expected_count", "TPM", transcripts=False),
)


@dataclass
class Fields:
    """A text file cut into fields: columns by number, the first one as text, with the line that each row came from."""

    path: Path
    header: list[str]
    columns: pd.DataFrame
    lines: np.ndarray


@dataclass
class Table:
    """Rows × columns of numbers, and the other columns, with what the file says about itself."""

    values: pd.DataFrame
    about: pd.DataFrame
    program: str = "table"
    unit: str | None = None
    corner: str = ""
    genes_in: str | None = None
    transcripts: bool = False
    sample_paths: bool = False


def plain(name: str) -> str:
    """Return a name without case and separators: 'Gene_Name' and 'gene name' are 'genename'."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_fields(path: Path, problems: Problems) -> Fields | None:
    """Cut a text file, gzipped or not, at tabs, else at the commoner of comma and semicolon, else at spaces."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        problems.add(f"Expected a table as text (UTF-8), gzipped or not, in {path}, found {error}. Export it as CSV.")
        return None
    # Excel leaves rows of separators behind
    kept = [(number, line) for number, line in enumerate(lines, start=1) if line.strip(' \t,;"')]
    comments = [line for _, line in kept if line.startswith("#")]
    kept = [(number, line) for number, line in kept if not line.startswith("#")]
    if len(kept) < 2:
        problems.add(f"Expected a table in {path}, found {len(kept)} lines. Is the file complete?")
        return None
    first = kept[0][1]
    separator = "\t" if "\t" in first else max(",;", key=first.count) if re.search("[,;]", first) else " "
    if comments and 0 < comments[-1].count(separator) == first.count(separator):
        kept.insert(0, (0, comments[-1].lstrip("# ")))
    # descriptions of genes have single quotation marks (5"), so with tabs these count only where names are quoted
    quoted = separator != "\t" or kept[0][1].startswith('"')
    style: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE

    def cut(line: str) -> list[str]:
        return next(csv.reader([line], delimiter=separator, quoting=style))

    header = [name.strip() for name in cut(kept[0][1])]
    numbers, rows = np.array([number for number, _ in kept[1:]]), [line for _, line in kept[1:]]
    n_fields = [len(cut(line)) if quoted and '"' in line else line.count(separator) + 1 for line in rows]
    if n_fields[0] == len(header) + 1:
        # R's write.table leaves out the corner
        header.insert(0, "")
    uneven = [f"line {k} ({n})" for k, n in zip(numbers, n_fields, strict=True) if n != len(header)]
    if uneven:
        problems.add(
            f"Expected {len(header)} fields in every line of {path}, found {len(uneven)} lines with more or fewer: "
            f"{examples(uneven)}. Repair the lines, or quote names that contain the separator."
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
    """Return columns as numbers, rows named by the first column; report what is no number, with line and column."""
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
            f"Expected numbers in {fields.path}, found {len(wrong)} fields with something else: {examples(wrong)}. "
            "Write decimals with a point, missing values as 0, or remove the row or column."
        )
    return pd.DataFrame(found, index=fields.columns.index).set_axis(fields.columns[0].to_numpy(), axis=0)


def describes_rows(fields: Fields, column: int) -> bool:
    """Say whether a column describes the rows, and is none of expression: known by its name, or mostly text."""
    values = fields.columns[column]
    name = plain(fields.header[column])
    positions = POSITIONS if any(plain(other).startswith("chr") for other in fields.header) else frozenset()
    if name in ABOUT_GENES | positions or is_bool_dtype(values):
        return True
    if is_numeric_dtype(values):
        return False
    is_number = pd.to_numeric(values, errors="coerce").notna()
    is_text = ~is_number & values.notna() & ~values.astype(str).str.strip().str.lower().isin(MISSING)
    return bool(is_text.sum() > is_number.sum())


def read_table(path: Path, unit: str, problems: Problems) -> Table | None:
    """Read a text file and recognise the program that wrote it; ``unit`` decides where there are counts and TPM."""
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
    # Salmon adds transcripts up itself where it is given the genes
    transcripts = program.transcripts and not fields.path.name.startswith("quant.genes.sf")
    about = pd.DataFrame(index=values.index)
    return Table(
        values, about, program.label, ESTIMATED[unit], genes_in="rows", transcripts=transcripts, sample_paths=True
    )


def _star(fields: Fields, problems: Problems) -> Table:
    """Read STAR's counts of one sample, which has no header: a column for every way the library may be stranded."""
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
            "Separate the columns by tabs, commas or semicolons, and write decimals with a point."
        )
        return None
    if tximport := all(TXIMPORT.match(header[column]) for column in columns):
        wanted = "abundance." if unit == "tpm" else "counts."
        columns = [column for column in columns if header[column].startswith(wanted)]
        header = [name.removeprefix(wanted) for name in header]
    feature_counts = header[0] == "Geneid" and "Length" in header
    left_out = EXONS if feature_counts else ("countsFromAbundance",) if tximport else ()
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
    """Return the samples that files are of: their names without endings, else the folders in which their paths differ."""
    parts = [PurePosixPath(path.replace("\\", "/")).parts for path in paths]
    parts = [part[:-1] if len(part) > 1 and IN_FOLDER.match(part[-1]) else part for part in parts]
    names = [ENDINGS.sub("", part[-1]) or part[-1] for part in parts]
    if len(set(names)) == len(names) or len({len(part) for part in parts}) > 1:
        return names
    levels = [level for level in zip(*parts, strict=True) if len(set(level)) > 1]
    return ["_".join(ENDINGS.sub("", part) for part in differing) for differing in zip(*levels, strict=True)] or names
