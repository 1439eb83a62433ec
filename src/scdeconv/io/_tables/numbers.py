"""Text of columns to numbers: decimal commas, thousands separators and fields that are no numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import Problems, examples

from .header import NUMBER
from .names import MISSING_MARKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fields import Fields


@dataclass(frozen=True)
class Notation:
    """How numbers are written: a pattern of all numbers, the decimal mark and the marks between thousands."""

    name: str
    pattern: re.Pattern[str]
    decimal: str
    thousands: str
    marks: str

    def fits(self, text: str) -> bool:
        """Return whether a text that is no plain number is a number in this notation."""
        return any(mark in text for mark in self.marks) and bool(self.pattern.fullmatch(text))

    def read(self, text: str) -> float:
        """Return the number."""
        for mark in self.thousands:
            text = text.replace(mark, "")
        return float(text.replace(self.decimal, "."))


EXPONENT = r"([eE][-+]?\d+)?"
SPACES = " \u00a0\u202f'"
COMMA_GROUPS = Notation(
    "commas between thousands",
    re.compile(rf"[-+]?([1-9]\d{{0,2}}(,\d{{3}})+|\d{{1,3}})(\.\d+)?{EXPONENT}"),
    decimal=".",
    thousands=",",
    marks=",",
)
DECIMAL_COMMAS = Notation(
    "decimal commas",
    re.compile(rf"[-+]?([1-9]\d{{0,2}}(\.\d{{3}})+|\d+)(,\d*)?{EXPONENT}"),
    decimal=",",
    thousands=".",
    marks=",.",
)
SPACE_GROUPS = Notation(
    "spaces between thousands",
    re.compile(rf"[-+]?\d{{1,3}}([{SPACES}]\d{{3}})*([.,]\d+)?{EXPONENT}"),
    decimal=",",
    thousands=SPACES,
    marks=SPACES,
)
NOTATIONS = (COMMA_GROUPS, DECIMAL_COMMAS, SPACE_GROUPS)
# numbers from here on are written with thousands separators
MIN_GROUPED = 1000
# 1.210 can be 1210 or 1.21
POINT_GROUPS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+")
SMALL_WHOLE = re.compile(r"\d{1,3}")
# minimum number of values with a point that are needed to call it a thousands separator (set by hand)
MIN_POINT_GROUPS = 3


def kind_of(values: pd.Series) -> str:
    """Return whether a column is ``"numbers"``, ``"text"``, ``"missing"`` or ``"mixed"`` (numbers as text, or both)."""
    if values.dtype.kind in "iuf":
        return "numbers"
    if values.dtype.kind == "b":
        return "text"
    has_text = False
    for value in pd.unique(values):
        text = str(value).strip(' "')
        if text.lower() in MISSING_MARKS:
            continue
        if NUMBER.fullmatch(text):
            return "mixed"
        has_text = True
    return "text" if has_text else "missing"


def read_numbers(
    fields: Fields, columns: Sequence[int], problems: Problems, *, missing: bool = False, way_out: str = ""
) -> np.ndarray:
    """Refuse fields that are no numbers in one notation of the whole table; with ``missing``, empty fields are NaN."""
    table = fields.take(columns)
    is_text = np.array([dtype.kind not in "iuf" for dtype in table.dtypes], dtype=bool)
    if not is_text.any():
        values = table.to_numpy()
    else:
        values = np.empty(table.shape)
        values[:, ~is_text] = table.loc[:, ~is_text].to_numpy(dtype=float)
        flat = table.loc[:, is_text].astype(str).to_numpy(dtype=object).ravel()
        codes, unique = pd.factorize(flat)
        names = [fields.header[column] for column in np.asarray(columns)[is_text]]
        numbers = _read(np.asarray(unique, dtype=object), values[:, ~is_text], names, fields, problems)
        values[:, is_text] = numbers[codes].reshape(len(table), -1)
    if values.dtype.kind == "f" and not is_text.any() and values.size:
        _check_points(fields, columns, values, problems)
    wrong = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros((0, 0), dtype=bool)
    if missing and wrong.any():
        marks = table.apply(lambda column: column.astype(str).str.strip(' "').str.lower().isin(MISSING_MARKS))
        wrong = wrong & ~marks.to_numpy()
    if wrong.any():
        where = np.argwhere(wrong.T)
        found = [
            f"{table.iat[row, column]!s} (line {fields.lines[row]}, row {fields.columns[0].iat[row]}, column "
            f"{fields.header[columns[column]]})"
            for column, row in where[:3]
        ]
        names = [fields.header[columns[column]] for column in np.unique(where[:, 0])]
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        in_columns = f" in {len(names)} of {table.shape[1]} columns ({examples(names)})" if len(where) > 3 else ""
        unknown = "leave unknown values empty" if missing else "replace missing values with 0"
        problems.add(
            f"Expected numbers in {fields.path}, found {len(where)} other fields: {examples(found)}{more}{in_columns}. "
            f"Use decimal points, {unknown}, or remove the row or column.{way_out}"
        )
    return values


def _read(
    unique: np.ndarray, others: np.ndarray, names: Sequence[str], fields: Fields, problems: Problems
) -> np.ndarray:
    """Return the numbers of unique texts, NaN for other texts; the notation is that of the whole table."""
    text = pd.Series(unique).str.strip(" \"'")
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float, copy=True)
    odd = np.isnan(numbers) & ~text.str.lower().isin(MISSING_MARKS).to_numpy()
    # words such as ND fit no notation and are reported later
    local = odd & np.array([any(one.fits(item) for one in NOTATIONS) for item in text], dtype=bool)
    if not local.any():
        return numbers
    written = text[local | ~np.isnan(numbers)]
    fitting = [one for one in NOTATIONS if all(map(one.fits, text[local]))]
    agreeing = [one for one in fitting if all(map(one.pattern.fullmatch, written)) and _agrees(one, others)]
    if COMMA_GROUPS in fitting and (COMMA_GROUPS not in agreeing or fields.separator == ","):
        # 1,210 beside 12345 is unclear; a table with commas between the fields does not use decimal commas
        agreeing = [one for one in agreeing if one is not DECIMAL_COMMAS]
    if len(agreeing) == 1:
        fields.notes.append(f"numbers with {agreeing[0].name}")
        numbers[local | ~np.isnan(numbers)] = [agreeing[0].read(item) for item in written]
        return numbers
    readings = [one.name for one in agreeing or fitting] or ["mixed notations"]
    plain = examples(_plain_numbers(text[~odd], others))
    problems.add(
        f"Expected numbers in one notation in {fields.path}, found {examples(dict.fromkeys(text[local]))} "
        f"({' or '.join(readings)}) in {examples(names)}{', beside ' if plain else ''}{plain}. "
        "Write all numbers without thousands separators and with decimal points."
    )
    return np.where(local, 0, numbers)


def _plain_numbers(text: pd.Series, others: np.ndarray) -> list[str]:
    """Return some numbers of a table that are plain, the longest first."""
    largest = [f"{value:g}" for value in np.sort(others, axis=None)[::-1][:3]] if others.size else []
    return largest or sorted(text, key=len, reverse=True)


def _agrees(notation: Notation, others: np.ndarray) -> bool:
    """Return whether columns of plain numbers can be written in a notation."""
    if not others.size:
        return True
    if notation.decimal == "," and (others != np.floor(others)).any():
        return False
    return notation is DECIMAL_COMMAS or float(np.abs(others).max()) < MIN_GROUPED


def _check_points(fields: Fields, columns: Sequence[int], values: np.ndarray, problems: Problems) -> None:
    """Refuse numbers such as 1.210 among whole numbers below 1000: the point may separate thousands."""
    written = [row[column] for row in fields.first_rows for column in columns]
    pointed = [item for item in written if "." in item]
    whole = [item for item in written if "." not in item]
    if (
        len(pointed) >= MIN_POINT_GROUPS
        and whole
        and all(map(POINT_GROUPS.fullmatch, pointed))
        and all(map(SMALL_WHOLE.fullmatch, whole))
        # the same in all rows: decimals are at least 1, and nothing else reaches 1000
        and not ((values != np.floor(values)) & (values < 1)).any()
        and values.max() < MIN_GROUPED
    ):
        problems.add(
            f"Expected one way to read the numbers in {fields.path}, found {examples(dict.fromkeys(pointed))} and "
            f"{examples(dict.fromkeys(whole))}: decimal points or points between thousands. Write the numbers without "
            "thousands separators."
        )
