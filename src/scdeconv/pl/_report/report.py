"""Report of estimated fractions: one HTML file, and files for MultiQC beside it."""

from __future__ import annotations

import base64
import datetime
import hashlib
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup

from scdeconv import tl
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import checked
from scdeconv._data.files import publishing
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import FRACTIONS, MEASURED, UNS
from scdeconv._data.labels import as_labels
from scdeconv._process import loaded_versions
from scdeconv._version import __version__
from scdeconv.pl._benchmark import benchmark as draw_benchmark
from scdeconv.pl._compare_fractions import compare_fractions as draw_comparison
from scdeconv.pl._fractions import fractions as draw_fractions
from scdeconv.pl._intervals import intervals as draw_intervals
from scdeconv.pl._measured_vs_predicted import measured_vs_predicted as draw_measured
from scdeconv.pl._style import cell_type_colors

from . import multiqc
from .checks import input_checks, quality_checks
from .citations import Citations
from .comparison import comparison_grid, comparison_methods, find_comparison, finding
from .estimate import read_estimate
from .figures import Image, as_image
from .methods_text import methods_paragraph, summary
from .numbers import listed, number
from .tables import error_grid, fraction_grids, quality_grid

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData

    from scdeconv.models import DeconvolutionModel

    from .estimate import Estimate

TITLE = "Cell-type fractions"
PAGE, STYLE, SCRIPT = "page.html", "page.css", "page.js"


@checked()
def report(
    adata: AnnData,
    path: str | os.PathLike[str],
    key: str = FRACTIONS,
    *,
    title: str = TITLE,
    model: DeconvolutionModel | None = None,
    benchmark: pd.DataFrame | None = None,
) -> None:
    """Write one HTML page about an estimate, to read, to print and to send.

    The page needs no other file and no network. It has, in this order: two sentences on what was done, checks of the input,
    the fractions as bars, heat map and sortable table, flagged samples, prediction intervals, the error on held-out
    donors beside the mean composition, the comparison of groups, a methods paragraph with references for a paper, and
    versions and seeds. Parts whose input is missing are left out, or say what is missing.

    Parameters
    ----------
    adata
        Bulk samples after :func:`scdeconv.tl.predict`, and after :func:`scdeconv.tl.compare_fractions` for the comparison
        of groups. If samples have ``obsm["measured_fractions"]`` of all cell types, the estimate is compared with them. The
        object is not changed.
    path
        HTML file to write. An existing file is replaced.
    key
        Key of ``obsm`` with the estimate.
    title
        Title of the page.
    model
        Model of the estimate. It adds the measured and predicted fractions of held-out donors, and whether its genes are in
        the bulk. Without it, what :func:`scdeconv.tl.predict` recorded is shown.
    benchmark
        Result of :func:`scdeconv.tl.benchmark`, to show the errors of several methods.

    Writes
    ------
    ``path``
        The page.
    ``<path>_fractions_mqc.json``, ``<path>_quality_mqc.json``
        Beside it, without ``.html`` in the name: the fractions and the flags as custom content of MultiQC, which shows
        them in its report of the samples.

    Raises
    ------
    KeyError
        If ``adata.obsm[key]`` does not exist.
    ValueError
        If the fractions, their bounds or their quality have problems (negative values, percent, repeated names), if the model
        is not that of the estimate, or if the measured fractions of ``adata`` cannot be compared with the estimate, see
        :func:`scdeconv.tl.evaluate`.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> model = scdeconv.tl.train(scdeconv.pp.pair(cells, bulk), "nnls")  # doctest: +ELLIPSIS
    paired ...
    >>> scdeconv.tl.predict(bulk, model)
    >>> scdeconv.pl.report(bulk, "report.html")
    """
    target = Path(path)
    texts = report_files(adata, target, key, title=title, model=model, benchmark=benchmark)
    with publishing(*texts, overwrite=True) as temporary:
        for place, text in zip(temporary, texts.values(), strict=True):
            place.write_text(text, encoding="utf-8")


def report_paths(path: Path) -> list[Path]:
    """Return the paths of the page and of the files for MultiQC beside it."""
    stem = path.name.removesuffix(".html")
    return [path, *(path.with_name(f"{stem}_{name}") for name in (multiqc.FRACTIONS, multiqc.QUALITY))]


def report_files(
    adata: AnnData,
    path: Path,
    key: str = FRACTIONS,
    *,
    title: str = TITLE,
    model: DeconvolutionModel | None = None,
    benchmark: pd.DataFrame | None = None,
    source: str = "",
    runs: Sequence[dict[str, Any]] = (),
) -> dict[Path, str]:
    """Return the text of the page and of the files beside it, by path.

    Parameters
    ----------
    adata, path, key, title, model, benchmark
        As for :func:`report`.
    source
        Name of the file of the fractions.
    runs
        Summaries of commands that were run before (``--json``).
    """
    estimate = read_estimate(adata, key, model)
    checks = list(input_checks(adata, estimate, model))
    adata = _to_draw(adata, key)
    about = summary(estimate)
    citations = Citations()
    methods = methods_paragraph(estimate, citations)
    compared = find_comparison(adata, key)
    if compared is not None:
        methods = f"{methods} {comparison_methods(compared, citations)}"
    script = _resource(SCRIPT)
    # a "$" in a name is no formula
    with mpl.rc_context({"text.parse_math": False}):
        html = _page().render(
            title=title,
            version=__version__,
            date=datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d"),
            style=Markup(_resource(STYLE)),
            script=Markup(script),
            # only this script may run, whatever a name contains
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            summary=about,
            checks=checks,
            warnings=[(run["command"], text) for run in runs for text in run.get("warnings", [])],
            fraction_figures=[
                as_image(draw_fractions(adata, key, kind="bars"), "Composition of each sample"),
                as_image(draw_fractions(adata, key, kind="heatmap"), "Fractions as a heat map"),
            ],
            fractions=fraction_grids(estimate),
            has_intervals=estimate.bounds is not None,
            quality_checks=list(quality_checks(estimate)),
            quality=quality_grid(estimate),
            intervals=_intervals(adata, estimate),
            **_accuracy(adata, estimate, model),
            benchmark=None
            if benchmark is None
            else as_image(draw_benchmark(benchmark), "Errors of the methods on held-out donors"),
            comparison=None if compared is None else _comparison(adata, compared),
            methods=methods,
            references=citations.references(),
            facts=_facts(estimate, source),
            runs=list(runs),
        )
    colors = cell_type_colors(adata, key, estimate.fractions.columns)
    beside = multiqc.multiqc_files(estimate, about, colors)
    return dict(zip(report_paths(path), [html, beside[multiqc.FRACTIONS], beside[multiqc.QUALITY]], strict=True))


