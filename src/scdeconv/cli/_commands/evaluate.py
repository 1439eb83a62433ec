"""``scdeconv evaluate``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scdeconv._data import keys
from scdeconv.cli._inputs import Input, read_estimate, with_measured
from scdeconv.cli._options import TABLES, add_arguments, add_output, is_printed, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Compare estimated with measured fractions, and with the mean composition."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("estimated", type=path, help="from scdeconv predict: table or h5ad")
    parser.add_argument(
        "measured",
        nargs="?",
        type=path,
        help="measured fractions: table (samples × cell types), h5ad, or from scdeconv pair; may be in the h5ad of the "
        "estimate",
    )
    add_arguments(parser, "tl.evaluate")
    add_output(parser, *TABLES, required=False, printed=True)


def files(args: Namespace) -> Files:
    """Return the files."""
    measured = [] if args.measured is None else [Input(args.measured, "file")]
    return Files([Input(args.estimated, "file"), *measured], [] if is_printed(args) else [args.output])


def run(args: Namespace) -> Result:
    """Return the table of errors."""
    from scdeconv import tl
    from scdeconv.cli._outputs import write_table

    adata = read_estimate(args.estimated)
    if args.measured is not None:
        adata = with_measured(adata, args.measured)
    elif keys.MEASURED not in adata.obsm:
        msg = f"Expected measured fractions beside the estimate in {args.estimated}, found none. Name their file, too."
        raise ValueError(msg)
    table = tl.evaluate(adata, **dict(args.arguments)).rename_axis("cell_type")
    written = {} if is_printed(args) else {args.output: partial(write_table, table)}
    return Result(written, table, counts={"samples": adata.n_obs})
