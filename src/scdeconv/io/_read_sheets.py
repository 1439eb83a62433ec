"""Readers of sample sheets and of measured fractions in text or Excel files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import Problems, examples
from scdeconv.io._tables import (
    MISSING_MARKS,
    SAMPLE_ANNOTATION,
    TOTALS,
    Fields,
    choose_names,
    plain,
    read_fields,
    read_numbers,
)

if TYPE_CHECKING:
    from pathlib import Path

# columns of CIBERSORT and CIBERSORTx beside the fractions
RESULTS = frozenset({"pvalue", "correlation", "rmse", "absolutescore", "absolutescoresigscore"})


def read_sheet(path: Path) -> pd.DataFrame:
    """Refuse a sample sheet with unclear or repeated columns; return its text, samples × columns."""
    fields = _read(path, "a sample sheet", text=True)
    table = fields.columns.iloc[:, 1:].set_axis(fields.header[1:], axis=1).apply(lambda column: column.str.strip())
    table = table.mask(table.apply(lambda column: column.str.lower().isin(MISSING_MARKS)))
    return table.set_axis(pd.Index(fields.columns[0], name=fields.header[0]), axis=0)


def read_fractions(path: Path) -> pd.DataFrame:
    """Refuse fractions that are no numbers; return samples × cell types without totals and statistics of CIBERSORTx."""
    fields = _read(path, "fractions", text=False)
    problems = Problems(f"{path} cannot be read as fractions")
    columns = [column for column in range(1, len(fields.header)) if not _is_other(fields.header[column])]
    left_out = [name for name in fields.header[1:] if _is_other(name)]
    values = read_numbers(fields, columns, problems, missing=True)
    problems.raise_if_any()
    notes = fields.notes + ([f"{examples(left_out)} left out"] if left_out else [])
    if notes:
        print("; ".join([f"read {path}", *notes]))
    names = [fields.header[column] for column in columns]
    return pd.DataFrame(values.astype(float), fields.columns[0].to_numpy(), names)


def _is_other(name: str) -> bool:
    return plain(name) in RESULTS | SAMPLE_ANNOTATION | TOTALS.keys()


def _read(path: Path, what: str, *, text: bool) -> Fields:
    """Return the fields of a table with samples in rows."""
    problems = Problems(f"{path} cannot be read as {what}")
    fields = read_fields(path, problems, header=True, text=text)
    if fields is not None:
        choose_names(fields, fields.kinds(), problems)
        names = pd.Index(fields.header[1:])
        if "" in names:
            problems.add(
                f"Expected a name for every column in {path}, found none for {np.sum(names == '')}. Add the names to the "
                "first line."
            )
        if not names.is_unique:
            problems.add(
                f"Expected unique columns in {path}, found {examples(names[names.duplicated()].unique())} repeated. "
                "Rename them."
            )
        if not len(names):
            problems.add(f"Expected columns beside the samples in {path}, found none. Separate them by tabs or commas.")
    problems.raise_if_any()
    assert fields is not None
    return fields
