"""``scdeconv predict``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scdeconv._data import keys
from scdeconv.cli._inputs import Input, bulk_inputs, read_given_bulk, read_model
from scdeconv.cli._options import TABLES, add_arguments, add_bulk, add_output, is_printed, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Estimate the composition of bulk samples."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", type=path, help="from scdeconv train")
    add_bulk(parser, "bulk", metavar="bulk")
    parser.add_argument(
        "--known", type=path, help="known fractions: CSV, TSV or Excel, samples × cell types; empty: unknown"
    )
    parser.add_argument("--known-se", type=path, help="their standard errors, a table like --known; others are exact")
    parser.add_argument("--coverage", type=float, help="also write prediction intervals with this coverage")
    add_arguments(parser, "tl.predict")
    add_output(parser, *TABLES, ".h5ad", printed=True)


def files(args: Namespace) -> Files:
    """Return the files."""
    from scdeconv.cli._outputs import beside

    tables = [Input(table) for table in (args.known, args.known_se) if table is not None]
    reads = [Input(args.model, "model"), *bulk_inputs(args), *tables]
    if is_printed(args):
        if args.coverage is not None:
            args.wrong_usage("argument --coverage: writes several tables, which need a file name in -o")
        return Files(reads)
    if args.output.suffix == ".h5ad":
        return Files(reads, [args.output])
    # asked for with --coverage, so never left out
    bounds = [] if args.coverage is None else ["lower", "upper"]
    paths = {side: beside(args.output, side) for side in keys.RESULTS}
    sides = [path for side, path in paths.items() if side not in bounds]
    return Files(reads, [args.output], [paths[side] for side in bounds], sides)


def run(args: Namespace) -> Result:
    """Return fractions, bounds and quality as tables, or in the bulk as h5ad."""
    from scdeconv import tl
    from scdeconv._data.warnings import dependency_warnings_ignored
    from scdeconv.cli._outputs import beside, write_table
    from scdeconv.io import read_fractions

    model = read_model(args.model)
    bulk = read_given_bulk(args)
    given = {"known": args.known, "known_se": args.known_se}
    known = {name: read_fractions(table) for name, table in given.items() if table is not None}
    arguments = {"key_added": keys.FRACTIONS, "coverage": args.coverage, **known, **dict(args.arguments)}
    tl.predict(bulk, model, **arguments)
    key = arguments["key_added"]
    counts = {"samples": bulk.n_obs, "cell_types": bulk.obsm[key].shape[1]}
    if is_printed(args):
        return Result(table=bulk.obsm[key].rename_axis("sample"), counts=counts)
    if args.output.suffix == ".h5ad":

        def write(path: object) -> None:
            with dependency_warnings_ignored():
                bulk.write_h5ad(path)

        return Result({args.output: write}, counts=counts)
    paths = {key: args.output, **{f"{key}_{side}": beside(args.output, side) for side in keys.RESULTS}}
    tables = {path: bulk.obsm[name] for name, path in paths.items() if name in bulk.obsm}
    return Result(
        {path: partial(write_table, table, index_label="sample") for path, table in tables.items()}, counts=counts
    )
