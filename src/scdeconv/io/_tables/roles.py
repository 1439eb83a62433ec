"""Roles of the rows and columns of a table: summaries, totals, annotation, dates in place of genes, suspicious samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import Problems, examples
from scdeconv._data.labels import as_text

from .names import NO_GENE, SAMPLE_ANNOTATION, SUMMARY, are_row_numbers, gene_of_date, plain
from .suspicious import suspicious_genes, suspicious_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from .table import Choice, Table

TOTALS: dict[str, Callable[..., np.ndarray]] = {
    **dict.fromkeys(
        ("total", "totals", "totalcount", "sum", "sums", "rowsum", "rowsums", "colsum", "grandtotal"), np.sum
    ),
    **dict.fromkeys(("mean", "means", "rowmean", "rowmeans", "average", "avg"), np.mean),
    "median": np.median,
}
# relative error of rounded totals
TOTAL_TOLERANCE = 1e-3


def sort_out(table: Table, choice: Choice, problems: Problems, samples: str = "samples") -> None:
    """Drop summaries and totals, move annotation to its side, and refuse dates, row numbers and suspicious samples.

    ``samples`` is what the rows of ``values`` are called in messages.
    """
    table.obs.index, table.var.index = as_text(table.obs.index), as_text(table.var.index)
    genes = table.var.index
    _keep(table, genes=~genes.isin(choice.drop), samples=~table.obs.index.isin(choice.drop))
    _drop(table, table.var.index.str.fullmatch(SUMMARY), "summaries of reads without gene")
    _drop(table, table.var.index.str.lower().isin(NO_GENE), "genes without name")
    _move_annotation(table, choice)
    doubtful = _drop_totals(table, choice)
    _check_names(table, problems, samples)
    if choice.is_made or problems.messages:
        return
    doubtful |= suspicious_samples(table.values, table.obs.index) | suspicious_genes(table.values, table.var.index)
    if doubtful:
        found = "; ".join(f"{name!r} ({reason})" for name, reason in list(doubtful.items())[:5])
        more = f" and {len(doubtful) - 5} more" if len(doubtful) > 5 else ""
        names = list(doubtful)[:5]
        problems.add(
            f"Expected {samples} and genes in {table.path}, found {len(doubtful)} rows or columns that look like "
            f"something else: {found}{more}. Pass drop={names} to leave them out, annotation={names} to keep them "
            "beside the values, or drop=[] to read all as values."
        )


def _keep(table: Table, *, genes: np.ndarray | None = None, samples: np.ndarray | None = None) -> None:
    if genes is not None and not genes.all():
        table.values, table.var = table.values[:, genes], table.var[genes]
    if samples is not None and not samples.all():
        table.values, table.obs = table.values[samples], table.obs[samples]


def _drop(table: Table, genes: np.ndarray, what: str) -> None:
    """Drop genes and note it."""
    if genes.any():
        table.notes.append(f"{genes.sum()} {what} left out")
        _keep(table, genes=~genes)


def _move_annotation(table: Table, choice: Choice) -> None:
    """Move rows of values that describe samples to obs, or genes to var."""
    for side, other in (("var", "obs"), ("obs", "var")):
        names = getattr(table, side).index
        known = SAMPLE_ANNOTATION if side == "var" else frozenset()
        moved = names.isin(choice.annotation) | np.array([plain(name) in known for name in names], dtype=bool)
        moved &= ~names.duplicated(keep=False)
        if not moved.any() or moved.all():
            continue
        values = table.values if side == "var" else table.values.T
        about = getattr(table, other).copy()
        for position in np.flatnonzero(moved):
            about[names[position]] = pd.to_numeric(pd.Series(values[:, position], about.index), downcast="integer")
        setattr(table, other, about)
        _keep(table, **{"genes" if side == "var" else "samples": ~moved})


def _drop_totals(table: Table, choice: Choice) -> dict[str, str]:
    """Drop rows and columns that are called totals and are it; return those that are not it."""
    doubtful: dict[str, str] = {}
    for side, axis in (("obs", 0), ("var", 1)):
        names = getattr(table, side).index
        called = np.array([plain(name) in TOTALS for name in names], dtype=bool)
        if not called.any() or called.all():
            continue
        others = table.values.compress(~called, axis=axis)
        is_total = np.zeros(len(names), dtype=bool)
        for position in np.flatnonzero(called):
            found = table.values.take(position, axis=axis)
            expected = TOTALS[plain(names[position])](others, axis=axis)
            rounding = 0.51 if (found == np.floor(found)).all() else 0.01
            is_total[position] = bool(np.allclose(found, expected, rtol=TOTAL_TOLERANCE, atol=rounding))
            if not is_total[position] and not choice.is_made:
                doubtful[names[position]] = "called a total, but not the total of the others"
        if is_total.any():
            table.notes.append(f"totals left out: {examples(names[is_total])}")
            _keep(table, **{"samples" if side == "obs" else "genes": ~is_total})
    return doubtful


def check_dates(problems: Problems, genes: pd.Index, path: object) -> None:
    """Refuse genes that Excel has turned into dates, such as 1-Mar."""
    suspects = genes[genes.str.match(r"\d|[A-Za-zäé]{3,4}[-. /]\d{1,2}$")]
    dates = {name: gene for name in suspects if (gene := gene_of_date(name))}
    if dates:
        found = examples(f"{name} ({gene})" for name, gene in dates.items())
        problems.add(
            f"Expected gene names in {path}, found {len(dates)} dates that Excel made of them: {found}. Export the table "
            "again without Excel, correct the names, or leave the rows out with drop=."
        )


def _check_names(table: Table, problems: Problems, samples: str) -> None:
    """Refuse genes named by dates or row numbers, and samples with empty or repeated names."""
    if not table.values.size:
        problems.add(
            f"Expected {samples} and genes in {table.path}, found {table.values.shape[0]} {samples} and "
            f"{table.values.shape[1]} genes with names. Check the file."
        )
        return
    genes = table.var.index
    check_dates(problems, genes, table.path)
    if are_row_numbers(genes):
        problems.add(
            f"Expected gene names in {table.path}, found the numbers {examples(genes)} in their place. Export the table "
            "with the names of the genes."
        )
    names = table.obs.index
    empty = names.str.strip().str.lower().isin(["", "nan"])
    if empty.any():
        problems.add(
            f"Expected a name for each of the {samples} in {table.path}, found {empty.sum()} without. Add the names."
        )
