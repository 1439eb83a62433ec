"""``scdeconv report``."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from scdeconv._data import keys
from scdeconv.cli._inputs import Input, read_estimate, read_model, read_table, take_samples, with_measured
from scdeconv.cli._options import add_output, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

SUMMARY = "Write one HTML file with the fractions, their quality and how they were made."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "fractions", type=path, help="from scdeconv predict: table (bounds and quality beside it) or h5ad"
    )
    parser.add_argument("--model", type=path, metavar="FOLDER", help="the model, for its errors on held-out donors")
    parser.add_argument("--measured", type=path, metavar="FILE", help="measured fractions, as for scdeconv evaluate")
    parser.add_argument(
        "--samples", type=path, metavar="TABLE", help="CSV, TSV or Excel: samples, then columns such as group"
    )
    parser.add_argument("--group", metavar="COLUMN", help="compare the composition between the values of this column")
    parser.add_argument(
        "--covariates", nargs="+", default=[], metavar="COLUMN", help="columns that the comparison is adjusted for"
    )
    parser.add_argument("--paired-by", metavar="COLUMN", help="column with the donor, if donors have several samples")
    parser.add_argument(
        "--coverage",
        type=float,
        help="coverage of the bounds beside the table, as for scdeconv predict; needed with --group",
    )
    parser.add_argument("--benchmark", type=path, metavar="TABLE", help="from scdeconv benchmark")
    parser.add_argument(
        "--runs", nargs="+", type=path, default=[], metavar="JSON", help="what --json of the earlier commands printed"
    )
    parser.add_argument("--title", default="Cell-type fractions", help="title of the report")
    add_output(parser, ".html")


def files(args: Namespace) -> Files:
    """Return the files."""
    from scdeconv.pl import report_paths

    reads = [Input(args.fractions, "file")]
    if args.group is None and (args.covariates or args.paired_by is not None):
        args.wrong_usage("arguments --covariates and --paired-by: need --group, the column to compare")
    given = ((args.model, "model"), (args.measured, "file"), (args.samples, "table"), (args.benchmark, "table"))
    reads += [Input(name, kind) for name, kind in given if name is not None]
    return Files([*reads, *(Input(name) for name in args.runs)], report_paths(args.output))


def run(args: Namespace) -> Result:
    """Return the report."""
    import matplotlib as mpl

    mpl.use("Agg")
    from scdeconv import pl, tl
    from scdeconv._data.labels import as_flags
    from scdeconv.io import read_sheet

    adata = read_estimate(args.fractions)
    _set_coverage(adata, args)
    if args.measured is not None:
        measured = with_measured(adata, args.measured).obsm[keys.MEASURED]
        adata.obsm[keys.MEASURED] = measured.reindex(adata.obs_names)
    if args.samples is not None:
        sheet = take_samples(read_sheet(args.samples), adata, args.samples, all_of_them=True)
        for name, column in sheet.items():
            adata.obs[name] = _numbers_if_all(column)
    if args.group is not None:
        tl.compare_fractions(adata, args.group, covariates=args.covariates, paired_by=args.paired_by)
    texts = pl.report_files(
        adata,
        args.output,
        title=args.title,
        model=None if args.model is None else read_model(args.model),
        benchmark=None if args.benchmark is None else read_table(args.benchmark),
        source=str(args.fractions),
        runs=[_read_run(name) for name in args.runs],
    )
    flagged = adata.obsm.get(f"{keys.FRACTIONS}_quality")
    counts = {"samples": adata.n_obs}
    if flagged is not None and "outside" in flagged:
        counts["outside"] = int(as_flags(flagged["outside"]).sum())
    return Result({path: partial(_write, text) for path, text in texts.items()}, counts=counts)


def _set_coverage(adata: AnnData, args: Namespace) -> None:
    """Record the coverage of bounds from tables; refuse one without bounds, another one than recorded, or none for groups."""
    from scdeconv._data.checks import RULES, check_values

    key = keys.FRACTIONS
    recorded = adata.uns.get(keys.UNS, {}).get(key, {}).get("coverage")
    has_bounds = {f"{key}_lower", f"{key}_upper"} <= {*adata.obsm}
    if args.coverage is None:
        if args.group is not None and has_bounds and recorded is None:
            msg = (
                f"Expected --coverage, the coverage of the bounds beside {args.fractions}, together with --group, found none. "
                "Pass that of scdeconv predict, such as --coverage 0.9."
            )
            raise ValueError(msg)
        return
    check_values({"--coverage": RULES["coverage"]}, {"--coverage": args.coverage})
    if not has_bounds or recorded not in (None, args.coverage):
        found = f"a coverage of {recorded}" if has_bounds else "no bounds"
        msg = f"Expected bounds with the coverage {args.coverage} in or beside {args.fractions}, found {found}. Omit --coverage."
        raise ValueError(msg)
    adata.uns.setdefault(keys.UNS, {}).setdefault(key, {})["coverage"] = args.coverage


def _numbers_if_all(column: pd.Series) -> pd.Series:
    """Return a column as numbers, or as it is if it has text."""
    import pandas as pd

    found = pd.to_numeric(column, errors="coerce")
    return found if found.notna().eq(column.notna()).all() else column


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        run = None
    if not isinstance(run, dict) or "command" not in run:
        msg = (
            f"Expected the JSON object that a command prints with --json in {path}, found something else. Run it again."
        )
        raise ValueError(msg)
    return run
