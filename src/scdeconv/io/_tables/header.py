"""Decision whether the first line of a table is a header, and whether R left the first name out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .names import MISSING_MARKS, is_corner, is_gene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scdeconv._data.checks import Problems

# a number in any notation
NUMBER = re.compile(r"[-+]?[\d.,' \u00a0\u202f]*\d(\.?[eE][-+]?\d+)?\.?%?|nan|inf", re.IGNORECASE)
N_SHOWN = 4


def is_number(field: str) -> bool:
    """Return whether a field is a number in any notation."""
    return bool(NUMBER.fullmatch(field))


def shown(fields: Sequence[str]) -> str:
    """Return the first fields of a line for messages."""
    more = f" and {len(fields) - N_SHOWN} more" if len(fields) > N_SHOWN else ""
    return ", ".join(repr(field) for field in fields[:N_SHOWN]) + more


def find_header(
    first: list[str], rows: Sequence[list[str]], header: bool | None, path: Path, problems: Problems
) -> list[str] | None:
    """Refuse a first line that can be read in two ways; return the column names, None if there is no header.

    Parameters
    ----------
    first
        Fields of the first line.
    rows
        Fields of the next lines, all of the same number.
    header
        Whether the first line is a header; None to decide.
    """
    if not rows:
        return None if header is False else first
    n_missing = len(rows[0]) - len(first)
    if n_missing == 1 and all(row[-1] == "" for row in rows):
        first, n_missing = [*first, ""], 0
    if n_missing == -1 and first[-1] == "":
        first, n_missing = first[:-1], 0
    if header is False:
        return None
    found = f"found {len(first)} names ({shown(first)}) over rows of {len(rows[0])} fields ({shown(rows[0])})"
    if n_missing == 1:
        # write.table of R leaves out the name of the first column
        if not is_corner(first[0]) or not all(is_number(row[1]) for row in rows):
            return ["", *first]
        problems.add(
            f"Expected a name for every column in {path}, {found}. Either a sample has no name, or {first[0]!r} is a "
            "sample and the name of the first column is missing. Correct the first line."
        )
    elif n_missing == -1:
        problems.add(
            f"Expected a name for every column in {path}, {found}. The header has one name too many. Correct the first "
            "line."
        )
    elif n_missing == 0 and header is None and _can_be_data(first, rows):
        if any(is_gene(name) for name in first[:1]) or _has_values(first[1:]):
            return None
        if not is_corner(first[0]) or is_number(first[0]):
            problems.add(
                f"Expected a header in {path}, found numbers in the first line ({shown(first)}): samples named by "
                "numbers, or the first row of a table without header. Pass header=True or header=False."
            )
    return first


def _can_be_data(first: Sequence[str], rows: Sequence[list[str]]) -> bool:
    """Return whether a line has numbers in all columns in which the rows have numbers."""

    def is_numeric(column: int) -> bool:
        fields = [row[column] for row in rows if row[column].lower() not in MISSING_MARKS]
        return bool(fields) and all(map(is_number, fields))

    columns = range(1, len(first))
    # names are rarely numbers: rows are examined only where the first line has none
    if any(not is_number(first[column]) and is_numeric(column) for column in columns):
        return False
    return not is_corner(first[0]) and any(map(is_numeric, columns))


def _has_values(fields: Sequence[str]) -> bool:
    """Return whether numbers are too irregular for names: decimals or repetitions."""
    numbers = [field for field in fields if is_number(field)]
    return len(set(numbers)) < len(numbers) or any("." in number for number in numbers)
