"""``scdeconv pair``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scdeconv._data import keys
from scdeconv.cli._inputs import Input, bulk_inputs, read_given_bulk, read_given_cells, read_profiles, take_samples
from scdeconv.cli._options import add_arguments, add_bulk, add_cell_annotation, add_cells, add_output, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Pair bulk with the single cells of the same donors."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    add_bulk(parser, "--bulk", required=True, metavar="FILE")
    reference = parser.add_mutually_exclusive_group()
    add_cells(reference, "--cells")
    reference.add_argument(
        "--profiles",
        type=path,
        help="instead of cells: cell-type profiles, h5ad, zarr or text; without both: --fractions",
    )
    add_cell_annotation(parser)
    parser.add_argument(
        "--samples", type=path, help="CSV, TSV or Excel: samples, then columns for bulk.obs such as donor"
    )
    parser.add_argument("--fractions", type=path, help="CSV, TSV or Excel of measured fractions, samples × cell types")
    parser.add_argument("--donor-key", default="donor", help="column of obs with the donor (donor)")
    parser.add_argument("--cell-type-key", default="cell_type", help="column of obs with the cell type (cell_type)")
    add_arguments(parser, "pp.pair")
    add_output(parser, ".h5mu")


def files(args: Namespace) -> Files:
    """Return the files."""
    annotated = any(bulk.suffix in (".h5ad", ".h5mu") or bulk.is_dir() for bulk in args.bulk)
    if not annotated and args.cells is args.profiles is args.fractions:
        args.wrong_usage("one of the arguments --cells --profiles --fractions is required: tables have no fractions")
    if args.cell_annotation is not None and args.cells is None:
        args.wrong_usage("argument --cell-annotation: needs --cells")
    tables = [args.cell_annotation, args.samples, args.fractions]
    reads = [*bulk_inputs(args), *(Input(table) for table in tables if table is not None)]
    if args.cells is not None:
        reads.append(Input(args.cells, "cells"))
    if args.profiles is not None:
        reads.append(Input(args.profiles, "file"))
    return Files(reads, [args.output])


def run(args: Namespace) -> Result:
    """Return paired data."""
    from scdeconv import pp
    from scdeconv._data.modalities import write_mudata
    from scdeconv.io import read_fractions, read_sheet

    bulk = read_given_bulk(args)
    if args.samples is not None:
        sheet = read_sheet(args.samples)
        bulk.obs[list(sheet)] = take_samples(sheet, bulk, args.samples, all_of_them=True)
    if args.fractions is not None:
        measured = read_fractions(args.fractions)
        bulk.obsm[keys.MEASURED] = take_samples(measured, bulk, args.fractions, all_of_them=False)
    reference = {}
    if args.cells is not None:
        reference = {"cells": read_given_cells(args)}
    elif args.profiles is not None:
        reference = {"profiles": read_profiles(args.profiles)}
    options = {"donor_key": args.donor_key, "cell_type_key": args.cell_type_key, **dict(args.arguments)}
    mdata = pp.pair(bulk=bulk, **reference, **options)
    counts = {"samples": bulk.n_obs, "genes": mdata[keys.BULK].n_vars, "paired_donors": len(pp.paired_donors(mdata))}
    if keys.CELLS in mdata.mod:
        counts["cells"] = mdata[keys.CELLS].n_obs
    return Result({args.output: partial(write_mudata, mdata)}, counts=counts)
