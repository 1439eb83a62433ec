"""Tables of the page as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .numbers import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from .estimate import Estimate

# cell types beside each other that fit on a page of paper
TYPES_PER_PAGE = 8
# rows below each other that fit on a page of paper, with space to spare
ROWS_PER_PAGE = 25
# columns of the tables of errors, and their names
ERRORS = {
    "n": "n",
    "rmse": "RMSE",
    "rmse_mean_composition": "RMSE of the mean composition",
    "mae": "mean absolute error",
    "bias": "bias",
    "pearson": "Pearson r",
    "ccc": "CCC",
}


class Cell(NamedTuple):
    """Text of a cell, and smaller text below it."""

    text: str
    below: str = ""


class Row(NamedTuple):
    """Name and cells of a row, and whether it is highlighted."""

    name: str
    cells: Sequence[Cell]
    marked: bool = False


class Grid(NamedTuple):
    """A table: caption, name of the first column, names of the columns of text and of the columns of numbers, rows.

    Cells are in the order of the columns: text first. ``medium`` is ``"screen"`` or ``"paper"`` for tables that are shown
    on one of them only.
    """

    caption: str
    first: str
    texts: Sequence[str]
    numbers: Sequence[str]
    rows: Sequence[Row]
    medium: str = ""

    @property
    def is_short(self) -> bool:
        """Whether the table stays on one page of paper."""
        return len(self.rows) <= ROWS_PER_PAGE


def fraction_grids(estimate: Estimate) -> list[Grid]:
    """Return the table of the fractions; with many cell types, also tables of some of them, for paper."""
    flags = estimate.flags_of_samples()
    has_flags = bool((flags != "").any())
    types = list(map(str, estimate.fractions))
    text = _fraction_cells(estimate)

    def grid(columns: slice, medium: str = "") -> Grid:
        rows = [
            Row(str(sample), [*([Cell(flag)] if has_flags else []), *cells[columns]], bool(flag))
            for sample, flag, cells in zip(estimate.fractions.index, flags, text, strict=True)
        ]
        named = f" ({types[columns][0]} to {types[columns][-1]})" if medium == "paper" else ""
        return Grid(
            f"Fractions of each sample{named}", "sample", ["flags"] if has_flags else [], types[columns], rows, medium
        )

    if len(types) <= TYPES_PER_PAGE:
        return [grid(slice(None))]
    n_pages = -(-len(types) // TYPES_PER_PAGE)
    ends = np.linspace(0, len(types), n_pages + 1).round().astype(int)
    pages = [slice(start, end) for start, end in zip(ends[:-1], ends[1:], strict=True)]
    return [grid(slice(None), "screen"), *(grid(columns, "paper") for columns in pages)]


def _fraction_cells(estimate: Estimate) -> list[list[Cell]]:
    values = estimate.fractions.to_numpy(dtype=float)
    if estimate.bounds is None:
        return [[Cell(number(value)) for value in row] for row in values]
    low, high = (table.to_numpy(dtype=float) for table in estimate.bounds)
    return [
        [
            Cell(number(value), "" if np.isnan(start) else f"{number(start)}\N{EN DASH}{number(end)}")
            for value, start, end in zip(*row, strict=True)
        ]
        for row in zip(values, low, high, strict=True)
    ]


def error_grid(errors: pd.DataFrame, caption: str) -> Grid:
    """Return the errors of each cell type; those that are not below the mean composition are highlighted."""
    shown = errors[[name for name in ERRORS if name in errors]]
    worse = errors["rmse"] >= errors["rmse_mean_composition"]
    rows = [
        Row(str(name), [Cell(number(value)) for value in values], bool(is_worse))
        for name, values, is_worse in zip(shown.index, shown.itertuples(index=False), worse, strict=True)
    ]
    return Grid(caption, "cell type", [], [ERRORS[str(name)] for name in shown], rows)


def quality_grid(estimate: Estimate) -> Grid | None:
    """Return flags and quality measures of the flagged samples; None without any."""
    flags = estimate.flags_of_samples()
    flagged = flags[flags != ""]
    if flagged.empty:
        return None
    measures = estimate.measures.loc[flagged.index]
    rows = [
        Row(str(sample), [Cell(flag), *(Cell(number(value)) for value in values)])
        for (sample, flag), values in zip(flagged.items(), measures.to_numpy(), strict=True)
    ]
    return Grid("Flagged samples", "sample", ["flags"], list(map(str, measures)), rows)
