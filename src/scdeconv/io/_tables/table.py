"""Fields to a table of samples × genes: names, orientation, annotation and numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd

from scdeconv._data.checks import Problems, examples
from scdeconv._data.labels import as_text

from .names import (
    GENE_ANNOTATION,
    GENE_CORNERS,
    NUMBER_CORNERS,
    POSITIONS,
    SAMPLE_ANNOTATION,
    SAMPLE_CORNERS,
    TEST_RESULTS,
    TESTS,
    are_genes,
    are_row_numbers,
    is_corner,
    plain,
)
from .numbers import read_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fields import Fields

Axis = Literal["rows", "columns"]
Names: TypeAlias = "str | Sequence[str]"

# minimum ratio of the axis lengths at which the longer axis is taken as genes (set by hand)
MIN_AXIS_RATIO = 2
# minimum share of different values in a column of names (set by hand)
MIN_UNIQUE_SHARE = 0.9


@dataclass
class Choice:
    """The user's decision about columns; ``is_made`` if ``drop`` or ``annotation`` was passed, even an empty list."""

    drop: frozenset[str]
    annotation: frozenset[str]
    is_made: bool
    found: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, drop: Names | None, annotation: Names | None) -> Choice:
        """Return the choice of the arguments; one name as text is a list of one."""
        dropped, kept = (
            frozenset([given] if isinstance(given, str) else [] if given is None else given)
            for given in (drop, annotation)
        )
        return cls(dropped, kept, is_made=drop is not None or annotation is not None)

    def report_unknown(self, problems: Problems) -> None:
        """Refuse names in drop= and annotation= that the file does not have, or that are in both."""
        unknown = sorted((self.drop | self.annotation) - self.found)
        if unknown:
            problems.add(
                f"Expected columns or rows of the file in drop= and annotation=, found {examples(unknown)}. Correct the "
                "names."
            )
        if both := sorted(self.drop & self.annotation):
            problems.add(f"Expected each column in drop= or annotation=, found {examples(both)} in both. Remove one.")


@dataclass
class Table:
    """Expression of samples × genes and the annotation of both; ``genes_in`` is the axis of the genes in the file."""

    path: Path
    values: np.ndarray
    obs: pd.DataFrame
    var: pd.DataFrame
    genes_in: Axis = "rows"
    program: str = "table"
    unit: str | None = None
    transcripts: bool = False
    sample_paths: bool = False
    notes: list[str] = field(default_factory=list)


def find_axis(rows: pd.Index, columns: pd.Index, corner: str) -> Axis | None:
    """Return the gene axis by names, the name of the first column, or length; None if it cannot be detected."""
    by_names = axis_by_names(rows, columns)
    if by_names:
        return by_names
    by_corner = axis_by_corner(corner)
    if by_corner:
        return by_corner
    if len(rows) >= MIN_AXIS_RATIO * len(columns):
        return "rows"
    if len(columns) >= MIN_AXIS_RATIO * len(rows):
        return "columns"
    return None


def axis_by_corner(corner: str) -> Axis | None:
    """Return the gene axis by the name of the first column; None if it is of another kind."""
    corner = plain(corner)
    if corner.startswith(GENE_CORNERS):
        return "rows"
    return "columns" if corner.startswith(SAMPLE_CORNERS) else None


def axis_by_names(rows: pd.Index, columns: pd.Index) -> Axis | None:
    """Return the axis with gene identifiers; None if neither or both have them."""
    genes = [are_genes(rows), are_genes(columns)]
    if genes[0] == genes[1]:
        return None
    return "rows" if genes[0] else "columns"


