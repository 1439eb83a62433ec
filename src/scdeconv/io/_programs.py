"""Files of quantification programs: one file per sample, or tables that a program wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import Problems, examples
from scdeconv.io._tables import SUMMARY, Axis, Choice, Fields, Table, plain, read_fields, to_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

STRANDS = ["unstranded", "forward", "reverse"]
STAR = "STAR"
GDC = "GDC (STAR)"
STRANDED = (STAR, GDC)
# minimum share of reads on one strand for a stranded library (set by hand)
MIN_STRANDED_SHARE = 0.8
# featureCounts columns with one value per exon, joined by semicolons
EXON_COLUMNS = ("Chr", "Start", "End", "Strand")
ESTIMATED = {"counts": "estimated counts", "tpm": "TPM"}
# units in the names of columns, e.g. 'S1_count' and 'S1_FPKM', 'counts.S1' of tximport; the first of each is read
UNITS = {
    "counts": ("counts", "count", "readcount", "readcounts", "rawcount", "rawcounts", "reads", "numreads"),
    "tpm": ("abundance", "tpm"),
    "FPKM": ("fpkm", "rpkm", "fpkmuq"),
    "CPM": ("cpm",),
    "lengths": ("length", "efflength", "effectivelength"),
}
UNIT_WORDS = (
    r"(?:(?:read|raw)[_. ]?)?counts?|reads|numreads|abundance|tpm|[fr]pkm(?:[_. ]?uq)?|cpm|(?:eff(?:ective)?_?)?length"
)
WITH_UNIT = re.compile(
    rf"(?i)(?P<before>{UNIT_WORDS})[._: -](?P<sample>.+)|(?P<other_sample>.+?)[._: -]+(?P<after>{UNIT_WORDS})"
)
# names of the only column of values: the sample is named by the file
VALUE_NAMES = frozenset(word for words in UNITS.values() for word in words) | {"value", "expression", "estcounts"}
# removed from file names to get the sample, e.g. 'S1Aligned.sortedByCoord.out.bam', 'S1_quant', 'S1.genes.results'
FILE_ENDINGS = re.compile(
    r"([._]?Aligned|[._]?ReadsPerGene|[._]quant|[._]htseq|[._-]?(read)?_?counts?|[._]gene_abund(ances?)?|"
    r"\.(rna_seq|augmented_star_gene_counts|bam|sam|cram|sorted|sortedByCoord|toTranscriptome|markdup|dedup|"
    r"umi_dedup|out|tab|genes|isoforms|results|fpkm_tracking|sf|txt|tsv|csv|xlsx|gct|gz|bz2|xz|zip))+$"
)
# file names without sample name: the folder has the sample name
GENERIC_FILE_NAME = re.compile(
    r"(quant(\.genes)?\.sf|abundance\.tsv|(genes|isoforms)\.fpkm_tracking|gene_abund(ances?)?\.ta?b)(\.gz)?$"
)
ALIGNMENT = re.compile(r"\.(bam|sam|cram)$")


@dataclass(frozen=True)
class Program:
    """Output columns of a program that writes one file per sample; ``fpkm`` gives TPM where ``tpm`` is missing."""

    label: str
    name: str
    counts: str | None = None
    tpm: str | None = None
    fpkm: str | None = None
    strands: tuple[str, ...] = ()
    transcripts: bool = False

    @property
    def columns(self) -> set[str]:
        """Names of the columns that identify the program."""
        return {self.name, *self.strands} | {name for name in (self.counts, self.tpm, self.fpkm) if name}


PROGRAMS = (
    Program("Salmon", "Name", "NumReads", "TPM", transcripts=True),
    Program("kallisto", "target_id", "est_counts", "tpm", transcripts=True),
    # isoforms.results has gene_id as well as transcript_id
    Program("RSEM", "gene_id", "expected_count", "TPM"),
    Program(GDC, "gene_id", tpm="tpm_unstranded", strands=("unstranded", "stranded_first", "stranded_second")),
    Program(GDC, "gene_id", strands=("unstranded", "stranded_first", "stranded_second")),
    Program("StringTie", "Gene ID", tpm="TPM", fpkm="FPKM"),
    Program("Cufflinks", "tracking_id", fpkm="FPKM"),
)


def read_bulk_file(
    path: Path, unit: str, genes_in: Axis | None, header: bool | None, choice: Choice, problems: Problems
) -> Table | None:
    """Read a text or Excel file; detect the program that wrote it. ``unit`` selects counts or TPM if it has both."""
    fields = read_fields(path, problems, header=header)
    if fields is None:
        return None
    for program in PROGRAMS:
        if program.columns <= set(fields.header):
            return _one_sample(fields, program, unit, choice, problems)
    name = str(path.resolve())
    if not fields.has_header and len(fields.header) == 4 and "N_unmapped" in set(fields.columns[0]):
        fields.header = ["", *STRANDS]
        return _label(to_table(fields, "rows", choice, problems), STAR, "counts", sample_paths=True)
    if fields.header[0] == "Geneid" and "Length" in fields.header:
        return _feature_counts(fields, choice, problems)
    is_tximport = any(name.startswith("abundance.") for name in fields.header)
    n_problems = len(problems.messages)
    found = select_unit(fields, unit, problems)
    if len(problems.messages) > n_problems:
        return None
    if is_tximport:
        fields.keep([column for column, name in enumerate(fields.header) if name != "countsFromAbundance"])
        return _label(to_table(fields, genes_in or "rows", choice, problems), "tximport", ESTIMATED[unit])
    table = to_table(fields, genes_in, choice, problems)
    if table is None:
        return None
    samples = list(table.obs.index)
    if table.genes_in == "rows" and len(samples) == 1 and (not fields.has_header or plain(samples[0]) in VALUE_NAMES):
        table.sample_paths = True
        table.obs.index = pd.Index([name])
    elif not fields.has_header:
        (base,) = name_samples([name])
        table.obs.index = pd.Index([f"{base}_{number}" for number in range(1, len(samples) + 1)])
        table.notes.append(f"no header: samples named by the file, {examples(table.obs.index)}")
    elif table.genes_in == "rows" and all(map(ALIGNMENT.search, samples)):
        table.sample_paths = True
    return _label(table, "table", found, sample_paths=table.sample_paths)


def _label(table: Table | None, program: str, unit: str | None, *, sample_paths: bool = False) -> Table | None:
    if table is not None:
        table.program, table.unit, table.sample_paths = program, unit, sample_paths
    return table


def _one_sample(fields: Fields, program: Program, unit: str, choice: Choice, problems: Problems) -> Table | None:
    wanted = program.tpm or program.fpkm if unit == "tpm" else program.counts
    if wanted is None and not (program.strands and unit == "counts"):
        has = "only counts" if unit == "tpm" else "only TPM or FPKM"
        other = "counts" if unit == "tpm" else "tpm"
        problems.add(
            f"Expected {'TPM' if unit == 'tpm' else 'counts'} in {fields.path}, found {has} in the output of "
            f"{program.label}. Pass unit={other!r}."
        )
        return None
    names = [wanted] if wanted else list(program.strands)
    columns = [fields.header.index(name) for name in names]
    first = fields.header.index(program.name)
    text = [
        column
        for column in range(len(fields.header))
        if column not in (first, *columns) and fields.columns[column].dtype.kind == "O" and program.strands
    ]
    fields.keep([first, *text, *columns])
    if first:
        fields.columns[0] = fields.columns[0].astype(str).str.strip()
    # STAR counts reads without gene only for counts
    rows = ~fields.columns[0].str.fullmatch(SUMMARY)
    fields.columns, fields.lines = fields.columns[rows.to_numpy()].reset_index(drop=True), fields.lines[rows.to_numpy()]
    places = range(len(fields.header) - len(columns), len(fields.header))
    table = to_table(fields, "rows", choice, problems, columns=places)
    if table is None:
        return None
    if wanted is not None and wanted == program.fpkm:
        table.values = table.values / max(table.values.sum(), 1e-300) * 1e6
        table.notes.append("TPM computed from FPKM")
    table.obs.index = pd.Index(STRANDS if len(columns) > 1 else [str(fields.path.resolve())])
    # Salmon writes quant.genes.sf with gene-level sums
    table.transcripts = program.transcripts and not fields.path.name.startswith("quant.genes.sf")
    return _label(
        table, program.label, "counts" if program.strands and unit == "counts" else ESTIMATED[unit], sample_paths=True
    )


def _feature_counts(fields: Fields, choice: Choice, problems: Problems) -> Table | None:
    fields.keep([column for column, name in enumerate(fields.header) if name not in EXON_COLUMNS])
    fields.header = ["length" if name == "Length" else name for name in fields.header]
    return _label(to_table(fields, "rows", choice, problems), "featureCounts", None, sample_paths=True)


def select_unit(fields: Fields, unit: str, problems: Problems) -> str | None:
    """Refuse a table with several units per sample, but not the wanted one; keep the columns of the wanted unit."""
    of_word = {word: kind for kind, words in UNITS.items() for word in words}
    found = {}
    for column, name in enumerate(fields.header):
        match = WITH_UNIT.fullmatch(name)
        if column and match and fields.columns[column].dtype.kind in "iuf":
            kind = of_word[plain(match["before"] or match["after"])]
            found[column] = kind, match["sample"] or match["other_sample"]
    kinds = {kind for kind, _ in found.values()}
    if len(kinds) < 2 or len(found) < len(kinds) or kinds == {"lengths"}:
        return None
    if unit not in kinds:
        way_out = "Pass unit='tpm'" if "tpm" in kinds else "Pass a file with counts or TPM"
        problems.add(f"Expected {unit} in {fields.path}, found columns of {examples(sorted(kinds))}. {way_out}.")
        return None
    kept = [column for column in range(len(fields.header)) if column not in found or found[column][0] == unit]
    fields.keep(kept)
    fields.header = [
        found[column][1] if column in found else name for column, name in zip(kept, fields.header, strict=True)
    ]
    fields.notes.append(f"columns of {', '.join(sorted(kinds - {unit}))} left out")
    return ESTIMATED[unit]


def choose_strand(tables: Sequence[Table]) -> None:
    """Keep the STAR column of the detected strandedness, the same for all samples."""
    counted = [table.values[:, ~table.var.index.str.fullmatch(SUMMARY)] for table in tables]
    _, forward, reverse = np.sum([values.sum(axis=1) for values in counted], axis=0)
    share = forward / max(forward + reverse, 1)
    strand = STRANDS[1 if share > MIN_STRANDED_SHARE else 2 if share < 1 - MIN_STRANDED_SHARE else 0]
    for table in tables:
        position = STRANDS.index(strand)
        table.values = table.values[[position]]
        table.obs = table.obs.iloc[[position]].set_axis([str(table.path.resolve())], axis=0)
        table.program = f"{table.program} ({strand})"


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