def _to_draw(adata: AnnData, key: str) -> AnnData:
    """Return a copy without expression, in which plots can store their colours; partly measured rows are NaN."""
    uns, obsm = {**adata.uns, UNS: deepcopy(adata.uns.get(UNS, {}))}, dict(adata.obsm)
    if MEASURED in obsm and key != MEASURED:
        measured = get_fractions(adata, MEASURED)
        obsm[MEASURED] = measured.where(measured.notna().all(axis=1))
    return make_adata(obs=adata.obs.copy(), obsm=obsm, uns=uns)


def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _page() -> Any:
    """Return the template; names of samples, cell types and files are escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_resource(PAGE))


def _intervals(adata: AnnData, estimate: Estimate) -> tuple[str, Image] | None:
    """Return a sentence about the prediction intervals, and their figure; None without intervals."""
    if estimate.bounds is None:
        return None
    lower, upper = estimate.bounds
    coverage, made_from = estimate.record.get("coverage"), estimate.record.get("intervals")
    text = [
        "Prediction intervals",
        "" if coverage is None else f"with a coverage of {coverage:.0%}",
        "" if made_from is None else f"from {made_from}",
    ]
    width = number(np.nanmean((upper - lower).to_numpy(dtype=float)))
    image = as_image(draw_intervals(adata, estimate.key), "Fractions with prediction intervals")
    return f"{' '.join(filter(None, text))}; mean width {width}.", image


def _accuracy(adata: AnnData, estimate: Estimate, model: DeconvolutionModel | None) -> dict[str, Any]:
    """Return tables and figures of the errors on held-out donors and on samples with measured fractions."""
    found: dict[str, Any] = dict.fromkeys(("held_out", "held_out_figure", "evaluation", "evaluation_figure"))
    if estimate.held_out is not None:
        n_donors = estimate.record["n_held_out_donors"]
        found["held_out"] = error_grid(estimate.held_out, f"Errors on {n_donors} held-out donors")
    if model is not None and model.held_out_ is not None:
        held_out = _held_out_donors(model)
        colors = cell_type_colors(adata, estimate.key, pd.Index(model.cell_types_))
        held_out.uns[f"{FRACTIONS}_colors"] = {str(name): color for name, color in colors.items()}
        found["held_out_figure"] = as_image(
            draw_measured(held_out), "Measured and predicted fractions of held-out donors"
        )
    measured = None if estimate.key == MEASURED else adata.obsm.get(MEASURED)
    if measured is not None and measured.drop(index=estimate.missing).notna().any(axis=None):
        found["evaluation"] = error_grid(
            tl.evaluate(adata, estimate.key), "Errors on the samples of this report with measured fractions"
        )
        found["evaluation_figure"] = as_image(
            draw_measured(adata, estimate.key), "Measured and estimated fractions of the samples of this report"
        )
    return found


def _comparison(adata: AnnData, record: dict[str, Any]) -> dict[str, Any]:
    """Return sentence, table and figures of the comparison of groups."""
    figures = [as_image(draw_comparison(adata), f"Change with {record['group']}")]
    values = as_labels(adata.obs[record["group"]].dropna()) if record["group"] in adata.obs else ()
    # the column may have been changed since
    if len(values) and {*values} == {*map(str, record["groups"])}:
        figures.append(as_image(draw_comparison(adata, kind="boxes"), f"Fractions by {record['group']}"))
    return {"finding": finding(record), "grid": comparison_grid(record), "figures": figures}


def _held_out_donors(model: DeconvolutionModel) -> AnnData:
    """Return measured and predicted fractions of the held-out donors."""
    held_out = model.held_out_
    assert held_out is not None
    names = [f"{number} {donor}" for number, donor in enumerate(held_out.donors)]
    adata = make_adata(obs=pd.DataFrame(index=names))
    for name, table in ((MEASURED, held_out.measured), (FRACTIONS, held_out.predicted)):
        adata.obsm[name] = pd.DataFrame(table, names, model.cell_types_)
    return adata


def _facts(estimate: Estimate, source: str) -> list[tuple[str, str]]:
    """Return versions, seed and arguments of the estimate."""
    record = estimate.record
    versions = {"scdeconv": __version__, **loaded_versions()}
    seed = record.get("seed")
    known = {
        "fractions": source or f"adata.obsm[{estimate.key!r}]",
        "method": record.get("method"),
        "model": record.get("trained_on"),
        "arguments": listed(record["parameters"]) or "defaults" if "parameters" in record else None,
        "seed": "none (deterministic)" if seed is None and "seed" in record else seed,
        "predicted with": f"scdeconv {record['version']}" if "version" in record else None,
        "report written with": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [(name, str(value)) for name, value in known.items() if value is not None]
