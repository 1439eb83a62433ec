"""``scdeconv cluster``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from scdeconv._data import keys
from scdeconv.cli._inputs import Input, read_given_cells
from scdeconv.cli._options import add_arguments, add_cell_annotation, add_cells, add_output, add_seed
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Cluster unlabelled cells."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    add_cells(parser, "cells")
    add_cell_annotation(parser)
    parser.add_argument("--method", default="desc", help="desc (default), scdeepcluster or scdcc")
    add_seed(parser)
    add_arguments(parser, "tl.cluster")
    add_output(parser, ".h5ad")


def files(args: Namespace) -> Files:
    """Return the files."""
    annotation = [] if args.cell_annotation is None else [Input(args.cell_annotation)]
    return Files([Input(args.cells, "cells"), *annotation], [args.output], [args.output.with_suffix(".tsv")])


def run(args: Namespace) -> Result:
    """Return the cells with clusters, and a table of the clusters."""
    from scdeconv import tl
    from scdeconv._data.warnings import dependency_warnings_ignored
    from scdeconv.cli._outputs import write_table

    cells = read_given_cells(args)
    model = tl.cluster(cells, args.method, **{"seed": args.seed, **dict(args.arguments)})

    def write(path: Any) -> None:
        with dependency_warnings_ignored():
            cells.write_h5ad(path)

    found = [key for key in cells.uns[keys.UNS] if key in cells.obs]
    table = partial(write_table, cells.obs[found], index_label="cell")
    return Result(
        {args.output: write, args.output.with_suffix(".tsv"): table},
        counts={"cells": cells.n_obs, "clusters": cells.obs[found[0]].nunique()},
        complete=not model.interrupted_,
    )
