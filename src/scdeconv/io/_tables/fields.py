"""Lines of text to fields: comments, separator, quotes, header and columns."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data.checks import Problems, examples
from scdeconv._data.warnings import warnings_ignored

from .header import find_header, shown
from .names import EXCEL_ERROR
from .numbers import kind_of
from .text import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

SEPARATORS = ("\t", ";", ",", "|", " ")
# lines from which the separator is detected
N_SEPARATOR_LINES = 20
# rows from which header and notation are detected
N_FIRST_ROWS = 20
# first line that tells Excel the separator
EXCEL_HINT = re.compile(r'"?sep=(?P<separator>.)"?\s*')
GCT = re.compile(r"#1\.[23]\s*")
UNNAMED = re.compile(r"Unnamed: \d+(_level_\d+)?(\.\d+)?")


@dataclass
class Fields:
    """Fields of a text file: column names, columns by position (the first as text) and line number of each row."""

    path: Path
    header: list[str]
    columns: pd.DataFrame
    lines: np.ndarray
    separator: str = "\t"
    has_header: bool = True
    first_rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def kinds(self) -> list[str]:
        """Return the kind of each column (:func:`kind_of`)."""
        return [
            "numbers" if dtype.kind in "iuf" else kind_of(self.columns[column])
            for column, dtype in enumerate(self.columns.dtypes)
        ]

    def take(self, positions: Sequence[int]) -> pd.DataFrame:
        """Return columns; neighbouring columns are not copied."""
        positions = list(positions)
        neighbours = positions == list(range(positions[0], positions[0] + len(positions))) if positions else False
        return self.columns.iloc[:, slice(positions[0], positions[-1] + 1) if neighbours else positions]

    def keep(self, positions: Sequence[int]) -> None:
        """Keep columns, in this order."""
        self.header = [self.header[column] for column in positions]
        self.columns = self.columns.iloc[:, list(positions)].set_axis(range(len(positions)), axis=1)
        self.first_rows = [[row[column] for column in positions] for row in self.first_rows]


def read_fields(path: Path, problems: Problems, *, header: bool | None = None, text: bool = False) -> Fields | None:
    """Refuse a file whose lines have different numbers of fields or whose first line can be read in two ways.

    With ``text``, all columns are text.
    """
    content = read_text(path, problems)
    if content is None:
        return None
    hint = EXCEL_HINT.fullmatch(content.lines[0])
    if hint:
        content.separator, content.lines[0] = hint["separator"], ""
    # Excel exports empty rows as rows of separators
    kept = [(number, line) for number, line in enumerate(content.lines, start=1) if line.strip(' \t,;"|')]
    kept, comments = _without_comments(kept, path, problems)
    if len(kept) < (1 if header is False else 2):
        problems.add(f"Expected a table with a header and rows in {path}, found {len(kept)} lines. Check the file.")
        return None
    style = _Style(content.separator or find_separator([line for _, line in kept]), quoted=True)
    kept = _join_quoted(kept, style)
    lines = [line for _, line in kept]
    if comments and style.count([comments[-1]]) == style.count(lines[:1]) and len(style.cut(lines[0])) > 1:
        # e.g. '#gene S1 S2'
        kept.insert(0, (0, comments[-1].lstrip("# ")))
        lines = [line for _, line in kept]
    fields = _parse(path, kept, style, header, text, problems)
    if fields is not None:
        fields.notes += content.notes
    return fields


@dataclass
class _Style:
    """How lines are split into fields."""

    separator: str
    quoted: bool

    @property
    def options(self) -> dict[str, Any]:
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return {"delimiter": self.separator, "quoting": quoting, "skipinitialspace": self.separator in ", "}

    def cut(self, line: str) -> list[str]:
        """Return the fields of a line without spaces around them."""
        line = line.strip(" ") if self.separator == " " else line
        return [name.strip() for name in next(csv.reader([line], **self.options))]

    def count(self, lines: Sequence[str]) -> list[int]:
        """Return the number of fields of each line."""
        if self.separator != " " and not (self.quoted and any('"' in line for line in lines)):
            return [line.count(self.separator) + 1 for line in lines]
        if any(line.count('"') % 2 for line in lines):
            return [
                len(self.cut(line)) if line.count('"') % 2 == 0 else len(line.split(self.separator)) for line in lines
            ]
        if self.separator == " " and not any('"' in line for line in lines):
            return [len(line.split()) for line in lines]
        try:
            return [len(row) for row in csv.reader((line.strip(" ") for line in lines), **self.options)]
        except csv.Error:
            # a line without the separator is longer than the longest field of the csv module
            return [1] * len(lines)


Numbered = list[tuple[int, str]]


def _without_comments(kept: Numbered, path: Path, problems: Problems) -> tuple[Numbered, list[str]]:
    """Return the lines of the table and the comments before it: '#' lines, '!' lines of GEO and the sizes of GCT."""
    first = kept[0][1] if kept else ""
    if GCT.match(first) and len(kept) > 1:
        sizes = kept[1][1].split()
        if len(sizes) == 4 and sizes[3] != "0":
            problems.add(
                f"Expected GCT without rows of sample annotation in {path}, found {sizes[3]}. Save it as GCT 1.2."
            )
        return kept[2:], []
    mark = "!" if first.startswith(("!", '"!')) else "#"
    comments = [line for _, line in itertools.takewhile(lambda item: item[1].startswith(mark), kept)]
    kept = [item for item in kept if not item[1].lstrip('"').startswith(mark) or EXCEL_ERROR.match(item[1].lstrip('"'))]
    return kept, comments if mark == "#" else []


def _join_quoted(kept: Numbered, style: _Style) -> Numbered:
    """Return the lines with those of one quoted field joined; set ``style.quoted`` to False if quotes are text (5")."""
    is_odd = [line.count('"') % 2 == 1 for _, line in kept]
    if not any(is_odd):
        return kept
    n_fields = style.count([line for _, line in kept])
    width = Counter(n_fields).most_common(1)[0][0]
    if all(n == width for n, odd in zip(n_fields, is_odd, strict=True) if odd):
        style.quoted = False
        return kept
    joined: Numbered = []
    is_open = False
    for item, odd in zip(kept, is_odd, strict=True):
        if is_open:
            joined[-1] = (joined[-1][0], f"{joined[-1][1]} {item[1]}")
        else:
            joined.append(item)
        is_open ^= odd
    return joined


def find_separator(lines: Sequence[str]) -> str:
    """Return the separator with the same number of fields in every line; tabs come first."""
    sample = lines[: N_SEPARATOR_LINES + 1]
    widths = {}
    for separator in SEPARATORS:
        header, *rows = _Style(separator, quoted=True).count(sample)
        width, n_equal = Counter(rows).most_common(1)[0] if rows else (header, 1)
        widths[separator] = header, width, n_equal == len(rows) or not rows
    header, width, equal = widths["\t"]
    if equal and width > 1 and abs(header - width) <= 1:
        return "\t"
    # the last case is a title above the header
    for most_apart in (0, 1, np.inf):
        for separator, (header, width, equal) in widths.items():
            if equal and width > 1 and abs(header - width) <= most_apart:
                return separator
    first = lines[0]
    return "\t" if "\t" in first else max(",;", key=first.count) if re.search("[,;]", first) else " "


def _parse(
    path: Path, kept: Numbered, style: _Style, header: bool | None, text: bool, problems: Problems
) -> Fields | None:
    numbers, lines = np.array([number for number, _ in kept]), [line for _, line in kept]
    n_fields = style.count(lines)
    first = style.cut(lines[0])
    width = Counter(n_fields[1:]).most_common(1)[0][0] if len(lines) > 1 else len(first)
    whole = (line for line, n in zip(lines[1:], n_fields[1:], strict=True) if n == width)
    rows = [style.cut(line) for line in itertools.islice(whole, N_FIRST_ROWS)]
    if len(first) == 1 and width > 2:
        problems.add(
            f"Expected a header in {path}, found one field in the first line ({first[0]!r}) over rows of {width} fields "
            f"({shown(rows[0])}). Remove lines above the header, or separate all fields by the same character."
        )
        return None
    n_problems = len(problems.messages)
    # all columns of a text table can be text: the first line is its header
    names = find_header(first, rows, True if text and header is None else header, path, problems)
    if len(problems.messages) > n_problems:
        return None
    has_header = names is not None
    start = int(has_header)
    if names is None:
        names = ["", *(f"column {column}" for column in range(2, len(first) + 1))]
    rewritten = _equalise(lines[start:], n_fields[start:], len(names), style)
    uneven = [
        f"line {number} ({n})"
        for number, line, n in zip(numbers[start:], rewritten, n_fields[start:], strict=True)
        if line is None
    ]
    if uneven:
        problems.add(
            f"Expected {len(names)} fields in every line of {path}, found {len(uneven)} lines with another number: "
            f"{examples(uneven)}. Correct these lines, or quote names that contain the separator."
        )
        return None
    columns = _read_csv("\n".join(rewritten), len(names), style, text=text)
    columns[0] = columns[0].str.strip()
    names = ["" if UNNAMED.fullmatch(name) else name for name in names]
    first_rows = [row[: len(names)] for row in rows]
    fields = Fields(path, names, columns, numbers[start:], style.separator, has_header, first_rows)
    _drop_empty(fields)
    return fields


def _read_csv(body: str, n_columns: int, style: _Style, *, text: bool) -> pd.DataFrame:
    """Return columns by position; numbers are parsed, the first column is text."""

    def read(*, in_chunks: bool) -> pd.DataFrame:
        return pd.read_csv(
            io.BytesIO(body.encode()),
            sep=r"\s+" if style.separator == " " else style.separator,
            header=None,
            names=range(n_columns),
            dtype=str if text else {0: str},
            na_filter=False,
            quoting=style.options["quoting"],
            skipinitialspace=style.separator == ",",
            low_memory=in_chunks,
        )

    # chunks are twice as fast, but a column may be numbers in one and text in another
    with warnings_ignored(pd.errors.DtypeWarning):
        table = read(in_chunks=True)
    # columns of text are of another type in pandas 3
    of_objects = [table[name] for name in table if table[name].dtype == object]
    is_text = all(pd.api.types.infer_dtype(column, skipna=False) == "string" for column in of_objects)
    return table if is_text else read(in_chunks=False)


def _equalise(lines: Sequence[str], n_fields: Sequence[int], width: int, style: _Style) -> list[Any]:
    """Return lines without empty fields beyond ``width``; None for other lines with another number of fields."""
    equal: list[Any] = list(lines)
    for row, n in enumerate(n_fields):
        if n == width:
            continue
        fields = style.cut(lines[row])
        if n > width and not any(fields[width:]):
            buffer = io.StringIO()
            csv.writer(buffer, delimiter=style.separator, lineterminator="").writerow(fields[:width])
            equal[row] = buffer.getvalue()
        else:
            equal[row] = None
    return equal


def _drop_empty(fields: Fields) -> None:
    """Drop columns without name and values, e.g. of separators at line ends."""
    unnamed = [column for column in range(1, len(fields.header)) if not fields.header[column]]
    empty = {
        column
        for column in unnamed
        if fields.columns[column].dtype.kind not in "iufb" and (fields.columns[column].str.strip() == "").all()
    }
    if empty:
        fields.keep([column for column in range(len(fields.header)) if column not in empty])