def to_table(
    fields: Fields,
    genes_in: Axis | None,
    choice: Choice,
    problems: Problems,
    *,
    columns: Sequence[int] | None = None,
    longer_is_genes: bool = False,
    missing: bool = False,
) -> Table | None:
    """Refuse a table without numbers, without names or without a clear orientation.

    Parameters
    ----------
    columns
        Columns with values, if a program is known to have written the file.
    longer_is_genes
        Take the longer axis as genes if the names do not tell.
    missing
        Read empty fields as NaN.
    """
    n_problems = len(problems.messages)
    choice.found |= (choice.drop | choice.annotation) & (set(fields.header) | set(fields.columns[0]))
    kinds = fields.kinds()
    if columns is None:
        kinds = choose_names(fields, kinds, problems)
        _check_long(fields, kinds, problems)
    names = pd.Index(fields.columns[0].to_numpy(), dtype=object)
    described: list[int] = []
    candidates: list[int] = []
    for column in range(1, len(fields.header)):
        name = fields.header[column]
        if name in choice.drop:
            continue
        known = name in choice.annotation or kinds[column] == "text" or _is_known(fields, column, kinds[column])
        (described if known else candidates).append(column)
    if columns is not None:
        candidates = list(columns)
        described = [column for column in described if column not in candidates]
    axis = genes_in or ("rows" if not fields.has_header else None)
    others = pd.Index([fields.header[column] for column in candidates], dtype=object)
    if axis is None and longer_is_genes:
        axis = axis_by_names(names, others) or ("rows" if len(names) >= len(others) else "columns")
    axis = axis or find_axis(names, others, fields.header[0])
    if axis is not None and columns is None:
        numeric = _numeric_annotation(fields, axis, candidates)
        candidates = [column for column in candidates if column not in numeric]
        described += numeric
    _check_columns(fields, axis, candidates, names, problems)
    if len(problems.messages) > n_problems or axis is None:
        return None
    side = "var" if axis == "rows" else "obs"
    way_out = f" Columns that are no values: pass drop=[...], or annotation=[...] to keep them in {side}."
    values = read_numbers(fields, candidates, problems, missing=missing, way_out=way_out)
    if len(problems.messages) > n_problems:
        return None
    about = fields.columns[sorted(described)].set_axis([fields.header[column] for column in sorted(described)], axis=1)
    about = about.loc[:, ~about.columns.duplicated() & (about.columns != "")].rename_axis(columns=None)
    about = about.set_axis(as_text(names), axis=0)
    unlabelled = pd.DataFrame(index=pd.Index([fields.header[column] for column in candidates], dtype=object))
    if axis == "rows":
        return Table(fields.path, values.T, unlabelled, about, "rows", notes=fields.notes)
    return Table(fields.path, values, about, unlabelled, "columns", notes=fields.notes)


def _is_known(fields: Fields, column: int, kind: str) -> bool:
    """Return whether a column that is not purely numeric is annotation by its name, e.g. chromosomes 1, 2, X."""
    known = GENE_ANNOTATION | SAMPLE_ANNOTATION | POSITIONS
    return kind != "numbers" and plain(fields.header[column]) in known


def _numeric_annotation(fields: Fields, axis: Axis, candidates: Sequence[int]) -> list[int]:
    """Return the columns that describe genes (genes in rows) or samples (genes in columns) by their names."""
    names = {column: plain(fields.header[column]) for column in candidates}
    if axis == "columns":
        return [column for column, name in names.items() if name in SAMPLE_ANNOTATION]
    header = {plain(name) for name in fields.header}
    known = set(GENE_ANNOTATION)
    if any(name.startswith(("chr", "seqname", "seqid", "contig", "reference")) for name in header):
        known |= POSITIONS
    if header & TESTS:
        known |= TEST_RESULTS
    return [column for column, name in names.items() if name in known]


