"""``scdeconv benchmark``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scdeconv.cli._inputs import Input, read_pairs
from scdeconv.cli._options import TABLES, add_arguments, add_output, add_pairs, is_printed, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Compare methods on held-out donors, or on another cohort."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    add_pairs(parser)
    parser.add_argument("--method", action="append", metavar="NAME", help="from scdeconv methods; repeat")
    parser.add_argument("--seed", type=int, action="append", metavar="N", help="repeat; a run for each (0, 1, 2)")
    parser.add_argument("--test", type=path, help="another cohort from scdeconv pair, to score the methods on")
    add_arguments(parser, "tl.benchmark")
    add_output(parser, *TABLES, required=False, printed=True)


def files(args: Namespace) -> Files:
    """Return the files."""
    tests = [] if args.test is None else [Input(args.test, "pairs")]
    return Files([Input(args.pairs, "pairs"), *tests], [] if is_printed(args) else [args.output])


def run(args: Namespace) -> Result:
    """Return the table of the benchmark."""
    from scdeconv import tl
    from scdeconv.cli._outputs import write_table

    given = {"methods": args.method, "seeds": args.seed}
    arguments = {**{name: value for name, value in given.items() if value is not None}, **dict(args.arguments)}
    if args.test is not None:
        arguments["test"] = read_pairs(args.test)
    table = tl.benchmark(read_pairs(args.pairs), **arguments)
    written = {} if is_printed(args) else {args.output: partial(write_table, table, index=False)}
    return Result(
        written,
        table.set_index("method"),
        counts={"rows": len(table), "methods": table["method"].nunique()},
    )
