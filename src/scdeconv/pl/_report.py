"""Report of estimated fractions: one HTML file without references to other files or to the network."""

from __future__ import annotations

import base64
import datetime
import io
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from scdeconv import metrics
from scdeconv._data.checks import examples
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import FRACTIONS, UNS
from scdeconv._version import __version__

from ._benchmark import benchmark as draw_benchmark
from ._fractions import fractions as draw_fractions
from ._intervals import intervals as draw_intervals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scdeconv.models import DeconvolutionModel

TEMPLATE = "_report.html"
# samples up to which figures are vector graphics; above, the files become large
MAX_VECTOR_SAMPLES = 100
# samples up to which the figure of the intervals is legible
MAX_INTERVAL_SAMPLES = 60
# difference of sums of fractions from 1 that is rounding of the written tables
SUM_TOLERANCE = 1e-3
# columns of the quality table that are flags, and what they mean
FLAGS = {
    "outside": "outside the training donors: extrapolated",
    "few_reads": "with few reads: noisy",
    "wide_intervals": "with wide intervals: little more is known than the mean composition",
}


def save_figure(figure: Figure, path: Path | io.BytesIO, *, form: str, dpi: int = 150) -> None:
    """Write a figure without the date, so that equal figures are equal files, and close it."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form, {})
    figure.savefig(path, format=form, dpi=dpi, bbox_inches="tight", metadata=undated)
    plt.close(figure)


def report(
    adata: AnnData,
    *,
    title: str,
    source: str,
    model: DeconvolutionModel | None = None,
    evaluation: pd.DataFrame | None = None,
    benchmark: pd.DataFrame | None = None,
    runs: Sequence[dict[str, Any]] = (),
) -> str:
    """Return the HTML of the report.

    Parameters
    ----------
    adata
        Samples with ``obsm["fractions"]`` and, if known, their bounds and quality.
    title, source
        Title, and name of the file of the fractions.
    model
        Model of the fractions.
    evaluation, benchmark
        Results of ``tl.evaluate`` and ``tl.benchmark``.
    runs
        Summaries of the commands before (``--json``).
    """
    from jinja2 import Environment, StrictUndefined

    table = get_fractions(adata, FRACTIONS)
    quality = _flags(adata)
    form = "svg" if len(table) <= MAX_VECTOR_SAMPLES else "png"
    figures = [("Composition of each sample", _embed(draw_fractions(adata), form))]
    bounds = {side: adata.obsm.get(f"{FRACTIONS}_{side}") for side in ("lower", "upper")}
    if bounds["lower"] is not None and len(table) <= MAX_INTERVAL_SAMPLES:
        figures.append(("Fractions with prediction intervals", _embed(draw_intervals(adata), form)))
    # names of samples, cell types and files are escaped
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        (files(__package__) / TEMPLATE).read_text(encoding="utf-8")
    )
    return page.render(
        title=title,
        version=__version__,
        date=datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=_facts(adata, source, model),
        runs=list(runs),
        warnings=[(run["command"], text) for run in runs for text in run.get("warnings", [])],
        checks=_checks(table, quality),
        held_out=_held_out(model),
        evaluation=None if evaluation is None else _cells(evaluation),
        benchmark=None if benchmark is None else _embed(draw_benchmark(benchmark), form),
        figures=figures,
        cell_types=list(map(str, table.columns)),
        rows=_rows(table, bounds["lower"], bounds["upper"], quality),
        has_bounds=bounds["lower"] is not None,
        coverage=adata.uns.get(UNS, {}).get(FRACTIONS, {}).get("coverage"),
        intervals=_intervals(adata, model),
        has_flags=not quality.empty,
    )


def _embed(axes: Axes | np.ndarray, form: str) -> str:
    """Return a figure as data URI."""
    figure: Any = (axes.flat[0] if isinstance(axes, np.ndarray) else axes).figure
    file = io.BytesIO()
    save_figure(figure, file, form=form)
    kind = "svg+xml" if form == "svg" else form
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _intervals(adata: AnnData, model: DeconvolutionModel | None) -> str:
    """Return where the intervals come from; empty if unknown."""
    found = adata.uns.get(UNS, {}).get(FRACTIONS, {}).get("intervals")
    if found is None and model is not None:
        found = "resampled genes and reference" if model.held_out_ is None else "out-of-fold errors"
    return "" if found is None else str(found)


def _flags(adata: AnnData) -> pd.DataFrame:
    """Return the flags of the samples, True or False."""
    table = adata.obsm.get(f"{FRACTIONS}_quality")
    if table is None:
        return pd.DataFrame(index=adata.obs_names)
    return pd.DataFrame({name: table[name].astype(str) == "True" for name in FLAGS if name in table}, adata.obs_names)


def _facts(adata: AnnData, source: str, model: DeconvolutionModel | None) -> list[tuple[str, str]]:
    """Return what is known about the estimate: from the model, else from the record beside the fractions."""
    facts: dict[str, Any] = {"fractions": source}
    record = adata.uns.get(UNS, {}).get(FRACTIONS, {})
    facts |= {name: record[name] for name in ("method", "version", "seed", "n_genes", "coverage") if name in record}
    if model is not None:
        facts |= {
            "method": f"{model.method} ({model.record.summary})",
            "training": model.summary_,
            "seed": "none (deterministic)" if model.seed_ is None else model.seed_,
            "genes": len(model.genes_),
            "kind of fractions": f"shares of {'RNA' if model.fraction_kind == 'rna' else 'cells'}",
            "arguments": ", ".join(f"{name} = {value}" for name, value in model.parameters_.items()) or "defaults",
            "reference": model.record.reference,
        }
    return [(name, str(value)) for name, value in facts.items()]


def _checks(table: pd.DataFrame, quality: pd.DataFrame) -> list[tuple[bool, str]]:
    """Return whether each check passed, and its result."""
    missing = list(table.index[table.isna().any(axis=1)])
    sums = table.drop(index=missing).sum(axis=1)
    whole = bool((sums - 1).abs().max() <= SUM_TOLERANCE) if len(sums) else False
    found = [
        (not missing, f"{len(table) - len(missing)} of {len(table)} samples have an estimate{_such_as(missing)}"),
        (whole, "fractions of each sample sum to 1" if whole else "fractions of some samples do not sum to 1"),
    ]
    for name, text in FLAGS.items():
        if name in quality:
            flagged = list(quality.index[quality[name]])
            found.append((not flagged, f"{len(flagged)} samples {text}{_such_as(flagged)}"))
    return found


def _such_as(names: list[str]) -> str:
    return f" ({examples(names)})" if names else ""


def _held_out(model: DeconvolutionModel | None) -> dict[str, Any] | None:
    """Return the errors on held-out donors, in total and of each cell type, beside the mean composition."""
    held_out = None if model is None else model.held_out_
    if model is None or held_out is None:
        return None
    rmse, of_mean = held_out.errors()
    types = list(model.cell_types_)
    scores = metrics.table(*(pd.DataFrame(values, columns=types) for values in (held_out.measured, held_out.predicted)))
    return {
        "rmse": f"{rmse:.4f}",
        "of_mean": f"{of_mean:.4f}",
        "better": rmse < of_mean,
        "donors": len(np.unique(held_out.donors)),
        "table": _cells(scores),
    }


def _cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table as text."""
    rows = [
        [str(name), *(_number(value) for value in row)] for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return ["", *map(str, table.columns)], rows


def _number(value: Any) -> str:
    if pd.isna(value):
        return "–"
    return f"{value:g}" if float(value).is_integer() else f"{value:.3f}"


def _rows(
    table: pd.DataFrame, lower: pd.DataFrame | None, upper: pd.DataFrame | None, quality: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return name, flags and fractions (with bounds) of each sample."""
    rows = []
    for number, sample in enumerate(table.index):
        values = [_number(value) for value in table.iloc[number]]
        if lower is not None and upper is not None:
            bounds = zip(values, lower[table.columns].iloc[number], upper[table.columns].iloc[number], strict=True)
            values = [text if pd.isna(low) else f"{text} ({low:.3f}–{high:.3f})" for text, low, high in bounds]
        flags = [FLAGS[str(name)] for name in quality if quality[name].iloc[number]]
        rows.append({"sample": str(sample), "values": values, "flags": "; ".join(flags)})
    return rows
