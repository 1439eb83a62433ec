"""``scdeconv methods``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv.cli._inputs import Input, read_pairs
from scdeconv.cli._options import path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Print the table of the methods."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("pairs", nargs="?", type=path, help="only the methods for these paired data (.h5mu or .zarr)")


def files(args: Namespace) -> Files:
    """Return the files."""
    return Files([] if args.pairs is None else [Input(args.pairs, "pairs")])


def run(args: Namespace) -> Result:
    """Return the table."""
    from scdeconv import tl

    table = tl.methods(None if args.pairs is None else read_pairs(args.pairs))
    return Result(table=table, counts={"methods": len(table)})