def choose_names(fields: Fields, kinds: list[str], problems: Problems) -> list[str]:
    """Move the column of names to the front, if the first one has row numbers, positions or repeated donors."""
    first, values = fields.header[0], fields.columns[0]
    numbered = plain(first) in NUMBER_CORNERS and are_row_numbers(pd.Index(values))
    known = plain(first) in GENE_ANNOTATION | POSITIONS | SAMPLE_ANNOTATION and not is_corner(first)
    repeated = plain(first).startswith(SAMPLE_CORNERS) and not values.is_unique
    if not (numbered or known or repeated):
        return kinds
    text = [column for column in range(1, len(kinds)) if kinds[column] == "text" and fields.header[column]]
    corners = [column for column in text if is_corner(fields.header[column])]
    unique = [column for column in text if fields.columns[column].nunique() >= MIN_UNIQUE_SHARE * len(values)]
    found = [column for column in corners if column in unique] or (corners if known else []) or unique
    best = [column for column in found if are_genes(pd.Index(fields.columns[column]))] or found
    if not best or (len(best) > 1 and not corners):
        if known:
            problems.add(
                f"Expected names in the first column of {fields.path}, found {first!r} ({examples(values)}). Move the "
                "column of names to the front."
            )
        return kinds
    name = best[0]
    fields.notes.append(
        f"names from column {fields.header[name]!r}"
        + ("; row numbers in the first column left out" if numbered else "")
    )
    order = [name, *([] if numbered else [0]), *(column for column in range(1, len(kinds)) if column != name)]
    fields.keep(order)
    fields.columns[0] = fields.columns[0].str.strip()
    if not numbered:
        numeric = pd.to_numeric(fields.columns[1], errors="coerce")
        fields.columns[1] = fields.columns[1] if numeric.isna().any() else numeric
    return fields.kinds()


def _check_long(fields: Fields, kinds: Sequence[str], problems: Problems) -> None:
    """Refuse a long table: one row for each sample and gene."""
    numeric = [column for column in range(1, len(kinds)) if kinds[column] != "text"]
    if not 1 <= len(numeric) <= 2 or fields.columns[0].is_unique:
        return
    n_first = fields.columns[0].nunique()
    for column in range(1, len(kinds)):
        n_second = fields.columns[column].nunique()
        if kinds[column] == "text" and 1 < n_second < len(fields.lines) == n_first * n_second:
            names = fields.header
            problems.add(
                f"Expected a row or column for each sample in {fields.path}, found a long table with a row for each pair "
                f"of {names[0]!r} and {names[column]!r}. Reshape it: table.pivot(index={names[0]!r}, "
                f"columns={names[column]!r}, values={names[numeric[0]]!r})."
            )
            return


def _check_columns(
    fields: Fields, axis: Axis | None, columns: Sequence[int], names: pd.Index, problems: Problems
) -> None:
    """Refuse a table without columns of numbers, with columns without name, or without a clear orientation."""
    if not columns:
        tests = {plain(name) for name in fields.header} & TESTS
        found = "results of a differential expression test (DESeq2, edgeR or limma)" if tests else "none"
        shown = f"the first row has {examples(fields.columns.iloc[0])}"
        way_out = "Pass the counts of the samples" if tests else "Separate the columns by tabs, commas or semicolons"
        problems.add(f"Expected columns of numbers in {fields.path}, found {found}: {shown}. {way_out}.")
        return
    unnamed = [column for column in columns if not fields.header[column]]
    if unnamed:
        problems.add(
            f"Expected a name for every column in {fields.path}, found none for {len(unnamed)}: column "
            f"{unnamed[0] + 1} with {examples(fields.columns[unnamed[0]])}. Add the names to the first line."
        )
    if axis is None:
        header = [fields.header[column] for column in columns]
        problems.add(
            f"Expected gene names in rows or columns of {fields.path}, found {len(names)} rows ({examples(names)}) and "
            f"{len(header)} columns ({examples(header)}). Pass genes_in='rows' or genes_in='columns'."
        )
    elif axis == "columns" and not fields.has_header:
        problems.add(
            f"Expected gene names in {fields.path}, found a table without header and genes_in='columns'. Add a header."
        )
    first = fields.header[0]
    if fields.has_header and not is_corner(first) and pd.to_numeric(fields.columns[0], errors="coerce").notna().all():
        problems.add(
            f"Expected names in the first column of {fields.path}, found the numbers {examples(names)} in {first!r}. Add "
            "the names, or call the column 'gene' or 'sample' if the numbers are names."
        )
    if axis == "rows" and re.fullmatch("status", fields.header[0], re.IGNORECASE) and "Assigned" in names:
        problems.add(
            f"Expected counts of genes in {fields.path}, found the summary of featureCounts. Pass the file without "
            ".summary."
        )
